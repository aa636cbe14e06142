"""The Retrain tab: check a run before it starts, start it, watch it from any browser, pause, resume or cancel it, see what came of it.

Reads the run's copy in the database through the service; must not know run directories, processes or torch.
"""

import json
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab import examples
from review.screens.lab.retrain_check import check_html, excluded_html, settings_html
from review.screens.lab.retrain_form import FRESH, form, presets, sources, spec_of, values
from review.screens.lab.retrain_watch import run_html, runs_html
from review.screens.lab.room import Room
from review.screens.parts import QUICK, SLOW, actions, acts, block, brings_into_view, escape, heading, note
from review.services.run_views import PRESETS

if TYPE_CHECKING:
    from ft.specs import TrainSpec
    from review.services.house import House
    from review.services.people import UserView
    from review.services.training import Checked

__all__ = ["build", "form", "spec_of"]
ROLES = ("engineer", "admin")


def build(house: "House") -> Room:
    picking = examples.build(house)
    heading("Start a run", "It trains in a process of its own: you may close this page, and restarting the app does not stop it.")
    usual = house.training.defaults()
    sets, preset = sources(), presets()
    fields = form(usual)
    with actions():
        start = gr.Button("Start training", variant="primary", elem_id="run-start")
        check = gr.Button("Check first", elem_id="run-check")
        copy = gr.Button("Copy these settings", elem_id="run-copy")
    copied = gr.Textbox(
        label="The same as a file, for: tiebreak train SPEC.json", lines=8, max_lines=20, buttons=["copy"], interactive=False,
        visible=False, elem_id="run-json",
    )  # fmt: skip
    verdict = block(elem_id="run-verdict", min_height=24)
    measured = block(elem_id="run-measured", min_height=24)
    checking = gr.Textbox("", label="check", visible="hidden")
    heading("Watch a run")
    with actions():
        chosen = gr.Dropdown([], label="Run", elem_id="run-chosen", scale=3)
        pause = gr.Button("Pause", elem_id="run-pause", interactive=False)
        resume = gr.Button("Resume", elem_id="run-resume", interactive=False)
        ending = gr.Button("Finish now", elem_id="run-finish", interactive=False)
        cancel = gr.Button("Cancel", variant="stop", elem_id="run-cancel", interactive=False)
        again = gr.Button("Use its settings again", elem_id="run-again", interactive=False)
    shown = block(elem_id="run-shown", min_height=100)
    with gr.Accordion("Log", open=False):
        log = block(elem_id="run-log", min_height=60)
    listing = block(elem_id="run-list")

    buttons = [pause, resume, ending, cancel, again]
    watching = [chosen, shown, log, *buttons, listing]

    def watch(picked: str | None = None) -> list[Any]:
        runs = house.training.runs()
        names = [run.id for run in runs]
        picked = picked if picked in names else (names[0] if names else None)
        titled = [(f"{run.name} · {run.status} · {run.id}", run.id) for run in runs]
        return [gr.Dropdown(choices=titled, value=picked), *one(picked), runs_html(runs)]

    def one(picked: str | None) -> list[Any]:
        run = house.training.run(picked) if picked else None
        tail = f'<pre class="tb-plain tb-small">{escape(run.log or "Nothing yet.")}</pre>' if run else ""
        can = [run.can_pause, run.can_resume, run.can_finish, run.can_cancel, True] if run else [False] * 5
        return [run_html(run), tail, *(gr.Button(interactive=able) for able in can)]

    def spec(given: tuple[Any, ...]) -> Any:
        return spec_of(dict(zip(fields, given, strict=True)), usual)

    @acts(house, *ROLES)
    def choose_run(person: "UserView", picked: str | None) -> list[Any]:
        return one(picked)

    @acts(house, *ROLES)
    def choose_preset(person: "UserView", name: str | None, *given: Any) -> list[Any]:
        filled = values(PRESETS[name].on(spec(given))) if name in PRESETS else dict(zip(fields, given, strict=True))
        return [filled[field] for field in fields]

    @acts(house, *ROLES)
    def use_settings(person: "UserView", picked: str | None) -> list[Any]:
        if not picked:
            return [gr.skip() for _ in fields]
        filled = values(house.training.run(picked).spec)
        note("The form above holds this run's settings now.")
        return [filled[field] for field in fields]

    @acts(house, *ROLES)
    def copy_settings(person: "UserView", *given: Any) -> Any:
        return gr.Textbox(json.dumps(spec(given).to_dict(), indent=1, ensure_ascii=False), visible=True)

    def frozen(person: "UserView", only: list[str] | None, wanted: "TrainSpec") -> "tuple[int, Checked]":
        """The snapshot to learn from and all about a start; where there is nothing to learn from, the reason among its problems."""
        try:
            snapshot = house.library.snapshot(person.id, sets=only or ()).id
        except BadInput as error:
            return 0, house.training.without_examples(wanted, str(error))
        return snapshot, house.training.check(snapshot, wanted)

    @acts(house, *ROLES)
    def check_run(person: "UserView", only: list[str] | None, *given: Any) -> list[Any]:
        wanted = spec(given)
        snapshot, found = frozen(person, only, wanted)
        said = settings_html(found) + excluded_html(house.training.too_close(wanted))
        if found.problems:
            return [said, "", ""]
        begun = house.estimates.start(snapshot, wanted)
        return [said, check_html(house.estimates.check(begun)), begun]

    @acts(house, *ROLES)
    def start_run(person: "UserView", only: list[str] | None, *given: Any) -> list[Any]:
        wanted = spec(given)
        snapshot, found = frozen(person, only, wanted)
        if found.problems:
            return [settings_html(found), *(gr.skip() for _ in watching)]
        run_id = house.training.start(snapshot, wanted, person.id)
        note("The run is queued and starts by itself within seconds.")
        return ["", *watch(run_id)]

    def does(act: Any, words: str) -> Any:
        @acts(house, *ROLES)
        def act_on_run(person: "UserView", picked: str | None) -> list[Any]:
            if picked:
                act(picked, person.id)
                note(words)
            return watch(picked)

        return act_on_run

    chosen.input(choose_run, [chosen], [shown, log, *buttons], **QUICK)
    preset.input(choose_preset, [preset, *fields.values()], list(fields.values()), **QUICK)
    again.click(use_settings, [chosen], list(fields.values()), **QUICK)
    copy.click(copy_settings, list(fields.values()), [copied], **QUICK)
    checked = check.click(check_run, [sets, *fields.values()], [verdict, measured, checking], **SLOW)
    brings_into_view(checked, "run-verdict")
    started = start.click(start_run, [sets, *fields.values()], [verdict, *watching], **SLOW)
    brings_into_view(started, "run-verdict")
    said = {
        pause: (house.training.pause, "The run saves itself and then lets the machine go."),
        ending: (house.training.finish, "The run ends after the step it is at. The best step so far becomes the adapter."),
        resume: (house.training.resume, "The run is queued again and goes on from its last checkpoint."),
        cancel: (house.training.cancel, "The run was asked to stop. What it has learnt so far is not registered."),
    }
    for button, (act, words) in said.items():
        button.click(does(act, words), [chosen], watching, **SLOW)

    def live(person: "UserView", picked: str | None, check_id: str) -> list[Any]:
        found = house.estimates.check(check_id) if check_id else None
        checked = [gr.skip(), gr.skip()] if found is None else [check_html(found), "" if found.over else check_id]
        return [*one(picked), runs_html(house.training.runs()), *checked]

    def show(person: "UserView") -> list[Any]:
        origins = [FRESH, *((name, name) for name in house.training.adapters())]
        names = [one.name for one in reversed(house.library.sets())]
        return [*picking.show(person), gr.Dropdown(choices=names), gr.Dropdown(choices=origins), *watch()]

    moving = [shown, log, *buttons, listing, measured, checking]
    return Room([*picking.outputs, sets, fields["start_from"], *watching], show, moving, live, [chosen, checking])
