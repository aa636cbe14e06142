"""Runs that are interrupted: what a checkpoint holds, which one is trusted, and that going on gives the same losses as never stopping."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft import checkpoints, runs
from ft.errors import Conflict
from ft.journal import TERMINAL, Event, Journal, read_status
from ft.runs import BaseChoice
from ft.specs import LoraSpec, TrainSpec
from tests.trainable import tiny_base

ROWS = [{"instruction": f"Question {n} of {n * 13}?", "input": "", "output": f"Answer {n * 7}. " * (1 + n % 3)} for n in range(20)]
SPEC = TrainSpec(
    name="t", lora=LoraSpec(rank=2, alpha=4, dropout=0.1), learning_rate=5e-3, max_steps=24, batch_size=2, accumulation=2, evaluations=4,
    patience=0, samples=2, sample_tokens=4, checkpoint_minutes=1e-9,
)  # fmt: skip
POINTS = int(os.environ.get("TIEBREAK_KILLS", "2"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseChoice:
    folder = tmp_path_factory.mktemp("tiny")
    return BaseChoice(str(tiny_base(folder / "base")), str(folder), "cpu", "float32")


class Pausing:
    """Asks for a pause at the end of a step, or within the validation there, so many looks from now."""

    stop = finish = False

    def __init__(self, steps: float, looks: float = 1e9) -> None:
        self.steps, self.looks = steps, looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks < 0 or self.steps < 0

    @property
    def pause(self) -> bool:
        self.steps -= 1
        return self.looks < 0 or self.steps < 0


def fit(folder: Path, wishes: Any) -> str | None:
    from ft.trainer import fit

    return fit(runs.read(folder), Journal(folder), wishes)


def values(folder: Path) -> dict[tuple[str, int], Any]:
    """What counts of each event: the later of two of one kind and step."""
    kept: dict[tuple[str, int], Event] = {}
    for event in runs.events(folder):
        kept[event.kind, event.step] = event
    timed = ("seconds", "tokens_per_second", "memory", "seconds_left")
    wanted = ("train", "validation", "samples")
    return {key: {k: v for k, v in e.data.items() if k not in timed} for key, e in kept.items() if key[0] in wanted}


def over(folder: Path, seconds: float = 300, until: Callable[[runs.RunState], bool] = lambda s: s.status in (*TERMINAL, "paused")) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = runs.state(folder)
        if until(state):
            while runs.is_held(folder / "lock") and state.status in (*TERMINAL, "paused"):
                time.sleep(0.01)
            return state
        time.sleep(0.01)
    raise AssertionError((runs.state(folder), runs.log_tail(folder)))


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_paused_and_resumed_run_repeats_the_uninterrupted_one_exactly(home: Path, tiny: BaseChoice) -> None:
    """Paused at an odd step, twice in a row, at a validation, and within one."""
    other = runs.create(home, "r0", SPEC, ROWS, [], tiny)
    assert fit(other, Pausing(1e9))
    folder = runs.create(home, "r1", SPEC, ROWS, [], tiny)
    for pausing in (Pausing(2), Pausing(0), Pausing(7), Pausing(1e9, looks=2)):
        assert fit(folder, pausing) is None
    assert fit(folder, Pausing(1e9))
    assert [event.step for event in runs.events(folder) if event.kind == "resumed"] == [3, 4, 12, 18]
    assert values(folder) == values(other)
    assert weights(folder) == weights(other)
    ours, theirs = (json.loads((run / "record.json").read_text()) for run in (folder, other))
    for name in ("best_step", "validation_loss", "validation_loss_before", "train_tokens", "steps"):
        assert ours[name] == theirs[name], name


def test_killed_at_random_points_it_goes_on_and_ends_the_same(home: Path, tiny: BaseChoice) -> None:
    """kill -9, inside checkpoint writes too, since every step writes one. TIEBREAK_KILLS=20 does it as often."""
    straight = runs.create(home, "r0", SPEC, ROWS, [], tiny)
    runs.start(straight)
    assert over(straight).status == "finished", runs.log_tail(straight)
    folder = runs.create(home, "r1", SPEC, ROWS, [], tiny)
    draw, kills = random.Random(5), 0
    runs.start(folder)
    while kills < POINTS:
        before = read_status(folder).get("step", 0)
        over(folder, until=lambda s, before=before: s.status != "running" or s.saved > before + 1)  # type: ignore[misc]
        time.sleep(draw.random() * 0.15)
        if runs.state(folder).status == "finished":
            break
        os.kill(int(read_status(folder)["pid"]), signal.SIGKILL)
        kills += 1
        state = over(folder)
        assert state.status == "lost"
        assert "goes on from step" in state.message
        runs.resume(folder)
        runs.start(folder)
    assert over(folder).status == "finished", runs.log_tail(folder)
    assert kills
    assert values(folder) == values(straight)
    assert weights(folder) == weights(straight)
    assert not (folder / "checkpoints").exists()


def filled(root: Path, step: int) -> Path:
    return checkpoints.write(root, step, lambda folder: [(folder / name).write_bytes(os.urandom(50)) for name in "ab"] and None)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a").write_bytes(b"short"),
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text('{"files": {}}'),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "b").write_bytes(bytes([(folder / "b").read_bytes()[0] ^ 1]) + (folder / "b").read_bytes()[1:]),
    ],
    ids=["cut", "missing", "half-manifest", "empty-manifest", "no-manifest", "one-bit"],
)
def test_a_harmed_checkpoint_is_passed_over(home: Path, harm: Callable[[Path], None]) -> None:
    good, bad = filled(home, 9), filled(home, 10)
    assert checkpoints.newest(home) == bad
    harm(bad)
    assert checkpoints.newest(home) == good


def test_a_checkpoint_cut_off_while_written_is_not_there(home: Path) -> None:
    good = filled(home, 1)

    def fails(folder: Path) -> None:
        (folder / "a").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write(home, 2, fails)
    (home / ".new-3").mkdir()
    (home / "step-00000004").mkdir()
    assert checkpoints.newest(home) == good
    filled(home, 5)
    filled(home, 6)
    assert sorted(path.name for path in home.iterdir()) == ["step-00000005", "step-00000006"]


def test_the_same_step_can_be_saved_again(home: Path) -> None:
    first = (filled(home, 3) / "a").read_bytes()
    assert (filled(home, 3) / "a").read_bytes() != first
    assert [path.name for path in home.iterdir()] == ["step-00000003"]


def test_a_disk_too_full_for_checkpoints_costs_only_the_checkpoints(home: Path, tiny: BaseChoice) -> None:
    """A limit on file sizes stands for the full disk: the checkpoint's files are too large for it, events and adapter are not."""
    folder = runs.create(home, "r1", SPEC.with_(max_steps=6, samples=0), ROWS, [], tiny)
    limited = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (26_000, 26_000)); "
        "from ft.train import main; from pathlib import Path; sys.exit(main(Path(sys.argv[1]), ()))"
    )
    done = subprocess.run([sys.executable, "-c", limited, str(folder)], capture_output=True, text=True, timeout=300)
    said = [event.data["message"] for event in runs.events(folder) if event.kind == "warning"]
    assert any("could not be saved: the disk is full" in words for words in said), (said, done.stdout[-2000:], done.stderr[-2000:])
    assert checkpoints.newest(folder / "checkpoints") is None
    assert runs.state(folder).status in ("finished", "failed")


