"""Studies, assignments, votes and corrections: what was declared, given out and said.

Every function takes an open Session first and never commits. Must not know the rules of a study, only its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from storage.tables import (
    Adapter,
    Answer,
    Arm,
    Assignment,
    Correction,
    IdenticalPair,
    Prompt,
    PromptSet,
    Study,
    StudyArm,
    User,
    Vote,
)

LEFT, RIGHT, LEFT_ARM, RIGHT_ARM = aliased(Answer), aliased(Answer), aliased(Arm), aliased(Arm)


@dataclass(frozen=True, slots=True)
class ArmRow:
    id: int
    name: str
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class GivenRow:
    """An assignment of one reviewer. `live`: neither answer has been voided."""

    id: str
    pair_key: str
    prompt_id: int
    voted: bool
    live: bool


@dataclass(frozen=True, slots=True)
class PairTexts:
    assignment_id: str
    study_id: int
    prompt_id: int
    instruction: str
    input: str
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
    left_arm: str
    right_arm: str
    left: str
    right: str
    left_answer_id: int
    right_answer_id: int
    reviewer_id: int
    choice: str
    criteria: dict[str, Any]
    reasons: list[str]
    comment: str
    seconds: float
    served_at: float
    created_at: float


def named(session: Session, name: str) -> Study | None:
    return session.scalars(select(Study).where(col(Study.name) == name)).first()


def every(session: Session) -> Sequence[Study]:
    return session.scalars(select(Study).order_by(col(Study.created_at), col(Study.id))).all()


def open_ones(session: Session) -> Sequence[Study]:
    """Open studies, the oldest opening first."""
    return session.scalars(select(Study).where(col(Study.state) == "open").order_by(col(Study.opened_at), col(Study.id))).all()


def user(session: Session, user_id: int) -> User | None:
    return session.get(User, user_id)


def user_names(session: Session, user_ids: Sequence[int]) -> dict[int, str]:
    rows = session.execute(select(col(User.id), col(User.name)).where(col(User.id).in_(user_ids)))
    return {user_id: name for user_id, name in rows}


def prompt_set(session: Session, name: str) -> PromptSet | None:
    return session.scalars(select(PromptSet).where(col(PromptSet.name) == name)).first()


def set_name(session: Session, set_id: int) -> str:
    return session.scalars(select(col(PromptSet.name)).where(col(PromptSet.id) == set_id)).one()


def prompt_count(session: Session, set_id: int, split: str) -> int:
    query = select(func.count()).select_from(Prompt).where(col(Prompt.set_id) == set_id, col(Prompt.split) == split)
    return session.execute(query).scalar_one()


def subject_texts(session: Session, study: Study) -> list[str]:
    """Prompts and references of a study: what it is about."""
    columns = (col(Prompt.instruction), col(Prompt.input), col(Prompt.reference))
    rows = session.execute(select(*columns).where(col(Prompt.set_id) == study.set_id, col(Prompt.split) == study.split))
    return [" \n ".join(row) for row in rows]


_ARMS = select(col(Arm.id), col(Arm.name), col(Arm.kind), col(Adapter.title)).outerjoin(Adapter, col(Arm.adapter_id) == col(Adapter.id))


def arms_named(session: Session, names: Sequence[str]) -> dict[str, ArmRow]:
    rows = session.execute(_ARMS.where(col(Arm.name).in_(names)))
    return {row.name: ArmRow(row.id, row.name, row.kind, row.title or "") for row in rows}


def arm_names(session: Session) -> list[str]:
    return list(session.scalars(select(col(Arm.name)).order_by(col(Arm.id))))


def arms_of(session: Session, study_id: int) -> list[ArmRow]:
    query = _ARMS.join(StudyArm, col(StudyArm.arm_id) == col(Arm.id)).where(col(StudyArm.study_id) == study_id).order_by(col(Arm.id))
    return [ArmRow(row.id, row.name, row.kind, row.title or "") for row in session.execute(query)]


def arms_of_all(session: Session) -> dict[int, list[str]]:
    query = select(col(StudyArm.study_id), col(Arm.name)).join(Arm, col(StudyArm.arm_id) == col(Arm.id)).order_by(col(Arm.id))
    found: dict[int, list[str]] = {}
    for study_id, name in session.execute(query):
        found.setdefault(study_id, []).append(name)
    return found


def adapter_names(session: Session, arm_ids: Sequence[int]) -> list[str]:
    """Names and titles of the adapters behind the arms."""
    query = select(col(Adapter.name), col(Adapter.title)).join(Arm, col(Arm.adapter_id) == col(Adapter.id)).where(col(Arm.id).in_(arm_ids))
    return [name for row in session.execute(query) for name in row if name]


def answered(session: Session, set_id: int, split: str, arm_ids: Sequence[int]) -> dict[int, int]:
    """Arm id -> how many prompts of the split it has a live answer for."""
    query = (
        select(col(Answer.arm_id), func.count())
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(Prompt.set_id) == set_id, col(Prompt.split) == split, col(Answer.arm_id).in_(arm_ids), col(Answer.voided_at).is_(None))
        .group_by(col(Answer.arm_id))
    )
    return {arm_id: count for arm_id, count in session.execute(query)}


def live_answers(session: Session, study: Study) -> list[tuple[int, int, int]]:
    """(prompt id, answer id, arm id) of all live answers of a study's arms, by prompt."""
    query = (
        select(col(Answer.prompt_id), col(Answer.id), col(Answer.arm_id))
        .join(StudyArm, col(StudyArm.arm_id) == col(Answer.arm_id))
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(StudyArm.study_id) == study.id, col(Answer.voided_at).is_(None))
        .where(col(Prompt.set_id) == study.set_id, col(Prompt.split) == study.split)
        .order_by(col(Answer.prompt_id), col(Answer.id))
    )
    return [(prompt, answer, arm) for prompt, answer, arm in session.execute(query)]


