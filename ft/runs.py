"""The run directory: everything a training run is given, says and makes, and the process that works in it.

    spec.json          what to train, on which base, from which data; never changes
    data/*.jsonl       train and validation rows
    status.json        where it stands; replaced whole
    events.jsonl       what happened, one JSON a line, numbered
    lock               held (flock) by the trainer while it lives: a "running" status with a free lock is a lost run
    stop               its presence asks the trainer to stop
    log.txt            everything the trainer printed
    adapter/           the result; there only when complete
    record.json        everything resolved: hashes, choices and why, versions, duration

`lease`, beside the run directories, is held together with `lock`: one run trains at a time, whoever starts it.
Light: standard library only. Must not know torch, the database or the screens.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ft
from ft.errors import BadInput, Busy, Conflict, NotFound, Unavailable
from ft.journal import TERMINAL, Event, Journal, read_events, read_status, write_whole
from ft.locks import is_held, take
from ft.specs import TrainSpec

Row = Mapping[str, str]
GRACE = 10.0  # seconds a trainer gets to stop by itself
HELD_OUT = 0.1  # share of the rows held out for validation when none are given
LOST = "The training process ended without a word: it was killed, ran out of memory, or the machine went down. Start the run again."
STOPPED = "Stopped on request; no adapter was made. Start a new run when you are ready."


@dataclass(frozen=True, slots=True)
class BaseChoice:
    """The base a run trains on, in the words of the settings; fetched or converted bases are kept under the folder `bases`."""

    model: str
    bases: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """spec.json, read."""

    run_id: str
    spec: TrainSpec
    base: BaseChoice
    train_rows: int
    validation_rows: int
    held_out: bool
    data_hash: str


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands. `status`: queued, running, finished, failed, cancelled or lost. Times in UTC seconds."""

    status: str
    message: str = ""
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stop_asked: bool = False


def hold_out(rows: Sequence[Row], share: float = HELD_OUT) -> tuple[list[Row], list[Row]]:
    """(train, validation): a stated share, at least one row, drawn by the hash of the prompt, so the same rows give the same draw."""
    if len(rows) < 2:
        return list(rows), []
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(_prompt(rows[i]).encode("utf-8", "surrogatepass")).digest())
    drawn = set(order[: max(1, round(share * len(rows)))])
    chosen = {_prompt(rows[i]) for i in drawn}
    train = [row for row in rows if _prompt(row) not in chosen]
    return (train, [row for row in rows if _prompt(row) in chosen]) if train else (list(rows), [])


def _prompt(row: Row) -> str:
    return f"{row['instruction'].strip()}\n{row.get('input', '').strip()}".casefold()


