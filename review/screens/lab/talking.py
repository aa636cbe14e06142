"""What both kinds of chat share: who can talk, waiting for the model, one question and two answers as HTML. Must not know engines."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ft.errors import Unavailable
from review.screens.lab.room import choices
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


AWAY = "A question to a remote arm leaves this machine and is paid for at its price. Its answer comes whole, and so does the one beside it."


def talking_arms(house: "House") -> list[Any]:
    """Values for two dropdowns and a remark: the arms that can chat, the base and the one to put beside it first."""
    found = house.answers.talking()
    names, base = [arm.name for arm in found], house.answers.base_arm()
    ours = [arm.name for arm in found if arm.kind == "adapter"]
    beside = house.adapters.in_use() or next(reversed(ours or [name for name in names if name != base]), None)
    remote = any(arm.kind == "remote" for arm in found)
    return [choices(names, base), choices(names, beside), f'<p class="tb-muted tb-small">{AWAY}</p>' if remote else ""]


def usual_two(house: "House") -> list[str]:
    """The base and what is in use beside it, where nobody chose."""
    return [arm for arm in (house.answers.base_arm(), house.adapters.in_use()) if arm]


def until_ready(house: "House") -> Iterator[str]:
    """The model's progress as HTML until it can answer. Raises Unavailable where it failed or takes too long."""
    began = time.monotonic()
    while (status := house.engine.status()).state == "loading":
        if time.monotonic() - began > WAIT_SECONDS:
            raise Unavailable("The model is still loading. Ask again when the bar on top says it is ready.")
        words = f"{status.message.rstrip('.')}. Your question is asked as soon as it is ready."
        yield progress_bar(status.share, 1, words, label="Model loading")
        time.sleep(0.5)
    if status.state in ("failed", "away"):
        raise Unavailable(status.message)
