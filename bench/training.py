"""Training speed on the embedded base: real tokens a second, padding left out, against TRL with its defaults and at its best.

All in one process, one after the other, on the same chats: answers to the demo's tickets, of uneven length as real ones are. What was
tried is printed beside the ratios. Must not know the database or the screens.
"""

import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.row import Row

Speed = tuple[float, float]  # real tokens a second, by the clock and by the processor
ROWS, BATCH = 32, 8  # TRL's own batch
GROUPED, PACKED = "like lengths together", "packing"
QUIET: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no",
    "per_device_train_batch_size": BATCH, "num_train_epochs": 1, "learning_rate": 2e-4, "dataloader_pin_memory": False,
}  # fmt: skip


def rows() -> list[Row]:
    return compare(examples(ROWS))


def examples(count: int) -> list[dict[str, str]]:
    """Tickets with the first sentence of an answer, or all of one or two answers."""
    from demo.connectpro import read, splits

    wanted, draw = set(splits()["train"]), random.Random(7)
    learned = [ticket.row() for ticket in read() if ticket.id in wanted]
    return [{**learned[at % len(learned)], "output": _answer(learned, draw)} for at in range(count)]


def _answer(learned: Sequence[dict[str, str]], draw: random.Random) -> str:
    texts = [draw.choice(learned)["output"] for _ in range(draw.choice((1, 1, 1, 1, 1, 2)))]
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(texts))
    return " ".join(sentences if len(texts) > 1 else sentences[: draw.randint(1, len(sentences))])


def compare(given: Sequence[dict[str, str]]) -> list[Row]:
    from ft.embedded import fetch_embedded
    from ft.trainer import fast_bfloat16

    base = fetch_embedded(Path(__file__).parents[1] / ".cache" / "embedded")
    trl(base, given[:BATCH])  # warms up
    fast = "bfloat16" if fast_bfloat16() else "float32"
    best_of_trl = {
        f"TRL, {GROUPED}, {fast}": lambda: trl(base, given, fast, train_sampling_strategy="group_by_length"),
        f"TRL, {PACKED}, {fast}": lambda: trl(base, given, fast, packing=True, max_length=512, per_device_train_batch_size=BATCH // 2),
    }
    ours = {
        f"ours, {GROUPED}, {fast}": lambda: mine(base, given, fast),
        f"ours, {PACKED}, {fast}": lambda: mine(base, given, fast, packing=True),
    }
    defaults = {"TRL's defaults": lambda: trl(base, given)}
    speeds = tried([*best_of_trl.items(), *ours.items(), *defaults.items()])
    named, (grouped, packed) = max(best_of_trl, key=speeds.__getitem__), (speeds[name] for name in ours)
    return [
        Row("training, real tokens/s", grouped, speeds["TRL's defaults"], "TRL's defaults", "tokens/s", "higher"),
        Row("training, real tokens/s", grouped, speeds[named], named, "tokens/s", "higher"),
        Row("training packed, real tokens/s", packed, speeds[named], named, "tokens/s", "higher"),
    ]


def tried(ways: Sequence[tuple[str, Callable[[], Speed]]]) -> dict[str, float]:
    """Real tokens a second of each, told as it goes with what it was a second of the processor's time, which others at work change less."""
    speeds: dict[str, float] = {}
    for name, way in ways:
        speeds[name], by_processor = way()
        load = os.getloadavg()[0]
        print(
            f"{name}: {speeds[name]:.0f} real tokens/s, {by_processor:.0f} a processor second (load {load:.1f})",
            file=sys.stderr,
            flush=True,
        )
    return speeds


def mine(base: Path, given: Sequence[dict[str, str]], dtype: str, packing: bool = False) -> Speed:
    """Our trainer as a run has it: rows of like length together, the head for answers only."""
    from datasets import Dataset

    from ft.encoding import encode_row, length, pack
    from ft.models import load
    from ft.objectives import AnswerTrainer, Objective
    from ft.specs import TrainSpec
    from ft.trainer import settings, with_adapter

    loaded = load(str(base), base.parent, "none", "cpu", dtype)
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
        return timed(trainer, sum(map(length, encoded)))


def trl(base: Path, given: Sequence[dict[str, str]], dtype: str = "float32", **more: Any) -> Speed:
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
            model, args=SFTConfig(output_dir=work, **{**QUIET, **more}), train_dataset=Dataset.from_list(chats), processing_class=tokenizer,
            peft_config=lora,
        )  # fmt: skip
        real = sum(len(row["input_ids"]) for row in trainer.train_dataset)
        return timed(trainer, real)


def timed(trainer: Any, tokens: int) -> Speed:
    began, worked = time.monotonic(), time.process_time()
    trainer.train()
    return tokens / (time.monotonic() - began), tokens / (time.process_time() - worked)
