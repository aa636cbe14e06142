"""What both kinds of chat share: who can talk, waiting for the model, one question and two answers as HTML. Must not know engines."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ft.errors import Unavailable
from review.screens.parts import escape, progress_bar

if TYPE_CHECKING:
    from review.services.house import House

EVERY = 0.12  # seconds between two pictures of the growing answers
WAIT_SECONDS = 180.0
STREAMS: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 8}


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


def talking_arms(house: "House") -> tuple[list[str], str | None]:
    """Names of the arms that can chat, and the one to put beside the base."""
    house.answers.ensure_arms()
    arms = [arm.name for arm in house.answers.arms() if arm.kind in ("base", "adapter")]
    return arms, house.adapters.in_use() or next((arm for arm in reversed(arms) if arm != "base"), None)


def until_ready(house: "House") -> Iterator[str]:
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
