"""The Blocks of /review: the desk as one piece of HTML, and the calls its script makes, each with one value in and one out.

The page holds two texts and a random assignment id. It must not know arms, adapters, models or the order of sides,
and it never asks the engine for anything: every answer shown was stored before.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

from ft.errors import UserError
from review.screens.parts import acts, block, page
from review.screens.review import sent as read
from review.screens.review.desk import desk_html
from review.screens.review.scene import practice_scene, scene_of, voted_scene

if TYPE_CHECKING:
    from review.services.house import House
    from review.services.people import UserView

log = logging.getLogger(__name__)
Sent = dict[str, Any]
LONGEST_SESSION = 24 * 3600.0


def build(house: "House") -> gr.Blocks:
    """The blocks of /review."""
    with gr.Blocks(title="Review · Tiebreak", analytics_enabled=False, fill_width=True) as blocks:
        page(house, "review", "Which answer is better?")
        block(desk_html(), elem_id="tb-review-place")
        for do in (*judging(house), *around(house)):
            offer(house, do)
        blocks.load(None, js="() => window.tb?.start()")
    return blocks


def offer(house: "House", do: Callable[["UserView", Sent], Sent]) -> None:
    """Make `do` callable by the page's script under its own name: no component, no queue, nothing to draw on the server."""
    handler = acts(house, "reviewer")(do)

    def answer(request: gr.Request, sent: dict[str, Any]) -> dict[str, Any]:
        return handler(request, sent)  # type: ignore[no-any-return]

    answer.__name__, answer.__qualname__, answer.__doc__ = do.__name__, do.__qualname__, do.__doc__
    answer.__dict__["roles"] = handler.__dict__["roles"]
    gr.api(answer, api_name=do.__name__, queue=False, api_visibility="private")


def opening(house: "House", person: "UserView") -> Sent:
    """Practice first, then the study."""
    practice = house.onboarding.next(person.id)
    return practice_scene(practice) if practice else scene_of(house.comparisons.next_pair(person.id))


def judging(house: "House") -> list[Callable[["UserView", Sent], Sent]]:
    """The calls about the pair in hand."""
    comparisons = house.comparisons

    def vote(person: "UserView", sent: Sent) -> Sent:
        """Store a vote or its change. Only after the first does the next pair come along, for the page to hold."""
        receipt = comparisons.vote(person.id, read.ballot(sent))
        reply: Sent = {"revision": receipt.revision, "asks": receipt.asks}
        if sent.get("ahead") is True and (scene := _ahead(house, person, receipt.assignment)):
            reply["scene"] = scene
        return reply

    def correct(person: "UserView", sent: Sent) -> Sent:
        receipt = comparisons.correct(person.id, read.text(sent, "assignment"), read.text(sent, "text"), read.text(sent, "key"))
        return {"revision": receipt.revision}

    def guess(person: "UserView", sent: Sent) -> Sent:
        comparisons.guess(person.id, read.text(sent, "assignment"), read.text(sent, "choice"))  # type: ignore[arg-type]
        return {}

    def reveal(person: "UserView", sent: Sent) -> Sent:
        names = comparisons.reveal(person.id, read.text(sent, "assignment"))
        return {"left": names.left, "right": names.right}

    def skip(person: "UserView", sent: Sent) -> Sent:
        comparisons.skip(person.id, read.text(sent, "assignment"), read.text(sent, "reason"), read.text(sent, "key"))
        return {"scene": scene_of(comparisons.next_pair(person.id))}

    return [vote, correct, guess, reveal, skip]


def around(house: "House") -> list[Callable[["UserView", Sent], Sent]]:
    """The calls between pairs."""

    def begin(person: "UserView", sent: Sent) -> Sent:
        return {"who": person.name, "scene": opening(house, person)}

    def practise(person: "UserView", sent: Sent) -> Sent:
        told = house.onboarding.answer(person.id, read.number(sent, "pair"), read.text(sent, "choice"))  # type: ignore[arg-type]
        after = house.onboarding.next(person.id)
        return {"right": told.right, "words": told.words, "scene": practice_scene(after) if after else None}

    def back(person: "UserView", sent: Sent) -> Sent:
        voted = house.comparisons.last(person.id)
        return {"voted": voted_scene(voted) if voted else None}

    def reward(person: "UserView", sent: Sent) -> Sent:
        since = time.time() - read.seconds(sent, "seconds", LONGEST_SESSION)
        return asdict(house.sessions.reward(person.id, since))

    return [begin, practise, back, reward]


def _ahead(house: "House", person: "UserView", assignment: str) -> Sent | None:
    """The pair after this one; None where it cannot be had now. The vote is stored already and must not look refused."""
    try:
        return scene_of(house.comparisons.ahead(person.id, assignment))
    except UserError:
        return None
    except Exception:
        log.exception("the next pair could not be fetched ahead")
        return None
