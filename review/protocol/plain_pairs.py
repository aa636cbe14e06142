"""Plain pairs: an answer to the question beside one to quite another question, so that a reader cannot but see which is better.

They show whether a reviewer reads. Only the words decide, so that the same rule holds for every arm. Pure. Must not know the database,
the models or the screens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from review.protocol.blinding import fold

SHORTEST, LONGEST = 20, 4_000  # characters of an answer that can be plainly right or wrong
_COMMON = {
    "about", "after", "again", "also", "been", "before", "being", "both", "could", "does", "done", "each", "even", "from", "have",
    "here", "into", "just", "like", "make", "many", "more", "most", "much", "need", "only", "other", "over", "please", "same",
    "should", "some", "such", "sure", "than", "that", "their", "them", "then", "there", "these", "they", "this", "those", "through",
    "time", "under", "until", "very", "want", "well", "were", "what", "when", "where", "which", "while", "will", "with", "would",
    "your", "help", "thank", "thanks", "hello", "team", "best", "regards", "dear", "issue", "problem", "steps", "step", "using",
    "used", "work", "works", "working", "support", "contact", "customer",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """One arm's answer to one prompt; `topic` is the prompt with its reference."""

    answer: int
    arm: int
    prompt: int
    topic: str
    text: str


@lru_cache(maxsize=2048)
def topic_words(text: str) -> frozenset[str]:
    """The words that carry a text's subject, shortened so that plurals and endings do not part them."""
    return frozenset(word[:6] for word in re.findall(r"[^\W\d_]{4,}", fold(text)) if word not in _COMMON)


def plainly_better(good: Candidate, bad: Candidate) -> bool:
    """Whether `good` speaks of its own prompt and `bad`, of another prompt and by another arm, clearly does not."""
    if good.prompt == bad.prompt or good.arm == bad.arm:
        return False
    if not all(SHORTEST <= len(c.text) <= LONGEST for c in (good, bad)):
        return False
    asked, elsewhere = topic_words(good.topic), topic_words(bad.topic)
    said, beside = topic_words(good.text), topic_words(bad.text)
    on_topic = len(said & asked) >= 2 and len(said & asked) > len(said & elsewhere)
    off_topic = not beside & asked and len(beside & elsewhere) >= 2
    return on_topic and off_topic and len(asked & elsewhere) <= 1


def plain_pairs(goods: Sequence[Candidate], bads: Sequence[Candidate], most: int) -> list[tuple[Candidate, Candidate]]:
    """Up to `most` (good, bad) pairs, each prompt once; the lists are taken in the order given, which the caller draws."""
    found, done = [], set()
    for place, good in enumerate(goods):
        if good.prompt in done:
            continue
        turned = [*bads[place % max(1, len(bads)) :], *bads[: place % max(1, len(bads))]]
        if bad := next((bad for bad in turned[:12] if plainly_better(good, bad)), None):
            found.append((good, bad))
            done.add(good.prompt)
        if len(found) == most:
            break
    return found
