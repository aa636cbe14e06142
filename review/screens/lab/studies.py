"""The Studies tab: declare a blind comparison, open, pause and close it, see how it goes, what it found, where reviewers differ.

Its parts are the files beside this one. Must not know votes' contents or storage.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.lab import studies_declare as declare
from review.screens.lab import studies_disputes as disputes
from review.screens.lab import studies_doubts as doubts
from review.screens.lab import studies_exchange as exchange
from review.screens.lab import studies_new
from review.screens.lab.room import TOLD, Room, choices
from review.screens.lab.studies_desk import Desk
from review.screens.parts import QUICK, actions, acts, block, heading, note

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

ROLES = ("engineer", "admin")
Section = tuple[list[Any], Callable[[str | None], list[Any]]]


def build(house: "House") -> Room:
    desk = Desk(house)
    heading("Studies", "A study shows reviewers two answers without saying whose they are. What it declares is fixed, for good.")
    listing = block(elem_id="studies-list", min_height=120)
    with actions():
        chosen = gr.Dropdown([], label="Study", elem_id="study-chosen", scale=2)
        starting = gr.Button("Open", elem_id="study-open", variant="primary")
        pausing = gr.Button("Pause", elem_id="study-pause")
        closing = gr.Button("Close…", elem_id="study-close", variant="stop")
        copying = gr.Button("Copy as new", elem_id="study-copy")
    with gr.Column(visible=False, elem_id="study-sure") as sure:
        question = block(elem_id="study-question")
        with actions():
            yes = gr.Button("Yes, close it for good", variant="stop", elem_id="study-close-yes")
            no = gr.Button("Keep it as it is", elem_id="study-close-no")
    here = gr.Textbox("progress", label="open tab", visible="hidden")
    now = [listing, chosen, starting, pausing, closing, copying, sure]
    with gr.Tabs(elem_id="studies-tabs", selected="progress", overflow_behavior="wrap") as tabs:
        with gr.Tab("Progress", id="progress", elem_id="studies-progress") as tab_progress:
            who = block(elem_id="study-who", min_height=120)
            heading("Whose votes count", "Votes in doubt are aside until an admin decides. Nobody's vote is ever changed or deleted.")
            with gr.Column(visible=False) as admins:
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
        found = [(study, one) for one in desk.told(study).reviewers] if study else []
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
        button.click(moves(verb), [chosen, here], [*now, *parts], **TOLD)
    closing.click(ask_to_close, [chosen], [question, sure], **QUICK)
    no.click(keep_open, None, [sure], **QUICK)
    studies_new.wire(house, desk, form, preview, create, (tab_new, here, tabs, chosen, copying), (now, state, who))

    def show(person: "UserView") -> list[Any]:
        names = desk.names()
        first = names[0] if names else None
        drawn = [value for _, draw in sections.values() for value in draw(first)]
        return [*state(first), *drawn, gr.Column(visible=person.role == "admin")]

    def live(person: "UserView", picked: str | None, key: str) -> list[Any]:
        return [desk.listing(), desk.progress(picked, fresh=False) if key == "progress" else gr.skip()]

    return Room([*now, *parts, admins], show, [listing, who], live, [chosen, here])
