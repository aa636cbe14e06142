"""What goes to the page: a pair, a practice pair or a rest, as plain data that the page's script sets as text.

A pair is exactly its BlindPair: there is no field here for what a BlindPair does not hold. Must not know services or arms.
"""

from dataclasses import asdict
from typing import Any

from review.protocol.ballots import PRACTICE, BlindPair, Rest, TrainingPair, Voted


def scene_of(found: BlindPair | Rest) -> dict[str, Any]:
    return pair_scene(found) if isinstance(found, BlindPair) else rest_scene(found)


def pair_scene(pair: BlindPair) -> dict[str, Any]:
    return {"stage": "pair", **asdict(pair)}


def rest_scene(rest: Rest) -> dict[str, Any]:
    title = "That is all for now. Thank you." if rest.done else "Nothing to judge right now"
    return {"stage": "rest", "title": title, **asdict(rest)}


def practice_scene(pair: TrainingPair) -> dict[str, Any]:
    """Without the answer: what is best, and why, is told after the vote."""
    return {
        "stage": "practice",
        "number": pair.number,
        "of": PRACTICE,
        "prompt": pair.prompt,
        "left": pair.left,
        "right": pair.right,
    }


def voted_scene(voted: Voted) -> dict[str, Any]:
    return {
        "scene": pair_scene(voted.pair),
        "choice": voted.choice,
        "comment": voted.comment,
        "reasons": list(voted.reasons),
        "criteria": voted.criteria,
        "revision": voted.revision,
    }
