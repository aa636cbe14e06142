"""Preferences of a snapshot, and the prompts they are about: reads and writes. Each takes an open session first and never commits.

Must not know how a vote becomes a preference.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlmodel import Session, col

from storage.tables import Preference, Prompt

AT_ONCE = 500


def prompts(session: Session, ids: Sequence[int]) -> dict[int, Prompt]:
    found: dict[int, Prompt] = {}
    for start in range(0, len(ids), AT_ONCE):
        chosen = session.scalars(select(Prompt).where(col(Prompt.id).in_(ids[start : start + AT_ONCE])))
        found |= {prompt.id: prompt for prompt in chosen if prompt.id is not None}
    return found


def add(session: Session, snapshot_id: int, rows: Sequence[dict[str, Any]]) -> None:
    """Store rows (columns of Preference but snapshot and number), numbered in the order given."""
    whole = [{**row, "snapshot_id": snapshot_id, "seq": seq} for seq, row in enumerate(rows)]
    for start in range(0, len(whole), AT_ONCE):
        session.execute(insert(Preference), whole[start : start + AT_ONCE])


def of(session: Session, snapshot_id: int, kind: str) -> list[tuple[Preference, Prompt]]:
    query = select(Preference, Prompt).join(Prompt, col(Prompt.id) == col(Preference.prompt_id))
    chosen = query.where(col(Preference.snapshot_id) == snapshot_id, col(Preference.kind) == kind).order_by(col(Preference.seq))
    return [(preference, prompt) for preference, prompt in session.execute(chosen)]


def counts(session: Session) -> dict[tuple[int, str], int]:
    """(snapshot id, kind) -> preferences."""
    query = select(col(Preference.snapshot_id), col(Preference.kind), func.count())
    grouped = query.group_by(col(Preference.snapshot_id), col(Preference.kind))
    return {(snapshot_id, kind): count for snapshot_id, kind, count in session.execute(grouped)}
