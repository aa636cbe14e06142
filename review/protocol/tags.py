"""Tag by tag: the challenger against the arm to beat, and whether it is clearly worse somewhere.

A tag counts as worse by the evidence that the rule asks for, multiplied by how many tags were looked at: the betting e-value stays valid
however often people look, and the product keeps the chance of any false alarm what it is for one. A prompt with several tags counts in
each. Pure. Must not know the database, the models or the screens.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from review.protocol.ranking import Duel, WinRate, first_decisive, log_e_value, win_rate


@dataclass(frozen=True, slots=True)
class TagResult:
    """`win_rate` with its interval over `votes`. `worse`: clearly worse than the arm to beat; `too_few`: that could not have been
    clear even if every vote had gone against it."""

    tag: str
    votes: int
    win_rate: WinRate
    worse: bool
    too_few: bool
    words: str


def tag_results(duels: Iterable[tuple[Duel, Sequence[str]]], arm: str, against: str, e_value: float) -> tuple[TagResult, ...]:
    """For each tag of the duels between the two, most votes first."""
    by_tag: dict[str, list[Duel]] = {}
    for found, tags in duels:
        if {found.first, found.second} == {arm, against}:
            for tag in tags:
                by_tag.setdefault(tag, []).append(found)
    needed = math.log(e_value) + math.log(max(len(by_tag), 1))
    results = [_result(tag, mine, arm, needed) for tag, mine in by_tag.items()]
    return tuple(sorted(results, key=lambda r: (-r.votes, r.tag)))


def _result(tag: str, duels: Sequence[Duel], arm: str, needed: float) -> TagResult:
    rate = win_rate(duels, arm)
    wins, decisive = first_decisive(duels, arm)
    worse = log_e_value(wins, decisive) >= needed and 2 * wins < decisive
    too_few = log_e_value(0, decisive) < needed
    words = "clearly worse" if worse else "too few votes to tell" if too_few else "not clearly worse"
    return TagResult(tag, rate.votes, rate, worse, too_few, words)


def worse_tags(results: Iterable[TagResult]) -> Mapping[str, float]:
    """Tag -> win rate, of those that are clearly worse."""
    return {r.tag: r.win_rate.value for r in results if r.worse}
