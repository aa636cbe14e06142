"""`python -m ft.rehearsal FOLDER LEASE`: look at a run before it starts, and measure it by two real steps. Writes check.json.

FOLDER is a run directory that never becomes a run. First its rows as tokens: how long they are, which are too long, and the first batch
token by token with its loss mask. Then two steps at the longest batch, for memory and time. Torch side. Must not know the database.
"""

import os
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from ft import runs
from ft.encoding import IGNORED, Encoded, encode_row, fit_in, length, mismatched, pack, trained
from ft.errors import BadInput, UserError
from ft.journal import write_whole
from ft.losses import Judged
from ft.memory import Memory
from ft.models import LoadedBase
from ft.objectives import Objective, Order, steps_of
from ft.rundir import RunFiles
from ft.sampling import answers
from ft.specs import TrainSpec
from ft.trainer import check_device, check_targets, keep_gradients_exact, load_base, settings, to_ask, with_adapter
from ft.watch import peak_memory

CHECK = "check.json"
SHOWN_CUT = 50
SHOWN_ROWS, SHOWN_FIRST, SHOWN_LAST = 4, 120, 280  # tokens of a long row, from its beginning and up to its end
WRITTEN = 8  # tokens written to measure how long writing takes
STEPS = 2


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of some rows; `trained` are those with a loss."""

    rows: int
    total: int
    trained: int
    mean: float
    median: float
    p95: int
    longest: int


def lengths(rows: Sequence[Encoded]) -> Lengths:
    sizes = sorted(map(length, rows))
    if not sizes:
        return Lengths(0, 0, 0, 0.0, 0.0, 0, 0)
    p95 = sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))]
    return Lengths(len(sizes), sum(sizes), sum(map(trained, rows)), round(mean(sizes), 1), median(sizes), p95, sizes[-1])


def first_batch(tokenizer: Any, rows: Sequence[Encoded], spec: TrainSpec) -> list[list[tuple[str, bool]]]:
    """The rows that the first step begins with: each token's text, and whether the loss is on it."""
    places = list(Order(rows, spec.batch_size, spec.seed, spec.group_by_length, lambda: 0))[: min(spec.batch_size, SHOWN_ROWS)]
    return [masked(tokenizer, side) for at in places for side in sides(rows[at])]


def sides(row: Encoded) -> list[tuple[list[int], list[bool]]]:
    """(tokens, whether each is learned): one for a row of answers, two for a pair."""
    if "labels" in row:
        return [(row["input_ids"], [label != IGNORED for label in row["labels"]])]
    prompt, ends = row["prompt_ids"], [row[key] for key in ("chosen_ids", "rejected_ids", "completion_ids") if key in row]
    return [([*prompt, *end], [False] * len(prompt) + [True] * len(end)) for end in ends]


def masked(tokenizer: Any, side: tuple[list[int], list[bool]]) -> list[tuple[str, bool]]:
    every = list(zip(*side, strict=True))
    left_out = len(every) - SHOWN_FIRST - SHOWN_LAST
    shown = [(token_text(tokenizer, token), on) for token, on in (every if left_out <= 0 else every[:SHOWN_FIRST] + every[-SHOWN_LAST:])]
    return shown if left_out <= 0 else [*shown[:SHOWN_FIRST], (f"\n… {left_out} more tokens …\n", False), *shown[SHOWN_FIRST:]]


