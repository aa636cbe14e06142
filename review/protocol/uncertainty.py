"""Which two arms should meet next: how much one more vote on them would sharpen the ranking.

A Bradley-Terry posterior from counts alone: the gain of a vote is p (1 - p) times the variance of the two strengths' difference, so that
arms close to each other, and arms that met little, come first. Pure. Must not know the database, the models or the screens.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

Arms = tuple[int, int]
SPREAD = 1.0  # standard deviation of log strengths before any vote
STEPS = 8


def gains(arms: Sequence[int], points: Mapping[Arms, tuple[float, float]], expected: Mapping[Arms, int] | None = None) -> dict[Arms, float]:
    """What the next vote on each two arms would tell. `points`: (of the first, of the second), ties half to each; keys ordered.

    `expected`: votes on their way, from pairs that are on somebody's screen: they count as information, whatever they will say.
    """
    place = {arm: i for i, arm in enumerate(arms)}
    won = np.zeros((len(arms), len(arms)))
    on_the_way = np.zeros_like(won)
    for (first, second), (of_first, of_second) in points.items():
        won[place[first], place[second]] += of_first
        won[place[second], place[first]] += of_second
    for (first, second), count in (expected or {}).items():
        on_the_way[place[first], place[second]] += count
        on_the_way[place[second], place[first]] += count
    theta = _strengths(won)
    chance = _chance(theta)
    covariance = np.linalg.inv(_precision(won + won.T + on_the_way, chance))
    found = {}
    for first, second in combinations(sorted(arms), 2):
        a, b = place[first], place[second]
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        found[first, second] = float(chance[a, b] * (1 - chance[a, b]) * variance)
    return found


def _chance(theta: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(np.subtract.outer(-theta, -theta)))


def _precision(met: np.ndarray, chance: np.ndarray) -> np.ndarray:
    weight = met * chance * (1 - chance)
    return np.diag(weight.sum(axis=1)) - weight + np.eye(len(met)) / SPREAD**2


def _strengths(won: np.ndarray) -> np.ndarray:
    """The posterior's mode, by Newton steps of bounded length."""
    met, theta = won + won.T, np.zeros(len(won))
    for _ in range(STEPS):
        chance = _chance(theta)
        slope = won.sum(axis=1) - (met * chance).sum(axis=1) - theta / SPREAD**2
        theta = theta + np.clip(np.linalg.solve(_precision(met, chance), slope), -2, 2)
    return theta
