"""Reviewers who do not review: why somebody's votes should be looked at again, in words.

Five looks. Haste, a preference for a side, one's own earlier vote not repeated, plain pairs missed: each by itself, where it is beyond what
happens to somebody honest. And all of it together with how far the votes follow those of others on the same pairs: the odds that they were
drawn blindly rather than judged. For an honest reviewer these odds pass fifty to one about once in fifty at most, however often one
looks (Ville's inequality); they rest on the agreement that the others have among themselves, so that nobody is accused where people agree
on nothing. Pure. Must not know the database, the models or the screens.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, chdtrc

from review.protocol.records import VoteRecord, current
from review.protocol.shares import exact_side

STEADY, ATTENTIVE = 0.7, 0.9  # how often an honest reviewer repeats a vote, and sees a plainly better answer
FLIPPED = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}
CHARACTERS_A_WORD = 6
RARE = 0.001  # how unlikely a preference for one side must be
ODDS = math.log(50)
LEAN = 10  # votes beside one of another kind that weigh as much as knowing nothing of how the two go together
SAID = ("first", "second", "tie", "both_bad")
Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Peers:
    """What others said on the same pairs. `odds`: log odds that this reviewer's votes do not follow theirs at all; `alike` of `shared`
    votes were also what most others said."""

    odds: float = 0.0
    shared: int = 0
    alike: int = 0


def too_fast(seconds: float, words: float) -> bool:
    """Quicker than anyone reads: below 3 s, or below one second for every 15 words on the screen."""
    return seconds < max(3.0, words / 15)


def self_consistency(repeats: Sequence[tuple[str, str]]) -> float:
    """Share of repeated pairs judged alike, each as (first choice, choice with the sides swapped). NaN without repeats."""
    return sum(FLIPPED[second] == first for first, second in repeats) / len(repeats) if repeats else math.nan


def doubts(
    choices: Sequence[str],
    hasty: int,
    repeats: Sequence[tuple[str, str]] = (),
    obvious: Sequence[bool] = (),
    peers: Peers | None = None,
    timed: int | None = None,
    drawn: bool = True,
) -> tuple[str, ...]:
    """Reasons, in words, to look at a reviewer's votes again; empty when there are none.

    A low share alone accuses honest people on few repeats: it must also be rarer than 1 in 50 for somebody steady. `hasty` of `timed` votes
    were `too_fast`; `obvious` says of each plain pair whether the better answer was chosen; `drawn`: sides were drawn by lot.
    """
    peers, n = peers or Peers(), len(choices) if timed is None else timed
    side = exact_side(choices.count("left"), choices.count("right"))
    agreed, right = sum(FLIPPED[second] == first for first, second in repeats), sum(obvious)
    checks = [
        (hasty >= 5 and hasty >= 0.2 * n, f"{hasty} of {n} votes came faster than the answers can be read"),
        (drawn and side.p < RARE, f"chose the left side {side.left} times and the right side {side.right} times"),
        (
            agreed < 0.6 * len(repeats) and bdtr(agreed, len(repeats), STEADY) < 0.02,
            f"agreed with their own earlier vote on {agreed} of {len(repeats)} repeated pairs",
        ),
        (
            right < 0.8 * len(obvious) and bdtr(right, len(obvious), ATTENTIVE) < 0.02,
            f"got {right} of {len(obvious)} plain pairs right",
        ),
    ]
    found = tuple(words for wrong, words in checks if wrong)
    if not found and _odds(choices, agreed, len(repeats), right, len(obvious)) + peers.odds > ODDS:
        return (_guessing(agreed, len(repeats), right, len(obvious), peers),)
    return found


def _odds(choices: Sequence[str], agreed: int, repeats: int, right: int, plain: int) -> float:
    """Log odds, from plain and repeated pairs, that votes with these shares of left, right, tie and both bad were drawn blindly."""
    share = {choice: count / len(choices) for choice, count in Counter(choices).items()} if choices else {}
    left, side = share.get("left", 0.0), share.get("right", 0.0)
    by_luck = (left + side) / 2
    again = 2 * left * side + share.get("tie", 0.0) ** 2 + share.get("both_bad", 0.0) ** 2
    return _against(right, plain, ATTENTIVE, by_luck) + _against(agreed, repeats, STEADY, again)


def _against(hits: int, n: int, honest: float, blind: float) -> float:
    blind = min(max(blind, 0.05), honest)
    return hits * math.log(blind / honest) + (n - hits) * math.log((1 - blind) / (1 - honest))


def _guessing(agreed: int, repeats: int, right: int, plain: int, peers: Peers) -> str:
    told = [
        (plain, f"{right} of {plain} plain pairs right"),
        (repeats, f"{agreed} of {repeats} repeated pairs judged as before"),
        (peers.shared, f"{peers.alike} of {peers.shared} pairs judged as most others did"),
    ]
    return f"votes look drawn rather than judged: {', '.join(words for count, words in told if count)}"


def reviewer_doubts(records: Iterable[VoteRecord]) -> dict[int, tuple[str, ...]]:
    """Reviewer -> reasons to look at their votes again; nobody without reasons is in it. Haste is judged by the first revision."""
    records = list(records)
    now = current(records)
    repeats, drawn = repeats_of(now), sides_drawn(now)
    mine: dict[int, list[VoteRecord]] = defaultdict(list)
    for r in now:
        mine[r.reviewer].append(r)
    timed = Counter(r.reviewer for r in records if r.revision == 1 and r.seconds > 0)
    hasty = Counter(
        r.reviewer for r in records if r.revision == 1 and r.seconds > 0 and too_fast(r.seconds, r.characters / CHARACTERS_A_WORD)
    )

    def look(reviewer: int, peers: Mapping[int, Peers]) -> tuple[str, ...]:
        choices = [r.choice for r in mine[reviewer]]
        return doubts(
            choices, hasty[reviewer], repeats.get(reviewer, ()), plain_of(mine[reviewer]), peers.get(reviewer), timed[reviewer], drawn
        )

    alone = {reviewer for reviewer in mine if look(reviewer, {})}
    peers = peers_of(now, alone)
    found = {reviewer: look(reviewer, peers) for reviewer in sorted(mine)}
    return {reviewer: reasons for reviewer, reasons in found.items() if reasons}


def repeats_of(records: Iterable[VoteRecord]) -> dict[int, list[tuple[str, str]]]:
    """Reviewer -> (first choice, choice with the sides swapped) of each repeated pair; `records` are the current ones."""
    first: dict[tuple[int, str], VoteRecord] = {}
    again: list[VoteRecord] = []
    for r in records:
        if r.kind == "real":
            first[r.reviewer, r.pair] = r
        elif r.kind == "repeat":
            again.append(r)
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for r in again:
        if earlier := first.get((r.reviewer, r.pair)):
            swapped = earlier.left_arm == r.right_arm
            found[r.reviewer].append((earlier.choice, r.choice if swapped else FLIPPED[r.choice]))
    return found


def plain_of(records: Iterable[VoteRecord]) -> list[bool]:
    """Of each plain pair, whether the better answer was chosen."""
    return [r.choice == r.plain for r in records if r.kind == "gold" and r.plain]


def all_sides(records: Iterable[VoteRecord]) -> list[str]:
    return [r.choice for r in records if r.choice in ("left", "right")]


def sides_drawn(records: Iterable[VoteRecord]) -> bool:
    """Whether the sides can have been drawn by lot: where one arm always stands left, as in many published sets, a preference for the left
    side is one for that arm."""
    stands: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for r in records:
        if r.kind == "real" and r.left_arm != r.right_arm:
            stands[min(r.left_arm, r.right_arm), max(r.left_arm, r.right_arm)][r.first_stands_left] += 1
    if not stands:
        return True
    uneven = sum((right - left) ** 2 / (left + right) for left, right in stands.values())
    return float(chdtrc(len(stands), uneven)) > RARE


def peers_of(records: Iterable[VoteRecord], without: Iterable[int] = ()) -> dict[int, Peers]:
    """How each reviewer's real votes go with those of the others on the same pairs; nothing is learnt from those `without`."""
    ignored = set(without)
    units: dict[str, dict[int, str]] = defaultdict(dict)
    for r in records:
        if r.kind == "real" and not r.voided:
            units[r.pair][r.reviewer] = r.side
    trusted = {pair: {who: side for who, side in unit.items() if who not in ignored} for pair, unit in units.items()}
    overall = _Shared()
    for unit in trusted.values():
        overall.add(Counter(unit.values()), 1)
    shares: dict[int, list[tuple[str, Counter[str]]]] = defaultdict(list)
    for pair, said in units.items():
        for who, side in said.items():
            others = Counter(other for one, other in trusted[pair].items() if one != who)
            if others:
                shares[who].append((side, others))
    return {who: _peers(mine, overall, who not in ignored) for who, mine in shares.items()}


