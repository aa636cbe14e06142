"""The run directory: everything a training run is given, says and makes.

    spec.json          what to train, on which base, from which data; never changes
    data/*.jsonl       train and validation rows
    start/             the adapter it goes on from, where it does not begin fresh
    status.json        where it stands; replaced whole
    events.jsonl       what happened, one JSON a line, numbered
    lock               held (flock) by the trainer while it lives: a "running" status with a free lock is a lost run
    stop, pause        their presence asks the trainer to stop for good, or to save and go
    finish             its presence asks the trainer to end now: the best step so far becomes the adapter
    alone              its presence tells the apps that this run needs the machine to itself
    checkpoints/       what it goes on from after a pause or a crash; gone when it is over
    reserve            a little disk space, given up to say that the disk is full
    log.txt            everything the trainer printed
    adapter/           the result; there only when complete
    record.json        everything resolved: hashes, choices and why, versions, duration

Light: standard library only. Must not know torch, processes, the database or the screens.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ft import checkpoints
from ft.errors import BadInput, Conflict, NotFound, Unavailable
from ft.journal import Event, Journal, read_events, read_status, write_whole
from ft.locks import is_held
from ft.specs import TrainSpec

Row = Mapping[str, str]
COLUMNS = ("instruction", "input", "output")
MORE = {"sft": (), "dpo": ("rejected",), "kto": ("label",)}  # rejected: the worse answer; label: good or bad
HELD_OUT = 0.1  # share of the rows held out for validation when none are given
LOST = "The training process ended without a word: it was killed, ran out of memory, or the machine went down."


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
    """Where a run stands. `status`: queued, running, paused, finished, failed, cancelled or lost. Times in UTC seconds.

    `saved` is the step of the newest checkpoint, unverified: about where it would go on from.
    """

    status: str
    message: str = ""
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stop_asked: bool = False
    saved: int = 0
    peak_memory: int = 0
    pause_asked: bool = False
    finish_asked: bool = False
    room: int | None = None  # bytes left on the machine when the trainer needs most; None until it has told
    cause: str = ""  # "memory" where it failed for want of it


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


def create(
    root: Path, run_id: str, spec: TrainSpec, train: Sequence[Row], validation: Sequence[Row], base: BaseChoice, start: Path | None = None
) -> Path:  # fmt: skip
    """Make the directory of a queued run, whole or not at all. `start` is the folder of the adapter it goes on from.

    Raises BadInput with every problem, Conflict for a known id, Unavailable where the files cannot be written.
    """
    held_out = not validation
    if held_out:
        train, validation = hold_out(train)
    problems = spec.problems() + data_problems(train, validation, spec.objective)
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
        if start:
            _copy_adapter(start, new / "start")
        more = MORE[spec.objective]
        texts = {name: _lines(rows, more) for name, rows in (("train", train), ("validation", validation))}
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
                "data_hash": hash_of(train, validation, more),
            },
        )
        Journal(new).reserve()
        Journal(new).status(status="queued", message="Waiting for its turn.", durable=True)
        new.rename(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise Unavailable(
            f"The run's files could not be written ({error.strerror}). Make room or fix the folder's rights, then start again."
        ) from None
    return folder


def _copy_adapter(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o600)


def data_problems(train: Sequence[Row], validation: Sequence[Row], objective: str = "sft") -> list[str]:
    rows, what = [*train, *validation], "examples" if objective == "sft" else "judged answers"
    cure = "approve at least 2" if objective == "sft" else "collect votes on train or validation prompts first"
    empty = sum(not row.get("instruction", "").strip() or not row.get("output", "").strip() for row in rows)
    checks = [
        (len(rows) >= 2, f"There are {len(rows)} {what} to learn from: {cure}."),
        (len(rows) < 2 or bool(train), f"All {len(rows)} {what} are held out for validation: {cure} that are not."),
        (not train or bool(validation), f"No {what[:-1]} could be held out for validation: {cure}, on different questions."),
        (not empty, f"{empty} {what} have no question or no answer: reject or complete them."),
    ]
    if objective == "dpo":
        alone = sum(not row.get("rejected", "").strip() or row["rejected"].strip() == row["output"].strip() for row in rows)
        checks.append((not alone, f"{alone} pairs have no worse answer beside the better one: leave them out."))
    if objective == "kto" and rows:
        kinds = {row.get("label") for row in train}
        checks.append(
            (
                kinds == {"good", "bad"},
                "KTO needs good and bad answers to learn from, and here are only "
                f"{'good' if 'good' in kinds else 'bad'} ones: collect votes of both kinds, or choose another objective.",
            )
        )
    return [message for good, message in checks if not good]


def hash_of(train: Sequence[Row], validation: Sequence[Row], more: tuple[str, ...] = ()) -> str:
    """Identity of what a run learns from and is validated on."""
    return hashlib.sha256(_lines(train, more) + b"\0" + _lines(validation, more)).hexdigest()[:16]


def _lines(rows: Sequence[Row], more: tuple[str, ...]) -> bytes:
    kept = ({key: row.get(key, "") for key in (*COLUMNS, *more)} for row in rows)
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
        status, message = "lost", lost_words(folder)
    return RunState(
        status, message, int(raw.get("step", 0)), int(raw.get("steps", 0)), raw.get("seconds_left"), raw.get("started_at"),
        raw.get("ended_at"), (folder / "stop").exists(), int(raw.get("saved", 0)), int(raw.get("peak_memory", 0)),
        (folder / "pause").exists(), (folder / "finish").exists(), raw.get("room"), str(raw.get("cause") or ""),
    )  # fmt: skip


def lost_words(folder: Path) -> str:
    """Why a run may be lost, and what can be done: go on from the newest checkpoint that verifies, or start again."""
    saved = checkpoints.newest(folder / "checkpoints")
    cure = f"Resume it: it goes on from step {checkpoints.step_of(saved)}." if saved else "Start the run again."
    return f"{LOST} {cure}"
