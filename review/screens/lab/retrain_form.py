"""The form of a run: every setting with help under it, presets that fill it, and the frozen spec it makes.

Must not know services' doings, storage or torch.
"""

from typing import Any

import gradio as gr

from ft.specs import ALL_LINEAR, OPTIMIZERS, SCHEDULES, LoraSpec, TrainSpec
from review.services.run_views import HELP, PRESETS

OBJECTIVES = [("Right answers (SFT)", "sft"), ("Better against worse (DPO)", "dpo"), ("Good and bad answers (KTO)", "kto")]
QUANTISATIONS = [("none", "none"), ("8 bits", "8bit"), ("4 bits (QLoRA)", "4bit")]
STOPS = [("validation loss", "loss"), ("ROUGE-L", "rougeL"), ("METEOR", "meteor"), ("BLEU", "bleu")]
FRESH = ("nothing: a fresh adapter", "")
WHOLE = ("max_steps", "batch_size", "accumulation", "max_length", "evaluations", "patience", "seed", "samples", "sample_tokens")
SHARES = ("learning_rate", "epochs", "warmup", "beta", "weight_decay", "checkpoint_minutes")
WORDS = ("name", "objective", "start_from", "quantisation", "optimizer", "schedule", "stop_on", "system_prompt")
SWITCHES = ("packing", "group_by_length")
LORA = ("rank", "alpha", "dropout", "targets", "dora", "rslora")
LABELS = {
    "name": "Name of the new adapter", "epochs": "Passes over the examples", "max_steps": "Stop after steps", "rank": "Rank",
    "alpha": "Alpha", "dropout": "Dropout", "learning_rate": "Learning rate", "warmup": "Warm-up", "beta": "Beta",
    "batch_size": "Examples at once", "accumulation": "Batches for each step", "max_length": "Longest example, tokens",
    "evaluations": "Looks at validation", "patience": "Stop early after", "seed": "Seed", "samples": "Answers written at each look",
    "sample_tokens": "Longest such answer, tokens", "targets": "Layers", "dora": "DoRA", "rslora": "rsLoRA", "packing": "Packing",
    "group_by_length": "Like lengths together", "objective": "Learn from", "start_from": "Go on from", "quantisation": "Hold the base in",
    "weight_decay": "Weight decay",
    "checkpoint_minutes": "Save at least every, minutes", "system_prompt": "Before every question",
    "optimizer": "Optimizer", "schedule": "Learning rate falls by", "stop_on": "Better means",
}  # fmt: skip
ELEMENTS = {"max_steps": "run-steps", "start_from": "run-from"}  # the others are called after their setting


def presets() -> gr.Radio:
    titles = [(preset.title, name) for name, preset in PRESETS.items()]
    words = " ".join(f"{preset.title}: {preset.words}" for preset in PRESETS.values())
    return gr.Radio(titles, value=None, label="Begin with", info=words, elem_id="run-preset")


def sources() -> gr.Dropdown:
    return gr.Dropdown(
        [], multiselect=True, label="Learn from the approved examples of", elem_id="run-sets",
        info="None chosen: every prompt set. The new adapter then answers the test prompts of the same sets.",
    )  # fmt: skip


def form(usual: TrainSpec) -> dict[str, Any]:
    """The spec's fields by name."""
    fields: dict[str, Any] = {}

    def add(*names: str) -> None:
        with gr.Row():
            for name in names:
                fields[name] = field(name, usual)

    with gr.Group():
        add("name", "objective", "start_from")
        add("epochs", "max_steps", "learning_rate")
        with gr.Accordion("All settings (the usual ones suit most)", open=False):
            add("rank", "alpha", "dropout", "targets")
            add("batch_size", "accumulation", "max_length", "quantisation")
            add("evaluations", "patience", "stop_on", "seed")
            add("samples", "sample_tokens", "beta", "optimizer")
            add("schedule", "warmup", "weight_decay", "checkpoint_minutes")
            add("group_by_length", "packing", "dora", "rslora")
            add("system_prompt")
    return fields


def field(name: str, usual: TrainSpec) -> Any:
    about: dict[str, Any] = {"label": LABELS[name], "info": HELP[name], "elem_id": ELEMENTS.get(name, f"run-{name.replace('_', '-')}")}
    value = values(usual)[name]
    choices: dict[str, list[Any]] = {
        "objective": OBJECTIVES, "start_from": [FRESH], "quantisation": QUANTISATIONS, "stop_on": STOPS,
        "optimizer": list(OPTIMIZERS), "schedule": list(SCHEDULES),
    }  # fmt: skip
    if name in choices:
        return gr.Dropdown(choices[name], value=value, **about)
    if isinstance(value, bool):
        return gr.Checkbox(value, **about)
    if isinstance(value, str):
        return gr.Textbox(value, **about)
    step = {"learning_rate": 1e-5, "weight_decay": 0.01, "dropout": 0.05, "warmup": 0.01, "beta": 0.05}.get(name)
    return gr.Number(value, precision=0 if isinstance(value, int) else None, step=step or 1, **about)


def values(spec: TrainSpec) -> dict[str, Any]:
    """What the fields show for a spec, by name."""
    lora, whole = spec.lora, {name: getattr(spec, name) for name in (*WHOLE, *SHARES, *WORDS, *SWITCHES)}
    layers = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    return whole | {name: getattr(lora, name) for name in LORA} | {"targets": layers}


def spec_of(given: dict[str, Any], usual: TrainSpec) -> TrainSpec:
    """One form, one frozen spec. What is wrong with it, the service says, all at once."""
    layers = str(given["targets"] or "").strip()
    chosen: str | tuple[str, ...] = layers if layers == ALL_LINEAR else tuple(filter(None, (one.strip() for one in layers.split(","))))
    lora = LoraSpec(
        rank=int(given["rank"] or 0), alpha=int(given["alpha"] or 0), dropout=float(given["dropout"] or 0), targets=chosen,
        rslora=bool(given["rslora"]), dora=bool(given["dora"]),
    )  # fmt: skip
    return usual.with_(
        lora=lora,
        **{name: int(given[name] or 0) for name in WHOLE},
        **{name: float(given[name] or 0) for name in SHARES},
        **{name: str(given[name] or "").strip() for name in WORDS},
        **{name: bool(given[name]) for name in SWITCHES},
    )
