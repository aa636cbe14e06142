"""What a beginner needs to set up a run: presets in words, help for each setting, and warnings of settings known to go wrong.

Light: standard library only. Must not know torch, the database or the screens.
"""

from dataclasses import dataclass
from typing import Any

from ft.specs import LoraSpec, TrainSpec


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings under a name that says when to take them. `changes` are those of TrainSpec; `lora` replaces all LoRA settings."""

    title: str
    words: str
    lora: LoraSpec
    changes: dict[str, Any]

    def on(self, spec: TrainSpec) -> TrainSpec:
        """The preset's settings, with what is the team's own choice kept: name, objective, what it starts from, system text, seed."""
        usual = TrainSpec(accumulation=spec.accumulation)
        return usual.with_(
            name=spec.name, objective=spec.objective, start_from=spec.start_from, system_prompt=spec.system_prompt, seed=spec.seed,
            lora=self.lora, **self.changes,
        )  # fmt: skip


PRESETS: dict[str, Preset] = {
    "quick look": Preset(
        "Quick look", "At most 30 steps: does it learn at all, and does everything work?",
        LoraSpec(rank=8, alpha=16), {"max_steps": 30, "epochs": 1.0, "evaluations": 3, "samples": 4, "patience": 0},
    ),
    "balanced": Preset("Balanced", "Three passes at rank 16: right for most teams.", LoraSpec(), {}),
    "thorough": Preset(
        "Thorough", "A larger adapter, five gentler passes, watched closely. Takes about twice as long; for 500 examples and more.",
        LoraSpec(rank=32, alpha=64, dropout=0.05), {"epochs": 5.0, "learning_rate": 1e-4, "evaluations": 12, "patience": 4, "samples": 16},
    ),
    "as in the 18-hour case": Preset(
        "As in the 18-hour case", "The settings of a known run of 18 hours on an 8-billion-parameter base: 4 bits, rank 16 on all layers, "
        "three passes, 16 examples a step.",
        LoraSpec(rank=16, alpha=32, dropout=0.05), {"quantisation": "4bit", "batch_size": 4, "accumulation": 4, "epochs": 3.0},
    ),
}  # fmt: skip

HELP = {
    "name": "What the new adapter is called everywhere, for example connectpro-v2.",
    "objective": "Right answers: learn approved answers word by word. Better against worse: learn from votes and from ideal answers which "
    "of two is better. Good and bad: learn from answers that were judged alone.",
    "beta": "For votes: how closely the model stays with what it was. 0.1 is usual; higher is more careful.",
    "start_from": "Go on from an adapter that is there, with its rank and layers, instead of from nothing.",
    "rank": "How much the adapter can hold. 8 to 32 is usual; more needs more examples.",
    "alpha": "How strongly it speaks. Twice the rank is usual.",
    "dropout": "Against learning by heart. 0 to 0.1.",
    "learning_rate": "How big each step is. 0.0001 to 0.0002 is usual for an adapter; for votes a tenth of that.",
    "schedule": "How the learning rate falls over the run: cosine is usual.",
    "weight_decay": "Pulls the adapter's weights towards zero. 0 is usual; 0.01 against learning by heart.",
    "checkpoint_minutes": "What a crash can cost at most. It also saves at each look at validation.",
    "warmup": "The share of the steps in which the learning rate rises. 0.03 to 0.1 is usual.",
    "epochs": "How often each example is seen. 1 to 5 is usual; more learns by heart.",
    "max_steps": "0: by passes. A few make a quick trial.",
    "batch_size": "Examples computed together. Lower it if memory runs out.",
    "accumulation": "Batches that make one step: a step sees this times as many examples, at no cost in memory.",
    "max_length": "In tokens, question and answer together. Longer examples are left out, never cut.",
    "quantisation": "The base in 8 or 4 bits: 4 bits need about a third of the memory and cost a little quality.",
    "optimizer": "adamw is right. The 8-bit ones save memory on a GPU; paged moves to main memory what does not fit.",
    "packing": "Several short examples in one row: faster where lengths differ much. Fewer, larger steps.",
    "group_by_length": "Examples of like length together: two to three times as fast, with the same result but for the order.",
    "targets": "all-linear, or names of layers such as q_proj, v_proj.",
    "evaluations": "How often the run stops to look at the validation examples.",
    "stop_on": "What counts as better: validation loss, or a score of the answers it writes.",
    "patience": "Looks without progress before the run ends early; 0: never.",
    "samples": "Validation prompts it answers at each look, to be scored and read. 0: none.",
    "sample_tokens": "How long such an answer may be.",
    "seed": "The same seed, settings and data give the same run.",
    "dora": "Often a little better, and slower to train. It answers beside others like any adapter; it cannot be blended.",
    "rslora": "Steadier at ranks above 32.",
    "system_prompt": "What stands before every question, in training and in answering. Empty: the usual one.",
}


def warnings(spec: TrainSpec, rows: int = 0) -> list[str]:
    """What is allowed and known to go wrong, each with what to do. `rows`: how many there are to train on; 0: not known."""
    lora, rate = spec.lora, spec.learning_rate
    preference = spec.objective != "sft"
    passes = spec.epochs if not spec.max_steps else spec.max_steps * spec.batch_size * spec.accumulation / max(rows, 1)
    steps = spec.max_steps or spec.epochs * rows / (spec.batch_size * spec.accumulation)
    checks = [
        (not preference and rate < 5e-5, f"Learning rate {rate:g} is one for training the whole model: an adapter hardly moves. 0.0001 to "
         "0.0002 is usual."),
        (not preference and rate > 1e-3, f"Learning rate {rate:g} is high: training may fall apart. 0.0001 to 0.0002 is usual."),
        (preference and rate > 5e-5, f"Learning rate {rate:g} is high for learning from votes: the model may forget how to write. 0.000005 "
         "to 0.00005 is usual."),
        (lora.alpha < lora.rank and not lora.rslora, f"Alpha {lora.alpha} is below the rank {lora.rank}: the adapter speaks softly. Twice "
         "the rank is usual."),
        (lora.alpha > 2 * lora.rank and not lora.rslora, f"Alpha {lora.alpha} is more than twice the rank {lora.rank}: as if the learning "
         "rate were higher. Lower one of them."),
        (lora.rank > 64 and not lora.rslora, f"Rank {lora.rank} without rsLoRA learns little more than 32. Switch rsLoRA on, or lower it."),
        (bool(rows) and rows < 100 and lora.rank > 32, f"Rank {lora.rank} for {rows} examples learns them by heart. 8 is enough."),
        (bool(rows) and rows < 200 and passes > 5, f"About {passes:.0f} passes over {rows} examples learn them by heart. 2 or 3 do."),
        (spec.patience == 0 and passes > 3, "Stopping early is off: nothing ends the run when it learns by heart. The best step is "
         "kept all the same."),
        (bool(rows) and 0 < steps < 10, f"The run has about {max(1, round(steps))} steps: hardly anything is learnt. Lower the batch or "
         "its accumulation, or take more passes."),
        (spec.batch_size * spec.accumulation > 64 and bool(rows) and rows < 2000, f"{spec.batch_size * spec.accumulation} examples a step "
         "are many for so little data. 8 to 16 are usual."),
        (spec.warmup > 0.3, f"The learning rate rises over {spec.warmup:.0%} of the run. 3 to 10 % is usual."),
        (spec.max_length < 128, f"At {spec.max_length} tokens most examples are too long and are left out. 512 is usual."),
    ]  # fmt: skip
    return [words for wrong, words in checks if wrong]
