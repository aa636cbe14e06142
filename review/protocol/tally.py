"""From stored or exported votes to the numbers of a study. What a board shows can be recomputed from the export with this file alone.

Votes of reviewers who are aside (doubted and not decided on, or decided against) are in no number. Pure. Must not know the database, the
models or the screens.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from review.protocol.agreement import Agreement, agreement, agreements
from review.protocol.blinding_index import Blinding, blinding, tuned_side
from review.protocol.doubts import FLIPPED, all_sides, repeats_of, reviewer_doubts, sides_drawn
from review.protocol.ranking import Duel, Strength, WinRate, bradley_terry, first_decisive, log_e_value, win_rate
from review.protocol.records import Beside, VoteRecord, counted, current, decided_duel, duel
from review.protocol.shares import Share, Side, exact_side, wilson
from review.protocol.spread import spread
from review.protocol.tags import TagResult, tag_results, worse_tags
from review.protocol.verdict import Condition, Rule, Verdict, conditions, decide

__all__ = ["ArmTally", "Beside", "Tally", "VoteRecord", "agreement", "counted", "current", "duel", "reviewer_doubts", "tally"]
Tagged = tuple[Duel, Sequence[str]]
WEIGHTY = 50  # reviewers without whom the verdict is looked at


@dataclass(frozen=True, slots=True)
class ArmTally:
    """One arm against all others (`win_rate`, `strength`) and the arm to beat (`versus`, `verdict`, `e_value`; that arm has none)."""

    arm: str
    win_rate: WinRate
    strength: Strength | None
    versus: WinRate | None
    verdict: Verdict | None
    e_value: float
    tags: tuple[TagResult, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def votes(self) -> int:
        return self.win_rate.votes


@dataclass(frozen=True, slots=True)
class Tally:
    """`best` is the challenger the verdict is about. `flips`: reviewers without whom the verdict would be another. `aside`: those whose
    votes (`aside_votes`) are in no number, `undecided` the ones among them that nobody decided on. `disputed`: pairs that reviewers
    judged differently. `adjudicated` pairs were decided, and `adjudicated_rate` is the win rate of `best` with these decisions in the
    place of the votes."""

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
    tags: tuple[TagResult, ...]
    agreements: tuple[Agreement, ...]
    blinding: Blinding
    consistency: Share
    side: Side
    aside: tuple[int, ...]
    aside_votes: int
    undecided: tuple[int, ...]
    disputed: tuple[str, ...]
    adjudicated: int
    adjudicated_rate: WinRate | None
    conditions: tuple[Condition, ...]


def tally(
    records: Iterable[VoteRecord],
    arms: Sequence[str],
    against: str,
    rule: Rule,
    beside: Beside | None = None,
    criteria: Sequence[str] = (),
) -> Tally:
    """All numbers of a study from its votes in the order they were cast."""
    records, beside = list(records), beside or Beside()
    aside = aside_of(records, beside)
    now = [r for r in current(records) if r.reviewer not in aside]
    primary = counted(now)
    duels: list[Tagged] = [(duel(r), r.tags) for r in primary]
    found = [_arm(duels, arm, against, rule) for arm in arms]
    strengths = {s.arm: s for s in _strengths([d for d, _ in duels], arms)}
    name = _best((a.arm, a.versus, a.verdict) for a in found if a.versus and a.verdict)[0]
    best = next(a for a in found if a.arm == name)
    assert best.verdict is not None, "a challenger has a verdict"
    bad = sum(r.choice == "both_bad" for r in primary)
    told = agreements(primary, criteria)
    decided = {r.pair for r in primary if r.pair in beside.adjudications}
    return Tally(
        arms=tuple(ArmTally(a.arm, a.win_rate, strengths.get(a.arm), a.versus, a.verdict, a.e_value, a.tags, a.conditions) for a in found),
        best=best.arm,
        verdict=best.verdict,
        e_value=best.e_value,
        votes=len(primary),
        both_bad_share=bad / len(primary) if primary else 0.0,
        marked=sum(r.marked and not r.voided for r in now),
        voided=sum(r.voided for r in now),
        agreement=told[0].nominal,
        flips=_flips(duels, found, against, rule, best),
        tags=best.tags,
        agreements=told,
        blinding=blinding(_guesses(now, beside)),
        consistency=_consistency(now),
        side=_side(now),
        aside=tuple(sorted(aside)),
        aside_votes=len(counted(records)) - len(primary),
        undecided=tuple(sorted(aside - beside.decisions.keys())),
        disputed=disputed(primary),
        adjudicated=len(decided),
        adjudicated_rate=_adjudicated(primary, beside, best.arm, against) if decided else None,
        conditions=best.conditions,
    )


def aside_of(records: Iterable[VoteRecord], beside: Beside, doubted: Iterable[int] | None = None) -> set[int]:
    """Reviewers whose votes are in no number: those decided against, and the doubted ones nobody decided on."""
    found = {reviewer for reviewer, counts in beside.decisions.items() if not counts}
    if beside.doubted_aside:
        names = reviewer_doubts(records) if doubted is None else doubted
        found |= {reviewer for reviewer in names if reviewer not in beside.decisions}
    return found


def disputed(records: Iterable[VoteRecord]) -> tuple[str, ...]:
    """Pairs that several reviewers judged, not all of them alike."""
    said: dict[str, set[str]] = {}
    for r in records:
        said.setdefault(r.pair, set()).add(r.side)
    return tuple(pair for pair, sides in said.items() if len(sides) > 1)


def _arm(duels: Sequence[Tagged], arm: str, against: str, rule: Rule) -> ArmTally:
    overall = win_rate([d for d, _ in duels], arm)
    if arm == against:
        return ArmTally(arm, overall, None, None, None, 1.0)
    return _versus(duels, arm, against, rule, overall)


def _versus(duels: Sequence[Tagged], arm: str, against: str, rule: Rule, overall: WinRate | None = None) -> ArmTally:
    faced = [(d, tags) for d, tags in duels if {d.first, d.second} == {arm, against}]
    plain = [d for d, _ in faced]
    wins, decisive = first_decisive(plain, arm)
    rate = win_rate(plain, arm)
    tags = tag_results(faced, arm, against, rule.e_value)
    worse: Mapping[str, float] = worse_tags(tags)
    apart = spread(plain, arm)
    verdict = decide(rule, rate, wins, decisive, worse, apart)
    evidence = math.exp(min(log_e_value(wins, decisive), 700.0))
    return ArmTally(arm, overall or rate, None, rate, verdict, evidence, tags, conditions(rule, rate, wins, decisive, worse, apart))


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


def _flips(duels: Iterable[Tagged], arms: Sequence[ArmTally], against: str, rule: Rule, best: ArmTally) -> tuple[int, ...]:
    """Of the `WEIGHTY` reviewers with the most votes: one of thousands does not carry a verdict."""
    if best.verdict is None or best.verdict.kind == "more":
        return ()
    faced: dict[str, list[Tagged]] = {arm.arm: [] for arm in arms}
    for d, tags in duels:
        if against in (d.first, d.second):
            faced[d.second if d.first == against else d.first].append((d, tags))
    given = {arm: Counter(d.reviewer for d, _ in mine) for arm, mine in faced.items()}
    found = []
    for reviewer, _ in sum(given.values(), Counter[int]()).most_common(WEIGHTY):
        told = [
            _versus([(d, tags) for d, tags in faced[arm.arm] if d.reviewer != reviewer], arm.arm, against, rule)
            if given[arm.arm][reviewer]
            else arm
            for arm in arms
            if arm.arm != against
        ]
        name, _, verdict = _best((a.arm, a.versus, a.verdict) for a in told if a.versus and a.verdict)
        if (verdict.kind, name) != (best.verdict.kind, best.arm):
            found.append(reviewer)
    return tuple(sorted(found))


def _guesses(records: Iterable[VoteRecord], beside: Beside) -> list[tuple[str, str]]:
    sides = [
        (beside.guesses[r.assignment], tuned_side(r.left_arm, r.right_arm, beside.tuned)) for r in records if r.assignment in beside.guesses
    ]
    return [(guess, truth) for guess, truth in sides if truth]


def _consistency(records: Sequence[VoteRecord]) -> Share:
    repeats = [pair for mine in repeats_of(records).values() for pair in mine]
    return wilson(sum(FLIPPED[second] == first for first, second in repeats), len(repeats))


def _side(records: Sequence[VoteRecord]) -> Side:
    sides = all_sides(records)
    return exact_side(sides.count("left"), sides.count("right"), sides_drawn(records))


def _adjudicated(primary: Sequence[VoteRecord], beside: Beside, arm: str, against: str) -> WinRate:
    duels = [decided_duel(r, beside.adjudications[r.pair]) if r.pair in beside.adjudications else duel(r) for r in primary]
    return win_rate([d for d in duels if {d.first, d.second} == {arm, against}], arm)
