"""The lab: the engineer's part, one tab a file. Tabs fill themselves when opened; one timer keeps the open one fresh.

Long work never lives in a handler here: tabs start jobs and runs, and read how far they are. Must not know storage or torch.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from review.screens.lab import answers, arms, base, chat, compare, data, integrity, promotion, retrain, studies
from review.screens.lab.room import Room
from review.screens.parts import QUICK, acts, escape, page, progress_bar

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

TABS = (
    ("data", "Data", data.build),
    ("adapters", "Adapters", arms.build),
    ("chat", "Chat", chat.build),
    ("answers", "Answers", answers.build),
    ("studies", "Studies", studies.build),
    ("retrain", "Retrain", retrain.build),
    ("compare", "Compare", compare.build),
    ("promotion", "In use", promotion.build),
    ("integrity", "Integrity", integrity.build),
    ("base", "Base", base.build),
)
ROLES = ("engineer", "admin")
EVERY = 2.0  # seconds


def model_html(house: "House") -> str:
    """The engine's state in words, with a bar while it loads."""
    status = house.engine.status()
    if status.state == "ready":
        return f'<p class="tb-model">Model: {escape(status.message[:1].lower() + status.message[1:])}</p>'
    if status.state == "away":
        return f'<p class="tb-model tb-warn-ink" role="status">{escape(status.message)}</p>'
    if status.state == "failed":
        return f'<p class="tb-model tb-bad-ink" role="alert">{escape(status.message)}</p>'
    return progress_bar(status.share, 1, status.message, label="Model loading")


def build(house: "House") -> gr.Blocks:
    """The blocks of /lab."""
    with gr.Blocks(title="Lab · Tiebreak", analytics_enabled=False, fill_width=True) as blocks:
        model = page(house, "lab", "Lab")
        rooms: dict[str, Room] = {}
        tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="lab-tabs", overflow_behavior="wrap"):
            for key, title, fill in TABS:
                with gr.Tab(title, id=key, elem_id=f"lab-{key}") as tab:
                    rooms[key], tabs[key] = fill(house), tab
        here = gr.Textbox(TABS[0][0], label="tab", visible="hidden")
        _open_on_select(house, rooms, tabs, here, blocks, model)
        _keep_fresh(house, rooms, here, model)
    return blocks


def _open_on_select(
    house: "House", rooms: dict[str, Room], tabs: dict[str, gr.Tab], here: gr.Textbox, blocks: gr.Blocks, model: gr.HTML
) -> None:
    for key, room in rooms.items():

        @acts(house, *ROLES)
        def open_tab(person: "UserView", key: str = key, room: Room = room) -> list[Any]:
            return [key, *room.show(person)]

        tabs[key].select(open_tab, None, [here, *room.outputs], **QUICK)
    first = rooms[TABS[0][0]]

    @acts(house, *ROLES)
    def open_lab(person: "UserView") -> list[Any]:
        return [model_html(house), *first.show(person)]

    blocks.load(open_lab, None, [model, *first.outputs], **QUICK)


def _keep_fresh(house: "House", rooms: dict[str, Room], here: gr.Textbox, model: gr.HTML) -> None:
    inputs = [one for room in rooms.values() for one in room.inputs]

    @acts(house, *ROLES, quiet=True)
    def keep_fresh(person: "UserView", key: str, *values: Any) -> list[Any]:
        said: list[Any] = [model_html(house)]
        start = 0
        for name, room in rooms.items():
            own = values[start : start + len(room.inputs)]
            start += len(room.inputs)
            said += room.live(person, *own) if name == key and room.live else [gr.skip()] * len(room.moving)
        return said

    gr.Timer(EVERY).tick(keep_fresh, [here, *inputs], [model, *(one for room in rooms.values() for one in room.moving)], **QUICK)