def token_text(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token])
    return str(tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in text else str(text)


def look(given: RunFiles, folder: Path, base: LoadedBase) -> tuple[dict[str, Any], list[Encoded], list[Encoded]]:
    """(what check.json says of the rows, rows to train on, rows to validate on)."""
    spec, limit = given.spec, min(given.spec.max_length, base.context_length)
    raw = {name: runs.rows(folder, name) for name in ("train", "validation")}
    encoded = {n: [encode_row(base.tokenizer, row, spec.system_prompt, spec.objective) for row in rows] for n, rows in raw.items()}
    found: dict[str, Any] = {"limit": limit, "tokens": {name: asdict(lengths(rows)) for name, rows in encoded.items()}}
    kept: dict[str, list[Encoded]] = {}
    cut: list[dict[str, Any]] = []
    for name, rows in encoded.items():
        kept[name], too_long = fit_in(rows, limit)
        asked = [raw[name][one.row]["instruction"][:120] for one in too_long]
        cut += [{"split": name, "question": q, "tokens": c.tokens, "over": c.over} for q, c in zip(asked, too_long, strict=True)]
    found["cut"], found["cut_total"] = sorted(cut, key=lambda one: -one["over"])[:SHOWN_CUT], len(cut)
    train = pack(kept["train"], limit) if spec.packing and kept["train"] else kept["train"]
    if spec.packing and kept["train"]:
        found["packed"] = {"rows": len(train), "examples": len(kept["train"])}
    found["batch"] = first_batch(base.tokenizer, train, spec) if train else []
    return found, train, kept["validation"]


class Clock(TrainerCallback):
    """Seconds of each step. The first warms up; the last counts."""

    def __init__(self) -> None:
        self.began, self.seconds = 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.monotonic() - self.began


def measure(given: RunFiles, folder: Path, base: LoadedBase, train: list[Encoded], validation: list[Encoded]) -> dict[str, Any]:
    """Two steps at the longest batch, one validation batch, a few written tokens: what they take, and so what the run will."""
    spec = given.spec
    a_step = spec.batch_size * spec.accumulation
    longest = sorted(train, key=length, reverse=True)[:a_step]
    rows = (longest * (STEPS * a_step // len(longest) + 1))[: STEPS * a_step]
    clock, collate = Clock(), Objective.collator(spec.objective, base.pad_token, spec.packing)
    shown = mismatched(rows) if spec.objective == "kto" else rows
    work = folder / "work"
    trainer = Objective.trainers[spec.objective](
        model=with_adapter(base, spec, folder / "start"),
        args=settings(spec.with_(max_steps=STEPS, warmup=0.0), base, work, len(rows)),
        train_dataset=Dataset.from_list(shown), processing_class=base.tokenizer, data_collator=collate, callbacks=[clock],
    )  # fmt: skip
    trainer.encoded, trainer.grouped = shown, False
    trainer.train()
    trainable = sum(weight.numel() for name, weight in trainer.model.named_parameters() if ".default" in name)
    padded = a_step * length(longest[0])
    steps = steps_of(len(train), spec.batch_size, spec.accumulation, spec.epochs, spec.max_steps)
    tokens = steps * a_step * mean(map(length, train))
    looks = min(spec.evaluations, max(1, steps // 5)) + 1
    look_seconds = evaluation_seconds(given, folder, base, trainer, validation)
    return {
        "step_seconds": clock.seconds, "tokens_per_second": padded / max(clock.seconds, 1e-9), "steps": steps,
        "evaluation_seconds": look_seconds, "seconds": clock.seconds * tokens / padded + looks * look_seconds,
        "peak_memory": peak_memory(), "trainable": trainable, "disk_needed": 60 * trainable + 10_000_000, "longest": length(longest[0]),
    }  # fmt: skip


def evaluation_seconds(given: RunFiles, folder: Path, base: LoadedBase, trainer: Any, validation: list[Encoded]) -> float:
    spec, model = given.spec, trainer.model
    rows = sorted(validation, key=length, reverse=True)[: spec.batch_size]
    began = time.monotonic()
    Judged(spec.objective, [Objective.collator(spec.objective, base.pad_token)(rows)], spec.beta)(model)
    validating = (time.monotonic() - began) * sum(map(length, validation[:256])) / (len(rows) * length(rows[0]))
    asked = to_ask(given, base, runs.rows(folder, "validation"))
    if not asked:
        return validating
    began = time.monotonic()
    answers(model, base, asked, min(WRITTEN, spec.sample_tokens), lambda: False)
    return validating + (time.monotonic() - began) * spec.sample_tokens / min(WRITTEN, spec.sample_tokens)


def memory_there() -> int:
    """Bytes that this process could have: the GPU's, else what main memory still gives."""
    memory = Memory()
    return memory.total() if memory.on_gpu else memory.free() + peak_memory()


def rehearse(folder: Path, lease_at: Path) -> None:
    given = runs.read(folder)
    found: dict[str, Any] = {"state": "reading", "message": "Loading the base model."}

    def say(**more: Any) -> None:
        found.update(more, at=time.time())
        write_whole(folder / CHECK, found, durable=False)

    say()
    try:
        base = load_base(given)
        keep_gradients_exact(base.model)
        check_targets(base.model, given.spec.lora)
        check_device(given.spec, base)
        looked, train, validation = look(given, folder, base)
        say(**looked, device=base.device, dtype=base.dtype)
        if not train or not validation:
            raise BadInput(f"No row for {'validation' if train else 'training'} fits into {looked['limit']} tokens: raise max_length.")
        lease = runs.take(lease_at)
        if lease is None:
            say(state="done", message="A run is training now, so time and memory were not measured. Check again when it is over.")
            return
        say(state="measuring", message="Two real steps at the longest batch are being measured.", memory_there=memory_there())
        say(estimate=measure(given, folder, base, train, validation), disk_free=shutil.disk_usage(lease_at.parent).free)
        say(state="done", message="")
    except UserError as error:
        say(state="failed", message=str(error))
    except Exception as error:
        traceback.print_exc()
        if out_of_memory(error):
            say(state="too large", message="It does not fit: the longest batch ran out of memory.")
        else:
            say(state="failed", message=f"The check stopped on an unexpected error ({type(error).__name__}). Its log has the details.")
    finally:
        shutil.rmtree(folder / "work", ignore_errors=True)


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error).lower()


if __name__ == "__main__":
    os.umask(0o077)
    rehearse(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
