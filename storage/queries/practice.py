"""Practice votes: which training pairs a reviewer has answered.

Every function takes an open Session first and never commits. Must not know what the training pairs are.
"""

from sqlalchemy import select
from sqlmodel import Session, col

from storage.tables import PracticeVote


def answered(session: Session, user_id: int) -> set[int]:
    return set(session.scalars(select(col(PracticeVote.pair)).where(col(PracticeVote.user_id) == user_id)))
