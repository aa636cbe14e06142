"""The positive controls: the same attacks against Gradio mounted as its documentation says, with nothing of ours in front.

An attack that does not succeed here proves nothing there. Not a test itself.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request

from tests.hostile.site import served


def mounted(blocks: gr.Blocks, path: str = "/app", who: Callable[[Request], str | None] | None = None, **more: Any) -> FastAPI:
    app = FastAPI()
    gr.mount_gradio_app(app, blocks, path, auth_dependency=who, **more)
    return app


@contextmanager
def stock(blocks: gr.Blocks, who: Callable[[Request], str | None] | None = None, **more: Any) -> Iterator[str]:
    with served(mounted(blocks, who=who, **more)) as base:
        yield base


def echo(log: list[str] | None = None) -> gr.Blocks:
    """A text box, a JSON field and a chat, each with a function that returns what it was given; a slow one and one with state."""
    log = [] if log is None else log

    def say(name: str) -> Callable[[Any], Any]:
        def handler(value: Any) -> Any:
            log.append(name)
            return value

        handler.__name__ = name
        return handler

    def slow() -> Iterator[str]:
        for number in range(100):
            log.append("slow")
            yield str(number)
            time.sleep(0.05)

    def remember(value: str, kept: str) -> tuple[str, str]:
        return kept, value or kept

    with gr.Blocks() as blocks:
        text, data, chat = gr.Textbox(), gr.JSON(), gr.Chatbot()
        state = gr.State("")
        gr.Button().click(say("text"), text, text)
        gr.Button().click(say("json"), data, data)
        gr.Button().click(say("chat"), chat, chat)
        gr.Button().click(slow, None, text)
        gr.Button().click(remember, [text, state], [text, state])
        with gr.Column(visible=False):
            gr.Button().click(say("hidden"), text, text, api_visibility="private", queue=False)
    return blocks


TEXT, JSON_FIELD, CHAT, SLOW, STATE, HIDDEN = range(6)
