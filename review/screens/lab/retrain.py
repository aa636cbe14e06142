"""The Retrain tab: start a run on the approved examples, watch its curve, cancel it, see what came of it.

Reads the run's copy in the database through the service; must not know run directories, processes or torch.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.specs import ALL_LINEAR, LoraSpec, TrainSpec
from review.screens.drawing import curve
from review.screens.lab import examples
from review.screens.lab.room import Room
from review.screens.parts import (
    QUICK,
    SLOW,
    actions,
    acts,
    badge,
    block,
    empty_state,
    escape,
    heading,
    minutes,
    note,
    progress_bar,
    table,
    when,
)

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.training import RunView

TONES = {"queued": "plain", "running": "warn", "finished": "good", "failed": "bad", "cancelled": "plain", "lost": "bad"}
AFTER = {
    "": "Next, its adapter is registered by itself.",
    "registered": "The adapter is registered and is answering the test prompts.",
    "answered": "The adapter has answered the test prompts and is being scored.",
    "scored": "The adapter is scored and on the board. Put it in use under Adapters, or against another arm under Studies.",
}
LOW_IS_GOOD = "Loss: how much the right answers surprise the model. Lower is better; if validation climbs while training falls, stop."


def run_html(run: "RunView | None") -> str:
    """One run: state, progress, curve, warnings, and what comes next."""
    if run is None:
        return empty_state("No run yet.", "Approve examples above, then start one.")
    words = f"step {run.step} of {run.steps}" if run.steps else "waiting for the first step"
    if run.seconds_left is not None:
        words += f" · {minutes(run.seconds_left)} left"
    done = (run.steps or 1) if run.status == "finished" else run.step
    parts = [
        f'<div class="tb-run-head"><b dir="auto">{escape(run.name)}</b> {badge(run.status, TONES.get(run.status, "plain"))}'
        f'<span class="tb-muted tb-small">{escape(run.id)} · {escape(when(run.started_at or run.created_at))}</span></div>',
        progress_bar(done, run.steps, words, label="Training"),
    ]
    if run.message:
        parts.append(f'<p dir="auto">{escape(run.message)}</p>')
    parts += [f'<p class="tb-warn-ink">{escape(words)}</p>' for words in run.warnings]
    lines = [("training", run.curve), ("validation", run.validation)]
    parts.append(curve(lines, LOW_IS_GOOD if run.curve or run.validation else "The curve appears with the first steps."))
    if run.status == "finished":
        made = f'Adapter <b dir="auto">{escape(run.adapter)}</b>. ' if run.adapter else ""
        parts.append(f"<p>{made}{escape(AFTER.get(run.after, ''))}</p>")
    return "".join(parts)


def runs_html(runs: "list[RunView]") -> str:
    if not runs:
        return ""
    rows = [
        [escape(run.id), f'<span dir="auto">{escape(run.name)}</span>', badge(run.status, TONES.get(run.status, "plain")),
         f"{run.step} of {run.steps}" if run.steps else "—", escape(run.adapter or "—"), escape(when(run.created_at))]
        for run in runs
    ]  # fmt: skip
    return table(["Run", "Name", "State", "Steps", "Adapter", "Started"], rows, "All runs, newest first")


def build(house: "House") -> Room:
    picking = examples.build(house)
    heading("Start a run", "It trains in a process of its own: you may close this page, and restarting the app does not stop it.")
    usual = house.training.defaults()
    fields = form(usual)
    with actions():
        start = gr.Button("Start training on the approved examples", variant="primary", elem_id="run-start")
        check = gr.Button("Check first", elem_id="run-check")
    verdict = block(elem_id="run-verdict", min_height=24)
    heading("Watch a run")
    with actions():
        chosen = gr.Dropdown([], label="Run", elem_id="run-chosen", scale=3)
        cancel = gr.Button("Cancel this run", variant="stop", elem_id="run-cancel")
    shown = block(elem_id="run-shown", min_height=100)
    with gr.Accordion("Log", open=False):
        log = block(elem_id="run-log", min_height=60)
    listing = block(elem_id="run-list")

    watching = [chosen, shown, log, listing]

    def watch(picked: str | None = None) -> list[Any]:
        runs = house.training.runs()
        names = [run.id for run in runs]
        picked = picked if picked in names else (names[0] if names else None)
        titled = [(f"{run.name} · {run.status} · {run.id}", run.id) for run in runs]
        return [gr.Dropdown(choices=titled, value=picked), *one(picked), runs_html(runs)]

    def one(picked: str | None) -> list[Any]:
        run = house.training.run(picked) if picked else None
        tail = f'<pre class="tb-plain tb-small">{escape(run.log or "Nothing yet.")}</pre>' if run else ""
        return [run_html(run), tail]

    @acts(house, "engineer", "admin")
    def choose_run(person: "UserView", picked: str | None) -> list[Any]:
        return one(picked)

    @acts(house, "engineer", "admin")
    def check_run(person: "UserView", *given: Any) -> str:
        found = house.training.check(house.library.snapshot(person.id).id, spec_of(dict(zip(fields, given, strict=True)), usual))
        said = [f'<p class="tb-bad-ink">{escape(one)}</p>' for one in found.problems]
        said += [f'<p class="tb-warn-ink">{escape(one)}</p>' for one in found.warnings] + [f"<p>{escape(one)}</p>" for one in found.notes]
        return "".join(said) or "<p>Nothing stands against it.</p>"

    @acts(house, "engineer", "admin")
    def start_run(person: "UserView", *given: Any) -> list[Any]:
        spec = spec_of(dict(zip(fields, given, strict=True)), usual)
        run_id = house.training.start(house.library.snapshot(person.id).id, spec, person.id)
        note("The run is queued and starts by itself within seconds.")
        return ["", *watch(run_id)]

    @acts(house, "engineer", "admin")
    def cancel_run(person: "UserView", picked: str | None) -> list[Any]:
        if picked:
            house.training.cancel(picked, person.id)
            note("The run was asked to stop. What it has learnt so far is not registered.")
        return watch(picked)

    chosen.input(choose_run, [chosen], [shown, log], **QUICK)
    check.click(check_run, list(fields.values()), [verdict], **SLOW)
    start.click(start_run, list(fields.values()), [verdict, *watching], **SLOW)
    cancel.click(cancel_run, [chosen], watching, **SLOW)

    def live(person: "UserView", picked: str | None) -> list[Any]:
        return [*one(picked), runs_html(house.training.runs())]

    return Room([*picking.outputs, *watching], lambda person: [*picking.show(person), *watch()], [shown, log, listing], live, [chosen])


def form(usual: TrainSpec) -> dict[str, Any]:
    """The spec's fields by name."""
    lora, whole = usual.lora, {"precision": 0}
    fields: dict[str, Any] = {}
    with gr.Group():
        with gr.Row():
            fields["name"] = gr.Textbox(label="Name of the new adapter", info="for example connectpro-v2", elem_id="run-name")
            fields["epochs"] = number(usual.epochs, "Passes over the examples", "1 to 5 is usual.", elem_id="run-epochs")
            fields["max_steps"] = number(
                usual.max_steps, "Stop after steps", "0: by passes. Few make a quick trial.", elem_id="run-steps", **whole
            )
        with gr.Accordion("LoRA and training settings (the defaults suit most)", open=False):
            with gr.Row():
                fields["rank"] = number(lora.rank, "Rank", "How much the adapter can hold. 8 to 32 is usual.", **whole)
                fields["alpha"] = number(lora.alpha, "Alpha", "How strongly it speaks. Twice the rank is usual.", **whole)
                fields["dropout"] = number(lora.dropout, "Dropout", "Against learning by heart. 0 to 0.1.", step=0.05)
                fields["learning_rate"] = number(usual.learning_rate, "Learning rate", "0.0001 to 0.0002 is usual.", step=1e-5)
            with gr.Row():
                fields["batch_size"] = number(usual.batch_size, "Examples at once", "Lower it if memory runs out.", **whole)
                fields["accumulation"] = number(usual.accumulation, "Batches for each step", "Times the one before.", **whole)
                fields["max_length"] = number(usual.max_length, "Longest example, tokens", "Longer ones are cut or left out.", **whole)
                fields["quantisation"] = gr.Dropdown(["none", "8bit", "4bit"], value=usual.quantisation, label="Quantise the base",
                                                     info="4bit (QLoRA) needs far less memory.")  # fmt: skip
            with gr.Row():
                fields["targets"] = gr.Textbox(ALL_LINEAR, label="Layers", info="all-linear, or names such as q_proj, v_proj.")
                fields["evaluations"] = number(usual.evaluations, "Validations in the run", "Points on the validation curve.", **whole)
                fields["patience"] = number(usual.patience, "Stop early after", "Validations without progress; 0: never.", **whole)
                fields["seed"] = number(usual.seed, "Seed", "The same seed and data give the same run.", **whole)
            with gr.Row():
                fields["dora"] = gr.Checkbox(lora.dora, label="DoRA", info="Often a little better, slower; answers apart from other arms.")
                fields["rslora"] = gr.Checkbox(lora.rslora, label="rsLoRA", info="Steadier at ranks above 32.")
    return fields


def number(value: float, label: str, info: str, **more: Any) -> gr.Number:
    return gr.Number(value, label=label, info=info, **more)


def spec_of(given: dict[str, Any], usual: TrainSpec) -> TrainSpec:
    """One form, one frozen spec. What is wrong with it, the service says, all at once."""
    layers = str(given["targets"] or "").strip()
    chosen: str | tuple[str, ...] = layers if layers == ALL_LINEAR else tuple(filter(None, (one.strip() for one in layers.split(","))))
    lora = LoraSpec(
        rank=int(given["rank"] or 0), alpha=int(given["alpha"] or 0), dropout=float(given["dropout"] or 0), targets=chosen,
        rslora=bool(given["rslora"]), dora=bool(given["dora"]),
    )  # fmt: skip
    whole = ("max_steps", "batch_size", "accumulation", "max_length", "evaluations", "patience", "seed")
    name, quantisation = str(given["name"] or "").strip(), str(given["quantisation"])
    shares = {field: float(given[field] or 0) for field in ("learning_rate", "epochs")}
    return usual.with_(name=name, lora=lora, quantisation=quantisation, **shares, **{field: int(given[field] or 0) for field in whole})