def answer_texts(session: Session, answer_ids: Sequence[int]) -> dict[int, str]:
    """Texts of those of the answers that are live."""
    query = select(col(Answer.id), col(Answer.text)).where(col(Answer.id).in_(answer_ids), col(Answer.voided_at).is_(None))
    return {answer_id: text for answer_id, text in session.execute(query)}


def identical_keys(session: Session, study_id: int) -> set[tuple[int, int]]:
    """(smaller, larger) answer ids recorded as identical."""
    query = select(col(IdenticalPair.first_answer_id), col(IdenticalPair.second_answer_id)).where(col(IdenticalPair.study_id) == study_id)
    return {(first, second) for first, second in session.execute(query)}


def _has_vote() -> Any:
    return select(col(Vote.id)).where(col(Vote.assignment_id) == col(Assignment.id)).exists()


def taken(session: Session, study_id: int, since: float, pair_key: str | None = None) -> dict[str, int]:
    """Pair key -> assignments that have a vote or were served after `since`; of one pair or of all."""
    query = (
        select(col(Assignment.pair_key), func.count())
        .where(col(Assignment.study_id) == study_id, col(Assignment.kind) == "real")
        .where(or_(col(Assignment.served_at) > since, _has_vote()))
        .group_by(col(Assignment.pair_key))
    )
    if pair_key is not None:
        query = query.where(col(Assignment.pair_key) == pair_key)
    return {key: count for key, count in session.execute(query)}


def given_to(session: Session, study_id: int, reviewer_id: int) -> list[GivenRow]:
    """A reviewer's assignments in a study, oldest first."""
    query = (
        select(col(Assignment.id), col(Assignment.pair_key), col(Assignment.prompt_id), _has_vote().label("voted"),
               col(LEFT.voided_at), col(RIGHT.voided_at))
        .join(LEFT, col(LEFT.id) == col(Assignment.left_answer_id))
        .join(RIGHT, col(RIGHT.id) == col(Assignment.right_answer_id))
        .where(col(Assignment.study_id) == study_id, col(Assignment.reviewer_id) == reviewer_id)
        .order_by(col(Assignment.served_at), col(Assignment.id))
    )  # fmt: skip
    return [
        GivenRow(i, key, prompt, bool(voted), lost is None and gone is None) for i, key, prompt, voted, lost, gone in session.execute(query)
    ]


def recent_seconds(session: Session, reviewer_id: int, last: int) -> list[float]:
    """Seconds of a reviewer's last first-revision votes, newest first."""
    query = (
        select(col(Vote.seconds))
        .where(col(Vote.reviewer_id) == reviewer_id, col(Vote.revision) == 1)
        .order_by(col(Vote.created_at).desc())
        .limit(last)
    )
    return list(session.scalars(query))


def assignment(session: Session, assignment_id: str) -> Assignment | None:
    return session.get(Assignment, assignment_id)


def pair_texts(session: Session, assignment_id: str) -> PairTexts:
    query = (
        select(col(Assignment.study_id), col(Prompt.id), col(Prompt.instruction), col(Prompt.input),
               col(LEFT.text), col(RIGHT.text), col(LEFT.voided_at), col(RIGHT.voided_at))
        .select_from(Assignment)
        .join(Prompt, col(Prompt.id) == col(Assignment.prompt_id))
        .join(LEFT, col(LEFT.id) == col(Assignment.left_answer_id))
        .join(RIGHT, col(RIGHT.id) == col(Assignment.right_answer_id))
        .where(col(Assignment.id) == assignment_id)
    )  # fmt: skip
    study_id, prompt_id, instruction, input_text, left_text, right_text, lost, gone = session.execute(query).one()
    live = lost is None and gone is None
    return PairTexts(assignment_id, study_id, prompt_id, instruction, input_text, left_text, right_text, live)


def arm_of_answer(session: Session, answer_id: int) -> str:
    return session.scalars(select(col(Arm.name)).join(Answer, col(Answer.arm_id) == col(Arm.id)).where(col(Answer.id) == answer_id)).one()


def latest_vote(session: Session, assignment_id: str) -> Vote | None:
    query = select(Vote).where(col(Vote.assignment_id) == assignment_id).order_by(col(Vote.revision).desc()).limit(1)
    return session.scalars(query).first()


def vote_with_key(session: Session, key: str) -> Vote | None:
    return session.scalars(select(Vote).where(col(Vote.request_key) == key)).first()


def correction_with_key(session: Session, key: str) -> Correction | None:
    return session.scalars(select(Correction).where(col(Correction.request_key) == key)).first()


def corrections_of(session: Session, assignment_id: str) -> Sequence[Correction]:
    """Oldest first."""
    query = (
        select(Correction).where(col(Correction.assignment_id) == assignment_id).order_by(col(Correction.created_at), col(Correction.id))
    )
    return session.scalars(query).all()


def voted_count(session: Session, study_id: int) -> int:
    """Assignments with at least one vote."""
    query = (
        select(func.count())
        .select_from(Assignment)
        .where(col(Assignment.study_id) == study_id, col(Assignment.kind) == "real", _has_vote())
    )
    return session.execute(query).scalar_one()


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
        left_arm=left_arm,
        right_arm=right_arm,
        left=left.text,
        right=right.text,
        left_answer_id=given.left_answer_id,
        right_answer_id=given.right_answer_id,
        reviewer_id=vote.reviewer_id,
        choice=vote.choice,
        criteria=dict(vote.criteria),
        reasons=list(vote.reasons),
        comment=vote.comment,
        seconds=vote.seconds,
        served_at=given.served_at,
        created_at=vote.created_at,
    )