def test_cancelling_while_a_checkpoint_is_written_leaves_no_adapter(home: Path, tiny: BaseChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft import train

    folder = runs.create(home, "r1", SPEC.with_(max_steps=8, samples=0), ROWS, [], tiny)
    right = checkpoints.write

    def write(root: Path, step: int, fill: Callable[[Path], None]) -> Path:
        if step == 3:
            (folder / "stop").touch()
        return right(root, step, fill)

    monkeypatch.setattr(checkpoints, "write", write)
    wishes = train.Wishes(folder)
    train.say_how_it_ended(Journal(folder), wishes, fit(folder, wishes))
    assert runs.state(folder).status == "cancelled"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["data"]


def test_no_room_for_the_last_words_is_made_by_the_reserve(home: Path) -> None:
    """The event cannot be written any more; the status, for which the reserve makes room, still says how it ended."""
    journal = Journal(home)
    journal.reserve()
    assert (home / "reserve").stat().st_size == 65_536
    (home / "events.jsonl").mkdir()
    journal.end("failed", "The disk is full.")
    assert not (home / "reserve").exists()
    assert read_status(home)["message"] == "The disk is full."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out of memory"),
        (OSError(28, "No space left on device"), "disk is full"),
        (OSError(122, "Disk quota exceeded"), "disk is full"),
        (KeyError("x"), "unexpected error"),
    ],
)
def test_why_a_run_failed_is_said_in_words(error: BaseException, words: str) -> None:
    from ft import train

    assert words in train.words(error)


def test_a_half_line_left_by_a_crash_does_not_swallow_the_next_event(home: Path) -> None:
    Journal(home).event("train", 1, loss=1.0)
    with (home / "events.jsonl").open("ab") as file:
        file.write(b'{"seq": 2, "at": 1, "ki')
    Journal(home).event("train", 2, loss=2.0)
    assert [event.step for event in runs.events(home)] == [1, 2]


