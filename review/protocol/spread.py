"""How far reviewers differ on one arm: from whom it wins least to whom it wins most, and whether that is more than chance.

Chi-square of equal shares among the votes for a side, each reviewer's own share ties half. Reviewers with few votes are left out, since
they differ by chance alone. Pure. Must not know the database, the models or the screens.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import stdev

from scipy.special import chdtrc, stdtrit

from review.protocol.ranking import Duel, Outcome, for_arm

FEW = 5  # votes for a side below which a reviewer's share says little
BEYOND_CHANCE = 0.05
MOST = 20  # more reviewers than that are not asked for


@dataclass(frozen=True, slots=True)
class Spread:
    """Win rates of `reviewers` with enough votes lie from `lowest` to `highest`. `differ`: by more than chance. `more`: about how many
    further reviewers would show that people in general prefer the arm, if they are like these; 0 where that cannot be told."""

    reviewers: int = 0
    lowest: float = 0.5
    highest: float = 0.5
    differ: bool = False
    more: int = 0

    @property
    def divided(self) -> bool:
        """Beyond chance, some prefer the arm and some the others."""
        return self.differ and self.lowest < 0.5 < self.highest


def spread(duels: Iterable[Duel], arm: str) -> Spread:
    said: dict[int, Counter[Outcome]] = defaultdict(Counter)
    for duel in for_arm(duels, arm):
        said[duel.reviewer][duel.outcome] += 1
    many = [one for one in said.values() if one["first"] + one["second"] >= FEW]
    if len(many) < 2:
        return Spread(len(many))
    shares = [(one["first"] + one["tie"] / 2) / (one["first"] + one["second"] + one["tie"]) for one in many]
    return Spread(len(many), min(shares), max(shares), _chance(many) < BEYOND_CHANCE, _more(shares))


def _chance(said: list[Counter[Outcome]]) -> float:
    """How likely such different shares are among reviewers who judge alike."""
    wins, all_of = sum(one["first"] for one in said), sum(one["first"] + one["second"] for one in said)
    share = wins / all_of
    if share in (0.0, 1.0):
        return 1.0
    uneven = sum((one["first"] - (n := one["first"] + one["second"]) * share) ** 2 / (n * share * (1 - share)) for one in said)
    return float(chdtrc(len(said) - 1, uneven))


def _more(shares: list[float]) -> int:
    """Reviewers still to come until the mean of such shares is clear of one half."""
    ahead = sum(shares) / len(shares) - 0.5
    for people in range(len(shares) + 1, len(shares) + MOST + 1):
        if ahead > float(stdtrit(people - 1, 0.975)) * stdev(shares) / people**0.5:
            return people - len(shares)
    return 0
