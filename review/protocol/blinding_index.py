"""Whether the blinding held: Bang's index of reviewers' guesses at which answer is the tuned model's.

After H. Bang, L. Ni and C. E. Davis, Assessment of blinding in clinical trials, Controlled Clinical Trials 25 (2004): right minus wrong
guesses over all that were asked, "unsure" included; 0 is blind, 1 is found out, -1 is wrong each time. The 95 % interval is that of
D. G. Bonett and R. M. Price (2012) for such a difference, which holds for few guesses too, where Bang's own is too narrow. Limits: the
guesses of one reviewer are taken as independent. Pure. Must not know the database, the models or the screens.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from review.protocol.shares import Z

FOUND_OUT = 0.2  # Bang's own reading: beyond it the blinding has failed in practice


@dataclass(frozen=True, slots=True)
class Blinding:
    """`index` with its standard error (Bang's) and interval; None until somebody was asked. `asked` = right + wrong + unsure."""

    asked: int
    right: int
    wrong: int
    unsure: int
    index: float | None
    error: float | None
    low: float | None
    high: float | None
    words: str


def blinding(guesses: Iterable[tuple[str, str]]) -> Blinding:
    """Each guess as (what was said: left, right or unsure; the side that is the tuned model's)."""
    said = list(guesses)
    unsure = sum(guess == "unsure" for guess, _ in said)
    right = sum(guess == truth for guess, truth in said)
    return bang(right, len(said) - right - unsure, unsure)


def bang(right: int, wrong: int, unsure: int) -> Blinding:
    n = right + wrong + unsure
    if not n:
        return Blinding(0, 0, 0, 0, None, None, None, None, "Nobody was asked yet which answer is the tuned model's.")
    index = (right - wrong) / n
    error = math.sqrt(max((right + wrong) / n - index**2, 0.0) / n)
    more, less = (right + 1) / (n + 2), (wrong + 1) / (n + 2)
    half = Z * math.sqrt((more + less - (more - less) ** 2) / (n + 2))
    low, high = max(-1.0, more - less - half), min(1.0, more - less + half)
    return Blinding(n, right, wrong, unsure, index, error, low, high, _words(n, right, wrong, index, low, high))


def _words(n: int, right: int, wrong: int, index: float, low: float, high: float) -> str:
    said = f"Asked {n} times which answer is the tuned model's, reviewers were right {right} and wrong {wrong} times"
    if low > 0:
        return f"{said}: more often right than by chance{', so the blinding failed' if index > FOUND_OUT else ''}."
    if high < 0:
        return f"{said}: more often wrong than by chance, so they take one arm for the other."
    return f"{said}: no better than chance{'' if high <= FOUND_OUT else ', though more answers are needed to be sure'}."


def tuned_side(left_arm: str, right_arm: str, tuned: Iterable[str]) -> str:
    """The side that is the tuned model's; "" where neither or both are, so that there is nothing to ask."""
    known = set(tuned)
    left, right = left_arm in known, right_arm in known
    return "" if left == right else "left" if left else "right"
