"""How far reviewers agree, with each other and with themselves: Krippendorff's alpha, side bias, self-consistency, haste.

Pure. Must not know the database, the models or the screens.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal", "interval"]
STEADY, ATTENTIVE = 0.7, 0.9  # how often an honest reviewer repeats a vote, and sees a plainly better answer
FLIPPED = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}


def krippendorff_alpha(coders: Sequence[Sequence[Hashable | None]], level: Level = "nominal") -> float:
    """Alpha over `coders` x units, None where a coder did not rate; units rated once are left out. NaN without overlap or variation.

    After K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), by the coincidence matrix. Values must sort for "ordinal"
    and be numbers for "interval".
    """
    if len({len(row) for row in coders}) > 1:
        raise ValueError("Every coder needs one entry for each unit, None where missing.")
    units = [[value for value in unit if value is not None] for unit in zip(*coders, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit}, key=None if level != "nominal" else repr)  # type: ignore[type-var]
    if len(values) < 2:
        return math.nan
    place = {value: i for i, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for unit in units:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(axis=0)
    distance = _DISTANCES[level](values, totals)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return float(1 - (coincidences * distance).sum() / (expected * distance).sum())


def _nominal(values: Sequence[Hashable], totals: np.ndarray) -> np.ndarray:
    return 1.0 - np.eye(len(values))


def _ordinal(values: Sequence[Hashable], totals: np.ndarray) -> np.ndarray:
    middles = np.cumsum(totals) - totals / 2
    return np.subtract.outer(middles, middles) ** 2


def _interval(values: Sequence[Hashable], totals: np.ndarray) -> np.ndarray:
    numbers = np.array(values, dtype=float)
    return np.subtract.outer(numbers, numbers) ** 2


_DISTANCES: dict[Level, Callable[[Sequence[Hashable], np.ndarray], np.ndarray]] = {
    "nominal": _nominal,
    "ordinal": _ordinal,
    "interval": _interval,
}


@dataclass(frozen=True, slots=True)
class SideBias:
    """How often the left side won among votes for a side; `p` by an exact two-sided binomial test of one half."""

    left: int
    right: int
    share: float
    p: float


def side_bias(choices: Sequence[str]) -> SideBias:
    left, right = choices.count("left"), choices.count("right")
    from scipy.stats import binomtest  # slow to import: the first page does not wait for it

    if not left + right:
        return SideBias(0, 0, math.nan, 1.0)
    return SideBias(left, right, left / (left + right), float(binomtest(left, left + right).pvalue))


def self_consistency(repeats: Sequence[tuple[str, str]]) -> float:
    """Share of repeated pairs judged alike, each as (first choice, choice with the sides swapped). NaN without repeats."""
    if not repeats:
        return math.nan
    return sum(FLIPPED[second] == first for first, second in repeats) / len(repeats)


def too_fast(seconds: float, words: float) -> bool:
    """Quicker than anyone reads: below 3 s, or below one second for every 15 words on the screen."""
    return seconds < max(3.0, words / 15)


def doubts(choices: Sequence[str], hasty: int, repeats: Sequence[tuple[str, str]] = (), obvious: Sequence[bool] = ()) -> tuple[str, ...]:
    """Reasons, in words, to look at a reviewer's votes again; empty when there are none.

    A low share alone accuses honest people on few repeats: it must also be rarer than 1 in 50 for somebody steady.
    `hasty` counts votes that were `too_fast`; `obvious` says of each control pair whether the plainly better answer was chosen.
    """
    from scipy.stats import binom

    n, bias, consistency = len(choices), side_bias(choices), self_consistency(repeats)
    agreed, right = sum(FLIPPED[second] == first for first, second in repeats), sum(obvious)
    checks = [
        (hasty >= 5 and hasty >= 0.2 * n, f"{hasty} of {n} votes came faster than the answers can be read"),
        (bias.p < 0.001, f"chose the left side {bias.left} times and the right side {bias.right} times"),
        (
            consistency < 0.6 and binom.cdf(agreed, len(repeats), STEADY) < 0.02,
            f"agreed with their own earlier vote on {consistency:.0%} of repeated pairs",
        ),
        (
            right < 0.8 * len(obvious) and binom.cdf(right, len(obvious), ATTENTIVE) < 0.02,
            f"got {right} of {len(obvious)} plain pairs right",
        ),
    ]
    return tuple(words for wrong, words in checks if wrong)
