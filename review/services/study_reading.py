"""A study read from the database: its declaration, its pairs, its votes as the pure rules count them.

Must not know screens or models.
"""

from collections.abc import Sequence
from itertools import combinations

from sqlmodel import Session

from ft.errors import NotFound
from review.protocol.records import Beside, VoteRecord
from review.protocol.verdict import Rule
from review.services.study_lines import DOUBTED
from review.services.study_results import plain_side
from review.services.study_views import StudyView
from storage.queries import decisions as decided
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.tables import IdenticalPair, Study

# Stored beside the rule's own settings.
AGAINST = "against"  # the arm to beat
TUNED = "tuned"  # of a study brought in: the arms that were adapters where it comes from
ASIDE = "aside"  # of a study brought in: whose votes stay out
BESIDE = (AGAINST, TUNED, ASIDE)


def named(session: Session, name: str) -> Study:
    study = rows.named(session, name)
    if study is None:
        raise NotFound(f"There is no study “{name}”. See the list of studies, or create one.")
    return study


def view(session: Session, study: Study) -> StudyView:
    study_id = key(study.id)
    found = rows.arms_of(session, study_id)
    arms = tuple(arm.name for arm in found)
    against = study.rule.get(AGAINST, arms[0] if arms else "")
    return StudyView(
        id=study_id,
        name=study.name,
        state=study.state,
        set_name=rows.set_name(session, study.set_id),
        split=study.split,
        arms=(against, *(arm for arm in arms if arm != against)),
        against=against,
        votes_per_pair=study.votes_per_pair,
        criteria=tuple(study.criteria),
        reasons=tuple(study.reasons),
        rule=rule_of(study),
        reveal=study.reveal,
        created_at=study.created_at,
        opened_at=study.opened_at,
        closed_at=study.closed_at,
        tags=tuple(study.tags),
        reviewers=tuple(rows.reviewers_of(session, study_id).values()),
        scale=study.scale,
        checks=study.checks,
        tuned=tuned_arms(study, found),
    )


def rule_of(study: Study) -> Rule:
    """A study declared before a setting existed goes on without it."""
    settings = {name: value for name, value in study.rule.items() if name not in BESIDE}
    return Rule.from_dict({"no_worse_tag": False} | settings)


def tuned_arms(study: Study, arms: Sequence[rows.ArmRow]) -> tuple[str, ...]:
    """Which of its arms are tuned models, the subject of "which one is the tuned model?"."""
    told = study.rule.get(TUNED)
    return tuple(told) if isinstance(told, list) else tuple(arm.name for arm in arms if arm.kind == "adapter")


def beside(session: Session, study: Study, votes: Sequence[cast.VoteRow]) -> Beside:
    """Guesses, and the newest decisions on reviewers and on disputed pairs."""
    study_id = key(study.id)
    arms = {answer: arm for row in votes for answer, arm in ((row.left_answer_id, row.left_arm), (row.right_answer_id, row.right_arm))}
    adjudications = {}
    for (first, second), row in decided.adjudications(session, study_id).items():
        if first in arms and second in arms:
            adjudications[f"{first}-{second}"] = {"first": arms[first], "second": arms[second]}.get(row.choice, row.choice)
    return Beside(
        guesses=decided.guesses(session, study_id),
        decisions={reviewer: row.counted for reviewer, row in decided.decisions(session, study_id).items()},
        adjudications=adjudications,
        tuned=frozenset(tuned_arms(study, rows.arms_of(session, study_id))),
        doubted_aside=study.rule.get(ASIDE, DOUBTED) == DOUBTED,
    )


def live_pairs(session: Session, study: Study) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """(prompt, answer ids, arm ids) of every pair that can be shown: both answers live, not recorded as identical, of the study's tags."""
    wanted = prompt_ids(session, study)
    by_prompt: dict[int, list[tuple[int, int]]] = {}
    for prompt, answer, arm in rows.live_answers(session, study):
        if wanted is None or prompt in wanted:
            by_prompt.setdefault(prompt, []).append((answer, arm))
    identical = rows.identical_keys(session, key(study.id))
    return [
        (prompt, (first, second), (first_arm, second_arm))
        for prompt, answers in by_prompt.items()
        for (first, first_arm), (second, second_arm) in combinations(answers, 2)
        if (min(first, second), max(first, second)) not in identical
    ]


def prompt_ids(session: Session, study: Study) -> set[int] | None:
    """The prompts of a study that asks for tags; None where it takes all."""
    if not study.tags:
        return None
    tags = rows.prompt_tags(session, study.set_id, study.split, study.last_prompt_id)
    return {prompt for prompt, found in tags.items() if not set(study.tags).isdisjoint(found)}


def identical_row(study_id: int, prompt_id: int, answers: tuple[int, int]) -> IdenticalPair:
    return IdenticalPair(study_id=study_id, prompt_id=prompt_id, first_answer_id=min(answers), second_answer_id=max(answers))


def record(row: cast.VoteRow) -> VoteRecord:
    """A stored vote as the pure rules count it."""
    return VoteRecord(
        assignment=row.assignment_id,
        revision=row.revision,
        pair=row.pair_key,
        prompt=row.prompt_id,
        reviewer=row.reviewer_id,
        left_arm=row.left_arm,
        right_arm=row.right_arm,
        choice=row.choice,
        kind=row.kind,
        marked=bool(row.marked),
        voided=row.voided,
        seconds=row.seconds,
        characters=sum(map(len, (row.instruction, row.input, row.left, row.right))),
        criteria=row.criteria,
        tags=tuple(row.tags) or (row.category,) * bool(row.category),
        plain=plain_side(row.prompt_id, (row.left_prompt_id, row.left), (row.right_prompt_id, row.right)) if row.kind == "gold" else "",
    )


def key(value: int | None) -> int:
    assert value is not None, "the row has not been stored yet"
    return value
