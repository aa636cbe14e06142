"""Who wins: win rate, Bradley-Terry, 95 % intervals clustered by prompt and reviewer, evidence that survives peeking.

Votes on one prompt, or by one reviewer, are not independent. Their covariance is estimated two-way clustered (Cameron, Gelbach and
Miller, 2011: by prompt + by reviewer - by both), with Student's t at Satterthwaite's degrees of freedom for few clusters. The win rate's
interval is Wilson's with the effective number of votes that this variance implies (as for survey designs: Franco et al., 2019).
Limits: with one reviewer, the interval speaks of that reviewer only; with two or three of very different taste it held the truth 87 to
92 times in 100 in simulation, with five or more 92 to 95. Pure. Must not know the database, the models or the screens.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import betaln, stdtrit

Outcome = Literal["first", "second", "tie", "both_bad"]
POINTS: dict[str, float] = {"first": 1.0, "second": 0.0, "tie": 0.5}
PRIOR = 5.0  # of the betting e-value: equal strength on win rates around 0.35 to 0.65, quick at clear ones
METHOD = "ties half; 95 % interval, two-way clustered by prompt and reviewer, Wilson at the effective number of votes"
Array = np.ndarray


def _t975(freedom: float) -> float:
    """Student's t at 97.5 %."""
    return float(stdtrit(freedom, 0.975))


@dataclass(frozen=True, slots=True)
class Duel:
    """One counted vote, sides resolved: what `reviewer` said of arms `first` and `second` on `prompt`."""

    prompt: int
    reviewer: int
    first: str
    second: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class WinRate:
    """Share of votes won, ties half, both_bad left out; 0.5 within 0..1 when there are none. `votes` counts all, both_bad too."""

    value: float
    low: float
    high: float
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int
    prompts: int
    reviewers: int

    @property
    def both_bad_share(self) -> float:
        return self.both_bad / self.votes if self.votes else 0.0


@dataclass(frozen=True, slots=True)
class Strength:
    """Bradley-Terry log strength, mean 0 over the arms; `as_win_rate` is the chance against an arm of strength 0."""

    arm: str
    value: float
    low: float
    high: float

    @property
    def as_win_rate(self) -> float:
        return 1 / (1 + math.exp(-self.value))


def for_arm(duels: Iterable[Duel], arm: str) -> list[Duel]:
    """The duels of one arm, turned so that it stands first."""
    turned: dict[Outcome, Outcome] = {"first": "second", "second": "first", "tie": "tie", "both_bad": "both_bad"}
    return [
        d if d.first == arm else Duel(d.prompt, d.reviewer, d.second, d.first, turned[d.outcome])
        for d in duels
        if arm in (d.first, d.second)
    ]


def win_rate(duels: Iterable[Duel], arm: str) -> WinRate:
    """How often `arm` wins against whatever stood beside it."""
    mine = for_arm(duels, arm)
    judged = [d for d in mine if d.outcome != "both_bad"]
    points = np.array([POINTS[d.outcome] for d in judged])
    low, high = _interval(points, judged)
    outcomes = [d.outcome for d in mine]
    return WinRate(
        value=float(points.mean()) if judged else 0.5,
        low=low,
        high=high,
        votes=len(mine),
        wins=outcomes.count("first"),
        losses=outcomes.count("second"),
        ties=outcomes.count("tie"),
        both_bad=outcomes.count("both_bad"),
        prompts=len({d.prompt for d in mine}),
        reviewers=len({d.reviewer for d in mine}),
    )


def _interval(points: Array, duels: Sequence[Duel]) -> tuple[float, float]:
    n = len(points)
    if not n:
        return 0.0, 1.0
    mean = float(points.mean())
    covariance, freedom = clustered((points - mean)[:, None], duels)
    # One imagined win and one loss keep a unanimous or all-tied handful of votes from claiming certainty.
    least = float(np.square(np.append(points, (1.0, 0.0)) - (points.sum() + 1) / (n + 2)).sum()) / (n + 2) / n
    variance = max(float(covariance[0, 0]) / n**2, least)
    effective = ((n * mean + 1) / (n + 2)) * ((n * (1 - mean) + 1) / (n + 2)) / variance
    return _wilson(mean, effective, _t975(freedom))


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))


def clustered(scores: Array, duels: Sequence[Duel]) -> tuple[Array, float]:
    """Two-way clustered covariance of the column sums of `scores` (votes x parameters), and Satterthwaite's degrees of freedom."""
    by_prompt, prompts = _one_way(scores, [d.prompt for d in duels])
    by_reviewer, reviewers = _one_way(scores, [d.reviewer for d in duels])
    by_both, _ = _one_way(scores, [(d.prompt, d.reviewer) for d in duels])
    total = by_prompt + by_reviewer - by_both
    if np.trace(total) < np.trace(by_prompt):
        total, by_reviewer = by_prompt, np.zeros_like(by_prompt)
    part_p, part_r = float(np.trace(by_prompt)), float(np.trace(by_reviewer))
    spread = (part_p**2 / max(prompts - 1, 1)) + (part_r**2 / max(reviewers - 1, 1))
    return total, max(1.0, (part_p + part_r) ** 2 / spread) if spread else float(max(prompts - 1, 1))


