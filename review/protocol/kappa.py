"""Kappas: Cohen's for two people who judged the same things, Fleiss' for as many people on each thing; and how often all agreed.

Pure. Must not know the database, the models or the screens.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Agreement beyond chance, unweighted. `first[i]` and `second[i]` judge the same unit. NaN without units or without variation."""
    n = len(first)
    if n != len(second):
        raise ValueError("Both coders need one value for each unit.")
    if not n:
        return math.nan
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    ours, theirs = Counter(first), Counter(second)
    chance = sum(count * theirs[value] for value, count in ours.items()) / n**2
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)


def fleiss_kappa(units: Sequence[Sequence[Hashable]]) -> float:
    """Of units that all have the same number of ratings, two or more, whoever gave them; else, and without variation, NaN."""
    raters = {len(unit) for unit in units}
    if len(raters) != 1 or (n := raters.pop()) < 2:
        return math.nan
    observed = sum(sum(c * (c - 1) for c in Counter(unit).values()) for unit in units) / (len(units) * n * (n - 1))
    totals = Counter(value for unit in units for value in unit)
    chance = sum((count / (len(units) * n)) ** 2 for count in totals.values())
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)


def full_agreement(units: Sequence[Sequence[Hashable]]) -> float:
    """Share of the units with several ratings in which all are the same. NaN without such units."""
    several = [unit for unit in units if len(unit) > 1]
    return sum(len(set(unit)) == 1 for unit in several) / len(several) if several else math.nan
