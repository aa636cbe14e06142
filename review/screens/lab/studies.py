"""The Studies tab: declare a blind comparison, open, pause and close it, see how it goes, what it found, where reviewers differ.

Its parts are the files beside this one. Must not know votes' contents or storage.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.evidence import flow, human_html, tags_html, trust_html, verdict_html
from review.screens.lab import studies_declare as declare
from review.screens.lab import studies_disputes as disputes
from review.screens.lab import studies_doubts as doubts
from review.screens.lab import studies_exchange as exchange
from review.screens.lab.room import Room, choices
from review.screens.lab.studies_progress import progress_html
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, count, empty_state, escape, heading, note, progress_bar, table
from review.services import study_plans as plans

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.study_views import StudyProgress, StudyView

ROLES = ("engineer", "admin")
STATES = {"draft": "plain", "open": "good", "paused": "warn", "closed": "plain"}
NONE_YET = empty_state("No study yet.", "Declare one under “New study”. All its arms need stored answers: see the Answers tab.")
Section = tuple[list[Any], Callable[[str | None], list[Any]]]


def list_html(studies: "list[StudyView]", told: "dict[str, StudyProgress]") -> str:
    if not studies:
        return NONE_YET
    rows = [
        [
            f'<b dir="auto">{escape(study.name)}</b>',
            badge(study.state, STATES[study.state]),
            escape(f"{study.set_name}, {study.split}"),
            f"{escape(', '.join(arm for arm in study.arms if arm != study.against))} against {escape(study.against)}",
            progress_bar(told[study.name].votes, told[study.name].needed, f"{told[study.name].votes} of {told[study.name].needed} votes",
                         label=f"Votes in {study.name}"),
        ]
        for study in reversed(studies)
    ]  # fmt: skip
    return table(["Study", "State", "Prompts", "Arms", "Progress"], rows, "Studies, newest first")


class Desk:
    """What the tab shows of the studies there are. Closed ones no longer move, so how far they are is asked once."""

    def __init__(self, house: "House") -> None:
        self.house = house
        self._closed: dict[str, StudyProgress] = {}

    def listing(self) -> str:
        studies = self.house.studies.studies()
        return list_html(studies, {study.name: self._told(study) for study in studies})

    def _told(self, study: "StudyView") -> "StudyProgress":
        if study.state != "closed":
            return self.house.studies.progress(study.name)
        return self._closed.get(study.name) or self._closed.setdefault(study.name, self.house.studies.progress(study.name))

    def names(self) -> list[str]:
        return [study.name for study in reversed(self.house.studies.studies())]

    def progress(self, name: str | None) -> str:
        return progress_html(self.house.studies.study(name), self.house.studies.progress(name)) if name else ""

    def result(self, name: str | None) -> str:
        if not name:
            return NONE_YET
        found = self.house.studies.result(name)
        return flow(verdict_html(found), human_html(found), tags_html(found), trust_html(found))

    def buttons(self, name: str | None) -> list[gr.Button]:
        """Open or resume, pause, close, copy: what makes sense in the study's state."""
        state = self.house.studies.study(name).state if name else ""
        start = gr.Button("Resume" if state == "paused" else "Open for reviewers", interactive=state in ("draft", "paused"))
        pause, close = gr.Button(interactive=state == "open"), gr.Button(interactive=state in ("open", "paused"))
        return [start, pause, close, gr.Button(interactive=bool(state))]

    def closing(self, name: str) -> str:
        """What closing means, before it is done."""
        told = self.house.studies.progress(name)
        left = told.needed - told.votes
        missing = f"{count(left, 'vote')} of {told.needed} are still missing. " if left > 0 else ""
        return (
            f'<p role="alert"><b>Close “<bdi>{escape(name)}</bdi>” for good?</b> {missing}No vote can be given or changed afterwards, '
            "and reviewers may learn who was who. To collect more votes later, copy it as a new study.</p>"
        )