def queued(home: Path) -> Path:
    return runs.create(home, "r1", SPEC, ROWS, [], BaseChoice("/nowhere", "/nowhere"))


def test_a_queued_run_is_paused_and_resumed(home: Path) -> None:
    folder = queued(home)
    runs.pause(folder)
    assert runs.state(folder).status == "paused"
    with pytest.raises(Conflict):
        runs.start(folder)
    runs.resume(folder)
    assert runs.state(folder).status == "queued"


def test_a_paused_run_can_be_cancelled_and_then_not_resumed(home: Path) -> None:
    folder = queued(home)
    runs.pause(folder)
    assert runs.cancel(folder).status == "cancelled"
    with pytest.raises(Conflict):
        runs.resume(folder)
    with pytest.raises(Conflict):
        runs.pause(folder)


def test_by_itself_a_lost_run_goes_on_only_while_it_gets_further(home: Path) -> None:
    folder = queued(home)

    def lose(step: int) -> None:
        if step:
            filled(folder / "checkpoints", step)
        Journal(folder).status(status="running")

    lose(0)
    with pytest.raises(Conflict):
        runs.resume(folder, by_itself=True)
    lose(4)
    runs.resume(folder, by_itself=True)
    lose(0)
    with pytest.raises(Conflict, match="no further"):
        runs.resume(folder, by_itself=True)
    lose(5)
    runs.resume(folder, by_itself=True)
    assert runs.state(folder).message == "Waiting to go on from step 5."


FAULTS = ("start", "kill", "finish", "fail", "pause", "resume", "stop", "enforce", "resume-by-itself", "checkpoint", "half", "vanish")


class Pretend:
    """A trainer without training: takes the run's locks as the real one does, and ends as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.locks = folder, []  # type: ignore[var-annotated]

    def alive(self) -> bool:
        return bool(self.locks)

    def begin(self) -> None:
        taken = [runs.take(self.folder / "lock", 0), runs.take(self.folder.parent / "lease", 0)]
        self.locks = [one for one in taken if one is not None]
        if len(self.locks) < 2 or read_status(self.folder).get("status") != "queued":
            self.kill()
            return
        Journal(self.folder).status(status="running")

    def kill(self) -> None:
        for lock in self.locks:
            os.close(lock)
        self.locks = []


def befall(folder: Path, trainer: Pretend, fault: str, step: int) -> None:
    alive, journal = trainer.alive(), Journal(folder)
    if fault == "start" and not alive:
        trainer.begin()
    elif fault == "kill":
        trainer.kill()
    elif fault in ("finish", "fail") and alive:
        journal.end(f"{fault}ed", "Over.")
        trainer.kill()
    elif fault == "pause" and runs.state(folder).status in ("queued", "running"):
        runs.pause(folder)
        if alive:
            journal.end("paused", "Paused.")
            trainer.kill()
    elif fault.startswith("resume"):
        runs.resume(folder, by_itself=fault != "resume")
    elif fault == "stop":
        runs.ask_stop(folder)
        if alive:
            journal.end("cancelled", "Stopped.")
            trainer.kill()
    elif fault == "enforce":
        runs.enforce(folder, grace=1e9)
    elif fault in ("checkpoint", "half") and alive:
        made = filled(folder / "checkpoints", step)
        if fault == "half":
            (made / "a").write_bytes(b"")
    elif fault == "vanish" and not alive:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def test_200_random_histories_of_faults_each_end_in_exactly_one_terminal_state(home: Path) -> None:
    draw, ends = random.Random(11), set()
    for number in range(200):
        root = home / str(number)
        root.mkdir()
        folder = queued(root)
        trainer = Pretend(folder)
        for step in range(1, draw.randrange(3, 14)):
            was = runs.state(folder).status
            with contextlib.suppress(Conflict):
                befall(folder, trainer, draw.choice(FAULTS), step)
            now = runs.state(folder).status
            assert was not in ("finished", "cancelled") or now == was, "an ended run came back to life"
        trainer.kill()
        state = runs.state(folder)
        if state.status not in TERMINAL:  # somebody clears up: whatever waits is cancelled
            state = runs.cancel(folder)
        ended = [event.kind for event in runs.events(folder) if event.kind in ("finished", "cancelled")]
        assert state.status in TERMINAL
        assert len(ended) <= 1
        assert (state.status in ("finished", "cancelled")) == bool(ended)
        assert not runs.is_held(folder / "lock")
        assert not runs.is_held(root / "lease")
        ends.add(state.status)
        shutil.rmtree(root)
    assert ends == {"finished", "failed", "cancelled", "lost"}
