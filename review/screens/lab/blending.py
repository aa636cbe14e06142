"""The part of the Adapters tab that blends two adapters into a new one. Must not know engines, folders or storage."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.adapter_cards import accepted_html
from review.screens.lab.room import Room, choices
from review.screens.parts import SLOW, actions, acts, block, brings_into_view, heading

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView


def blend_part(house: "House", places: list[Any], state: Any) -> Room:
    heading(
        "Blend two adapters",
        "A new adapter that adds what each of them adds, times its weight: exact, with both ranks together. LoRA only. A blend is an "
        "arm like any other: judge it blind before you believe in it.",
    )
    with gr.Row():
        first = gr.Dropdown([], label="First adapter", elem_id="blend-first")
        first_weight = gr.Number(0.5, label="Times", minimum=-4, maximum=4, step=0.05, elem_id="blend-first-weight", min_width=100, scale=0)
        second = gr.Dropdown([], label="Second adapter", elem_id="blend-second")
        second_weight = gr.Number(
            0.5, label="Times", minimum=-4, maximum=4, step=0.05, elem_id="blend-second-weight", min_width=100, scale=0
        )
    with actions():
        name = gr.Textbox(label="Name of the blend", placeholder="for example v2-v3-half", max_length=60, elem_id="blend-name")
        make = gr.Button("Blend", elem_id="blend-make")
    made = block(elem_id="blend-made", min_height=24)

    @acts(house, "engineer", "admin")
    def blend(person: "UserView", title: str, one: str | None, one_weight: float, other: str | None, other_weight: float) -> list[Any]:
        if not one or not other or not (title or "").strip():
            raise BadInput("Two adapters and a name are needed. Choose and type them first.")
        added = house.adapters.blend(title, {one: one_weight or 0.0, other: other_weight or 0.0} if one != other else {}, person.id)
        house.answers.ensure_arms()
        return [accepted_html(added), "", *state(added.name)]

    blended = make.click(blend, [name, first, first_weight, second, second_weight], [made, name, *places], **SLOW)
    brings_into_view(blended, "blend-made")

    def show(person: "UserView") -> list[Any]:
        names = [view.name for view in reversed(house.adapters.adapters()) if view.status == "registered" and "DoRA" not in view.method]
        return [choices(names), gr.Dropdown(choices=names, value=names[1] if len(names) > 1 else None)]

    return Room([first, second], show)
