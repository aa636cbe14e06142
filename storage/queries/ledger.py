"""What came to a study since somebody last looked: assignments, votes, skips; and its deck of answers.

The append-only tables are read from a mark on: SQLite's rowid, which grows with every row and is never used again there; elsewhere the
time of the row less some seconds, so that a reader must not count a row twice. Every function takes an open Session first and never
commits. Must not know the rules of a study.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, func, literal_column, select
from sqlmodel import Session, col

from storage.tables import Answer, Arm, Assignment, IdenticalPair, Prompt, Skip, Study, StudyArm, StudyReviewer, Vote

LOOK_BACK = 5.0  # seconds, where rows have no number of their own: clocks of several machines differ


class Given(NamedTuple):
    at: float
    id: str
    reviewer: int
    pair: str
    prompt: int
    left: int
    right: int
    kind: str
    marked: str
    served: float


class Cast(NamedTuple):
    at: float
    assignment: str
    revision: int
    choice: str
    seconds: float
    created: float


class Dealt(NamedTuple):
    """A live answer of a study's deck, with what its prompt is about."""

    prompt: int
    answer: int
    arm: int
    category: str
    tags: list[str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """A prompt without tags has its category as one, if it has that."""
        return tuple(self.tags) or ((self.category,) if self.category else ())


def _mark(session: Session, table: str, time: Any) -> tuple[ColumnElement[float], float]:
    """(what rows are ordered by, how far to look back)."""
    if session.get_bind().dialect.name == "sqlite":
        return literal_column(f"{table}.rowid", Float), 0.0
    return time, LOOK_BACK


def given_after(session: Session, study_id: int, mark: float, reviewer_id: int | None = None) -> list[Given]:
    """A study's assignments after `mark`, oldest first; of one reviewer or of all."""
    at, back = _mark(session, "assignment", col(Assignment.served_at))
    columns = (Assignment.id, Assignment.reviewer_id, Assignment.pair_key, Assignment.prompt_id, Assignment.left_answer_id,
               Assignment.right_answer_id, Assignment.kind, Assignment.marked, Assignment.served_at)  # fmt: skip
    query = select(at, *map(col, columns)).where(at > mark - back, col(Assignment.study_id) == study_id).order_by(at)
    if reviewer_id is not None:
        query = query.where(col(Assignment.reviewer_id) == reviewer_id)
    return [Given(*row) for row in session.execute(query)]


def cast_after(session: Session, study_id: int, mark: float) -> list[Cast]:
    """Revisions of votes after `mark`, oldest first: of the study alone at first, later of any study, which spares the join."""
    at, back = _mark(session, "vote", col(Vote.created_at))
    columns = (at, col(Vote.assignment_id), col(Vote.revision), col(Vote.choice), col(Vote.seconds), col(Vote.created_at))
    query = select(*columns).where(at > mark - back).order_by(at)
    if mark < 0:
        query = query.join(Assignment, col(Assignment.id) == col(Vote.assignment_id)).where(col(Assignment.study_id) == study_id)
    return [Cast(*row) for row in session.execute(query)]


def skipped_after(session: Session, mark: float) -> list[tuple[float, str]]:
    """(mark, assignment) of every skip after `mark`, of any study."""
    at, back = _mark(session, "skip", col(Skip.created_at))
    return [(found, assignment) for found, assignment in session.execute(select(at, col(Skip.assignment_id)).where(at > mark - back))]


def named_reviewers(session: Session, study_id: int) -> frozenset[int]:
    """Who may judge; empty: every reviewer."""
    return frozenset(session.scalars(select(col(StudyReviewer.user_id)).where(col(StudyReviewer.study_id) == study_id)))


def study_arms(session: Session, study_id: int) -> tuple[int, ...]:
    return tuple(session.scalars(select(col(StudyArm.arm_id)).where(col(StudyArm.study_id) == study_id).order_by(col(StudyArm.arm_id))))


def deck_state(session: Session, study_id: int, arm_ids: Sequence[int]) -> tuple[int, int, int]:
    """Changes whenever the deck may have: the arms' newest answer, how many were voided, how many pairs are identical. Read from small
    indexes, however many answers there are."""
    newest = select(func.coalesce(func.max(Answer.id), 0)).where(col(Answer.arm_id).in_(arm_ids))
    voided = select(func.count()).select_from(Answer).where(col(Answer.arm_id).in_(arm_ids), col(Answer.voided_at).is_not(None))
    identical = select(func.count()).select_from(IdenticalPair).where(col(IdenticalPair.study_id) == study_id)
    one, two, three = session.execute(select(newest.scalar_subquery(), voided.scalar_subquery(), identical.scalar_subquery())).one()
    return one, two, three


def deck(session: Session, study: Study) -> list[Dealt]:
    """The live answers of a study's arms to its prompts, by prompt."""
    query = (
        select(col(Answer.prompt_id), col(Answer.id), col(Answer.arm_id), col(Prompt.category), col(Prompt.tags))
        .join(StudyArm, col(StudyArm.arm_id) == col(Answer.arm_id))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .where(col(StudyArm.study_id) == study.id, col(Answer.voided_at).is_(None))
        .where(col(Prompt.set_id) == study.set_id, col(Prompt.split) == study.split)
        .order_by(col(Answer.prompt_id), col(Answer.id))
    )
    if study.last_prompt_id is not None:
        query = query.where(col(Prompt.id) <= study.last_prompt_id)
    return [Dealt(*row) for row in session.execute(query)]


def topics(session: Session, answer_ids: Sequence[int]) -> list[tuple[int, int, int, str, str, str]]:
    """(answer, arm, prompt, the question, its reference, the answer's text) of single-turn prompts."""
    query = (
        select(col(Answer.id), col(Answer.arm_id), col(Prompt.id), col(Prompt.instruction), col(Prompt.input), col(Prompt.reference),
               col(Prompt.history), col(Answer.text))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .where(col(Answer.id).in_(answer_ids))
    )  # fmt: skip
    return [
        (answer, arm, prompt, f"{instruction}\n{said}", reference, text)
        for answer, arm, prompt, instruction, said, reference, history, text in session.execute(query)
        if not history
    ]


def human_answers(session: Session, prompt_ids: Sequence[int]) -> list[int]:
    """The live answers that human agents gave to the prompts."""
    query = (
        select(col(Answer.id))
        .join(Arm, col(Arm.id) == col(Answer.arm_id))
        .where(col(Arm.kind) == "human", col(Answer.prompt_id).in_(prompt_ids), col(Answer.voided_at).is_(None))
    )
    return list(session.scalars(query))


def studies_judged_since(session: Session, reviewer_id: int, since: float) -> list[int]:
    """Studies in which a reviewer voted since a time."""
    query = (
        select(col(Assignment.study_id))
        .join(Vote, col(Vote.assignment_id) == col(Assignment.id))
        .where(col(Vote.reviewer_id) == reviewer_id, col(Vote.created_at) >= since)
        .distinct()
    )
    return sorted(session.scalars(query))
