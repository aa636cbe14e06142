"""The Chat tab: the same question to two arms, both answers streaming in step from one batch. Must not know engines or prompts' format."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import BadInput, Unavailable
from ft.specs import DecodeSpec
from review.screens.lab.room import Room, choices
from review.screens.parts import actions, acts, block, empty_state, escape, heading, progress_bar
from review.services.answers import Message

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

EVERY = 0.12  # seconds between two pictures of the growing answers
KEPT = 20
WAIT_SECONDS = 180.0
EMPTY = empty_state("Ask both arms the same question.", "Each question is asked afresh, so both see exactly the same text.")


def exchange_html(question: str, texts: dict[str, str], state: str) -> str:
    """One question and the arms' answers side by side; `state` says what is going on, or why an arm failed."""
    panes = "".join(
        f'<section class="tb-pane tb-card"><h3 dir="auto">{escape(arm)}</h3>'
        f'<pre class="tb-plain tb-reply" dir="auto">{escape(text) or "…"}</pre></section>'
        for arm, text in texts.items()
    )
    words = f'<p class="tb-muted tb-small" role="status">{escape(state)}</p>' if state else ""
    return (
        f'<article class="tb-exchange"><pre class="tb-plain tb-asked" dir="auto">{escape(question)}</pre>'
        f'<div class="tb-panes">{panes}</div>{words}</article>'
    )


def build(house: "House") -> Room:
    heading("Chat", "The base and an adapter side by side. Nothing said here is stored or becomes training data.")
    with gr.Row():
        first = gr.Dropdown([], label="First arm", elem_id="chat-first")
        second = gr.Dropdown([], label="Second arm", elem_id="chat-second")
        longest = gr.Number(256, label="Longest answer, tokens", minimum=1, maximum=4096, precision=0, elem_id="chat-longest")
        warmth = gr.Number(0, label="Temperature (0: always the same)", minimum=0, maximum=2, step=0.1, elem_id="chat-temperature")
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
        arms = list(dict.fromkeys(arm for arm in (one, other) if arm)) or [arm for arm in ("base", house.adapters.in_use()) if arm]
        decode = DecodeSpec(max_new_tokens=int(tokens or 0), temperature=float(heat or 0))
        problems = decode.problems()
        if not words or problems:
            raise BadInput(" ".join(problems) or "There is no question yet. Write one first.")
        earlier = "".join(reversed(before))
        for waiting in _until_ready(house):
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
    wired: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 8}
    runs = [send.click(ask, inputs, outputs, **wired), question.submit(ask, inputs, outputs, **wired)]
    stop.click(None, cancels=list[Any](runs), api_visibility="private")

    def show(person: "UserView") -> list[Any]:
        house.answers.ensure_arms()
        arms = [arm.name for arm in house.answers.arms() if arm.kind in ("base", "adapter")]
        using = house.adapters.in_use()
        return [choices(arms, "base"), choices(arms, using or next((arm for arm in reversed(arms) if arm != "base"), None))]

    return Room([first, second], show)


def _until_ready(house: "House") -> Iterator[str]:
    """The model's progress as HTML until it can answer. Raises Unavailable where it failed or takes too long."""
    began = time.monotonic()
    while (status := house.engine.status()).state == "loading":
        if time.monotonic() - began > WAIT_SECONDS:
            raise Unavailable("The model is still loading. Ask again when the bar on top says it is ready.")
        words = f"{status.message.rstrip('.')}. Your question is asked as soon as it is ready."
        yield progress_bar(status.share, 1, words, label="Model loading")
        time.sleep(0.5)
    if status.state == "failed":
        raise Unavailable(status.message)
