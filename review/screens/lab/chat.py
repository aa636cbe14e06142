"""The Chat tab: the same question to two arms, with their names or blind, both answers streaming in step from one batch.

Must not know engines or prompts' format.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput
from ft.specs import DecodeSpec
from review.screens.lab import blind_chat
from review.screens.lab.room import Room
from review.screens.lab.talking import EVERY, STREAMS, exchange_html, talking_arms, until_ready, usual_two
from review.screens.parts import actions, acts, block, empty_state, heading
from review.services.answers import Message

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

KEPT = 20
EMPTY = empty_state("Ask both arms the same question.", "Each question is asked afresh, so both see exactly the same text.")


def build(house: "House") -> Room:
    with gr.Tabs(elem_id="chat-tabs", overflow_behavior="wrap"):
        with gr.Tab("With names", id="named", elem_id="chat-named"):
            named = _named(house)
        with gr.Tab("Blind, for practice", id="blind", elem_id="chat-blind"):
            blind = blind_chat.build(house)

    def show(person: "UserView") -> list[Any]:
        return [*named.show(person), *blind.show(person)]

    return Room([*named.outputs, *blind.outputs], show)


def _named(house: "House") -> Room:
    heading("Chat", "The base and an adapter side by side. Nothing said here is stored or becomes training data.")
    with gr.Row():
        first = gr.Dropdown([], label="First arm", elem_id="chat-first")
        second = gr.Dropdown([], label="Second arm", elem_id="chat-second")
        longest = gr.Number(256, label="Longest answer, tokens", minimum=1, maximum=4096, precision=0, elem_id="chat-longest")
        warmth = gr.Number(0, label="Temperature (0: always the same)", minimum=0, maximum=2, step=0.1, elem_id="chat-temperature")
    away = block(elem_id="chat-away")
    question = gr.Textbox(label="Question", placeholder="What would a customer ask?", lines=2, max_lines=8, elem_id="chat-question")
    with actions():
        send = gr.Button("Ask both", variant="primary", elem_id="chat-send")
        stop = gr.Button("Stop", elem_id="chat-stop")
    now = block(EMPTY, elem_id="chat-now", min_height=180)
    past = block(elem_id="chat-past")
    asked = gr.State([])

    @acts(house, "engineer", "admin")
    def ask(
        person: "UserView", words: str, one: str | None, other: str | None, tokens: float, heat: float, before: list[str]
    ) -> Iterator[list[Any]]:
        words = (words or "").strip()
        arms = list(dict.fromkeys(arm for arm in (one, other) if arm)) or usual_two(house)
        decode = DecodeSpec(max_new_tokens=int(tokens or 0), temperature=float(heat or 0))
        problems = decode.problems()
        if not words or problems:
            raise BadInput(" ".join(problems) or "There is no question yet. Write one first.")
        earlier = "".join(reversed(before))
        for waiting in until_ready(house):
            yield [exchange_html(words, {}, "") + waiting, earlier, words, before]
        texts, state, shown = dict.fromkeys(arms, ""), "", 0.0
        yield [exchange_html(words, texts, "Waiting for the model’s next free moment…"), earlier, words, before]
        for step in house.answers.chat(arms, (Message("user", words),), decode):
            texts.update(step.texts)
            state = str(step.failed or "")
            if time.monotonic() - shown > EVERY:
                shown = time.monotonic()
                yield [exchange_html(words, texts, state or "Answering…"), earlier, "", before]
        whole = exchange_html(words, texts, state)
        yield [whole, earlier, "", [*before, whole][-KEPT:]]

    outputs = [now, past, question, asked]
    inputs = [question, first, second, longest, warmth, asked]
    runs = [send.click(ask, inputs, outputs, **STREAMS), question.submit(ask, inputs, outputs, **STREAMS)]
    stop.click(None, cancels=list[Any](runs), api_visibility="private")

    def show(person: "UserView") -> list[Any]:
        return talking_arms(house)

    return Room([first, second, away], show)
