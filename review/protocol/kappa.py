"""Cohen's kappa for two people who judged the same things.

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
