"""Plain pairs: an answer to the question beside one to quite another question, so that a reader cannot but see which is better.

They show whether a reviewer reads, so nobody who reads may doubt them: the good answer must say what the question's reference says, in
words that the question did not give it. Only the words decide: the same rule holds for every arm. Pure. Must not know the database, the
models or the screens.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from review.protocol.blinding import fold

SAID, TOLD = 0.4, 3  # share of the reference's words that a good answer says; words that a reference must have to tell
TRIED = 20  # wrong answers looked at for a question
USUAL = 0.2  # of the questions: a word in more of them says nothing about any
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
    """One arm's answer to one prompt, and the prompt's reference answer ("" where it has none)."""

    answer: int
    arm: int
    prompt: int
    question: str
    reference: str
    text: str

    @property
    def topic(self) -> str:
        return f"{self.question}\n{self.reference}"


@lru_cache(maxsize=2048)
def topic_words(text: str) -> frozenset[str]:
    """The words that carry a text's subject, shortened so that plurals and endings do not part them."""
    return frozenset(word[:6] for word in re.findall(r"[^\W\d_]{4,}", fold(text)) if word not in _COMMON)


def plainly_better(good: Candidate, bad: Candidate, usual: frozenset[str] = frozenset()) -> bool:
    """Whether `good` speaks of its own prompt and `bad`, of another prompt and by another arm, clearly does not. `usual`: words that
    say nothing here."""
    if good.prompt == bad.prompt or good.arm == bad.arm:
        return False
    if not all(SHORTEST <= len(c.text) <= LONGEST for c in (good, bad)):
        return False
    asked, elsewhere, said, beside = (topic_words(text) - usual for text in (good.topic, bad.topic, good.text, bad.text))
    off_topic = not beside & asked and len(beside & elsewhere) >= 2
    return _share(good, usual) >= SAID and len(said & asked) > len(said & elsewhere) and off_topic and len(asked & elsewhere) <= 1


def _share(candidate: Candidate, usual: frozenset[str]) -> float:
    """How much of what the reference says, beyond the words of the question, the answer says too."""
    told = topic_words(candidate.reference) - topic_words(candidate.question) - usual
    return len(told & topic_words(candidate.text)) / len(told) if len(told) >= TOLD else 0.0


def usual_words(topics: Iterable[str]) -> frozenset[str]:
    """Words that so many questions use that they part none: a product's own name, "settings", "open"."""
    topics = list(topics)
    often = Counter(word for topic in topics for word in topic_words(topic))
    return frozenset(word for word, count in often.items() if count > USUAL * len(topics))


def plain_pairs(goods: Sequence[Candidate], bads: Sequence[Candidate], most: int) -> list[tuple[Candidate, Candidate]]:
    """Up to `most` (good, bad) pairs, each question and each wrong answer once.

    The answers that say most of the reference come first: the human agent's own, then those of a model that knows. Among equals the order
    given decides, which the caller draws.
    """
    usual = usual_words({c.prompt: c.topic for c in (*goods, *bads)}.values())
    found: list[tuple[Candidate, Candidate]] = []
    asked, left = set(), deque(bads)
    for good in sorted(goods, key=lambda c: -_share(c, usual)):
        if good.prompt in asked or len(found) == most:
            continue
        for _ in range(min(TRIED, len(left))):
            bad = left.popleft()
            if plainly_better(good, bad, usual):
                found.append((good, bad))
                asked.add(good.prompt)
                break
            left.append(bad)
    return found
