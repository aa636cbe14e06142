"""Looks at whether arms are what they say, and the answers taken back by them: reads and writes. Never commits.

Must not know engines or screens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from storage.tables import Adapter, Answer, Arm, IntegrityCheck, Prompt, PromptSet

LOOK_BACK = 5000  # rows; the last good look is among the newest


@dataclass(frozen=True, slots=True)
class Voided:
    """Answers of one arm for one split, taken back together."""

    arm: str
    set_name: str
    split: str
    reason: str
    at: float
    answers: int


def add(session: Session, check: IntegrityCheck) -> None:
    session.add(check)


def newest(session: Session, limit: int) -> list[tuple[IntegrityCheck, str]]:
    """Looks with the adapter's name, newest first."""
    query = select(IntegrityCheck, Adapter.name).outerjoin(Adapter, col(Adapter.id) == col(IntegrityCheck.adapter_id))
    return [(check, name or "") for check, name in session.exec(query.order_by(col(IntegrityCheck.id).desc()).limit(limit))]


def last_good(session: Session, adapter_id: int | None) -> float | None:
    """When the base (None) or an adapter was last found to be what it says; None where it never was."""
    rows = session.exec(select(IntegrityCheck).where(IntegrityCheck.ok).order_by(col(IntegrityCheck.id).desc()).limit(LOOK_BACK))
    for row in rows:
        if row.adapter_id == adapter_id if row.kind != "base" else adapter_id is None or adapter_id in row.detail.get("adapters", []):
            return row.at
    return None


def bad_since(session: Session, at: float) -> bool:
    """Whether a look has found something wrong since then."""
    query = select(IntegrityCheck.id).where(col(IntegrityCheck.ok).is_(False), IntegrityCheck.at >= at)
    return session.exec(query.limit(1)).first() is not None


def void(session: Session, adapter_ids: Sequence[int | None], since: float, at: float, reason: str) -> list[tuple[str, str, str]]:
    """Take back the live answers made since by the base (None) and these adapters: (arm, set, split) of each."""
    ids = [adapter_id for adapter_id in adapter_ids if adapter_id is not None]
    query = (
        select(Answer, Arm.name, PromptSet.name, Prompt.split)
        .join(Arm, col(Arm.id) == col(Answer.arm_id))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .join(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(col(Answer.voided_at).is_(None), Answer.created_at > since, Answer.base_hash != "")
    )
    mine = col(Arm.adapter_id).in_(ids)
    query = query.where(mine | (Arm.kind == "base") if None in adapter_ids else mine)
    found = list(session.exec(query))
    for answer, *_ in found:
        answer.voided_at, answer.void_reason = at, reason
        session.add(answer)
    return [(arm, set_name, split) for _, arm, set_name, split in found]


def voided(session: Session, limit: int = 50) -> list[Voided]:
    """What was taken back, newest first."""
    names = (col(Arm.name), col(PromptSet.name), col(Prompt.split), col(Answer.void_reason), col(Answer.voided_at))
    query = (
        columns(*names, func.count(col(Answer.id)))
        .select_from(Answer)
        .join(Arm, col(Arm.id) == col(Answer.arm_id))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .join(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(col(Answer.voided_at).is_not(None))
        .group_by(*names)
        .order_by(col(Answer.voided_at).desc())
        .limit(limit)
    )
    return [Voided(arm, name, split, reason, at or 0.0, count) for arm, name, split, reason, at, count in session.execute(query)]


def adapter_ids(session: Session) -> list[int | None]:
    """Every adapter there ever was, and the base."""
    return [None, *session.exec(select(Adapter.id))]
