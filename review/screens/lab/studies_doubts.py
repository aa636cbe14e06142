"""Whose votes count: an admin decides, with a reason, about reviewers whose votes are in doubt. The votes themselves stay as they are.

Used in the lab beside a study's progress, and in the admin's part for all studies. Must not know how doubts arise.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput, Refused
from review.screens.lab.room import TOLD
from review.screens.lab.studies_progress import standing
from review.screens.parts import actions, acts, empty_state, escape, note, table

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView


def doubted(house: "House") -> list[tuple[str, Any]]:
    """(study, reviewer's progress) of everybody in doubt or decided upon: those to decide first, then newest study first."""
    found = []
    for study in reversed(house.studies.studies()):
        if study.state != "draft":
            told = house.studies.progress(study.name)
            found += [(study.name, one) for one in told.reviewers if one.doubts or one.decision or one.aside]
    return sorted(found, key=lambda one: bool(one[1].decision) or not one[1].aside)


def doubts_html(found: list[tuple[str, Any]]) -> str:
    if not found:
        return empty_state("Nobody's votes are in doubt.", "Speed, sides, repeats and plain pairs are watched in every open study.")
    rows = [
        [
            f'<span dir="auto">{escape(study)}</span>', f'<b dir="auto">{escape(one.name)}</b>', standing(one), str(one.votes),
            escape("; ".join(one.doubts)) or "—", f'<span dir="auto">{escape(one.reason) or "—"}</span>',
        ]
        for study, one in found
    ]  # fmt: skip
    head = ["Study", "Reviewer", "Standing", "Votes", "Look again because", "Decided because"]
    return table(head, rows, "Reviewers in doubt", numeric=(3,))


def choices_of(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Shown words and key; the key is study and reviewer, whatever signs their names hold."""
    return [(f"{one.name} in {study}", json.dumps([study, one.name])) for study, one in found]


def chosen_of(key: str) -> tuple[str, str]:
    """(study, reviewer) of a key. Raises BadInput for what is none."""
    try:
        study, name = json.loads(key)
    except (ValueError, TypeError) as error:
        raise BadInput("No reviewer is chosen. Choose one from the list first.") from error
    return str(study), str(name)


def decision_row(
    house: "House", roles: tuple[str, ...], shown: list[Any], redraw: Callable[..., list[Any]], given: list[Any] | None = None
) -> gr.Dropdown:
    """The row that decides. `redraw(*given)` gives a value for each of `shown` afterwards. Only an admin's decision is taken."""
    with actions():
        chosen = gr.Dropdown([], label="Reviewer", elem_id="doubt-chosen", scale=2)
        reason = gr.Textbox(label="Why", max_length=500, elem_id="doubt-reason", scale=3)
        count_them = gr.Button("Count their votes", elem_id="doubt-count")
        leave_out = gr.Button("Leave them aside", variant="stop", elem_id="doubt-aside")

    def decides(counted: bool) -> Any:
        @acts(house, *roles)
        def decide(person: "UserView", picked: str | None, why: str, *more: Any) -> list[Any]:
            if person.role != "admin":
                raise Refused("Whose votes count is for an admin to decide. Ask one; the votes stay as they are meanwhile.")
            study, name = chosen_of(picked or "")
            if not (why or "").strip():
                raise BadInput("A reason is needed: it is shown beside the result. Write it first.")
            house.studies.decide_reviewer(study, name, counted, why.strip(), by=person.id)
            note(f"The votes of {name} {'count' if counted else 'are aside'} now.")
            return ["", *redraw(*more)]

        return decide

    for button, counted in ((count_them, True), (leave_out, False)):
        button.click(decides(counted), [chosen, reason, *(given or [])], [reason, *shown], **TOLD)
    return chosen