def _one_way(scores: Array, clusters: Sequence[object]) -> tuple[Array, int]:
    place = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(place), scores.shape[1]))
    np.add.at(sums, [place[cluster] for cluster in clusters], scores)
    groups = len(place)
    return sums.T @ sums * (groups / (groups - 1) if groups > 1 else 1.0), groups


def strengths(counts: Array, tolerance: float = 1e-10) -> tuple[Array, Array]:
    """(log strengths with mean 0, information matrix) by Newton's method. `counts[i, j]`: wins of i over j, a tie half to each.

    Where some arms never lost or never won against the rest, the estimate is infinite; half a tie is then added to each compared pair.
    Arms that cannot be compared at all, not even through others, are a ValueError.
    """
    counts = np.asarray(counts, dtype=float)
    met = (counts + counts.T) > 0
    if not _joined(met):
        raise ValueError("Some arms were never compared with the others, not even through a third.")
    if not _joined(counts > 0, both_ways=True):
        counts = counts + 0.25 * met
    games, wins, size = counts + counts.T, counts.sum(axis=1), len(counts)
    theta = np.zeros(size)
    for _ in range(100):
        chance = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
        gradient = wins - (games * chance).sum(axis=1)
        weights = games * chance * chance.T
        information = np.diag(weights.sum(axis=1)) - weights
        step = np.linalg.solve(information + 1.0 / size, gradient)
        theta = theta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < tolerance:
            break
    return theta - theta.mean(), information


def _joined(edges: Array, both_ways: bool = False) -> bool:
    def reaches_all(edges: Array) -> bool:
        reached = np.zeros(len(edges), dtype=bool)
        reached[0] = True
        for _ in range(len(edges)):
            reached = reached | edges[reached].any(axis=0)
        return bool(reached.all())

    return reaches_all(edges) and (not both_ways or reaches_all(edges.T))


def bradley_terry(duels: Sequence[Duel], arms: Sequence[str]) -> tuple[Strength, ...]:
    """Strengths of the arms, strongest first, intervals by the two-way clustered sandwich. Raises ValueError like `strengths`."""
    judged = [d for d in duels if d.outcome != "both_bad"]
    place = {arm: i for i, arm in enumerate(arms)}
    first, second = np.array([place[d.first] for d in judged], dtype=int), np.array([place[d.second] for d in judged], dtype=int)
    points = np.array([POINTS[d.outcome] for d in judged])
    counts = np.zeros((len(arms), len(arms)))
    np.add.at(counts, (first, second), points)
    np.add.at(counts, (second, first), 1 - points)
    theta, information = strengths(counts)
    surprise = points - 1 / (1 + np.exp(theta[second] - theta[first]))
    scores = np.zeros((len(judged), len(arms)))
    scores[np.arange(len(judged)), first] = surprise
    scores[np.arange(len(judged)), second] = -surprise
    meat, freedom = clustered(scores, judged)
    bread = np.linalg.pinv(information)
    variance = np.maximum(np.diag(bread @ meat @ bread), np.diag(bread))
    half = _t975(freedom) * np.sqrt(variance)
    found = [Strength(arm, float(theta[i]), float(theta[i] - half[i]), float(theta[i] + half[i])) for arm, i in place.items()]
    return tuple(sorted(found, key=lambda s: -s.value))


def log_e_value(wins: float, decisive: int, prior: float = PRIOR) -> float:
    """Log of the evidence against "each decisive comparison is a fair coin", two-sided, valid however often one looks.

    A mixture bet with a symmetric beta prior, a martingale under the coin: stopping at 20 calls at most 1 in 20 equal arms unequal.
    """
    return float(betaln(prior + wins, prior + decisive - wins) - betaln(prior, prior) + decisive * math.log(2))


def first_decisive(duels: Iterable[Duel], arm: str) -> tuple[int, int]:
    """(wins, count) over the first vote on each prompt that chose a side, in the order given.

    One bet a prompt: a second reader of the same two answers is no fair coin even when the arms are equal.
    """
    first: dict[tuple[int, str], bool] = {}
    for d in for_arm(duels, arm):
        if d.outcome in ("first", "second"):
            first.setdefault((d.prompt, d.second), d.outcome == "first")
    return sum(first.values()), len(first)
