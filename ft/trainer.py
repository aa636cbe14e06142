"""Trains one adapter by TRL's trainers: `fit` reads the run directory, trains or goes on, keeps the best step, saves the adapter.

The loss is on the answer and its end-of-turn token only, and rows are tokenised by `ft.template`, as they are for answering.
Torch side. Must not know the database, the screens or reviewers.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from ft import checkpoints
from ft.adapters import vet
from ft.encoding import Encoded, encode_row, fit_in, length, mismatched, pack
from ft.errors import BadInput
from ft.journal import Journal
from ft.losses import Judged
from ft.models import LoadedBase, load
from ft.objectives import Objective, put_back, steps_of
from ft.rundir import RunFiles, rows
from ft.sampling import Asked, answers
from ft.saving import base_name, save_adapter, write_record
from ft.specs import ALL_LINEAR, LoraSpec, TrainSpec
from ft.template import encode, messages_for
from ft.watch import Watch, Wishes

VALIDATION_ROWS = 256  # more cost time at every validation and change the curve little
LOGGED_STEPS = 500  # about so many points make a curve
FULL = ("no space left", "file too large", "quota", "inline_container", "unexpected pos")  # torch's writer says it in its own way
CHECKPOINT_ABOVE = 1_000_000_000  # parameters


def fit(given: RunFiles, journal: Journal, wishes: Wishes) -> str | None:
    """Train what spec.json asks for. Returns the closing sentence, or None when it was stopped or paused. Raises UserError."""
    spec, folder = given.spec, journal.folder
    if problems := spec.problems():
        raise BadInput(" ".join(problems))
    base = load_base(given)
    keep_gradients_exact(base.model)
    check_targets(base.model, spec.lora)
    check_device(spec, base)
    if wishes():
        return None
    data = read_rows(given, base, journal)
    with scratch(folder / "work") as work:
        trainer, watch = assemble(spec, base, data, journal, wishes, work)
        saved = checkpoints.newest(folder / "checkpoints")
        if saved:
            watch.read_state(saved)
        else:
            facts = {"left_out": data.left_out, "objective": spec.objective, **choices(base, given)}
            journal.event("start", train_rows=len(data.train), validation_rows=len(data.validation), **facts)
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
        if watch.left or wishes.stop:
            return None
        watch.restore_best(trainer.model)
        made = save_adapter(trainer.model, work / "adapter", base_name(base), base.shape.base_hash)
        write_record(folder, given, base, {**choices(base, given), **outcome(watch, trainer), "rows": data.counts(given.held_out), **made})
        (work / "adapter").rename(folder / "adapter")
        checkpoints.sync(folder)
    journal.event("saved", watch.kept.best_step, **made)
    return closing(watch, journal)


def assemble(
    spec: TrainSpec, base: LoadedBase, data: "Data", journal: Journal, wishes: Wishes, work: Path, model: Any = None
) -> tuple[Any, Watch]:  # fmt: skip
    """The trainer and its watch, connected. `model` is the base with its adapter, where it is there already."""
    pad, size = base.pad_token, spec.batch_size
    collate = Objective.collator(spec.objective, pad)
    judged = Judged(spec.objective, [collate(data.validation[at : at + size]) for at in range(0, len(data.validation), size)], spec.beta)

    def write(model: Any, should_stop: Callable[[], bool]) -> list[str]:
        return answers(model, base, data.asked, spec.sample_tokens, should_stop)

    watch = Watch(journal, spec, wishes, judged, write, data.asked)
    dataset = Dataset.from_list(data.train)
    trainer = Objective.trainers[spec.objective](
        model=model or with_adapter(base, spec, journal.folder / "start"), args=settings(spec, base, work, len(data.train)),
        train_dataset=dataset, processing_class=base.tokenizer, data_collator=Objective.collator(spec.objective, pad, spec.packing),
        callbacks=[watch],
    )  # fmt: skip
    if "ref" in trainer.model.peft_config and not (journal.folder / "start").exists():
        trainer.model.delete_adapter("ref")  # TRL's copy of a fresh adapter: the base alone says the same, for half the work
    trainer.encoded, trainer.grouped = data.train, spec.group_by_length
    trainer.save_into = saver(watch, journal)
    watch.trainer = trainer
    return trainer, watch


def saver(watch: Watch, journal: Journal) -> Callable[[Callable[[Path], None]], None]:
    """Writes checkpoints. One that cannot be written costs only itself: the run goes on, and says so."""

    def save(write_state: Callable[[Path], None]) -> None:
        def fill(folder: Path) -> None:
            write_state(folder)
            watch.write_state(folder)

        step = watch.trainer.state.global_step
        try:
            checkpoints.write(journal.folder / "checkpoints", step, fill)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = "the disk is full" if out_of_space(error) else str(error).splitlines()[0]
            journal.event(
                "warning", step, message=f"The checkpoint of step {step} could not be saved: {reason}. Training goes on; make room."
            )
            return
        journal.status(saved=step)
        journal.event("checkpoint", step)

    return save


def out_of_space(error: BaseException) -> bool:
    said = str(error).lower()
    return getattr(error, "errno", None) in (27, 28, 122) or any(words in said for words in FULL)


class Data:
    """Rows as tokens: to train on, to validate on, to answer; and how many were too long."""

    def __init__(self, train: list[Encoded], validation: list[Encoded], asked: Sequence[Asked], examples: int, left_out: int) -> None:
        self.train, self.validation, self.asked, self.examples, self.left_out = train, validation, asked, examples, left_out

    def counts(self, held_out: bool) -> dict[str, Any]:
        return {"train": self.examples, "validation": len(self.validation), "left_out": self.left_out, "held_out": held_out}


def read_rows(given: RunFiles, base: LoadedBase, journal: Journal) -> Data:
    """A row over the maximum length is left out and told: a cut answer would teach to stop short."""
    spec, limit = given.spec, min(given.spec.max_length, base.context_length)
    kept, left_out, longest = {}, 0, 0
    for name in ("train", "validation"):
        encoded = [encode_row(base.tokenizer, row, spec.system_prompt, spec.objective) for row in rows(journal.folder, name)]
        longest = max([longest, *map(length, encoded)])
        kept[name], cut = fit_in(encoded, limit)
        left_out += len(cut)
    remedy = f"The longest has {longest} tokens: raise max_length (now {limit}) to take them in."
    if not kept["train"] or not kept["validation"]:
        raise BadInput(f"No row for {'training' if not kept['train'] else 'validation'} fits into {limit} tokens. {remedy}")
    if left_out and not (journal.folder / "checkpoints").exists():
        journal.event("warning", message=f"{left_out} rows are longer than {limit} tokens and were left out. {remedy}")
    examples = len(kept["train"])
    train = pack(kept["train"], limit) if spec.packing else kept["train"]
    if spec.objective == "kto":
        train = mismatched(train)
    return Data(train, kept["validation"][:VALIDATION_ROWS], to_ask(given, base, rows(journal.folder, "validation")), examples, left_out)


def to_ask(given: RunFiles, base: LoadedBase, validation: Sequence[dict[str, str]]) -> list[Asked]:
    """The first validation prompts that leave room to answer, each once."""
    spec = given.spec
    found: dict[str, Asked] = {}
    for row in validation:
        if row.get("label") == "bad" or len(found) == spec.samples:
            continue
        tokens = encode(base.tokenizer, messages_for(row["instruction"], row.get("input", ""), spec.system_prompt))
        words = "\n\n".join(part for part in (row["instruction"], row.get("input", "")) if part.strip())
        if len(tokens) + spec.sample_tokens <= base.context_length:
            found.setdefault(words, Asked(tokens, words, row["output"]))
    return list(found.values())


def load_base(given: RunFiles) -> LoadedBase:
    chosen, reason = given.base.dtype, ""
    if chosen == "auto" and given.spec.quantisation == "none" and on_cpu(given) and fast_bfloat16():
        chosen, reason = "bfloat16", "bfloat16: this CPU computes it two to three times as fast; the adapter itself stays float32"
    base = load(given.base.model, Path(given.base.bases), given.spec.quantisation, given.base.device, chosen)
    if reason:
        base.reasons["dtype"] = reason
    return base


def on_cpu(given: RunFiles) -> bool:
    return given.base.device == "cpu" or (
        given.base.device == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )


def fast_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_gradients_exact(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on the CPU at the first evaluation: that path has no autograd, so
    later gradients would be wrong while the loss looks right."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def check_targets(model: torch.nn.Module, lora: LoraSpec) -> None:
    """Raises BadInput naming every target module the base does not have, and those it has."""
    if lora.targets == ALL_LINEAR:
        return
    linear = [name for name, module in model.named_modules() if hasattr(module, "in_features") and not name.endswith("lm_head")]
    unknown = [t for t in lora.targets if not any(name == t or name.endswith(f".{t}") for name in linear)]
    if unknown:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise BadInput(f"This base has no module {', '.join(unknown)} that can be trained. Choose all-linear, or from: {known}.")


def check_device(spec: TrainSpec, base: LoadedBase) -> None:
    if spec.optimizer != "adamw" and base.device != "cuda":
        raise BadInput(f"The optimizer {spec.optimizer} needs a GPU, and training runs on {base.device} here. Choose adamw.")


def with_adapter(base: LoadedBase, spec: TrainSpec, start: Path) -> PeftModel:
    """The base with the adapter to train: a fresh one, or a copy of the one in `start`."""
    torch.manual_seed(spec.seed)  # fresh weights are random
    model = get_peft_model(base.model, lora_config(spec.lora))
    if start.exists():
        found = vet(start, base.shape)
        if not found.ok:
            raise BadInput(f"The adapter to go on from does not fit this base: {' '.join(found.reasons)} Choose another, or begin fresh.")
        put_back(model, load_file(start / "adapter_model.safetensors"))
    return model


def lora_config(lora: LoraSpec) -> LoraConfig:
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", task_type="CAUSAL_LM",
        target_modules=ALL_LINEAR if lora.targets == ALL_LINEAR else list(lora.targets), use_rslora=lora.rslora, use_dora=lora.dora,
    )  # fmt: skip


def settings(spec: TrainSpec, base: LoadedBase, work: Path, train_rows: int) -> Any:
    on_cpu = base.device == "cpu"
    steps = steps_of(train_rows, spec.batch_size, spec.accumulation, spec.epochs, spec.max_steps)
    common = dict(
        output_dir=str(work), use_cpu=on_cpu, bf16=False, fp16=base.dtype == "float16", dataloader_pin_memory=not on_cpu,
        per_device_train_batch_size=spec.batch_size, gradient_accumulation_steps=spec.accumulation, optim=optimizer(spec.optimizer),
        learning_rate=spec.learning_rate, lr_scheduler_type=spec.schedule, warmup_steps=spec.warmup, weight_decay=spec.weight_decay,
        num_train_epochs=spec.epochs, max_steps=spec.max_steps or -1, seed=spec.seed, gradient_checkpointing=checkpointing(base),
        logging_steps=max(1, round(steps / LOGGED_STEPS)), logging_nan_inf_filter=False, logging_first_step=True,
        save_strategy="no", eval_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    return Objective.configs[spec.objective](**common, **Objective.options(spec.objective, spec.beta))


def optimizer(name: str) -> str:
    return {"adamw": "adamw_torch"}.get(name, name)


def checkpointing(base: LoadedBase) -> bool:
    return sum(parameter.numel() for parameter in base.model.parameters()) > CHECKPOINT_ABOVE


def choices(base: LoadedBase, given: RunFiles) -> dict[str, Any]:
    """What was resolved, and why."""
    reasons = dict(base.reasons)
    reasons["activation checkpointing"] = "on: the base has over 1 billion parameters" if checkpointing(base) else "off: the base is small"
    reasons["validation"] = "a tenth of the rows, held out by hash" if given.held_out else "the rows given for it"
    return {"device": base.device, "dtype": base.dtype, "quantisation": base.quantisation, "reasons": reasons}


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A working folder that is gone afterwards, so that a full disk leaves room for saying so."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def outcome(watch: Watch, trainer: Any) -> dict[str, Any]:
    kept = watch.kept
    return {
        "steps": trainer.state.global_step, "best_step": kept.best_step, "stopped_early": watch.early, "ended_on_request": watch.cut,
        "validation_loss_before": kept.before,
        "validation_loss": kept.best, "validation_curve": kept.validated, **used(watch),
        "train_tokens": trainer.tokens_seen, "seconds": round(watch.seconds, 1),
    }  # fmt: skip


def used(watch: Watch) -> dict[str, float]:
    """Energy, where the GPU reports it."""
    return {"energy_kwh": round(watch.energy.joules / 3.6e6, 6)} if watch.energy.joules else {}


def closing(watch: Watch, journal: Journal) -> str:
    kept = watch.kept
    change = f"validation loss {kept.before:.3f} before, {kept.best:.3f} at the kept step {kept.best_step}"
    if kept.best >= kept.before:
        journal.event("warning", kept.best_step, message=f"The adapter is no better than the base on the validation rows ({change}).")
    early = " It stopped early, since validation no longer improved." if watch.early else ""
    early = " It was ended on request before its last step." if watch.cut else early
    return f"Done: {change}.{early}"
