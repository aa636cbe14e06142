"""The Base tab: the base model now, another one looked at with its consequences, and the change. Must not know engines or storage."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.room import Room
from review.screens.parts import SLOW, actions, acts, badge, block, brings_into_view, escape, heading, note, table

if TYPE_CHECKING:
    from review.services.bases import BaseCard, BaseState, Swap
    from review.services.house import House
    from review.services.people import UserView

RUNNING = ("device", "dtype", "quantisation", "kernel", "mixed batch", "rows", "template")  # of what the engine says of itself


def card_html(card: "BaseCard", more: list[tuple[str, str]] | None = None) -> str:
    """A base by its files."""
    known = [
        ("Name", card.name),
        ("Architecture", card.architecture),
        ("Size", f"{card.parameters / 1e6:,.0f} million parameters" if card.parameters else ""),
        ("On disk", f"{card.bytes / 2**20:,.0f} MB, {card.dtype}" if card.bytes else ""),
        ("Longest conversation", f"{card.context_length:,} tokens" if card.context_length else ""),
        ("Chat template", card.template),
        ("Licence", card.licence or "its files do not say; look at where it came from"),
        ("Fingerprint", card.base_hash),
        *(more or []),
    ]
    rows = [[escape(name), f'<span dir="auto">{escape(value)}</span>'] for name, value in known if value]
    return table(["What", "It is"], rows, f"What {card.name} is") + "".join(f'<p class="tb-muted">{escape(one)}</p>' for one in card.notes)


def state_html(state: "BaseState") -> str:
    """The base now, and one that waits for the next start."""
    words = f"{state.waiting} is chosen. Start the app again: until then nothing is answered."
    waiting = f'<p class="tb-warn-ink" role="status">{escape(words)}</p>' if state.waiting else ""
    running = [(f"Running: {key}", state.running[key]) for key in RUNNING if key in state.running]
    return waiting + card_html(state.card, running)


def swap_html(swap: "Swap") -> str:
    """A candidate: what it is, what speaks against it, what a change would mean."""
    verdict = badge("can be used", "good") if swap.card.ok else badge("cannot be used", "bad")
    against = "".join(f'<li class="tb-bad-ink" dir="auto">{escape(one)}</li>' for one in swap.card.reasons)
    meant = "".join(f'<li dir="auto">{escape(one)}</li>' for one in swap.consequences) if swap.card.ok else ""
    title = '<h3>What a change would mean</h3><ul class="tb-rule">' + meant + "</ul>" if meant else ""
    return f'<div class="tb-card"><p>{verdict}</p><ul class="tb-rule">{against}</ul>{card_html(swap.card)}{title}</div>'


def build(house: "House") -> Room:
    heading("The base model", "One base for everything: adapters are trained on it and answer beside it. Fixed, until you change it here.")
    now = block(elem_id="base-now", min_height=120)
    heading("Another base", "Look at it first: nothing is changed by looking, and nothing is downloaded.")
    with actions():
        name = gr.Textbox(
            label="Folder, GGUF file, hub id or “embedded”", placeholder="for example /models/my-base or owner/name", max_length=500,
            elem_id="base-name",
        )  # fmt: skip
        look = gr.Button("Look at it", variant="primary", elem_id="base-look")
    found = block(elem_id="base-found", min_height=24)
    sure = gr.Checkbox(label="I have read what it would mean", elem_id="base-sure")
    with actions():
        change = gr.Button("Change the base", variant="stop", elem_id="base-use")

    def show(person: "UserView") -> list[Any]:
        return [state_html(house.bases.state())]

    @acts(house, "engineer", "admin")
    def look_at_base(person: "UserView", asked: str) -> list[Any]:
        return [swap_html(house.bases.check(asked or "")), False]

    @acts(house, "engineer", "admin")
    def change_base(person: "UserView", asked: str, agreed: bool) -> list[Any]:
        if not agreed:
            raise BadInput("Look at the base first, read what a change would mean, and tick the box.")
        house.bases.use(asked or "", person.id)
        note("The base is changed. Start the app again.")
        return [*show(person), "", False]

    looked = look.click(look_at_base, [name], [found, sure], **SLOW)
    brings_into_view(looked, "base-found")
    change.click(change_base, [name, sure], [now, found, sure], **SLOW)
    return Room([now], show)
