"""Reviewers made up for tests: honest ones with taste and noise, and bots. Not a test itself.

Each pair has a true difference; an honest reviewer sees it with a taste of their own (the same when the pair comes back) and a moment's
noise, and calls a small difference a tie. Two levels of noise: CLEAR agrees as PandaLM's three annotators do (92 % of two votes alike,
Krippendorff's alpha 0.86), HARD as the people of MT-bench (66 % alike with ties: Zheng et al., 2023, table 5).
"""

from dataclasses import dataclass

import numpy as np

from review.protocol.records import VoteRecord

ALWAYS_LEFT, RANDOM, FAST = "always left", "random", "fast"
BOTS = (ALWAYS_LEFT, RANDOM, FAST)
FLIP = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Noise:
    taste: float
    moment: float
    tie: float


CLEAR = Noise(taste=0.07, moment=0.07, tie=0.13)
HARD = Noise(taste=0.33, moment=0.33, tie=0.3)


@dataclass
class Crowd:
    """`honest` reviewers 0, 1, ..; then one bot of each kind. Each votes on `votes` pairs, checks among them; `each` reviewers a pair."""

    seed: int
    noise: Noise = HARD
    honest: int = 12
    votes: int = 50
    each: int = 3
    checks: int = 4  # repeated pairs, and as many plain ones, among the votes: 8 % each
    four: bool = False  # whether the random bot also says tie and both_bad

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.differences = self.rng.normal(0.15, 1, 10_000)
        self.tastes: dict[tuple[int, int], float] = {}
        self.care = self.rng.uniform(0.7, 1.3, self.honest)  # some are less steady than others

    @property
    def bots(self) -> dict[int, str]:
        return {self.honest + at: kind for at, kind in enumerate(BOTS)}

    def records(self) -> list[VoteRecord]:
        """In the order cast, everybody taking turns."""
        people = self.honest + len(BOTS)
        real = self.votes - 2 * self.checks
        pairs = self._dealt(people, real)
        plans = {who: self._plan(pairs[who]) for who in range(people)}
        sides: dict[tuple[int, int], bool] = {}
        return [self._vote(who, turn, *plans[who][turn], sides) for turn in range(self.votes) for who in range(people)]

    def _dealt(self, people: int, real: int) -> list[list[int]]:
        """Pairs for each reviewer: each pair to `each` of those who have fewest."""
        dealt: list[list[int]] = [[] for _ in range(people)]
        for pair in range(-(-people * real // self.each)):
            fewest = sorted(range(people), key=lambda who: (len(dealt[who]), self.rng.random()))
            for who in fewest[: self.each]:
                dealt[who].append(pair)
        return [pairs[:real] for pairs in dealt]

    def _plan(self, pairs: list[int]) -> list[tuple[str, int]]:
        plan = [("real", pair) for pair in pairs]
        for at in range(self.checks):
            plan.insert(min(5 + 11 * at, len(plan)), ("gold", 9_000 + at))
            earlier = plan[2 + 10 * at] if plan[2 + 10 * at][0] == "real" else plan[1 + 10 * at]
            plan.insert(min(12 + 12 * at, len(plan)), ("repeat", earlier[1]))
        return plan

    def _vote(self, who: int, turn: int, kind: str, pair: int, sides: dict[tuple[int, int], bool]) -> VoteRecord:
        turned = not sides[who, pair] if kind == "repeat" and (who, pair) in sides else bool(self.rng.random() < 0.5)
        sides.setdefault((who, pair), turned)
        left, right = ("new", "base") if turned else ("base", "new")
        plain = ("left" if self.rng.random() < 0.5 else "right") if kind == "gold" else ""
        bot = self.bots.get(who, "")
        return VoteRecord(
            assignment=f"{who}/{turn}", revision=1, pair=f"{kind}{pair}" if kind == "gold" else str(pair), prompt=pair, reviewer=who,
            left_arm=left, right_arm=right, choice=self._choice(who, bot, kind, pair, turned, plain), kind=kind,
            seconds=float(self.rng.uniform(0.8, 2.5)) if bot == FAST else float(max(3.5, self.rng.lognormal(3.2, 0.5))), characters=420,
            plain=plain,
        )  # fmt: skip

    def _choice(self, who: int, bot: str, kind: str, pair: int, turned: bool, plain: str) -> str:
        if bot == ALWAYS_LEFT:
            return "left"
        if bot == RANDOM:
            return str(self.rng.choice(["left", "right", "tie", "both_bad"] if self.four else ["left", "right"]))
        if plain:
            return plain if bot or self.rng.random() < 0.97 else "tie"
        noise = self.noise
        care = 1.0 if bot else self.care[who]
        taste = self.tastes.setdefault((who, pair), float(self.rng.normal(0, noise.taste * care)))
        seen = self.differences[pair] + taste + self.rng.normal(0, noise.moment * care)
        if abs(seen) < noise.tie:
            return "tie"
        return "left" if (seen > 0) == turned else "right"
