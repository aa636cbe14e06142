"""Votes as the pure rules see them: a vote with its sides resolved, which revision counts, and what stays out of the primary result.

Pure. Must not know the database, the models or the screens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from review.protocol.ranking import Duel, Outcome


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """One stored vote with its sides resolved. `characters`: length of prompt and answers together; `seconds`: from served to vote, 0 where
    nobody measured it. `plain`: of a plain pair (kind "gold"), the side that is plainly better."""

    assignment: str
    revision: int
    pair: str
    prompt: int
    reviewer: int
    left_arm: str
    right_arm: str
    choice: str
    kind: str = "real"
    marked: bool = False
    voided: bool = False
    seconds: float = 0.0
    characters: int = 0
    criteria: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    plain: str = ""

    @property
    def winner(self) -> str:
        """The arm voted better, else "tie" or "both_bad"."""
        return {"left": self.left_arm, "right": self.right_arm}.get(self.choice, self.choice)

    @property
    def first_stands_left(self) -> bool:
        return self.left_arm <= self.right_arm

    def turned(self, mark: str) -> str:
        """A side as "first" or "second" of the pair's two arms in the order of their names: the same words for every pair of arms."""
        if mark not in ("left", "right"):
            return mark
        return "first" if (mark == "left") == self.first_stands_left else "second"

    @property
    def side(self) -> str:
        """What was voted, in terms of arms: first, second, tie or both_bad."""
        return self.turned(self.choice)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is known beside the votes. `guesses`: assignment -> which side was taken for the tuned model's; `decisions`: reviewer -> whether
    their votes count, where somebody decided; `adjudications`: pair -> the winning arm, "tie" or "both_bad"; `tuned`: arms that are tuned
    models. `doubted_aside`: votes of doubted reviewers stay out until somebody decides."""

    guesses: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[int, bool] = field(default_factory=dict)
    adjudications: Mapping[str, str] = field(default_factory=dict)
    tuned: frozenset[str] = frozenset()
    doubted_aside: bool = True


def current(records: Iterable[VoteRecord]) -> list[VoteRecord]:
    """The newest revision of each vote, in the order in which the pairs were first voted on."""
    newest: dict[str, VoteRecord] = {}
    for record in records:
        held = newest.get(record.assignment)
        if held is None or record.revision > held.revision:
            newest[record.assignment] = record
    return list(newest.values())


def counted(records: Iterable[VoteRecord], aside: Iterable[int] = ()) -> list[VoteRecord]:
    """What the primary result rests on: current, not marked, not voided, no repeats or plain pairs, of nobody who is `aside`."""
    out = set(aside)
    return [r for r in current(records) if r.kind == "real" and not r.marked and not r.voided and r.reviewer not in out]


def duel(record: VoteRecord) -> Duel:
    outcomes: dict[str, Outcome] = {"left": "first", "right": "second", "tie": "tie", "both_bad": "both_bad"}
    return Duel(record.prompt, record.reviewer, record.left_arm, record.right_arm, outcomes[record.choice])


def decided_duel(record: VoteRecord, winner: str) -> Duel:
    """The vote's place in the result, with somebody's decision on the pair instead of the vote."""
    outcomes: dict[str, Outcome] = {record.left_arm: "first", record.right_arm: "second", "tie": "tie", "both_bad": "both_bad"}
    return Duel(record.prompt, record.reviewer, record.left_arm, record.right_arm, outcomes[winner])