def build(house: "House") -> Room:
    desk = Desk(house)
    heading("Studies", "A study shows reviewers two answers without saying whose they are. What it declares is fixed, for good.")
    listing = block(elem_id="studies-list", min_height=120)
    with actions():
        chosen = gr.Dropdown([], label="Study", elem_id="study-chosen", scale=2)
        starting = gr.Button("Open for reviewers", elem_id="study-open", variant="primary")
        pausing = gr.Button("Pause", elem_id="study-pause")
        closing = gr.Button("Close…", elem_id="study-close", variant="stop")
        copying = gr.Button("Copy as a new study", elem_id="study-copy")
    with gr.Column(visible=False, elem_id="study-sure") as sure:
        question = block(elem_id="study-question")
        with actions():
            yes = gr.Button("Yes, close it for good", variant="stop", elem_id="study-close-yes")
            no = gr.Button("Keep it as it is", elem_id="study-close-no")
    here = gr.Textbox("progress", label="open tab", visible="hidden")
    now = [listing, chosen, starting, pausing, closing, copying, sure]
    with gr.Tabs(elem_id="studies-tabs", selected="progress") as tabs:
        with gr.Tab("Progress", id="progress", elem_id="studies-progress") as tab_progress:
            who = block(elem_id="study-who", min_height=120)
            heading("Whose votes count", "Votes in doubt are aside until an admin decides. Nobody's vote is ever changed or deleted.")
            doubted = doubts.decision_row(house, ROLES, [who], lambda study: [desk.progress(study)], [chosen])
        with gr.Tab("Result", id="result", elem_id="studies-result") as tab_result:
            result = block(elem_id="study-result", min_height=240)
        with gr.Tab("Disagreements", id="disputes", elem_id="studies-disputes") as tab_disputes:
            dispute_parts, draw_disputes = disputes.build(house, chosen)
        with gr.Tab("New study", id="new", elem_id="studies-new") as tab_new:
            form = declare.lay_out()
            preview, create = declare.foot()
        with gr.Tab("Take out, bring in", id="exchange", elem_id="studies-exchange") as tab_exchange:
            links = exchange.build(house, lambda study: state(study), now)

    def state(picked: str | None = None) -> list[Any]:
        names = desk.names()
        picked = picked if picked in names else (names[0] if names else None)
        return [desk.listing(), choices(names, picked), *desk.buttons(picked), gr.Column(visible=False)]

    def people(study: str | None) -> gr.Dropdown:
        found = [(study, one) for one in house.studies.progress(study).reviewers] if study else []
        return gr.Dropdown(choices=doubts.choices_of(found), value=None)

    sections: dict[str, Section] = {
        "progress": ([who, doubted], lambda study: [desk.progress(study), people(study)]),
        "result": ([result], lambda study: [desk.result(study)]),
        "disputes": (dispute_parts, draw_disputes),
        "exchange": ([links], lambda study: [exchange.take_html(study)]),
    }
    parts = [part for outputs, _ in sections.values() for part in outputs]

    def opened(key: str, study: str | None) -> list[Any]:
        """Values for all `parts`, of which only the open tab's are drawn."""
        drawn = [draw(study) if name == key else [gr.skip()] * len(outputs) for name, (outputs, draw) in sections.items()]
        return [value for values in drawn for value in values]

    def opens(key: str) -> Any:
        @acts(house, *ROLES)
        def open_part(person: "UserView", study: str | None) -> list[Any]:
            return [key, *sections[key][1](study)]

        return open_part

    for key, tab in (("progress", tab_progress), ("result", tab_result), ("disputes", tab_disputes), ("exchange", tab_exchange)):
        tab.select(opens(key), [chosen], [here, *sections[key][0]], **QUICK)

    def moves(verb: str) -> Any:
        @acts(house, *ROLES)
        def move_study(person: "UserView", picked: str | None, key: str) -> list[Any]:
            if not picked:
                return [*state(), *opened(key, None)]
            moved = getattr(house.studies, verb)(picked, person.id)
            note(f"{moved.name} is {moved.state} now.")
            return [*state(picked), *opened(key, picked)]

        return move_study

    @acts(house, *ROLES)
    def choose(person: "UserView", picked: str | None, key: str) -> list[Any]:
        return [*desk.buttons(picked), gr.Column(visible=False), *opened(key, picked)]

    @acts(house, *ROLES)
    def ask_to_close(person: "UserView", picked: str | None) -> list[Any]:
        return [desk.closing(picked) if picked else "", gr.Column(visible=bool(picked))]

    @acts(house, *ROLES)
    def keep_open(person: "UserView") -> gr.Column:
        return gr.Column(visible=False)

    chosen.input(choose, [chosen, here], [*now[2:], *parts], **QUICK)
    for verb, button in (("open", starting), ("pause", pausing), ("close", yes)):
        button.click(moves(verb), [chosen, here], [*now, *parts], **SLOW)
    closing.click(ask_to_close, [chosen], [question, sure], **QUICK)
    no.click(keep_open, None, [sure], **QUICK)
    _declaring(house, desk, form, preview, create, (tab_new, here, tabs, chosen, copying), (now, state, who))

    def show(person: "UserView") -> list[Any]:
        names = desk.names()
        first = names[0] if names else None
        return [*state(first), *opened("progress", first)]

    def live(person: "UserView", picked: str | None, key: str) -> list[Any]:
        return [desk.listing(), desk.progress(picked) if key == "progress" else gr.skip()]

    return Room([*now, *parts], show, [listing, who], live, [chosen, here])


