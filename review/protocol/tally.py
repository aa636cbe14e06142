"""From stored or exported votes to the numbers of a study. What a board shows can be recomputed from the export with this file alone.

Pure. Must not know the database, the models or the screens.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from review.protocol.agreement import doubts, krippendorff_alpha, too_fast
from review.protocol.ranking import Duel, Outcome, Strength, WinRate, bradley_terry, first_decisive, log_e_value, win_rate
from review.protocol.verdict import Rule, Verdict, decide

CHARACTERS_A_WORD = 6


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """One stored vote with its sides resolved. `characters`: length of prompt and answers together; `seconds`: from served to vote."""

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

    @property
    def winner(self) -> str:
        """The arm voted better, else "tie" or "both_bad"."""
        return {"left": self.left_arm, "right": self.right_arm}.get(self.choice, self.choice)

    @property
    def side(self) -> str:
        """Which of the pair's two arms, in the order of their names, was voted better: the same words for every pair of arms."""
        if self.choice not in ("left", "right"):
            return self.choice
        return "first" if self.winner == min(self.left_arm, self.right_arm) else "second"


@dataclass(frozen=True, slots=True)
class ArmTally:
    """One arm against all others (`win_rate`, `strength`) and the arm to beat (`versus`, `verdict`, `e_value`; that arm has none)."""

    arm: str
    win_rate: WinRate
    strength: Strength | None
    versus: WinRate | None
    verdict: Verdict | None
    e_value: float

    @property
    def votes(self) -> int:
        return self.win_rate.votes


@dataclass(frozen=True, slots=True)
class Tally:
    """`best` is the challenger the verdict is about. `flips` names reviewers without whom the verdict would be another."""

    arms: tuple[ArmTally, ...]
    best: str
    verdict: Verdict
    e_value: float
    votes: int
    both_bad_share: float
    marked: int
    voided: int
    agreement: float | None
    flips: tuple[int, ...]


def current(records: Iterable[VoteRecord]) -> list[VoteRecord]:
    """The newest revision of each vote, in the order in which the pairs were first voted on."""
    newest: dict[str, VoteRecord] = {}
    for record in records:
        held = newest.get(record.assignment)
        if held is None or record.revision > held.revision:
            newest[record.assignment] = record
    return list(newest.values())


def counted(records: Iterable[VoteRecord]) -> list[VoteRecord]:
    """What the primary result rests on: current, not marked, not voided, no repeats or control pairs."""
    return [r for r in current(records) if r.kind == "real" and not r.marked and not r.voided]


def duel(record: VoteRecord) -> Duel:
    outcomes: dict[str, Outcome] = {"left": "first", "right": "second", "tie": "tie", "both_bad": "both_bad"}
    return Duel(record.prompt, record.reviewer, record.left_arm, record.right_arm, outcomes[record.choice])


def tally(records: Iterable[VoteRecord], arms: Sequence[str], against: str, rule: Rule) -> Tally:
    """All numbers of a study from its votes in the order they were cast."""
    now = current(records)
    primary = counted(now)
    duels = [duel(r) for r in primary]
    found = _arms(duels, arms, against, rule)
    name = _best((a.arm, a.versus, a.verdict) for a in found if a.versus and a.verdict)[0]
    best = next(a for a in found if a.arm == name)
    assert best.verdict is not None, "a challenger has a verdict"
    bad = sum(d.outcome == "both_bad" for d in duels)
    return Tally(
        arms=tuple(found),
        best=best.arm,
        verdict=best.verdict,
        e_value=best.e_value,
        votes=len(duels),
        both_bad_share=bad / len(duels) if duels else 0.0,
        marked=sum(r.marked and not r.voided for r in now),
        voided=sum(r.voided for r in now),
        agreement=agreement(primary),
        flips=_flips(duels, arms, against, rule, best),
    )


def _arms(duels: Sequence[Duel], arms: Sequence[str], against: str, rule: Rule) -> list[ArmTally]:
    strengths = {s.arm: s for s in _strengths(duels, arms)}
    found = []
    for arm in arms:
        versus, verdict, evidence = (None, None, 1.0) if arm == against else _versus(duels, arm, against, rule)
        found.append(ArmTally(arm, win_rate(duels, arm), strengths.get(arm), versus, verdict, evidence))
    return found


def _versus(duels: Sequence[Duel], arm: str, against: str, rule: Rule) -> tuple[WinRate, Verdict, float]:
    faced = [d for d in duels if {d.first, d.second} == {arm, against}]
    wins, decisive = first_decisive(faced, arm)
    rate = win_rate(faced, arm)
    return rate, decide(rule, rate, wins, decisive), math.exp(min(log_e_value(wins, decisive), 700.0))


def _strengths(duels: Sequence[Duel], arms: Sequence[str]) -> Sequence[Strength]:
    """Only where a win rate against all does not say it: three arms or more, all joined by votes."""
    if len(arms) < 3:
        return ()
    try:
        return bradley_terry(duels, arms)
    except ValueError:
        return ()


def _best(arms: Iterable[tuple[str, WinRate, Verdict]]) -> tuple[str, WinRate, Verdict]:
    return max(arms, key=lambda arm: (arm[2].kind == "ship", arm[1].value))


def _flips(duels: Sequence[Duel], arms: Sequence[str], against: str, rule: Rule, best: ArmTally) -> tuple[int, ...]:
    if best.verdict is None or best.verdict.kind == "more":
        return ()
    found = []
    for reviewer in sorted({d.reviewer for d in duels}):
        others = [d for d in duels if d.reviewer != reviewer]
        name, _, verdict = _best((arm, *_versus(others, arm, against, rule)[:2]) for arm in arms if arm != against)
        if (verdict.kind, name) != (best.verdict.kind, best.arm):
            found.append(reviewer)
    return tuple(found)


def agreement(records: Sequence[VoteRecord]) -> float | None:
    """Krippendorff's nominal alpha over pairs seen by several reviewers; None without overlap or variation."""
    units: dict[str, dict[int, str]] = defaultdict(dict)
    for r in records:
        units[r.pair][r.reviewer] = r.side
    reviewers = sorted({r.reviewer for r in records})
    alpha = krippendorff_alpha([[unit.get(reviewer) for unit in units.values()] for reviewer in reviewers])
    return None if math.isnan(alpha) else alpha


def reviewer_doubts(records: Iterable[VoteRecord]) -> dict[int, tuple[str, ...]]:
    """Reviewer -> reasons to look at their votes again; nobody without reasons is in it. Haste is judged by the first revision."""
    records = list(records)
    found = {}
    for reviewer in sorted({r.reviewer for r in records}):
        mine = [r for r in records if r.reviewer == reviewer]
        hasty = sum(r.revision == 1 and too_fast(r.seconds, r.characters / CHARACTERS_A_WORD) for r in mine)
        votes = current(mine)
        first = {r.pair: r.choice for r in votes if r.kind == "real"}
        repeats = [(first[r.pair], r.choice) for r in votes if r.kind == "repeat" and r.pair in first]
        if reasons := doubts([r.choice for r in votes], hasty, repeats):
            found[reviewer] = reasons
    return found
