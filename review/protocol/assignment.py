"""The next pair for a reviewer: balanced over prompts and arm pairs, informative, never the same pair twice; when a check is due.

A `Pool` keeps every pair of a study by how many reviewers have taken it, so that choosing looks at a few dozen pairs however many there
are. Pure and deterministic given its random source. Must not know the database, the models or the screens.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["real", "repeat", "gold"]
Arms = tuple[int, int]
LOOKED_AT = 32  # pairs of the neediest level that are compared for balance
UNEVEN = 4  # how many more pairs of two arms a reviewer may have had than of any other two
EARLY, EARLY_BLOCK, BLOCK = 50, 10, 18  # each block of pairs holds one repeat and one plain pair, closer together for the first 50
APART = 8  # pairs between a pair and its repeat
SETTLING_IN = 3  # the first pairs are never plain ones


def pair_key(first_answer: int, second_answer: int) -> str:
    """The same key for the same two answers, whichever stands left."""
    return f"{min(first_answer, second_answer)}-{max(first_answer, second_answer)}"


@dataclass(frozen=True)
class Candidate:
    """Two answers to one prompt."""

    prompt: int
    answers: tuple[int, int]
    arms: Arms

    @cached_property
    def key(self) -> str:
        return pair_key(*self.answers)

    @cached_property
    def meeting(self) -> Arms:
        """The two arms in a fixed order."""
        return min(self.arms), max(self.arms)


class _Bag:
    """A set of keys that can be drawn from at random."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._place: dict[str, int] = {}

    def add(self, key: str) -> None:
        self._place[key] = len(self.keys)
        self.keys.append(key)

    def remove(self, key: str) -> None:
        place, last = self._place.pop(key), self.keys.pop()
        if last != key:
            self.keys[place], self._place[last] = last, place

    def some(self, most: int, rng: random.Random) -> list[str]:
        return rng.sample(self.keys, min(most, len(self.keys)))


class Pool:
    """The pairs of a study that still need votes. A pair is taken by every reviewer who voted on it or is looking at it now."""

    def __init__(self, candidates: Iterable[Candidate], votes_needed: int) -> None:
        self._candidates = {c.key: c for c in candidates}
        self._needed = votes_needed
        self._taken = dict.fromkeys(self._candidates, 0)
        self._levels: dict[Arms, list[_Bag]] = defaultdict(lambda: [_Bag() for _ in range(votes_needed)])
        self.by_arms: Counter[Arms] = Counter()
        self._by_prompt: Counter[int] = Counter()
        self.waiting = 0
        for candidate in self._candidates.values():
            self.waiting += 1
            self.by_arms[candidate.meeting] += 0
            self._levels[candidate.meeting][0].add(candidate.key)

    def __contains__(self, key: str) -> bool:
        return key in self._candidates

    def candidate(self, key: str) -> Candidate | None:
        return self._candidates.get(key)

    def waits(self, key: str) -> bool:
        return self._taken.get(key, self._needed) < self._needed

    def take(self, key: str, change: int = 1) -> None:
        """Count a reviewer in or, with -1, out. A pair that is not here any more changes nothing."""
        candidate = self._candidates.get(key)
        if candidate is None:
            return
        before = self._taken[key]
        after = self._taken[key] = before + change
        self.by_arms[candidate.meeting] += change
        self._by_prompt[candidate.prompt] += change
        levels = self._levels[candidate.meeting]
        if before < self._needed:
            levels[before].remove(key)
        if after < self._needed:
            levels[after].add(key)
        self.waiting += (after < self._needed) - (before < self._needed)

    def left_for(self, seen: Iterable[str]) -> int:
        """How many pairs wait for somebody who was given the `seen` ones."""
        return self.waiting - sum(map(self.waits, seen))

    def choose(self, mine: "Mine", rng: random.Random, gain: Mapping[Arms, float] | None = None) -> Candidate | None:
        """The neediest pair of the two arms whose next vote tells most, of a prompt this reviewer met least; None when nothing is left.

        `gain`: what a vote on two arms would tell; without it, the arms that met least.
        """
        told = gain if gain is not None else {arms: -float(count) for arms, count in self.by_arms.items()}
        waiting = [arms for arms, levels in self._levels.items() if any(level.keys for level in levels)]
        rng.shuffle(waiting)
        least = min((mine.arms[arms] for arms in waiting), default=0)
        for arms in sorted(waiting, key=lambda arms: (mine.arms[arms] >= least + UNEVEN, -told.get(arms, 0.0))):
            for level in self._levels[arms]:
                if found := self._fresh(level, mine, rng):
                    return min(found, key=lambda c: (mine.prompts[c.prompt], self._by_prompt[c.prompt]))
        return None

    def _fresh(self, level: _Bag, mine: "Mine", rng: random.Random) -> list[Candidate]:
        for keys in (level.some(LOOKED_AT, rng), level.keys):
            if fresh := [self._candidates[key] for key in keys if key not in mine.seen]:
                return fresh[:LOOKED_AT]
        return []


class Mine:
    """What one reviewer was given of a study: the pairs, and how often each prompt and each two arms."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.prompts: Counter[int] = Counter()
        self.arms: Counter[Arms] = Counter()

    def add(self, key: str, prompt: int, meeting: Arms | None) -> None:
        self.seen.add(key)
        self.prompts[prompt] += 1
        if meeting is not None:
            self.arms[meeting] += 1


def block_at(position: int) -> tuple[int, int]:
    """(first position, length) of the block that a position lies in, counted from 0."""
    if position < EARLY:
        return position - position % EARLY_BLOCK, EARLY_BLOCK
    return position - (position - EARLY) % BLOCK, BLOCK


def due(given: Sequence[str], checks: Collection[Kind], planned: int, rng: random.Random) -> Kind:
    """Which kind comes next after the kinds `given`: each block has one of each of `checks`, at places drawn at random.

    `planned`: how many checks the whole study holds for this reviewer; there are never more.
    """
    start, length = block_at(len(given))
    inside = given[start:]
    lacking = [kind for kind in checks if kind not in inside and not (kind == "gold" and len(given) < SETTLING_IN)]
    if not lacking or sum(kind != "real" for kind in given) >= planned:
        return "real"
    places = length - len(inside)
    after_another = bool(given) and given[-1] != "real"
    if places > len(lacking) and (after_another or rng.random() * places >= len(lacking)):
        return "real"
    return rng.choice(lacking)


def planned_checks(real: int, kinds: int) -> int:
    """How many checks go with `real` pairs: `kinds` in each full block."""
    if not kinds:
        return 0
    early = min(real // (EARLY_BLOCK - kinds), EARLY // EARLY_BLOCK)
    rest = real - (EARLY // EARLY_BLOCK) * (EARLY_BLOCK - kinds)
    return kinds * (early + max(0, rest) // (BLOCK - kinds))
