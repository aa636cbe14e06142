"""The admin's tab of keys for programs: made, shown once, revoked. Must not know how keys are stored or checked."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.parts import SLOW, actions, acts, badge, block, empty_state, escape, heading, note, on_load, table, when

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.keys import KeyView
    from review.services.people import UserView

MAY = {"engineer": "ask the models", "viewer": "read usage figures", "admin": "ask the models", "reviewer": "nothing"}
MORE = "Whoever may ask may also load adapters and read the usage figures."
ROLES = [("Ask the models", "engineer"), ("Read usage figures", "viewer")]


def keys_html(keys: "list[KeyView]") -> str:
    rows = [
        [
            f"<bdi>{escape(key.name)}</bdi>",
            escape(MAY[key.role]),
            f"<bdi>{escape(key.made_by)}</bdi>" if key.made_by else "the command line",
            when(key.created_at),
            badge("revoked", "warn") if key.revoked else badge("active", "good"),
        ]
        for key in keys
    ]
    columns = ["Program", "May", "Made by", "Made", "State"]
    return table(columns, rows, "Keys") if rows else empty_state("No program has a key yet. Make the first one below.")


def key_html(name: str, key: str) -> str:
    """The one time a key is seen."""
    return (
        f'<div class="tb-card" role="status"><p><b>Key of <bdi>{escape(name)}</bdi></b>. Copy it now; it is not shown again.</p>'
        f'<pre class="tb-plain" tabindex="0" id="tb-key" aria-label="Key">{escape(key)}</pre></div>'
    )


def build_keys(house: "House") -> None:
    """The tab's content."""
    heading("Keys for programs", "A program sends its key with every request. What a key may do never exceeds what its maker may do today.")
    listed = block(elem_id="tb-keys", min_height=80)
    with actions():
        chosen = gr.Dropdown([], label="Key to revoke", elem_id="chosen-key", value=None, scale=2)
        revoke = gr.Button("Revoke key", variant="stop", elem_id="revoke-key")
    heading("Make a key", f"Programs ask at {house.settings.address}/v1 as they would ask OpenAI, and name an arm as the model. {MORE}")
    with actions():
        name = gr.Textbox(label="Name of the program", max_length=80, elem_id="new-key-name", scale=2)
        role = gr.Dropdown(ROLES, value="engineer", label="It may", elem_id="new-key-role", filterable=False, scale=2)
        make = gr.Button("Make a key", variant="primary", elem_id="make-key")
    shown_once = block(elem_id="tb-key-place", min_height=24)
    shown = [listed, chosen]

    def listing() -> list[Any]:
        keys = house.keys.keys()
        return [keys_html(keys), gr.Dropdown(choices=[key.name for key in keys if not key.revoked], value=None)]

    @acts(house, "admin")
    def show_keys(person: "UserView") -> list[Any]:
        return listing()

    @acts(house, "admin")
    def make_key(person: "UserView", new: str, role: str) -> list[Any]:
        key, made = house.keys.add(new, role, by=person.id)
        return [*listing(), key_html(made.name, key), ""]

    @acts(house, "admin")
    def revoke_key(person: "UserView", whose: str | None) -> list[Any]:
        if not whose:
            raise BadInput("No program is chosen. Choose one from the list first.")
        note(f"The key of {house.keys.revoke(whose, by=person.id).name} opens nothing any more.")
        return [*listing(), ""]

    on_load(show_keys, outputs=shown)
    make.click(make_key, [name, role], [*shown, shown_once, name], **SLOW)
    revoke.click(revoke_key, [chosen], [*shown, shown_once], **SLOW)