def create(root: Path, run_id: str, spec: TrainSpec, train: Sequence[Row], validation: Sequence[Row], base: BaseChoice) -> Path:
    """Make the directory of a queued run, whole or not at all. Raises BadInput with every problem, Conflict for a known id."""
    held_out = not validation
    if held_out:
        train, validation = hold_out(train)
    problems = spec.problems() + data_problems(train, validation)
    if problems:
        raise BadInput(" ".join(problems))
    folder = root / run_id
    if folder.exists():
        raise Conflict(f"A run {run_id} is already there. Start the new one under another id.")
    new = root / f".new-{run_id}"
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(mode=0o700)
        (new / "data").mkdir(mode=0o700)
        texts = {name: _lines(rows) for name, rows in (("train", train), ("validation", validation))}
        for name, text in texts.items():
            with open(os.open(new / "data" / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(text)
        write_whole(
            new / "spec.json",
            {
                "run_id": run_id,
                "spec": spec.to_dict(),
                "base": asdict(base),
                "train_rows": len(train),
                "validation_rows": len(validation),
                "held_out": held_out,
                "data_hash": hash_of(train, validation),
            },
        )
        Journal(new).status(status="queued", message="Waiting for its turn.", durable=True)
        new.rename(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise Unavailable(
            f"The run's files could not be written ({error.strerror}). Make room or fix the folder's rights, then start again."
        ) from None
    return folder


def data_problems(train: Sequence[Row], validation: Sequence[Row]) -> list[str]:
    empty = sum(not row.get("instruction", "").strip() or not row.get("output", "").strip() for row in [*train, *validation])
    checks = [
        (len(train) + len(validation) >= 2 and bool(train), f"There are {len(train)} examples to learn from: approve at least 2."),
        (not train or bool(validation), "No example could be held out for validation: approve examples with different questions."),
        (not empty, f"{empty} examples have no question or no answer: reject or complete them."),
    ]
    return [message for good, message in checks if not good]


def hash_of(train: Sequence[Row], validation: Sequence[Row]) -> str:
    """Identity of what a run learns from and is validated on."""
    return hashlib.sha256(_lines(train) + b"\0" + _lines(validation)).hexdigest()[:16]


def _lines(rows: Sequence[Row]) -> bytes:
    kept = ({key: row.get(key, "") for key in ("instruction", "input", "output")} for row in rows)
    return b"".join(json.dumps(row).encode() + b"\n" for row in kept)


def read(folder: Path) -> RunFiles:
    """What the run was given. Raises NotFound or BadInput."""
    try:
        raw = json.loads((folder / "spec.json").read_bytes())
        return RunFiles(**{**raw, "spec": TrainSpec.from_dict(raw["spec"]), "base": BaseChoice(**raw["base"])})
    except FileNotFoundError:
        raise NotFound(f"{folder.name} is not a run directory: spec.json is missing. Create the run first.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"spec.json of run {folder.name} cannot be read ({error}). Create the run again.") from None


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of data/<name>.jsonl, `name` being train or validation."""
    raw = (folder / "data" / f"{name}.jsonl").read_bytes()
    return [json.loads(line) for line in raw.split(b"\n") if line]


def events(folder: Path, after: int = 0) -> list[Event]:
    return read_events(folder, after)


def log_tail(folder: Path, limit: int = 4_000) -> str:
    """The last characters of the log, from a line's start."""
    try:
        with (folder / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text if len(text) < limit else text.partition("\n")[2]


def state(folder: Path) -> RunState:
    """Where the run stands now. The lock is read before the status: a trainer that ends in between is not taken for lost."""
    alive = is_held(folder / "lock")
    try:
        raw = read_status(folder)
    except (OSError, ValueError):
        raw = {}
    status, message = raw.get("status", "lost"), raw.get("message", "")
    if not raw:
        message = "The run's folder is gone or cannot be read. Start the run again."
    elif status == "running" and not alive:
        status, message = "lost", LOST
    return RunState(
        status, message, int(raw.get("step", 0)), int(raw.get("steps", 0)), raw.get("seconds_left"),
        raw.get("started_at"), raw.get("ended_at"), (folder / "stop").exists(),
    )  # fmt: skip


def start(folder: Path) -> None:
    """Start the trainer of a queued run in a process and session of its own; returns at once.

    The locks are taken here and inherited by the trainer, so there is no moment at which a started run looks dead, and
    none at which two starters both win. Raises Busy while another run trains, Conflict when this one is not queued.
    """
    with contextlib.ExitStack() as held:
        lock, lease = _take_for(held, folder / "lock"), _take_for(held, folder.parent / "lease")
        if lock is None:
            raise Conflict("This run is already training. Watch it, or cancel it first.")
        if read_status(folder).get("status") != "queued":
            raise Conflict("This run was started before. Start a new run with the same settings.")
        if lease is None:
            raise Busy("Another run is training. This one starts when it is over.")
        journal = Journal(folder)
        journal.status(status="running", message="Starting.", started_at=time.time(), durable=True)
        try:
            _spawn(folder, lock, lease)
        except OSError as error:
            journal.end("failed", f"The trainer could not be started ({error.strerror}). Free memory or disk, then start again.")


def _take_for(held: contextlib.ExitStack, path: Path) -> int | None:
    descriptor = take(path)
    if descriptor is not None:
        held.callback(os.close, descriptor)
    return descriptor


def _environment() -> dict[str, str]:
    """One GPU for a run: where several are visible, one process would spread the model over them in a way that TRL refuses."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    quiet = {"PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": first}


def _spawn(folder: Path, *locks: int) -> None:
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ft.train", str(folder.resolve()), *map(str, locks)],
            cwd=Path(ft.__file__).parent.parent,
            env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=locks,
        )  # fmt: skip
    finally:
        os.close(log)
    threading.Thread(target=process.wait, name=f"reap-{folder.name}", daemon=True).start()


def ask_stop(folder: Path) -> None:
    """Ask the trainer to stop; returns at once. `enforce` sees to it."""
    os.close(os.open(folder / "stop", os.O_CREAT | os.O_WRONLY, 0o600))  # not touch(): asking twice does not renew the grace
    _signal(folder, signal.SIGTERM, whole_group=False)


def enforce(folder: Path, grace: float = GRACE) -> None:
    """Carry out a stop that was asked for: a run nobody works on is cancelled, a trainer that ignored it for `grace` seconds is killed.

    Returns at once and does nothing when no stop was asked for or the run is over; call it again until the run is over.
    """
    try:
        asked = (folder / "stop").stat().st_mtime
    except FileNotFoundError:
        return
    lock = take(folder / "lock", wait=0)
    if lock is None:
        if time.time() - asked >= grace:
            _signal(folder, signal.SIGKILL, whole_group=True)
        return
    try:
        if read_status(folder).get("status") not in TERMINAL:
            Journal(folder).end("cancelled", STOPPED)
    finally:
        os.close(lock)


def cancel(folder: Path, grace: float = GRACE) -> RunState:
    """Stop the run and wait until nothing of it is left, at most `grace` + 5 seconds."""
    ask_stop(folder)
    deadline = time.monotonic() + grace + 5
    while state(folder).status not in TERMINAL or is_held(folder / "lock"):
        enforce(folder, grace)
        if time.monotonic() > deadline:
            raise Unavailable("The trainer could not be stopped. End its process by hand, then cancel again.")
        time.sleep(0.05)
    enforce(folder, grace)
    return state(folder)


def _signal(folder: Path, number: int, *, whole_group: bool) -> None:
    """Signal the trainer. Its pid is trusted only while the lock is held: then the process that wrote it is alive."""
    pid = int(read_status(folder).get("pid", 0))
    if not pid or not is_held(folder / "lock"):
        return
    with contextlib.suppress(ProcessLookupError):
        if whole_group and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
