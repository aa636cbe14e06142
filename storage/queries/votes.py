"""Assignments, votes and corrections: what was given out and what was said.

Every function takes an open Session first and never commits. Must not know the rules of a study, only its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import bindparam, func, literal_column, or_, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from storage.tables import Answer, Arm, Assignment, Correction, Guess, Prompt, Skip, Study, StudyArm, Vote

LEFT, RIGHT, LEFT_ARM, RIGHT_ARM = aliased(Answer), aliased(Answer), aliased(Arm), aliased(Arm)
SKIPPED = select(col(Skip.assignment_id)).where(col(Skip.assignment_id) == col(Assignment.id)).exists()
VOTED_ON = select(col(Vote.id)).where(col(Vote.assignment_id) == col(Assignment.id)).exists()

# What every vote asks for is put together once: building a statement costs several times as much as running it.
TAKEN = (
    select(col(Assignment.study_id))
    .where(col(Assignment.prompt_id) == bindparam("prompt"), col(Assignment.pair_key) == bindparam("key"))
    .where(col(Assignment.kind) == "real", ~SKIPPED, or_(col(Assignment.served_at) > bindparam("since"), VOTED_ON))
)
TEXTS = (
    select(col(Assignment.study_id), col(Prompt.id), col(Prompt.instruction), col(Prompt.input), col(Prompt.history),
           col(LEFT.text), col(RIGHT.text), col(LEFT.voided_at), col(RIGHT.voided_at))
    .select_from(Assignment)
    .join(Prompt, col(Prompt.id) == col(Assignment.prompt_id))
    .join(LEFT, col(LEFT.id) == col(Assignment.left_answer_id))
    .join(RIGHT, col(RIGHT.id) == col(Assignment.right_answer_id))
    .where(col(Assignment.id) == bindparam("assignment"))
)  # fmt: skip
LIVE = (
    select(func.count())
    .select_from(Answer)
    .where(col(Answer.id).in_(bindparam("answers", expanding=True)), col(Answer.voided_at).is_(None))
)
KINDS = (
    select(col(Arm.kind)).join(Answer, col(Answer.arm_id) == col(Arm.id)).where(col(Answer.id).in_(bindparam("answers", expanding=True)))
)
LATEST = select(Vote).where(col(Vote.assignment_id) == bindparam("assignment")).order_by(col(Vote.revision).desc()).limit(1)
WITH_KEY = select(Vote).where(col(Vote.request_key) == bindparam("key"))
CORRECTED = select(func.max(Correction.created_at)).where(col(Correction.assignment_id) == bindparam("assignment"))
GUESSED = select(func.max(Guess.created_at)).where(col(Guess.assignment_id) == bindparam("assignment"))
SAID_LATER = select(CORRECTED.scalar_subquery(), GUESSED.scalar_subquery())


@dataclass(frozen=True, slots=True)
class PairTexts:
    assignment_id: str
    study_id: int
    prompt_id: int
    instruction: str
    input: str
    history: list[dict[str, str]]
    left: str
    right: str
    live: bool


@dataclass(frozen=True, slots=True)
class VoteRow:
    """One revision of one vote with all that a board or an export needs."""

    vote_id: str
    assignment_id: str
    revision: int
    pair_key: str
    kind: str
    marked: str
    voided: bool
    prompt_id: int
    instruction: str
    input: str
    history: list[dict[str, str]]
    left_arm: str
    right_arm: str
    left: str
    right: str
    left_answer_id: int
    right_answer_id: int
    left_prompt_id: int
    right_prompt_id: int
    tags: list[str]
    category: str
    reviewer_id: int
    choice: str
    criteria: dict[str, Any]
    reasons: list[str]
    comment: str
    seconds: float
    served_at: float
    created_at: float


def taken(session: Session, study_id: int, prompt_id: int, pair_key: str, since: float) -> int:
    """How many reviewers have taken a pair: they voted on it, or got it after `since` and did not skip it.

    Studies are told apart here and not in SQL: the database would go through the whole study instead of one prompt.
    """
    found = session.scalars(TAKEN, {"prompt": prompt_id, "key": pair_key, "since": since})
    return list(found).count(study_id)


def assignment(session: Session, assignment_id: str) -> Assignment | None:
    return session.get(Assignment, assignment_id)


def pair_texts(session: Session, assignment_id: str) -> PairTexts:
    found = session.execute(TEXTS, {"assignment": assignment_id}).one()
    study_id, prompt_id, instruction, input_text, history, left_text, right_text, lost, gone = found
    live = lost is None and gone is None
    return PairTexts(assignment_id, study_id, prompt_id, instruction, input_text, history, left_text, right_text, live)


def is_live(session: Session, answer_ids: Sequence[int]) -> bool:
    """Whether none of the answers has been voided."""
    return bool(session.execute(LIVE, {"answers": list(answer_ids)}).scalar_one() == len(set(answer_ids)))


def arm_kinds(session: Session, answer_ids: Sequence[int]) -> list[str]:
    return list(session.scalars(KINDS, {"answers": list(answer_ids)}))


def last_act(session: Session, reviewer_id: int) -> float:
    """When a reviewer last voted, or said more of the pair voted on: they cannot have read the next pair before."""
    found = session.execute(_newest_vote(session.get_bind().dialect.name), {"reviewer": reviewer_id}).first()
    if found is None:
        return 0.0
    assignment_id, cast_at = found
    later = session.execute(SAID_LATER, {"assignment": assignment_id}).one()
    return max(cast_at, *(at for at in later if at is not None)) if any(later) else float(cast_at)


@cache
def _newest_vote(dialect: str) -> Any:
    order = literal_column("vote.rowid") if dialect == "sqlite" else col(Vote.created_at)
    query = select(col(Vote.assignment_id), col(Vote.created_at)).where(col(Vote.reviewer_id) == bindparam("reviewer"))
    return query.order_by(order.desc()).limit(1)


def last_vote(session: Session, reviewer_id: int) -> Vote | None:
    """The newest vote that may still change: its study is open and keeps its arms to itself, and neither answer was voided."""
    query = (
        select(Vote)
        .join(Assignment, col(Assignment.id) == col(Vote.assignment_id))
        .join(Study, col(Study.id) == col(Assignment.study_id))
        .join(LEFT, col(LEFT.id) == col(Assignment.left_answer_id))
        .join(RIGHT, col(RIGHT.id) == col(Assignment.right_answer_id))
        .where(col(Vote.reviewer_id) == reviewer_id, col(Study.state) == "open", col(Study.reveal) == "after_close")
        .where(col(LEFT.voided_at).is_(None), col(RIGHT.voided_at).is_(None))
        .order_by(col(Vote.created_at).desc(), col(Vote.revision).desc())
        .limit(1)
    )
    return session.scalars(query).first()


def skip(session: Session, assignment_id: str) -> Skip | None:
    return session.get(Skip, assignment_id)


def skip_with_key(session: Session, key: str) -> Skip | None:
    return session.scalars(select(Skip).where(col(Skip.request_key) == key)).first()


def guess(session: Session, assignment_id: str) -> Guess | None:
    return session.get(Guess, assignment_id)


def arm_of_answer(session: Session, answer_id: int) -> str:
    return session.scalars(select(col(Arm.name)).join(Answer, col(Answer.arm_id) == col(Arm.id)).where(col(Answer.id) == answer_id)).one()


def blind_elsewhere(session: Session, given: Assignment) -> bool:
    """Whether another study that is not over yet, and keeps its arms to itself, compares one of these answers."""
    query = (
        select(col(Study.id))
        .join(StudyArm, col(StudyArm.study_id) == col(Study.id))
        .join(Answer, col(Answer.arm_id) == col(StudyArm.arm_id))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .where(col(Answer.id).in_((given.left_answer_id, given.right_answer_id)), col(Study.id) != given.study_id)
        .where(col(Study.state).in_(("open", "paused")), col(Study.reveal) == "after_close")
        .where(col(Prompt.set_id) == col(Study.set_id), col(Prompt.split) == col(Study.split))
        .limit(1)
    )
    return session.execute(query).first() is not None


def latest_vote(session: Session, assignment_id: str) -> Vote | None:
    return session.scalars(LATEST, {"assignment": assignment_id}).first()


def vote_with_key(session: Session, key: str) -> Vote | None:
    return session.scalars(WITH_KEY, {"key": key}).first()


def correction_with_key(session: Session, key: str) -> Correction | None:
    return session.scalars(select(Correction).where(col(Correction.request_key) == key)).first()


def corrections_of(session: Session, assignment_id: str) -> Sequence[Correction]:
    """Oldest first."""
    query = (
        select(Correction).where(col(Correction.assignment_id) == assignment_id).order_by(col(Correction.created_at), col(Correction.id))
    )
    return session.scalars(query).all()


def votes(session: Session, study_id: int) -> list[VoteRow]:
    """Every revision of every vote of a study, in the order cast."""
    query = (
        select(Vote, Assignment, Prompt, LEFT, RIGHT, col(LEFT_ARM.name), col(RIGHT_ARM.name))
        .join(Assignment, col(Assignment.id) == col(Vote.assignment_id))
        .join(Prompt, col(Prompt.id) == col(Assignment.prompt_id))
        .join(LEFT, col(LEFT.id) == col(Assignment.left_answer_id))
        .join(RIGHT, col(RIGHT.id) == col(Assignment.right_answer_id))
        .join(LEFT_ARM, col(LEFT_ARM.id) == col(LEFT.arm_id))
        .join(RIGHT_ARM, col(RIGHT_ARM.id) == col(RIGHT.arm_id))
        .where(col(Assignment.study_id) == study_id)
        .order_by(col(Vote.created_at), col(Vote.assignment_id), col(Vote.revision))
    )
    return [_vote_row(*row) for row in session.execute(query)]


def _vote_row(vote: Vote, given: Assignment, prompt: Prompt, left: Answer, right: Answer, left_arm: str, right_arm: str) -> VoteRow:
    return VoteRow(
        vote_id=vote.id,
        assignment_id=given.id,
        revision=vote.revision,
        pair_key=given.pair_key,
        kind=given.kind,
        marked=given.marked,
        voided=left.voided_at is not None or right.voided_at is not None,
        prompt_id=given.prompt_id,
        instruction=prompt.instruction,
        input=prompt.input,
        history=list(prompt.history),
        left_arm=left_arm,
        right_arm=right_arm,
        left=left.text,
        right=right.text,
        left_answer_id=given.left_answer_id,
        right_answer_id=given.right_answer_id,
        left_prompt_id=left.prompt_id,
        right_prompt_id=right.prompt_id,
        tags=list(prompt.tags),
        category=prompt.category,
        reviewer_id=vote.reviewer_id,
        choice=vote.choice,
        criteria=dict(vote.criteria),
        reasons=list(vote.reasons),
        comment=vote.comment,
        seconds=vote.seconds,
        served_at=given.served_at,
        created_at=vote.created_at,
    )
