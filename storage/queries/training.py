"""Reads and writes about training runs and what follows them. Each takes an open session first and never commits.

Must not know run directories, models or screens.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func
from sqlmodel import Session, col, select

from storage.tables import Adapter, Answer, Arm, Evaluation, Example, Job, Prompt, PromptSet, Run, RunEvent, Snapshot, SnapshotExample

ACTIVE = ("queued", "running")
UNSETTLED = (*ACTIVE, "paused")


def get(session: Session, run_id: str) -> Run | None:
    return session.get(Run, run_id)


def runs(session: Session) -> Sequence[Run]:
    """Newest first."""
    return session.exec(select(Run).order_by(col(Run.created_at).desc(), col(Run.id))).all()


def active(session: Session) -> Sequence[Run]:
    """Queued or running, oldest first."""
    return session.exec(select(Run).where(col(Run.status).in_(ACTIVE)).order_by(col(Run.created_at), col(Run.id))).all()


def unsettled(session: Session) -> Sequence[Run]:
    """Those not over, paused ones among them, oldest first."""
    return session.exec(select(Run).where(col(Run.status).in_(UNSETTLED)).order_by(col(Run.created_at), col(Run.id))).all()


def adapter_named(session: Session, name: str) -> Adapter | None:
    return session.exec(select(Adapter).where(Adapter.name == name)).first()


def adapter_names(session: Session) -> list[str]:
    """Usable ones, newest first."""
    return list(session.exec(select(Adapter.name).where(Adapter.status == "registered").order_by(col(Adapter.id).desc())).all())


def unfollowed(session: Session, last: str = "scored") -> Sequence[Run]:
    """Finished runs that have not come to the `last` step of what follows, oldest first."""
    over = ("scored", "checked") if last == "scored" else (last,)
    where = (col(Run.status) == "finished", col(Run.after).not_in(over))
    return session.exec(select(Run).where(*where).order_by(col(Run.created_at), col(Run.id))).all()


def snapshot(session: Session, snapshot_id: int) -> Snapshot | None:
    return session.get(Snapshot, snapshot_id)


def last_event(session: Session, run_id: str) -> int:
    return session.exec(select(func.max(RunEvent.seq)).where(RunEvent.run_id == run_id)).one() or 0


def events(session: Session, run_id: str, kinds: Sequence[str] = ()) -> Sequence[RunEvent]:
    chosen = select(RunEvent).where(RunEvent.run_id == run_id)
    if kinds:
        chosen = chosen.where(col(RunEvent.kind).in_(kinds))
    return session.exec(chosen.order_by(col(RunEvent.seq))).all()


def newest_event(session: Session, run_id: str, kind: str) -> RunEvent | None:
    chosen = select(RunEvent).where(RunEvent.run_id == run_id, RunEvent.kind == kind)
    return session.exec(chosen.order_by(col(RunEvent.seq).desc()).limit(1)).first()


def adapter_of(session: Session, run_id: str) -> Adapter | None:
    return session.exec(select(Adapter).where(Adapter.run_id == run_id).order_by(col(Adapter.id))).first()


def test_sets(session: Session, snapshot_id: int) -> Sequence[PromptSet]:
    """The sets that the snapshot's prompts came from and that have test prompts, by name."""
    sources = (
        select(Prompt.set_id)
        .join(Example, col(Example.prompt_id) == col(Prompt.id))
        .join(SnapshotExample, col(SnapshotExample.example_id) == col(Example.id))
        .where(SnapshotExample.snapshot_id == snapshot_id)
    )
    with_test = select(Prompt.set_id).where(Prompt.split == "test")
    chosen = select(PromptSet).where(col(PromptSet.id).in_(sources), col(PromptSet.id).in_(with_test))
    return session.exec(chosen.order_by(col(PromptSet.name))).all()


def unanswered(session: Session, arm_id: int, set_id: int) -> int:
    """Test prompts of the set without a valid answer of the arm."""
    has = and_(col(Answer.prompt_id) == col(Prompt.id), col(Answer.arm_id) == arm_id, col(Answer.voided_at).is_(None))
    chosen = select(func.count()).select_from(Prompt).outerjoin(Answer, has)
    return session.exec(chosen.where(Prompt.set_id == set_id, Prompt.split == "test", col(Answer.id).is_(None))).one()


def unanswered_by(session: Session, arm: str, set_name: str) -> int:
    """Test prompts of a set without a valid answer of the arm, both by name; 0 where the arm is unknown."""
    found = session.exec(select(Arm.id).where(Arm.name == arm)).first()
    held = session.exec(select(PromptSet.id).where(PromptSet.name == set_name)).first()
    return unanswered(session, found, held) if found and held else 0


def is_scored(session: Session, arm_id: int, set_id: int) -> bool:
    chosen = select(Evaluation.id).where(Evaluation.arm_id == arm_id, Evaluation.set_id == set_id, Evaluation.split == "test")
    return session.exec(chosen.limit(1)).first() is not None


def arm_of(session: Session, adapter_id: int) -> Arm | None:
    return session.exec(select(Arm).where(Arm.adapter_id == adapter_id).order_by(col(Arm.id))).first()


def newest_job(session: Session, kind: str, set_name: str, arm: str) -> Job | None:
    """The newest job of the kind that covers the arm on the set's test split."""
    for job in session.exec(select(Job).where(Job.kind == kind).order_by(col(Job.id).desc())):
        spec: dict[str, Any] = job.spec
        if spec.get("set") == set_name and spec.get("split") == "test" and arm in spec.get("arms", ()):
            return job
    return None
