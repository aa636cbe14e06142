"""Trains one adapter by TRL's SFTTrainer: `fit` reads the run directory, trains, keeps the best step, saves the adapter or nothing.

The loss is on the answer and its end-of-turn token only, and rows are tokenised by `ft.template`, as they are for answering.
Torch side. Must not know the database, the screens or reviewers.
"""

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ft.errors import BadInput, Unavailable
from ft.journal import Journal, write_whole
from ft.losses import IGNORED, AnswerTrainer
from ft.models import LoadedBase, load
from ft.runs import Row, RunFiles, rows
from ft.specs import ALL_LINEAR, LoraSpec, TrainSpec
from ft.template import encode, encode_answer, messages_for, template_hash
from ft.watch import Watch

VALIDATION_ROWS = 256  # more cost time at every validation and change the curve little
LOGGED_STEPS = 500  # about so many points make a curve
CHECKPOINT_ABOVE = 1_000_000_000  # parameters
Tokens = list[dict[str, list[int]]]
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "safetensors")


def fit(given: RunFiles, journal: Journal, should_stop: Callable[[], bool]) -> str | None:
    """Train what spec.json asks for. Returns the closing sentence, or None when it was stopped. Raises UserError."""
    began = time.time()
    spec = given.spec
    if problems := spec.problems():
        raise BadInput(" ".join(problems))
    base = load_base(given)
    keep_gradients_exact(base.model)
    check_targets(base.model, spec.lora)
    if should_stop():
        return None
    train, validation, left_out = read_rows(given, base, journal)
    with scratch(journal.folder / "work") as work:
        batches = [collator(base)(validation[i : i + spec.batch_size]) for i in range(0, len(validation), spec.batch_size)]
        watch = Watch(journal, batches, spec.evaluations, spec.patience, spec.learning_rate, should_stop)
        trainer = AnswerTrainer(
            model=base.model, args=settings(spec, base, work, len(train)), train_dataset=Dataset.from_list(train),
            processing_class=base.tokenizer, data_collator=collator(base), peft_config=lora_config(spec.lora), callbacks=[watch],
        )  # fmt: skip
        journal.event("start", train_rows=len(train), validation_rows=len(validation), left_out=left_out, **choices(base, given))
        watch.count_tokens = lambda: trainer.tokens_seen
        trainer.train()
        if watch.stopped or should_stop():
            return None
        watch.restore_best(trainer.model)
        saved = save_adapter(trainer.model, work / "adapter", base_name(base), base.shape.base_hash)
        facts = {"rows": {"train": len(train), "validation": len(validation), "left_out": left_out, "held_out": given.held_out}}
        write_record(journal.folder, given, base, watch, trainer.state.global_step, time.time() - began, facts | saved)
        (work / "adapter").rename(journal.folder / "adapter")
        sync(journal.folder)
    journal.event("saved", watch.best_step, **saved)
    return closing(watch, journal)


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


def encode_row(tokenizer: Any, row: Row, system: str) -> dict[str, list[int]]:
    """input_ids and labels of one row: the prompt as it is encoded for answering, then the answer and its end-of-turn token."""
    prompt = encode(tokenizer, messages_for(row["instruction"], row.get("input", ""), system))
    answer = encode_answer(tokenizer, row["output"])
    return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}


def read_rows(given: RunFiles, base: LoadedBase, journal: Journal) -> tuple[Tokens, Tokens, int]:
    """(train, validation, rows left out). A row over the maximum length is left out and told: a cut answer would teach to stop short."""
    spec = given.spec
    limit = min(spec.max_length, base.context_length)
    kept: dict[str, Tokens] = {}
    longest, left_out = 0, 0
    for name in ("train", "validation"):
        encoded = [encode_row(base.tokenizer, row, spec.system_prompt) for row in rows(journal.folder, name)]
        longest = max([longest, *(len(row["input_ids"]) for row in encoded)])
        kept[name] = [row for row in encoded if len(row["input_ids"]) <= limit]
        left_out += len(encoded) - len(kept[name])
    remedy = f"The longest has {longest} tokens: raise max_length (now {limit}) to take them in."
    if not kept["train"] or not kept["validation"]:
        raise BadInput(f"No row for {'training' if not kept['train'] else 'validation'} fits into {limit} tokens. {remedy}")
    if left_out:
        journal.event("warning", message=f"{left_out} rows are longer than {limit} tokens and were left out. {remedy}")
    return kept["train"], kept["validation"][:VALIDATION_ROWS], left_out


def collator(base: LoadedBase) -> DataCollatorForLanguageModeling:
    return DataCollatorForLanguageModeling(pad_token_id=base.pad_token)


def lora_config(lora: LoraSpec) -> LoraConfig:
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", task_type="CAUSAL_LM",
        target_modules=ALL_LINEAR if lora.targets == ALL_LINEAR else list(lora.targets), use_rslora=lora.rslora, use_dora=lora.dora,
    )  # fmt: skip