def _declaring(
    house: "House", desk: Desk, form: declare.Form, preview: gr.HTML, create: gr.Button, around: tuple[Any, ...], back: tuple[Any, ...]
) -> None:
    """The form: filled once, copied from another study, looked over at each change, declared."""
    tab, here, tabs, chosen, copying = around
    now, state, who = back
    fields = form.all

    def looked_over(wish: plans.Wish) -> str:
        return declare.plan_html(plans.plan(house.db, wish), wish)

    def filled(wish: plans.Wish) -> list[Any]:
        values = declare.filled(house, wish, plans.plan(house.db, wish).tags)
        return [*values, looked_over(plans.replace(wish, name=values[0]))]

    @acts(house, *ROLES)
    def open_form(person: "UserView", *values: Any) -> list[Any]:
        """Filled with the usual things the first time; afterwards what was written stays."""
        wish = declare.wish_of(values)
        if wish.name:
            return ["new", *(gr.skip() for _ in fields), looked_over(wish)]
        return ["new", *filled(usual(house))]

    @acts(house, *ROLES)
    def look_over(person: "UserView", *values: Any) -> str:
        return looked_over(declare.wish_of(values))

    @acts(house, *ROLES)
    def choose_prompts(person: "UserView", *values: Any) -> list[Any]:
        wish = declare.wish_of(values)
        tags = plans.plan(house.db, wish).tags
        wish = plans.replace(wish, tags=tuple(tag for tag in wish.tags if tag in tags))
        return [declare.tags_of(tags, wish.tags), looked_over(wish)]

    @acts(house, *ROLES)
    def copy_study(person: "UserView", picked: str | None) -> list[Any]:
        if not picked:
            return [gr.skip() for _ in range(len(fields) + 3)]
        return [gr.Tabs(selected="new"), "new", *filled(declare.wish_like(house.studies.study(picked)))]

    @acts(house, *ROLES)
    def declare_study(person: "UserView", *values: Any) -> list[Any]:
        made = plans.declare(house.db, house.studies, declare.wish_of(values), person.id)
        note(f"{made.name} is declared. Open it when reviewers may start.")
        return [*state(made.name), gr.Tabs(selected="progress"), "progress", desk.progress(made.name), *filled(usual(house))]

    tab.select(open_form, fields, [here, *fields, preview], **QUICK)
    for prompts in (form.set_name, form.split):
        prompts.input(choose_prompts, fields, [form.tags, preview], **QUICK)
    for field in fields:
        event = field.blur if isinstance(field, gr.Textbox) else field.input
        if field not in (form.set_name, form.split):
            event(look_over, fields, [preview], **QUICK)
    copying.click(copy_study, [chosen], [tabs, here, *fields, preview], **SLOW)
    create.click(declare_study, fields, [*now, tabs, here, who, *fields, preview], **SLOW)


def usual(house: "House") -> plans.Wish:
    """What most people declare next: the adapter in use, or the newest, against the base, on the newest prompts."""
    known = house.answers.arms()
    best = house.adapters.in_use() or next((arm.name for arm in reversed(known) if arm.kind == "adapter"), None)
    sets = house.library.sets()
    arms = tuple(arm.name for arm in known if arm.name in (best, "base"))
    number = len(house.studies.studies()) + 1
    return plans.Wish(plans.free_name(house.db, f"Study {number}"), sets[-1].name if sets else "", arms=arms)
