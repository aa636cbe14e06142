"""Totals for the figures of a running app. Each takes an open session. Must not know what they are shown in."""

from sqlmodel import Session, col, func, select

from storage.tables import Job, Vote


def votes(session: Session) -> int:
    return session.exec(select(func.count()).select_from(Vote)).one()


def jobs_by_state(session: Session) -> dict[str, int]:
    return dict(session.exec(select(Job.status, func.count()).group_by(col(Job.status))).all())
