"""What is known beside the votes of a study: guesses at the tuned model, skipped pairs, decisions on reviewers and on disputed pairs.

Every function takes an open Session first and never commits. Must not know the rules of a study, only its rows.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.tables import Adjudication, Assignment, Guess, Prompt, ReviewerDecision, Skip, User, Vote


@dataclass(frozen=True, slots=True)
class SkipRow:
    assignment_id: str
    reviewer_id: int
    reviewer: str
    prompt: str
    reason: str
    created_at: float


def guesses(session: Session, study_id: int) -> dict[str, str]:
    """Assignment id -> left, right or unsure."""
    query = (
        select(col(Guess.assignment_id), col(Guess.choice))
        .join(Assignment, col(Assignment.id) == col(Guess.assignment_id))
        .where(col(Assignment.study_id) == study_id)
        .order_by(col(Guess.created_at), col(Guess.assignment_id))
    )
    return {assignment: choice for assignment, choice in session.execute(query)}


def skips(session: Session, study_id: int) -> list[SkipRow]:
    """Newest first."""
    query = (
        select(
            col(Skip.assignment_id), col(Skip.reviewer_id), col(User.name), col(Prompt.instruction), col(Skip.reason), col(Skip.created_at)
        )
        .join(Assignment, col(Assignment.id) == col(Skip.assignment_id))
        .join(Prompt, col(Prompt.id) == col(Assignment.prompt_id))
        .join(User, col(User.id) == col(Skip.reviewer_id))
        .where(col(Assignment.study_id) == study_id)
        .order_by(col(Skip.created_at).desc(), col(Skip.assignment_id))
    )
    return [SkipRow(*row) for row in session.execute(query)]


def decisions(session: Session, study_id: int) -> dict[int, ReviewerDecision]:
    """Reviewer id -> the newest decision."""
    query = select(ReviewerDecision).where(col(ReviewerDecision.study_id) == study_id).order_by(col(ReviewerDecision.id))
    return {row.reviewer_id: row for row in session.scalars(query)}


def adjudications(session: Session, study_id: int) -> dict[tuple[int, int], Adjudication]:
    """(smaller, larger answer id) -> the newest decision."""
    query = select(Adjudication).where(col(Adjudication.study_id) == study_id).order_by(col(Adjudication.id))
    return {(row.first_answer_id, row.second_answer_id): row for row in session.scalars(query)}


def voters(session: Session, study_id: int) -> dict[str, int]:
    """Name -> id of everybody who voted in a study."""
    query = (
        select(col(User.name), col(User.id))
        .join(Vote, col(Vote.reviewer_id) == col(User.id))
        .join(Assignment, col(Assignment.id) == col(Vote.assignment_id))
        .where(col(Assignment.study_id) == study_id)
        .distinct()
    )
    return {name: user_id for name, user_id in session.execute(query)}


def version(session: Session, study_id: int) -> tuple[int, ...]:
    """Changes whenever a vote, a skip, a guess or a decision comes in: none of them is ever changed or taken away."""
    given = select(col(Assignment.id)).where(col(Assignment.study_id) == study_id)
    counts = [
        select(func.count()).select_from(Vote).where(col(Vote.assignment_id).in_(given)),
        select(func.count()).select_from(Skip).where(col(Skip.assignment_id).in_(given)),
        select(func.count()).select_from(Guess).where(col(Guess.assignment_id).in_(given)),
        select(func.count()).select_from(ReviewerDecision).where(col(ReviewerDecision.study_id) == study_id),
        select(func.count()).select_from(Adjudication).where(col(Adjudication.study_id) == study_id),
    ]
    return tuple(session.execute(query).scalar_one() for query in counts)
