"""The next pair for a reviewer: balanced over prompts and arm pairs, resumable, never the same pair twice.

Pure and deterministic given its random source. Must not know the database, the models or the screens.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


def pair_key(first_answer: int, second_answer: int) -> str:
    """The same key for the same two answers, whichever stands left."""
    return f"{min(first_answer, second_answer)}-{max(first_answer, second_answer)}"


@dataclass(frozen=True)
class Candidate:
    """Two answers to one prompt. `taken` counts the reviewers who voted on it or are looking at it now."""

    prompt: int
    answers: tuple[int, int]
    arms: tuple[int, int]
    taken: int = 0

    @cached_property
    def key(self) -> str:
        return pair_key(*self.answers)


@dataclass(frozen=True, slots=True)
class Given:
    """A pair this reviewer was given before. `open` while it can still be voted on and has no vote."""

    assignment: str
    key: str
    prompt: int
    open: bool


def waiting(candidates: Iterable[Candidate], history: Iterable[Given], votes_needed: int) -> list[Candidate]:
    """The candidates that still need votes and that this reviewer has never been given."""
    seen = {given.key for given in history}
    return [c for c in candidates if c.taken < votes_needed and c.key not in seen]


def choose(candidates: Sequence[Candidate], history: Sequence[Given], votes_needed: int, rng: random.Random) -> Given | Candidate | None:
    """An unvoted assignment first; else the pair with fewest takers, of the arm pair and prompt with fewest; None when nothing is left."""
    for given in history:
        if given.open:
            return given
    left = waiting(candidates, history, votes_needed)
    if not left:
        return None
    by_arms: Counter[tuple[int, ...]] = Counter()
    by_prompt: Counter[int] = Counter()
    for c in candidates:
        by_arms[tuple(sorted(c.arms))] += c.taken
        by_prompt[c.prompt] += c.taken
    mine = Counter(given.prompt for given in history)

    def order(c: Candidate) -> tuple[int, int, int, int]:
        return c.taken, by_arms[tuple(sorted(c.arms))], mine[c.prompt], by_prompt[c.prompt]

    best = min(order(c) for c in left)
    return rng.choice([c for c in left if order(c) == best])
