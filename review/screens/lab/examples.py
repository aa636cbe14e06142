"""The upper half of Retrain: which answers the model shall learn. Drafts are approved or rejected one by one, or all at once.

An example's text never changes here. Must not know storage or training.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.room import Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, empty_state, escape, heading, note

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.library import ExampleView
    from review.services.people import UserView

ORIGINS = {"any origin": None, "imported rows": "imported", "reviewers' ideal answers": "correction", "winning answers": "winner"}
SAID = {value: name for name, value in ORIGINS.items()}
STATES = (("approved", "approved", "good"), ("draft", "drafts", "warn"), ("rejected", "rejected", "plain"))
EVERYTHING = 1_000_000


def counts_html(house: "House") -> str:
    counts = house.library.example_counts()
    badges = [badge(f"{counts[state]} {words}", tone) for state, words, tone in STATES]
    return f'<p class="tb-num">{" ".join(badges)}</p>'


def draft_html(example: "ExampleView | None", place: int) -> str:
    if example is None:
        return empty_state("No draft is waiting.", "Gather a study's ideal and winning answers, or import rows under Data.")
    asked = "\n\n".join(part for part in (example.instruction, example.input) if part)
    return (
        f'<div class="tb-card"><p class="tb-muted tb-small">Draft {place + 1} · {escape(SAID.get(example.origin, example.origin))} · '
        f'{escape(example.split)} · <span dir="auto">{escape(example.set_name)}</span></p><h3>Asked</h3>'
        f'<pre class="tb-plain" dir="auto">{escape(asked)}</pre><h3>The answer to learn</h3>'
        f'<pre class="tb-plain" dir="auto">{escape(example.output)}</pre></div>'
    )


def build(house: "House") -> Room:
    heading(
        "What the model shall learn",
        "A run trains on approved examples: all of them, or those of chosen prompt sets. Test prompts never become examples.",
    )
    counts = block(elem_id="example-counts", min_height=30)
    with actions():
        study = gr.Dropdown([], label="Study to gather from", elem_id="example-study", scale=2)
        gather = gr.Button("Gather its ideal and winning answers", elem_id="example-gather")
    with actions():
        origin = gr.Dropdown(list(ORIGINS), value="any origin", label="Drafts from", elem_id="example-origin", scale=2)
        approve_all = gr.Button("Approve all of these drafts", elem_id="example-approve-all")
    draft = block(elem_id="example-draft", min_height=120)
    with actions():
        approve = gr.Button("Approve", variant="primary", elem_id="example-approve")
        reject = gr.Button("Reject", variant="stop", elem_id="example-reject")
        later = gr.Button("Later", elem_id="example-later")
    current, place = (gr.Textbox("", label=label, visible="hidden") for label in ("example", "place"))
    desk = [counts, draft, approve, reject, later, current, place]

    def lay(kind: str, offset: int) -> list[Any]:
        found = house.library.examples("draft", ORIGINS.get(kind), offset, 1)
        if not found and offset:
            return lay(kind, 0)
        example = found[0] if found else None
        ready = [gr.Button(interactive=example is not None) for _ in range(3)]
        return [counts_html(house), draft_html(example, offset), *ready, str(example.id) if example else "", str(offset)]

    def decides(state: str) -> Any:
        @acts(house, "engineer", "admin")
        def decide_draft(person: "UserView", kind: str, example_id: str, offset: str) -> list[Any]:
            if state != "later" and example_id:
                house.library.decide([int(example_id)], state, person.id)
            return lay(kind, int(offset or 0) + (state == "later"))

        return decide_draft

    @acts(house, "engineer", "admin")
    def approve_drafts(person: "UserView", kind: str) -> list[Any]:
        ids = [example.id for example in house.library.examples("draft", ORIGINS.get(kind), 0, EVERYTHING)]
        changed = house.library.decide(ids, "approved", person.id)
        note(f"{changed} examples are approved.")
        return lay(kind, 0)

    @acts(house, "engineer", "admin")
    def gather_answers(person: "UserView", name: str | None, kind: str) -> list[Any]:
        if not name:
            raise BadInput("There is no study to gather from. Create one under Studies.")
        got = house.library.gather(name, person.id)
        refused = f" {got.refused_test} on test prompts were left out. {got.reason}" if got.refused_test else ""
        note(f"{got.corrections} ideal and {got.winners} winning answers wait as drafts; {got.already_there} were there already.{refused}")
        return lay(kind, 0)

    @acts(house, "engineer", "admin")
    def choose_origin(person: "UserView", kind: str) -> list[Any]:
        return lay(kind, 0)

    for state, button in (("approved", approve), ("rejected", reject), ("later", later)):
        button.click(decides(state), [origin, current, place], desk, **QUICK)
    approve_all.click(approve_drafts, [origin], desk, **SLOW)
    gather.click(gather_answers, [study, origin], desk, **SLOW)
    origin.input(choose_origin, [origin], desk, **QUICK)

    def show(person: "UserView") -> list[Any]:
        studies = [one.name for one in reversed(house.studies.studies())]
        return [choices(studies), *lay("any origin", 0)]

    return Room([study, *desk], show)
