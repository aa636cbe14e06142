"""`python -m bench.gpu_training`: QLoRA at the shape of Llama-3-8B with random weights (speed does not depend on their values), on one GPU.

nf4 base, rank 16 on all linear layers, 300-token examples: examples and tokens a second, peak memory, and the ratio to the 1.39 examples a
second of the known 18-hour run. `--tiny` runs the same code at a tiny size on any machine. Must not know the database or the screens.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch

KNOWN = 1.39  # examples a second
LENGTH = 300


@dataclass(frozen=True, slots=True)
class Shape:
    hidden: int
    inner: int
    layers: int
    heads: int
    groups: int
    words: int


LLAMA_3_8B = Shape(4096, 14336, 32, 32, 8, 128_256)
TINY = Shape(64, 128, 2, 4, 2, 512)


def build(shape: Shape, device: str) -> Any:
    """A model of random weights, its linear layers in nf4, straight on the device and one layer at a time."""
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.words, hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.groups, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        layer = Linear4bit(
            module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
        )  # fmt: skip
        layer.weight = Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.to(device))
    model.is_loaded_in_4bit = True  # what TRL asks
    return model.requires_grad_(False)


def rows(count: int, words: int) -> list[dict[str, list[int]]]:
    """Random examples of the known length, a third of each its answer."""
    draw = torch.Generator().manual_seed(1)
    made = torch.randint(3, words, (count, LENGTH), generator=draw).tolist()
    return [{"input_ids": row, "labels": [-100] * (2 * LENGTH // 3) + row[2 * LENGTH // 3 :]} for row in made]


def measure(shape: Shape, batch: int, steps: int, checkpointing: bool) -> dict[str, Any]:
    """Speed and memory of `steps` steps after two that warm up."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback
    from trl import SFTConfig

    from ft.objectives import AnswerTrainer, Objective
    from ft.trainer import keep_gradients_exact
    from tests.trainable import byte_tokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(shape, device)
    keep_gradients_exact(model)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    train = rows(batch * (steps + 2), shape.words)
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            marks.append(time.monotonic())

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as work:
        args = SFTConfig(
            output_dir=work, use_cpu=device == "cpu", bf16=False, per_device_train_batch_size=batch, max_steps=steps + 2,
            learning_rate=1e-4, gradient_checkpointing=checkpointing, optim="adamw_torch", report_to="none", disable_tqdm=True,
            save_strategy="no", logging_strategy="no", max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False, dataloader_pin_memory=device == "cuda",
        )  # fmt: skip
        trainer = AnswerTrainer(
            model=model, args=args, train_dataset=Dataset.from_list(train), processing_class=byte_tokenizer(),
            data_collator=Objective.collator("sft", 0), callbacks=[Clock()],
        )  # fmt: skip
        trainer.encoded = train
        trainer.train()
    seconds = (marks[-1] - marks[1]) / steps
    peak = torch.cuda.max_memory_reserved() if device == "cuda" else 0
    speed = batch / seconds
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "batch": batch, "checkpointing": checkpointing,
        "examples_per_second": round(speed, 3), "tokens_per_second": round(speed * LENGTH, 1), "peak_gib": round(peak / 2**30, 2),
        "ratio_to_known": round(speed / KNOWN, 2) if shape == LLAMA_3_8B else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, on any machine")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--checkpointing", action="store_true", help="less memory, about a third slower")
    given = parser.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here. Run it on a machine that has one, or with --tiny.")
    print(json.dumps(measure(TINY if given.tiny else LLAMA_3_8B, given.batch, given.steps, given.checkpointing)))


if __name__ == "__main__":
    main()
