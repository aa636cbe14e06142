"""The Compare tab: runs side by side, and sweeps: a small grid queued together, the best on validation proposed.

Must not know run directories, torch or storage.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.drawing import curve
from review.screens.evidence import flow
from review.screens.lab.room import Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, count, empty_state, escape, heading, note, table, when

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.run_views import RunView
    from review.services.sweeps import Plan, SweepView

MOST = 4  # runs side by side
TONES = {"finished": "good", "failed": "bad", "lost": "bad", "cancelled": "plain"}


def name_of(view: "RunView") -> str:
    return f"{view.name} · {view.id}"


def compared_html(views: "Sequence[RunView]", differing: "Sequence[tuple[str, list[Any]]]", scores: "dict[str, list[str]]") -> str:
    """What differs, how it went, what it cost."""
    if len(views) < 2:
        return empty_state("Choose two runs or more.", "Their settings, curves, scores and cost then stand side by side.")
    titles = [view.name for view in views]
    settings = [[escape(name.replace("_", " ")), *(escape(_told(value)) for value in values)] for name, values in differing]
    drawn = table(["Setting", *titles], settings, "Settings that differ") if settings else "<p>They have the same settings and data.</p>"
    went = [
        ["Status", *(badge(view.status, TONES.get(view.status, "plain")) for view in views)],
        ["Steps", *(f"{view.step} of {view.steps}" for view in views)],
        ["Best validation loss", *(_lowest(view) for view in views)],
        ["Duration", *(_duration(view) for view in views)],
        *([escape(name), *values] for name, values in scores.items()),
    ]
    lines = [(view.name[:24], list(view.validation)) for view in views[:3] if view.validation]
    shown = curve(lines, "Validation loss of the chosen runs over their steps") if lines else ""
    return flow(drawn, table(["Outcome", *titles], went, "How it went"), shown)


def _told(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "—" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def _lowest(view: "RunView") -> str:
    return f"{min(loss for _, loss in view.validation):.3f}" if view.validation else "—"


def _duration(view: "RunView") -> str:
    if not view.started_at or not view.ended_at:
        return "—"
    seconds = view.ended_at - view.started_at
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def sweeps_html(sweeps: "Sequence[SweepView]") -> str:
    if not sweeps:
        return empty_state("No sweep yet.", "Give two values or more above: every combination is trained in turn.")
    return flow(*(_sweep_html(sweep) for sweep in sweeps))


def _sweep_html(sweep: "SweepView") -> str:
    rows = [
        [
            f"{run.settings['rank']:g}",
            f"{run.settings['learning_rate']:g}",
            f"{run.settings['epochs']:g}",
            badge(run.status, TONES.get(run.status, "plain")) + (" " + badge("best", "good") if run.run == sweep.best else ""),
            "—" if run.validation is None else f"{run.validation:.3f}",
            "goes on" if run.run == sweep.chosen else "—",
        ]
        for run in sweep.runs
    ]
    words = f'<p class="tb-muted">Started {escape(when(sweep.created_at))}: {escape(sweep.budget)}</p>'
    title = f'<h3 class="tb-h2">Sweep {sweep.id}: <span dir="auto">{escape(sweep.name)}</span></h3>'
    headings = ["Rank", "Learning rate", "Epochs", "Status", "Validation loss", "Chosen"]
    return f"<section>{title}{words}{table(headings, rows, f'Runs of sweep {sweep.id}', numeric=(0, 1, 2, 4))}</section>"


def numbers(text: str, what: str) -> list[float]:
    """Numbers between commas or spaces. Raises BadInput."""
    found = []
    for word in text.replace(",", " ").split():
        try:
            found.append(float(word))
        except ValueError as error:
            raise BadInput(f"{what}: {word!r} is not a number. Write numbers with a comma between them, such as 8, 16.") from error
    return found


def build(house: "House") -> Room:
    heading("Runs side by side", "Settings that differ, curves, scores and cost.")
    chosen = gr.Dropdown([], label=f"Runs (up to {MOST})", multiselect=True, max_choices=MOST, elem_id="compare-runs")
    shown = block(compared_html([], [], {}), elem_id="compare-shown", min_height=80)
    sweeping = _sweeping(house)

    @acts(house, "engineer", "admin")
    def compare(person: "UserView", picked: list[str] | None) -> str:
        return compared(house, [label.rsplit(" · ", 1)[-1] for label in picked or []])

    chosen.input(compare, [chosen], [shown], **QUICK)

    def show(person: "UserView") -> list[Any]:
        names = [name_of(view) for view in house.training.runs()]
        return [gr.Dropdown(choices=names), *sweeping.show(person)]

    return Room([chosen, *sweeping.outputs], show, sweeping.moving, sweeping.live)


def compared(house: "House", ids: list[str]) -> str:
    from review.services.sweeps import differences

    views = [house.training.run(run_id) for run_id in ids[:MOST]]
    return compared_html(views, differences(views) if len(views) > 1 else [], scores_of(house, views))


def scores_of(house: "House", views: "Sequence[RunView]") -> dict[str, list[str]]:
    """Set and metric -> a value for each run, of the sets on which any of them is scored."""
    found: dict[str, list[str]] = {}
    for link in house.boards.boards():
        board = house.boards.board(link.set_name, link.split)
        rows = [board.row(view.adapter) if view.adapter else None for view in views]
        for metric in board.metrics:
            values = [row.scores.get(metric) if row else None for row in rows]
            if any(values):
                found[f"{board.titles[metric]} on {link.set_name}"] = [f"{v.value:.3f}" if v else "—" for v in values]
    return found


def grid_of(values: Sequence[str]) -> dict[str, list[float]]:
    named = zip(("rank", "learning_rate", "epochs"), ("Ranks", "Learning rates", "Epochs"), values, strict=True)
    return {key: numbers(text or "", title) for key, title, text in named}


def budget_html(plan: "Plan") -> str:
    """What a sweep would take, before it starts."""
    unknown = "" if "about" in plan.words else " How long that takes is told here once “Check first” under Retrain has measured such a run."
    return f"<p>{escape(plan.words + unknown)}</p>"


def usual_budget(house: "House", values: Sequence[str]) -> str:
    return budget_html(house.sweeps.plan(house.training.defaults(), grid_of(values)))


def _sweeping(house: "House") -> Room:
    heading("Sweep", "Try a few settings in turn on the same examples. Nothing but the run you choose goes on to the test set.")
    with gr.Row():
        name = gr.Textbox("sweep", label="Name", max_length=36, elem_id="sweep-name")
        ranks = gr.Textbox("8, 16", label="Ranks", elem_id="sweep-ranks")
        rates = gr.Textbox("1e-4, 2e-4", label="Learning rates", elem_id="sweep-rates")
        epochs = gr.Textbox("1, 3", label="Epochs", elem_id="sweep-epochs")
    budget = block(usual_budget(house, (ranks.value, rates.value, epochs.value)), elem_id="sweep-budget", min_height=24)
    with actions():
        plan = gr.Button("What would it take?", elem_id="sweep-plan")
        start = gr.Button("Start the sweep", variant="primary", elem_id="sweep-start")
    listing = block(elem_id="sweep-list", min_height=40)
    with gr.Row(visible=False, elem_classes=["tb-actions"]) as going:
        sweep = gr.Dropdown([], label="Sweep", elem_id="sweep-chosen")
        run = gr.Dropdown([], label="Run to go on with (the best first)", elem_id="sweep-run", scale=2)
        choose = gr.Button("Go on with this run", elem_id="sweep-choose")
        cancel = gr.Button("Cancel the sweep", variant="stop", elem_id="sweep-cancel")
    asked, places = [name, ranks, rates, epochs], [listing, sweep, run, going]

    def grid(values: tuple[str, ...]) -> dict[str, list[float]]:
        return grid_of(values[1:])

    def state(picked: str | None = None) -> list[Any]:
        found = house.sweeps.sweeps()
        names = [str(one.id) for one in found]
        now = next((one for one in found if str(one.id) == picked), found[0] if found else None)
        ends = sorted((r for r in now.runs if r.status == "finished"), key=lambda r: r.run != now.best) if now else []
        return [
            sweeps_html(found),
            choices(names, str(now.id) if now else None),
            choices([f"{r.name} · {r.run}" for r in ends]),
            gr.Row(visible=bool(found)),
        ]

    @acts(house, "engineer", "admin")
    def plan_sweep(person: "UserView", *values: str) -> str:
        spec = house.training.defaults().with_(name=values[0] or "sweep")
        return budget_html(house.sweeps.plan(spec, grid(values), house.estimates.seconds(spec)))

    @acts(house, "engineer", "admin")
    def start_sweep(person: "UserView", *values: str) -> list[Any]:
        snapshot = house.library.snapshot(person.id)
        spec = house.training.defaults().with_(name=values[0] or "sweep")
        sweep_id = house.sweeps.start(snapshot.id, spec, grid(values), person.id, house.estimates.seconds(spec))
        note(f"{count(len(house.sweeps.sweep(sweep_id).runs), 'run')} are queued.")
        return state(str(sweep_id))

    @acts(house, "engineer", "admin")
    def look_at(person: "UserView", picked: str | None) -> list[Any]:
        return state(picked)

    def needed(picked: str | None) -> int:
        if not picked:
            raise BadInput("No sweep is chosen. Start one, or choose one from the list.")
        return int(picked)

    @acts(house, "engineer", "admin")
    def go_on_with(person: "UserView", picked: str | None, label: str | None) -> list[Any]:
        if not label:
            raise BadInput("No finished run is chosen. Wait until one is finished, then choose it.")
        house.sweeps.choose(needed(picked), label.rsplit(" · ", 1)[-1], person.id)
        note("Its adapter is registered and scored in a moment.")
        return state(picked)

    @acts(house, "engineer", "admin")
    def cancel_sweep(person: "UserView", picked: str | None) -> list[Any]:
        house.sweeps.cancel(needed(picked), person.id)
        note("What was not over is cancelled.")
        return state(picked)

    plan.click(plan_sweep, asked, [budget], **QUICK)
    for box in asked[1:]:
        box.blur(plan_sweep, asked, [budget], **QUICK)
    start.click(start_sweep, asked, places, **SLOW)
    sweep.input(look_at, [sweep], places, **QUICK)
    choose.click(go_on_with, [sweep, run], places, **SLOW)
    cancel.click(cancel_sweep, [sweep], places, **SLOW)
    return Room(places, lambda person: state(), [listing], lambda person: [sweeps_html(house.sweeps.sweeps())])
