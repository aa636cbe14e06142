"""The run directory and the process in it. Most tests need no torch; those that train use a tiny random model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft import runs
from ft.errors import BadInput, Busy, Conflict, NotFound
from ft.journal import TERMINAL, Journal, read_events, read_status
from ft.runs import BaseChoice
from ft.specs import LoraSpec, TrainSpec
from tests.trainable import tiny_base

ROWS = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n}."} for n in range(20)]
QUICK = TrainSpec(name="t", lora=LoraSpec(rank=2, alpha=4), max_steps=4, accumulation=1, samples=0)
LONG = QUICK.with_(max_steps=100_000)
NOWHERE = BaseChoice("/nowhere", "/nowhere")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseChoice:
    folder = tmp_path_factory.mktemp("tiny")
    return BaseChoice(str(tiny_base(folder / "base")), str(folder))


def waited(folder: Path, until: Callable[[runs.RunState], bool], seconds: float = 300) -> runs.RunState:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = runs.state(folder)
        if until(state):
            return state
        time.sleep(0.05)
    raise AssertionError(f"{runs.state(folder)}\n{runs.log_tail(folder)}")


def ended(folder: Path) -> runs.RunState:
    return waited(folder, lambda state: state.status in TERMINAL)


def started(root: Path, run_id: str, spec: TrainSpec, base: BaseChoice) -> Path:
    folder = runs.create(root, run_id, spec, ROWS, [], base)
    runs.start(folder)
    return folder


def process_of(folder: Path) -> int:
    waited(folder, lambda _: bool(read_status(folder).get("pid")))
    return int(read_status(folder)["pid"])


def is_alive(pid: int) -> bool:
    """Alive and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_new_run_is_queued_and_holds_what_it_was_given(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS[:15], ROWS[15:], BaseChoice("embedded", "bases", "cpu", "float32"))
    given = runs.read(folder)
    assert (given.spec, given.base, given.held_out) == (QUICK, BaseChoice("embedded", "bases", "cpu", "float32"), False)
    assert runs.rows(folder, "train") == ROWS[:15]
    assert runs.rows(folder, "validation") == ROWS[15:]
    assert runs.state(folder).status == "queued"


def test_without_validation_rows_a_tenth_is_held_out_and_no_question_is_in_both() -> None:
    train, validation = runs.hold_out([*ROWS, *ROWS])
    assert len(validation) == 4
    assert len(train) == 36
    assert not {row["instruction"] for row in train} & {row["instruction"] for row in validation}
    assert runs.hold_out(ROWS) == runs.hold_out(ROWS)


def test_every_problem_is_reported_at_once_and_nothing_is_made(home: Path) -> None:
    bad = QUICK.with_(learning_rate=5.0, name=" ")
    with pytest.raises(BadInput) as error:
        runs.create(home, "r1", bad, [{"instruction": "a", "input": "", "output": ""}], [], NOWHERE)
    for part in ("learning_rate", "name", "at least 2", "no question or no answer"):
        assert part in str(error.value)
    assert list(home.iterdir()) == []


def test_one_question_asked_twice_cannot_be_held_out(home: Path) -> None:
    with pytest.raises(BadInput, match="held out"):
        runs.create(home, "r1", QUICK, [ROWS[0], ROWS[0]], [], NOWHERE)


def test_a_run_id_is_used_once(home: Path) -> None:
    runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    with pytest.raises(Conflict):
        runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)


