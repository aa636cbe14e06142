"""What came to a study since somebody last looked: assignments, votes, skips; and its deck of answers.

The append-only tables are read from a mark on: SQLite's rowid, which grows with every row and is never used again there; elsewhere the
time of the row less some seconds, so that a reader must not count a row twice. Every function takes an open Session first and never
commits. Must not know the rules of a study.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, bindparam, func, literal_column, select
from sqlmodel import Session, col

from storage.tables import Answer, Arm, Assignment, IdenticalPair, Prompt, Skip, Study, StudyArm, StudyReviewer, Vote

LOOK_BACK = 5.0  # seconds, where rows have no number of their own: clocks of several machines differ
OF_ARMS = col(Answer.arm_id).in_(bindparam("arms", expanding=True))
NEWEST = select(func.coalesce(func.max(Answer.id), 0)).where(OF_ARMS)
TAKEN_BACK = select(func.count()).select_from(Answer).where(OF_ARMS, col(Answer.voided_at).is_not(None))
IDENTICAL = select(func.count()).select_from(IdenticalPair).where(col(IdenticalPair.study_id) == bindparam("study"))
DECK_STATE = select(NEWEST.scalar_subquery(), TAKEN_BACK.scalar_subquery(), IDENTICAL.scalar_subquery())


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


@cache
def _news(dialect: str) -> tuple[Any, Any, Any, Any, Any, float]:
    """(assignments of a study, of one of its reviewers, a study's votes, all votes, all skips; how far to look back), each after `mark`.

    Put together once: building a statement costs several times as much as running it.
    """

    def at(table: str, time: Any) -> ColumnElement[float]:
        return literal_column(f"{table}.rowid", Float) if dialect == "sqlite" else time

    after: Any = bindparam("after")
    study: Any = bindparam("study")
    columns = (Assignment.id, Assignment.reviewer_id, Assignment.pair_key, Assignment.prompt_id, Assignment.left_answer_id,
               Assignment.right_answer_id, Assignment.kind, Assignment.marked, Assignment.served_at)  # fmt: skip
    served = at("assignment", col(Assignment.served_at))
    given = select(served, *map(col, columns)).where(served > after, col(Assignment.study_id) == study).order_by(served)
    cast = at("vote", col(Vote.created_at))
    said = (cast, col(Vote.assignment_id), col(Vote.revision), col(Vote.choice), col(Vote.seconds), col(Vote.created_at))
    votes = select(*said).where(cast > after).order_by(cast)
    of_study = votes.join(Assignment, col(Assignment.id) == col(Vote.assignment_id)).where(col(Assignment.study_id) == study)
    left = at("skip", col(Skip.created_at))
    skips = select(left, col(Skip.assignment_id)).where(left > after)
    theirs = given.where(col(Assignment.reviewer_id) == bindparam("reviewer"))
    return given, theirs, of_study, votes, skips, 0.0 if dialect == "sqlite" else LOOK_BACK


def _of(session: Session) -> tuple[Any, Any, Any, Any, Any, float]:
    return _news(session.get_bind().dialect.name)


def given_after(session: Session, study_id: int, mark: float, reviewer_id: int | None = None) -> list[Given]:
    """A study's assignments after `mark`, oldest first; of one reviewer or of all."""
    given, theirs, _, _, _, back = _of(session)
    if reviewer_id is not None:
        return [Given(*row) for row in session.execute(theirs, {"after": mark - back, "study": study_id, "reviewer": reviewer_id})]
    return [Given(*row) for row in session.execute(given, {"after": mark - back, "study": study_id})]


def cast_after(session: Session, study_id: int, mark: float) -> list[Cast]:
    """Revisions of votes after `mark`, oldest first: of the study alone at first, later of any study, which spares the join."""
    _, _, of_study, votes, _, back = _of(session)
    if mark < 0:
        return [Cast(*row) for row in session.execute(of_study, {"after": mark - back, "study": study_id})]
    return [Cast(*row) for row in session.execute(votes, {"after": mark - back})]


def skipped_after(session: Session, mark: float) -> list[tuple[float, str]]:
    """(mark, assignment) of every skip after `mark`, of any study."""
    *_, skips, back = _of(session)
    return [(found, assignment) for found, assignment in session.execute(skips, {"after": mark - back})]


def named_reviewers(session: Session, study_id: int) -> frozenset[int]:
    """Who may judge; empty: every reviewer."""
    return frozenset(session.scalars(select(col(StudyReviewer.user_id)).where(col(StudyReviewer.study_id) == study_id)))


def study_arms(session: Session, study_id: int) -> tuple[int, ...]:
    return tuple(session.scalars(select(col(StudyArm.arm_id)).where(col(StudyArm.study_id) == study_id).order_by(col(StudyArm.arm_id))))


def deck_state(session: Session, study_id: int, arm_ids: Sequence[int]) -> tuple[int, int, int]:
    """Changes whenever the deck may have: the arms' newest answer, how many were voided, how many pairs are identical. Read from small
    indexes, however many answers there are."""
    one, two, three = session.execute(DECK_STATE, {"arms": list(arm_ids), "study": study_id}).one()
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
