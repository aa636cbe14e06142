"""The part of the In use tab where an adapter is exported: made and proved in the background, then fetched as a zip.

Must not know files, torch or storage.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from review.screens.lab.room import Room, choices
from review.screens.parts import QUICK, SLOW, actions, acts, badge, block, empty_state, escape, heading, note, progress_bar, table, when

if TYPE_CHECKING:
    from review.services.exports import ExportView
    from review.services.house import House
    from review.services.people import UserView

TONES = {"finished": "good", "failed": "bad", "lost": "bad", "running": "plain"}
FORMS = {"Adapter folder (PEFT, vLLM)": "adapter", "Merged model (safetensors)": "merged", "GGUF (llama.cpp)": "gguf"}


def exports_html(exports: "Sequence[ExportView]") -> str:
    if not exports:
        return empty_state("Nothing was exported yet.", "Each export is replayed on held-out prompts before it is given out.")
    rows = []
    for one in exports:
        told = progress_bar(one.share, 1, one.message, label="Export") if one.state == "running" else escape(one.message)
        fetch = f'<a href="/download/export/{escape(one.id)}" download>Fetch the zip</a>' if one.state == "finished" else ""
        size = f"{one.bytes / 2**20:.0f} MB" if one.bytes else "—"
        name = f'<b dir="auto">{escape(one.adapter)}</b><br><span class="tb-muted tb-small">{escape(when(one.at))}</span>'
        rows.append([name, escape(one.kind), badge(one.state, TONES.get(one.state, "plain")), told, size, fetch])
    return table(["Adapter", "Form", "State", "Proof", "Size", "File"], rows, "Exports, newest first", numeric=(4,))


def export_part(house: "House") -> Room:
    heading(
        "Export",
        "To use an adapter elsewhere. The files are loaded again as anybody would load them and must choose the same tokens as base and "
        "adapter on up to 50 held-out prompts; otherwise nothing is given out.",
    )
    with actions():
        adapter = gr.Dropdown([], label="Adapter", elem_id="export-adapter")
        form = gr.Dropdown(list(FORMS), value=next(iter(FORMS)), label="Form", elem_id="export-form")
        start = gr.Button("Export", variant="primary", elem_id="export-start")
    listing = block(elem_id="export-list", min_height=40)
    with gr.Row(visible=False, elem_classes=["tb-actions"]) as done:
        old = gr.Dropdown([], label="Export", elem_id="export-chosen")
        delete = gr.Button("Delete this export", variant="stop", elem_id="export-delete")
    places = [adapter, listing, old, done]

    def state() -> list[Any]:
        found = house.exports.exports()
        names = [one.name for one in reversed(house.adapters.adapters()) if one.status == "registered"]
        ended = [one.id for one in found if one.state != "running"]
        return [choices(names, house.adapters.in_use()), exports_html(found), choices(ended), gr.Row(visible=bool(ended))]

    @acts(house, "engineer", "admin")
    def start_export(person: "UserView", name: str | None, shape: str | None) -> list[Any]:
        if not name:
            raise BadInput("No adapter is chosen. Choose one from the list first.")
        house.exports.start(name, FORMS.get(shape or "", "adapter"), person.id)
        note("The export is being made and proved. You may leave this page.")
        return state()

    @acts(house, "engineer", "admin")
    def delete_export(person: "UserView", export_id: str | None) -> list[Any]:
        if not export_id:
            raise BadInput("No export is chosen. Choose one from the list first.")
        house.exports.delete(export_id, person.id)
        note("The export is deleted.")
        return state()

    start.click(start_export, [adapter, form], places, **SLOW)
    delete.click(delete_export, [old], places, **QUICK)
    return Room(places, lambda person: state(), [listing], lambda person: [exports_html(house.exports.exports())])
