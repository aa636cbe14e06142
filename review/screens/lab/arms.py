"""The Adapters tab: what is registered and where it is; load, unload, pin, add, remove. What is in use is decided on its own tab.

It says what is wanted; the running app brings the engine in line within seconds. Must not know engines, folders or storage.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.adapter_cards import accepted_html, card_html, list_html, memory_html, refused_html
from review.screens.lab.blending import blend_part
from review.screens.lab.remote_arms import remotes_part
from review.screens.lab.room import Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, block, brings_into_view, heading, note

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView


def build(house: "House") -> Room:
    heading(
        "Adapters",
        "Load and unload while others go on working: an adapter that is answering is never pulled away. Which one is in use is decided "
        "under In use.",
    )
    listing = block(elem_id="adapter-list", min_height=120)
    memory = block(elem_id="adapter-memory", min_height=24)
    chosen, buttons = _buttons()
    card = block(elem_id="adapter-card", min_height=24)

    def listed() -> list[Any]:
        return list(house.adapters.adapters())

    def drawn() -> list[Any]:
        return [list_html(listed(), house.adapters.in_use()), memory_html(house.adapters.memory.state())]

    def state(picked: str | None = None) -> list[Any]:
        names = [one.name for one in reversed(listed())]
        now = picked if picked in names else (names[0] if names else None)
        return [*drawn(), choices(names, now), card_html(next((one for one in listed() if one.name == now), None))]

    places = [listing, memory, chosen, card]
    _act(house, buttons, chosen, places, state)
    added = _upload(house, places, state)
    blending = blend_part(house, places, state)
    remotes = remotes_part(house)

    @acts(house, "engineer", "admin")
    def show_card(person: "UserView", picked: str | None) -> str:
        return card_html(next((one for one in listed() if one.name == picked), None))

    @acts(house, "engineer", "admin")
    def offer_to_blend(person: "UserView") -> list[Any]:
        return blending.show(person)

    chosen.input(show_card, [chosen], [card], **QUICK)
    added.then(offer_to_blend, None, blending.outputs, **QUICK)

    def show(person: "UserView") -> list[Any]:
        return [*state(house.adapters.in_use()), *blending.show(person), *remotes.show(person)]

    return Room([*places, *blending.outputs, *remotes.outputs], show, [listing, memory], lambda person: drawn())


def _buttons() -> tuple[gr.Dropdown, dict[str, gr.Button]]:
    with actions():
        chosen = gr.Dropdown([], label="Adapter", elem_id="adapter-chosen", scale=2)
        named = {
            "load": gr.Button("Load into memory", elem_id="adapter-load"),
            "unload": gr.Button("Unload", elem_id="adapter-unload"),
            "pin": gr.Button("Pin in memory", elem_id="adapter-pin"),
            "unpin": gr.Button("Unpin", elem_id="adapter-unpin"),
            "remove": gr.Button("Remove", variant="stop", elem_id="adapter-remove"),
        }
    return chosen, named


def _act(house: "House", buttons: dict[str, gr.Button], chosen: gr.Dropdown, places: list[Any], state: Any) -> None:
    adapters = house.adapters
    deeds: dict[str, tuple[str, Any]] = {
        "load": ("{} is coming into memory.", lambda name, by: adapters.want(name, True, by)),
        "unload": ("{} leaves memory once nothing uses it.", lambda name, by: adapters.want(name, False, by)),
        "pin": ("{} stays in memory, whatever else comes.", lambda name, by: adapters.pin(name, True, by)),
        "unpin": ("{} may leave memory when others need the room.", lambda name, by: adapters.pin(name, False, by)),
        "remove": ("{} is off the list. Its answers and votes stay.", adapters.remove),
    }

    def changes(said: str, do: Any) -> Any:
        @acts(house, "engineer", "admin")
        def change_adapter(person: "UserView", picked: str | None) -> list[Any]:
            if not picked:
                raise BadInput("No adapter is chosen. Choose one from the list first.")
            do(picked, person.id)
            note(said.format(picked))
            return state(picked)  # type: ignore[no-any-return]

        return change_adapter

    for key, (said, do) in deeds.items():
        buttons[key].click(changes(said, do), [chosen], places, **SLOW)


def _upload(house: "House", places: list[Any], state: Any) -> Any:
    """Returns the event of something being handed over."""
    heading(
        "Add an adapter",
        "What PEFT's save_pretrained wrote: a zip of the folder, its files, or the folder itself. It is checked before anything is loaded; "
        "pickled files are never opened.",
    )
    with gr.Row():
        files = gr.File(label="A zip, or the files", file_count="multiple", type="filepath", elem_id="adapter-file", height=150)
        folder = gr.File(label="Or a folder", file_count="directory", type="filepath", elem_id="adapter-folder", height=150)
        with gr.Column():
            name = gr.Textbox(
                label="Name", placeholder="for example connectpro-v3; a name is never used twice", max_length=60, elem_id="adapter-name"
            )
            foreign = gr.Checkbox(
                label="It was trained on other weights", info="Accept it if it fits this base's shape.", elem_id="adapter-foreign"
            )
    with actions():
        add = gr.Button("Check and add", elem_id="adapter-add", variant="primary")
    verdict = block(elem_id="adapter-verdict", min_height=24)

    @acts(house, "engineer", "admin")
    def add_adapter(person: "UserView", zips: list[str] | None, parts: list[str] | None, title: str, other: bool) -> list[Any]:
        from review.services.adapters import NotAccepted

        try:
            added = house.adapters.receive([*(zips or []), *(parts or [])], title or "", person.id, foreign=bool(other))
        except NotAccepted as error:
            return [refused_html(error.reasons), *[gr.skip()] * (3 + len(places))]
        house.answers.ensure_arms()
        return [accepted_html(added), None, None, "", *state(added.name)]

    added = add.click(add_adapter, [files, folder, name, foreign], [verdict, files, folder, name, *places], **SLOW)
    brings_into_view(added, "adapter-verdict")
    return added