class _Shared:
    """Sums over units that several judged: how often one vote goes with another (`together`, symmetric)."""

    def __init__(self, together: Array | None = None) -> None:
        self.together = np.zeros((len(SAID), len(SAID))) if together is None else together.copy()

    def add(self, unit: Counter[str], times: int) -> None:
        n = sum(unit.values())
        if n > 1:
            counts = np.array([unit[side] for side in SAID], dtype=float)
            self.together += times * (np.outer(counts, counts) - np.diag(counts)) / (n - 1)


def _peers(mine: Sequence[tuple[str, Counter[str]]], overall: _Shared, counted: bool) -> Peers:
    """`mine`: this reviewer's vote and those of the others, pair by pair.

    What the others of a pair said makes some votes likelier, by how such votes go together elsewhere. Several others repeat each other:
    they tell as much as parallel measures of their reliability do (Spearman and Brown).
    """
    rest = _Shared(overall.together)
    for side, others in mine if counted else ():
        rest.add(others + Counter([side]), -1)
        rest.add(others, 1)
    ratings = rest.together.sum()
    if ratings < 2:
        return Peers()
    usual = (rest.together.sum(axis=0) + 0.5) / (ratings + 2)
    chance = float((usual**2).sum())
    alpha = max((float(np.trace(rest.together)) / ratings - chance) / (1 - chance), 0.0)
    given = (rest.together + LEAN * usual[:, None]) / (rest.together.sum(axis=0) + LEAN)  # [vote, what one other said]
    likelier = np.log(given / usual[:, None])
    odds = alike = 0.0
    for side, others in mine:
        counts = np.array([others[one] for one in SAID], dtype=float)
        expected = usual * np.exp(likelier @ counts / (1 + (counts.sum() - 1) * alpha))
        at = SAID.index(side)
        odds += math.log(usual[at] * expected.sum() / expected[at])
        alike += others[side] == max(others.values())
    return Peers(odds, len(mine), int(alike))
