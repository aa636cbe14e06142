"""Training speed on the embedded base: real tokens a second, padding left out, against TRL with its defaults and at its best.

All in one process, one after the other, on the same rows: answers to the demo's tickets. Must not know the database or the screens.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.row import Row

ROWS, BATCH = 32, 4
QUIET: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no",
    "per_device_train_batch_size": BATCH, "num_train_epochs": 1, "learning_rate": 2e-4, "dataloader_pin_memory": False,
}  # fmt: skip


def rows() -> list[Row]:
    return compare(examples(ROWS))


def examples(count: int) -> list[dict[str, str]]:
    from demo.connectpro import read, splits

    wanted = set(splits()["train"])
    learned = [ticket.row() for ticket in read() if ticket.id in wanted]
    return [learned[at % len(learned)] for at in range(count)]


def compare(given: Sequence[dict[str, str]]) -> list[Row]:
    from ft.embedded import fetch_embedded

    base = fetch_embedded(Path(__file__).parents[1] / ".cache" / "embedded")
    best_of_trl = {
        "group_by_length, bf16": trl(base, given, dtype="bfloat16", train_sampling_strategy="group_by_length"),
        "packing, bf16": trl(base, given, dtype="bfloat16", packing=True, max_length=512),
    }
    defaults, ours = trl(base, given), mine(base, given)
    print("TRL's defaults:", round(defaults), {name: round(speed) for name, speed in best_of_trl.items()}, file=sys.stderr)
    best = max(best_of_trl, key=lambda name: best_of_trl[name])
    packed, named = mine(base, given, packing=True), f"TRL with {best}"
    return [
        Row("training, real tokens/s", ours, defaults, "TRL's defaults", "tokens/s", "higher"),
        Row("training, real tokens/s", ours, best_of_trl[best], named, "tokens/s", "higher"),
        Row("training packed, real tokens/s", packed, best_of_trl[best], named, "tokens/s", "higher"),
    ]


def mine(base: Path, given: Sequence[dict[str, str]], packing: bool = False) -> float:
    """Our trainer as a run has it: rows of like length together, the head for answers only, a bf16 base where the CPU computes it."""
    from datasets import Dataset

    from ft.encoding import encode_row, length, pack
    from ft.models import load
    from ft.objectives import AnswerTrainer, Objective
    from ft.specs import TrainSpec
    from ft.trainer import fast_bfloat16, settings, with_adapter

    loaded = load(str(base), base.parent, "none", "cpu", "bfloat16" if fast_bfloat16() else "float32")
    encoded = [encode_row(loaded.tokenizer, row, "") for row in given]
    train = pack(encoded, 512) if packing else encoded
    spec = TrainSpec(name="bench", epochs=1, batch_size=BATCH // 2 if packing else BATCH, accumulation=1)
    with tempfile.TemporaryDirectory() as work:
        trainer = AnswerTrainer(
            model=with_adapter(loaded, spec, Path(work) / "none"), args=settings(spec, loaded, Path(work), len(train)),
            train_dataset=Dataset.from_list(train), processing_class=loaded.tokenizer,
            data_collator=Objective.collator("sft", loaded.pad_token, packing),
        )  # fmt: skip
        trainer.encoded = train
        return sum(map(length, encoded)) / timed(trainer)


def trl(base: Path, given: Sequence[dict[str, str]], dtype: str = "float32", **more: Any) -> float:
    """TRL's own trainer on prompt and completion, tokenised by itself."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    chats = [
        {"prompt": [{"role": "system", "content": "You help."}, {"role": "user", "content": f"{row['instruction']}\n\n{row['input']}"}],
         "completion": [{"role": "assistant", "content": row["output"]}]}
        for row in given
    ]  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as work:
        trainer: Any = SFTTrainer(
            model, args=SFTConfig(output_dir=work, **QUIET, **more), train_dataset=Dataset.from_list(chats), processing_class=tokenizer,
            peft_config=lora,
        )  # fmt: skip
        real = sum(len(row["input_ids"]) for row in trainer.train_dataset)
        return real / timed(trainer)


def timed(trainer: Any) -> float:
    began = time.monotonic()
    trainer.train()
    return time.monotonic() - began
