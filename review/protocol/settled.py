"""What a reviewer's votes settled, in words too coarse to tell which arm is ahead or to move with a single vote.

Pure. Must not know the database, the models or the screens.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

STEP = 5  # a session's votes count in steps of five
ENOUGH = 10  # judged pairs of a subject before anything is said of it
SHARED = 5  # pairs that others judged too before agreement is told
TOLD = 3  # subjects named at most
Points = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Judged:
    """One vote on a real pair: its subjects, its two arms in a fixed order, and what each won (half each for a tie)."""

    subjects: tuple[str, ...]
    arms: tuple[int, int]
    points: Points
    mine: bool


def is_settled(points: Iterable[Points]) -> bool:
    """Whether, of every two arms that met often enough, one is ahead by more than chance explains. `points`: sums of each two arms."""
    met = [(one, other) for one, other in points if one + other >= ENOUGH]
    return bool(met) and all(_apart(one, other) for one, other in met)


def _apart(one: float, other: float) -> bool:
    """Wilson's 95 % interval of the share leaves out one half."""
    n, share = one + other, one / (one + other)
    middle, half = (share + 1.92 / n) / (1 + 3.84 / n), 1.96 * sqrt(share * (1 - share) / n + 0.96 / n**2) / (1 + 3.84 / n)
    return not middle - half <= 0.5 <= middle + half


def told(votes: Sequence[Judged]) -> tuple[str, ...]:
    """Lines about the subjects that this session's votes settled, else about those it brought closer. `votes`: in the order cast."""
    mine = [vote for vote in votes if vote.mine]
    counted = {id(vote) for vote in mine[: len(mine) // STEP * STEP]}
    kept = [vote for vote in votes if not vote.mine or id(vote) in counted]
    before, after = _sums(vote for vote in kept if not vote.mine), _sums(kept)
    judged = Counter(subject for vote in kept if vote.mine for subject in vote.subjects)
    often = [subject for subject, count in judged.most_common() if count >= STEP]
    settled = [s for s in often if is_settled(after[s].values()) and not is_settled(before[s].values())]
    if settled:
        return tuple(f"“{subject}” moved from unclear to settled." for subject in settled[:TOLD])
    unclear = [s for s in often if not is_settled(after[s].values())]
    return tuple(f"“{subject}” is still unclear: every vote on it helps." for subject in unclear[:1])


def _sums(votes: Iterable[Judged]) -> Mapping[str, Mapping[tuple[int, int], Points]]:
    found: dict[str, dict[tuple[int, int], Points]] = defaultdict(lambda: defaultdict(lambda: (0.0, 0.0)))
    for vote in votes:
        for subject in vote.subjects:
            one, other = found[subject][vote.arms]
            found[subject][vote.arms] = (one + vote.points[0], other + vote.points[1])
    return found


def agreement(mine: Mapping[str, str], others: Iterable[tuple[str, str]]) -> float | None:
    """Share of others' votes on the same pairs that said the same, to a tenth; None where fewer than five pairs were judged by others.

    `mine`: pair -> what was voted better; `others`: (pair, the same of one other vote).
    """
    shares: dict[str, list[bool]] = defaultdict(list)
    for pair, better in others:
        if pair in mine:
            shares[pair].append(better == mine[pair])
    if len(shares) < SHARED:
        return None
    return round(sum(sum(same) / len(same) for same in shares.values()) / len(shares), 1)
