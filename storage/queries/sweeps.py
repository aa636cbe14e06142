"""Sweeps and the runs that belong to them. Each function takes an open session and never commits. Must not know what a sweep varies."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from storage.tables import Run, Sweep


def sweeps(session: Session) -> Sequence[Sweep]:
    """Newest first."""
    return session.scalars(select(Sweep).order_by(col(Sweep.id).desc())).all()


def runs_of(session: Session, sweep_id: int) -> list[str]:
    """Ids in the order they were queued."""
    return list(session.scalars(select(col(Run.id)).where(col(Run.sweep_id) == sweep_id).order_by(col(Run.created_at), col(Run.id))))


def kept_back(session: Session) -> set[str]:
    """Ids of the runs of sweeps that nobody has chosen: they train, and go no further."""
    chosen = {run for sweep in sweeps(session) for run in sweep.spec.get("chosen", [])}
    return set(session.scalars(select(col(Run.id)).where(col(Run.sweep_id).is_not(None)))) - chosen
