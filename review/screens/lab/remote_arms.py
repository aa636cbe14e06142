"""The part of the Adapters tab about models on other servers: each with its address, prices and cost so far, and a form for one more.

A key is never typed here: only the name of the variable that holds it. Must not know engines, HTTP or storage.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr

from review.screens.lab.room import Room
from review.screens.parts import SLOW, actions, acts, block, empty_state, escape, heading, note, table

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView
    from review.services.remotes import RemoteView


def remotes_html(arms: "Sequence[RemoteView]") -> str:
    if not arms:
        return empty_state("No model on another server yet.", "Add a hosted one below to see how far your own model is from it.")
    rows = [
        [
            f'<b dir="auto">{escape(one.name)}</b>',
            f'<span dir="auto">{escape(one.model)}</span><br><span class="tb-muted tb-small" dir="auto">{escape(_address(one.url))}</span>',
            f"<code>{escape(one.key_env)}</code>" if one.key_env else "none",
            f"{one.price_in:g} · {one.price_out:g}" if one.price_in or one.price_out else "not given",
            str(one.answers),
            f"{one.cost:.4f}" if one.price_in or one.price_out else "—",
        ]
        for one in reversed(arms)
    ]
    head = ["Arm", "Model and server", "Key in", "Price read · written", "Answers", "Cost so far"]
    return table(head, rows, "Models on other servers, newest first", numeric=(4, 5))


def _address(url: str) -> str:
    """Without what nobody should put into an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def remotes_part(house: "House") -> Room:
    heading(
        "Models on other servers",
        "A hosted model as one more arm, by the OpenAI protocol. Its prompts leave this machine. It answers prompt sets, enters studies "
        "and can be chatted with; the cost is that of its stored answers, in the currency of the prices.",
    )
    listing = block(elem_id="remote-list", min_height=60)
    with gr.Row():
        name = gr.Textbox(label="Name here", placeholder="for example hosted-large", max_length=60, elem_id="remote-name")
        url = gr.Textbox(label="Address", placeholder="https://api.example.com/v1", max_length=500, elem_id="remote-url")
        model = gr.Textbox(label="Model, as the server lists it", max_length=200, elem_id="remote-model")
    with gr.Row():
        key_env = gr.Textbox(
            label="Variable that holds the key", placeholder="for example EXAMPLE_KEY", max_length=100, elem_id="remote-key",
            info="Its name, never the key. Set it where the app is started. Empty: no key.",
        )  # fmt: skip
        price_in = gr.Number(0, label="Price of a million tokens read", minimum=0, elem_id="remote-price-in", info="0: not known.")
        price_out = gr.Number(0, label="Price of a million tokens written", minimum=0, elem_id="remote-price-out", info="0: not known.")
    with actions():
        add = gr.Button("Add this model", elem_id="remote-add")

    def show(person: "UserView") -> list[Any]:
        return [remotes_html(house.remotes.arms())]

    @acts(house, "engineer", "admin")
    def add_remote(
        person: "UserView", title: str, address: str, asked: str, variable: str, read: float | None, written: float | None
    ) -> list[Any]:
        house.remotes.add(
            title or "", (address or "").strip(), asked or "", (variable or "").strip(), read or 0.0, written or 0.0, by=person.id
        )
        note(f"{(title or '').strip()} is an arm now. Let it answer a prompt set under Answers.")
        return ["", "", "", "", 0, 0, *show(person)]

    fields = [name, url, model, key_env, price_in, price_out]
    add.click(add_remote, fields, [*fields, listing], **SLOW)
    return Room([listing], show)