def test_a_broken_spec_file_is_named(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    (folder / "spec.json").write_text('{"run_id": "r1", "surprise": 1}')
    with pytest.raises(BadInput, match="r1"):
        runs.read(folder)
    with pytest.raises(NotFound):
        runs.read(home / "other")


def test_texts_survive_unchanged(home: Path) -> None:
    strange = [{"instruction": "a\u2028b\x85 \U0001f600", "input": '"\\', "output": "é\r\n\ud800"}, ROWS[0]]
    folder = runs.create(home, "r1", QUICK, strange, ROWS[1:2], NOWHERE)
    assert runs.rows(folder, "train") == strange


def test_events_are_numbered_and_a_half_written_line_is_left_out(home: Path) -> None:
    journal = Journal(home)
    journal.event("train", 1, loss=float("nan"))
    journal.event("train", 2, loss=2.0)
    with (home / "events.jsonl").open("ab") as file:
        file.write(b'{"seq": 3, "at": 1, "kind": "tr')
    assert [(e.seq, e.step, e.data) for e in read_events(home)] == [(1, 1, {"loss": None}), (2, 2, {"loss": 2.0})]
    assert [e.seq for e in read_events(home, after=1)] == [2]


def test_running_with_a_free_lock_is_lost(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    lock = runs.take(folder / "lock")
    assert lock is not None
    Journal(folder).status(status="running")
    assert runs.state(folder).status == "running"
    os.close(lock)
    state = runs.state(folder)
    assert state.status == "lost"
    assert "Start the run again" in state.message


def test_a_missing_folder_is_lost_in_words(home: Path) -> None:
    state = runs.state(home / "gone")
    assert state.status == "lost"
    assert "gone" in state.message


def test_a_queued_run_is_cancelled_at_once_and_never_starts(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    began = time.monotonic()
    assert runs.cancel(folder).status == "cancelled"
    assert time.monotonic() - began < 2
    with pytest.raises(Conflict):
        runs.start(folder)


def test_one_run_trains_at_a_time_whoever_starts_it(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    held = runs.take(home / "lease")
    assert held is not None
    with pytest.raises(Busy):
        runs.start(folder)
    assert runs.state(folder).status == "queued"
    other = subprocess.run([sys.executable, "-m", "ft.train", str(folder)], capture_output=True, text=True, timeout=60)
    assert other.returncode == 1
    assert "already training" in other.stderr
    os.close(held)


def test_a_missing_base_fails_with_its_reason(home: Path) -> None:
    folder = started(home, "r1", QUICK, NOWHERE)
    state = ended(folder)
    assert state.status == "failed"
    assert "/nowhere" in state.message
    assert "Traceback" in runs.log_tail(folder)
    waited(folder, lambda _: not runs.is_held(folder / "lock"), 5)


def test_a_run_trains_and_leaves_a_whole_adapter(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", QUICK, tiny)
    assert runs.is_held(folder / "lock")
    with pytest.raises(Conflict):
        runs.start(folder)
    state = ended(folder)
    assert state.status == "finished", (state, runs.log_tail(folder))
    assert (state.step, state.steps) == (4, 4)
    kinds = [event.kind for event in runs.events(folder)]
    assert kinds[0] == "start"
    assert kinds[-2:] == ["saved", "finished"]
    assert kinds.count("train") == 4
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not (folder / "work").exists()
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*")} == {0}


def test_a_run_that_is_over_is_not_started_by_hand(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    runs.cancel(folder)
    again = subprocess.run([sys.executable, "-m", "ft.train", str(folder)], capture_output=True, text=True, timeout=60)
    assert again.returncode == 1
    assert "over" in again.stderr
    assert runs.state(folder).status == "cancelled"


@pytest.mark.parametrize(("visible", "used"), [(None, "0"), ("2,3", "2"), ("", "")])
def test_a_run_sees_one_gpu(visible: str | None, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert runs.environment()["CUDA_VISIBLE_DEVICES"] == used


def test_cancelling_a_running_run_leaves_no_adapter_and_no_process(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", LONG, tiny)
    waited(folder, lambda state: state.step >= 2)
    pid = process_of(folder)
    began = time.monotonic()
    assert runs.cancel(folder).status == "cancelled"
    assert time.monotonic() - began < 15
    assert not (folder / "adapter").exists()
    assert not runs.is_held(folder / "lock")
    waited(folder, lambda _: not is_alive(pid), 5)


def test_cancelling_while_the_base_loads_works(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", LONG, tiny)
    assert runs.cancel(folder).status == "cancelled"
    assert not runs.is_held(home / "lease")


def test_a_trainer_that_ignores_everything_is_ended_by_force(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", LONG, tiny)
    waited(folder, lambda state: state.step >= 1)
    pid = process_of(folder)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    state = runs.cancel(folder, grace=1)
    assert state.status == "cancelled"
    assert time.monotonic() - began < 7
    waited(folder, lambda _: not is_alive(pid), 5)


def test_asking_twice_does_not_renew_the_grace(home: Path) -> None:
    folder = runs.create(home, "r1", QUICK, ROWS, [], NOWHERE)
    runs.ask_stop(folder)
    os.utime(folder / "stop", (1, 1))
    runs.ask_stop(folder)
    assert (folder / "stop").stat().st_mtime == 1


def test_a_signal_from_the_system_pauses_and_loses_nothing(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", LONG, tiny)
    waited(folder, lambda state: state.step >= 1)
    os.kill(process_of(folder), signal.SIGTERM)
    state = waited(folder, lambda state: state.status == "paused")
    assert state.saved >= 1
    assert runs.cancel(folder).status == "cancelled"
    assert not (folder / "checkpoints").exists()


def test_a_killed_trainer_is_lost(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", LONG, tiny)
    waited(folder, lambda state: state.step >= 1)
    os.kill(process_of(folder), signal.SIGKILL)
    assert ended(folder).status == "lost"
    assert not (folder / "adapter").exists()
    assert not runs.is_held(home / "lease")


def test_the_trainer_outlives_the_process_that_started_it(home: Path, tiny: BaseChoice) -> None:
    folder = runs.create(home, "r1", LONG, ROWS, [], tiny)
    code = f"from ft import runs; from pathlib import Path; runs.start(Path({str(folder)!r}))"
    starter = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert starter.returncode == 0
    waited(folder, lambda state: state.step >= 1)
    assert os.getsid(process_of(folder)) == process_of(folder)
    runs.cancel(folder)


def test_strange_folder_names_never_reach_a_shell(home: Path) -> None:
    root = home / "a; touch hacked $(touch hacked)\n--flag"
    root.mkdir()
    folder = started(root, "r '1", QUICK, NOWHERE)
    assert ended(folder).status == "failed"
    assert not list(home.rglob("hacked"))


def test_the_light_side_imports_no_torch() -> None:
    code = "import sys, ft.runs, ft.journal, ft.train; assert not {'torch', 'transformers', 'peft', 'trl'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_log_tail_starts_at_a_line(home: Path) -> None:
    (home / "log.txt").write_text("".join(f"line {n}\n" for n in range(10_000)))
    tail = runs.log_tail(home, 100)
    assert tail.startswith("line ")
    assert tail.endswith("line 9999\n")
    assert len(tail) <= 100


def test_a_status_is_never_half_written(home: Path) -> None:
    """A reader that polls while the status is rewritten sees only whole ones."""
    journal = Journal(home)
    journal.status(status="running", padding="x" * 100_000)
    reader = subprocess.Popen(
        [sys.executable, "-c", f"import json\nfor _ in range(3000): json.load(open({str(home / 'status.json')!r}))"], stderr=subprocess.PIPE
    )
    count = 0
    while reader.poll() is None:
        journal.status(step=count)
        count += 1
    assert reader.returncode == 0, reader.stderr and reader.stderr.read()
    assert count > 10


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_record_says_everything_resolved(home: Path, tiny: BaseChoice) -> None:
    folder = started(home, "r1", QUICK, tiny)
    ended(folder)
    record = json_of(folder / "record.json")
    assert record["spec"] == json.loads(json.dumps(QUICK.to_dict()))
    assert record["data_hash"] == runs.read(folder).data_hash
    for key in ("base_hash", "template_hash", "dtype", "reasons", "versions", "seconds", "best_step", "adapter_bytes"):
        assert record[key], key
    assert record["rows"] == {"train": 18, "validation": 2, "left_out": 0, "held_out": True}
    for name in ("record.json", "adapter/adapter_config.json"):
        assert str(home) not in (folder / name).read_text()
        assert tiny.model not in (folder / name).read_text()
