"""What a model card tells of an adapter: its row, and the examples its run learned from. Each function takes an open session first.

Must not know what a card looks like.
"""

from collections.abc import Collection

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.tables import Adapter, Example, Preference, Prompt, SnapshotExample, User, Vote


def adapter_row(session: Session, name: str) -> Adapter | None:
    return session.scalars(select(Adapter).where(col(Adapter.name) == name, col(Adapter.status) != "removed")).first()


def examples_of(session: Session, snapshot_id: int) -> list[tuple[Example, str]]:
    """A snapshot's examples, each with its prompt's category."""
    query = (
        select(Example, col(Prompt.category))
        .join(SnapshotExample, col(SnapshotExample.example_id) == col(Example.id))
        .outerjoin(Prompt, col(Prompt.id) == col(Example.prompt_id))
        .where(col(SnapshotExample.snapshot_id) == snapshot_id)
    )
    return [(example, category or "") for example, category in session.execute(query)]


def judges(session: Session, snapshot_id: int, kind: str) -> dict[str, int]:
    """Whose votes a snapshot's judged pairs (or single answers) come from, and how many of them."""
    query = (
        select(col(User.name), func.count())
        .join(Vote, col(Vote.reviewer_id) == col(User.id))
        .join(Preference, col(Preference.vote_id) == col(Vote.id))
        .where(col(Preference.snapshot_id) == snapshot_id, col(Preference.kind) == kind)
        .group_by(col(User.name))
    )
    return {name: count for name, count in session.execute(query)}


def names(session: Session, ids: Collection[int]) -> dict[int, str]:
    found = session.execute(select(col(User.id), col(User.name)).where(col(User.id).in_(ids)))
    return {user_id: name for user_id, name in found if user_id is not None}
