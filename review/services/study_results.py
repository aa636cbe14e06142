"""The result of a study from its votes, whether they come from the database or from a study file: one way for both.

Must not know the database, screens or models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from review.protocol.ranking import METHOD
from review.protocol.records import Beside, VoteRecord
from review.protocol.tally import ArmTally, Tally, tally
from review.services.study_views import ArmResult, StudyResult, StudyView


@dataclass(frozen=True, slots=True)
class Given:
    """What a result is made from. `about`: arm -> (kind, title); `names`: reviewer -> name; `identical`: how many pairs are equal texts."""

    view: StudyView
    about: Mapping[str, tuple[str, str]]
    records: Sequence[VoteRecord]
    beside: Beside
    names: Mapping[int, str]
    identical: int


def plain_side(prompt: object, left: tuple[object, str], right: tuple[object, str]) -> str:
    """Of a plain pair, the side that is plainly better: the one that answers this prompt, or that answers at all. Each side as (the prompt
    that it answers, its text)."""
    one, other = left[0] == prompt, right[0] == prompt
    if one == other:
        one, other = len(left[1].strip()) > len(right[1].strip()), len(left[1].strip()) < len(right[1].strip())
    return "" if one == other else "left" if one else "right"


def counted_up(given: Given) -> Tally:
    view = given.view
    return tally(given.records, view.arms, view.against, view.rule, given.beside, view.criteria)


def study_result(given: Given) -> StudyResult:
    found = counted_up(given)
    return StudyResult(
        study=given.view,
        arms=tuple(_arm(arm, *given.about[arm.arm]) for arm in found.arms),
        best=found.best,
        verdict=found.verdict,
        e_value=found.e_value,
        votes=found.votes,
        both_bad_share=found.both_bad_share,
        identical=given.identical,
        marked=found.marked,
        voided=found.voided,
        agreement=found.agreement,
        flips=tuple(given.names[reviewer] for reviewer in found.flips),
        method=METHOD,
        tags=found.tags,
        agreements=found.agreements,
        blinding=found.blinding,
        consistency=found.consistency,
        side=found.side,
        aside=tuple(sorted(given.names[reviewer] for reviewer in found.aside if reviewer in given.names)),
        aside_votes=found.aside_votes,
        undecided=tuple(sorted(given.names[reviewer] for reviewer in found.undecided if reviewer in given.names)),
        disagreements=len(found.disputed),
        adjudicated=found.adjudicated,
        adjudicated_rate=found.adjudicated_rate,
        conditions=found.conditions,
    )


def _arm(arm: ArmTally, kind: str, title: str) -> ArmResult:
    return ArmResult(arm.arm, kind, title, arm.votes, arm.win_rate, arm.strength, arm.versus, arm.verdict, arm.e_value)
