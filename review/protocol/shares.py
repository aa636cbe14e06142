"""A share with its 95 % interval: Wilson's (1927) for the usual case, Clopper and Pearson's exact one where the level must hold.

Pure. Must not know the database, the models or the screens.
"""

import math
from dataclasses import dataclass

from scipy.special import bdtr, betaincinv

Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """`share` of `n`; all three are None where there is nothing to count."""

    n: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Side:
    """How often the left side won among votes for a side. `p`: exact two-sided binomial test of one half. `drawn`: sides were drawn by lot,
    so that a preference for a side is the reviewers' and not the arms'."""

    left: int
    right: int
    share: float | None
    low: float | None
    high: float | None
    p: float
    drawn: bool = True


def wilson(hits: int, n: int) -> Share:
    if not n:
        return Share(0, None, None, None)
    p, z2 = hits / n, Z * Z / n
    middle, half = (p + z2 / 2) / (1 + z2), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return Share(n, p, max(0.0, middle - half), min(1.0, middle + half))


def exact_side(left: int, right: int, drawn: bool = True) -> Side:
    """The interval is Clopper and Pearson's."""
    if not left + right:
        return Side(0, 0, None, None, None, 1.0, drawn)
    low = float(betaincinv(left, right + 1, 0.025)) if left else 0.0
    high = float(betaincinv(left + 1, right, 0.975)) if right else 1.0
    p = min(1.0, 2 * float(bdtr(min(left, right), left + right, 0.5)))
    return Side(left, right, left / (left + right), low, high, p, drawn)