def settings(spec: TrainSpec, base: LoadedBase, work: Path, train_rows: int) -> SFTConfig:
    on_cpu = base.device == "cpu"
    steps = spec.max_steps or spec.epochs * train_rows / (spec.batch_size * spec.accumulation)
    return SFTConfig(
        output_dir=str(work), use_cpu=on_cpu, bf16=False, fp16=base.dtype == "float16", dataloader_pin_memory=not on_cpu,
        per_device_train_batch_size=spec.batch_size, gradient_accumulation_steps=spec.accumulation,
        learning_rate=spec.learning_rate, lr_scheduler_type=spec.schedule, warmup_steps=spec.warmup, weight_decay=spec.weight_decay,
        num_train_epochs=spec.epochs, max_steps=spec.max_steps or -1, seed=spec.seed, train_sampling_strategy="group_by_length",
        max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, gradient_checkpointing=checkpointing(base),
        logging_steps=max(1, round(steps / LOGGED_STEPS)), logging_nan_inf_filter=False, logging_first_step=True,
        save_strategy="no", eval_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip


def checkpointing(base: LoadedBase) -> bool:
    return sum(parameter.numel() for parameter in base.model.parameters()) > CHECKPOINT_ABOVE


def choices(base: LoadedBase, given: RunFiles) -> dict[str, Any]:
    """What was resolved, and why."""
    reasons = dict(base.reasons)
    reasons["activation checkpointing"] = "on: the base has over 1 billion parameters" if checkpointing(base) else "off: the base is small"
    reasons["validation"] = "a tenth of the rows, held out by hash" if given.held_out else "the rows given for it"
    return {"device": base.device, "dtype": base.dtype, "quantisation": base.quantisation, "reasons": reasons}


def base_name(base: LoadedBase) -> str:
    """The base's name as an adapter may carry it: a hub id or a folder's name, never a path of this machine."""
    return Path(base.shape.name).name if Path(base.shape.name).is_absolute() or base.shape.name.startswith((".", "~")) else base.shape.name


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A working folder that is gone afterwards, so that a full disk leaves room for saying so."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_adapter(model: Any, folder: Path, name: str, base_hash: str) -> dict[str, Any]:
    """Write adapter_config.json and adapter_model.safetensors, synced to disk. Returns their facts.

    Only what an adapter needs is written: no bias, no other modules, no path. Half precision is exact to 1 in 2,000 and half the size.
    The metadata has one key, since the library writes several in random order and equal runs would differ.
    """
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in get_peft_model_state_dict(model).items()}
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise BadInput("The adapter's weights are not finite numbers. Lower the learning rate and start again.")
    dtype = torch.float16 if all(float(value.abs().max()) < 6e4 for value in tensors.values()) else torch.float32
    config = model.peft_config["default"]
    folder.mkdir(mode=0o700)
    write_whole(folder / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": name, "r": config.r, "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout, "bias": "none", "target_modules": sorted(config.target_modules),
        "use_rslora": config.use_rslora, "use_dora": config.use_dora, "inference_mode": True, "fan_in_fan_out": False,
    })  # fmt: skip
    weights = folder / "adapter_model.safetensors"
    try:
        save_file({key: value.to(dtype) for key, value in tensors.items()}, weights, metadata={"base_hash": base_hash})
        sync(weights)
        sync(folder)
    except Exception as error:
        raise Unavailable(f"The adapter could not be saved ({error}). Make room on the disk, then start the run again.") from error
    kept = str(dtype).removeprefix("torch.")
    return {"adapter_bytes": weights.stat().st_size, "adapter_dtype": kept, "targets": sorted(config.target_modules)}


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(
    folder: Path, given: RunFiles, base: LoadedBase, watch: Watch, steps: int, seconds: float, facts: Mapping[str, Any]
) -> None:  # fmt: skip
    """record.json: everything resolved, enough to tell this result from any other."""
    write_whole(folder / "record.json", {
        "run_id": given.run_id, "spec": given.spec.to_dict(), "spec_hash": given.spec.hash, "data_hash": given.data_hash,
        "base": base_name(base), "base_hash": base.shape.base_hash, "template_hash": template_hash(base.tokenizer), **choices(base, given),
        "steps": steps, "best_step": watch.best_step, "stopped_early": watch.early, "validation_loss_before": watch.before,
        "validation_loss": watch.best, "train_tokens": watch.tokens, "seconds": round(seconds, 1), "versions": versions(), **facts,
    })  # fmt: skip


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def closing(watch: Watch, journal: Journal) -> str:
    change = f"validation loss {watch.before:.3f} before, {watch.best:.3f} at the kept step {watch.best_step}"
    if watch.best >= watch.before:
        journal.event("warning", watch.best_step, message=f"The adapter is no better than the base on the validation rows ({change}).")
    early = " It stopped early, since validation no longer improved." if watch.early else ""
    return f"Done: {change}.{early}"
