"""What a tab of the lab hands back: how it fills itself when opened, and what of it moves by itself. Must not know any tab."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from review.services.people import UserView

TOLD: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How an event is wired that is quick but says what came of it: through the queue, since words of success need it, without a spinner."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Room:
    """`show(person)` gives a value for each of `outputs`, on opening; `live(person, *inputs)` for each of `moving`, every two seconds."""

    outputs: list[Any]
    show: Callable[["UserView"], list[Any]]
    moving: list[Any] = field(default_factory=list)
    live: Callable[..., list[Any]] | None = None
    inputs: list[Any] = field(default_factory=list)


def choices(names: list[str], chosen: str | None = None) -> gr.Dropdown:
    """A dropdown's new choices; keeps `chosen` where it is still there, else takes the first."""
    value = chosen if chosen in names else (names[0] if names else None)
    return gr.Dropdown(choices=list(names), value=value)
