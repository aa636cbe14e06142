"""The Adapters tab: what is registered and where it is; load, unload, put in use, add, remove.

It says what is wanted; the running app brings the engine in line within seconds. Must not know engines, folders or storage.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.room import Room, choices
from review.screens.parts import SLOW, actions, acts, badge, block, empty_state, escape, heading, note, table

if TYPE_CHECKING:
    from review.services.adapters import AdapterView
    from review.services.house import House
    from review.services.people import UserView

MEGABYTE = 1 << 20


def where_html(adapter: "AdapterView") -> str:
    """Where an adapter is now, and where it is going."""
    if adapter.status == "quarantined":
        return badge("set aside", "bad")
    if adapter.resident:
        return badge("in memory", "good") if adapter.wanted else badge("leaving memory", "warn")
    return badge("coming into memory", "warn") if adapter.wanted else badge("on disk")


def list_html(house: "House") -> str:
    adapters = [one for one in house.adapters.adapters() if one.status != "removed"]
    if not adapters:
        return empty_state("No adapter yet.", "Train one under Retrain, or add one as a zip below.")
    using = house.adapters.in_use()
    rows = [
        [
            f'<b dir="auto">{escape(one.name)}</b><br><span class="tb-muted tb-small" dir="auto">{escape(one.title)}</span>',
            where_html(one) + (" " + badge("in use", "good") if one.name == using else ""),
            escape(f"{one.method}, rank {one.rank}"),
            f"{one.bytes / MEGABYTE:.1f} MB",
            escape(one.status_reason) or "—",
        ]
        for one in reversed(adapters)
    ]
    base = ["<b>base</b>", badge("always in memory") + ("" if using else " " + badge("in use", "good")), "the model as it came", "", "—"]
    return table(["Adapter", "State", "Kind", "Size", "Remark"], [*rows, base], "Adapters, newest first", numeric=(3,))


def build(house: "House") -> Room:
    heading("Adapters", "Load, unload and switch while others go on working: an adapter in use by a running answer is never pulled away.")
    listing = block(elem_id="adapter-list", min_height=120)
    with actions():
        chosen = gr.Dropdown([], label="Adapter", elem_id="adapter-chosen", scale=2)
        load = gr.Button("Load into memory", elem_id="adapter-load")
        unload = gr.Button("Unload", elem_id="adapter-unload")
        use = gr.Button("Put in use", variant="primary", elem_id="adapter-use")
        base = gr.Button("Use the base alone", elem_id="adapter-base")
        remove = gr.Button("Remove", variant="stop", elem_id="adapter-remove")
    heading("Add an adapter", "A zip with adapter_config.json and adapter_model.safetensors. It is checked before anything is loaded.")
    with gr.Row():
        file = gr.File(label="Adapter (.zip)", type="filepath", elem_id="adapter-file", height=130, scale=2)
        with gr.Column(scale=2):
            name = gr.Textbox(
                label="Name", placeholder="for example connectpro-v3; a name is never used twice", max_length=60, elem_id="adapter-name"
            )
            foreign = gr.Checkbox(
                label="It was trained on other weights", info="Accept it if it fits this base's shape.", elem_id="adapter-foreign"
            )
            with actions():
                add = gr.Button("Check and add", elem_id="adapter-add")
    verdict = block(elem_id="adapter-verdict", min_height=24)

    def state(picked: str | None = None) -> list[Any]:
        names = [one.name for one in reversed(house.adapters.adapters()) if one.status != "removed"]
        return [list_html(house), choices(names, picked)]

    def show(person: "UserView") -> list[Any]:
        return state(house.adapters.in_use())

    def changes(said: str, do: Any) -> Any:
        @acts(house, "engineer", "admin")
        def change_adapter(person: "UserView", picked: str | None) -> list[Any]:
            if not picked:
                raise BadInput("No adapter is chosen. Choose one from the list first.")
            do(picked, person.id)
            note(said.format(picked))
            return state(picked)

        return change_adapter

    @acts(house, "engineer", "admin")
    def add_adapter(person: "UserView", path: str | None, title: str, other: bool) -> list[Any]:
        if not path:
            raise BadInput("No file is chosen. Drop a zip on the field first.")
        added = house.adapters.register(Path(path), (title or "").strip() or Path(path).stem, person.id, foreign=bool(other))
        house.answers.ensure_arms()
        facts = f'<b dir="auto">{escape(added.name)}</b> is {escape(added.method)}, rank {added.rank}.'
        good = f'<p role="status" class="tb-good-ink">Good: {facts}</p>'
        return [good, None, "", *state(added.name)]

    places = [listing, chosen]
    adapters = house.adapters
    for button, said, do in (
        (load, "{} is coming into memory.", lambda name, by: adapters.want(name, True, by)),
        (unload, "{} leaves memory once nothing uses it.", lambda name, by: adapters.want(name, False, by)),
        (use, "{} is in use now.", adapters.use),
        (remove, "{} is off the list. Its answers and votes stay.", adapters.remove),
    ):
        button.click(changes(said, do), [chosen], places, **SLOW)

    @acts(house, "engineer", "admin")
    def use_base(person: "UserView", picked: str | None) -> list[Any]:
        adapters.use(None, person.id)
        note("The base alone is in use now.")
        return state(picked)

    base.click(use_base, [chosen], places, **SLOW)
    add.click(add_adapter, [file, name, foreign], [verdict, file, name, *places], **SLOW)
    return Room(places, show, [listing], lambda person: [list_html(house)])
