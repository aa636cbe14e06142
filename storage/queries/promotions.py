"""What was put in use, when and by whom, and what a promotion looks at. Each function takes an open session and never commits.

Must not know the rules of promotion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlmodel import Session, col

from storage.tables import Adapter, Answer, Arm, Evaluation, IntegrityCheck, Promotion, Prompt, PromptSet, Study, StudyArm, User


@dataclass(frozen=True, slots=True)
class PromotionRow:
    """`adapter` "" is the base alone; `by` "" is nobody in person; `usable`: it could be in use again."""

    id: int
    adapter: str
    usable: bool
    by: str
    reason: str
    at: float
    evidence: dict[str, Any]


def promotions(session: Session) -> list[PromotionRow]:
    """Newest first."""
    query = (
        select(Promotion, Adapter, User)
        .outerjoin(Adapter, col(Adapter.id) == col(Promotion.adapter_id))
        .outerjoin(User, col(User.id) == col(Promotion.decided_by))
        .order_by(col(Promotion.id).desc())
    )
    return [
        PromotionRow(
            row.id or 0, adapter.name if adapter else "", adapter is None or adapter.status == "registered", user.name if user else "",
            row.reason, row.created_at, row.evidence,
        )
        for row, adapter, user in session.execute(query)
    ]  # fmt: skip


def last_at(session: Session) -> float:
    """When what is in use last changed; 0 if never."""
    return session.scalars(select(col(Promotion.created_at)).order_by(col(Promotion.id).desc()).limit(1)).first() or 0.0


def arm_named(session: Session, name: str) -> Arm | None:
    return session.scalars(select(Arm).where(col(Arm.name) == name)).first()


def scored_sets(session: Session, arm: str) -> list[str]:
    """Names of the team's own sets on whose test prompts an arm has scores, by name."""
    query = (
        select(col(PromptSet.name))
        .join(Evaluation, col(Evaluation.set_id) == col(PromptSet.id))
        .join(Arm, col(Arm.id) == col(Evaluation.arm_id))
        .where(col(Arm.name) == arm, col(Evaluation.split) == "test", col(PromptSet.purpose) == "task")
    )
    return sorted(set(session.scalars(query)))


def answering_arms(session: Session, set_name: str) -> set[str]:
    """Names of the arms with a live answer to some test prompt of the set."""
    query = (
        select(col(Arm.name))
        .join(Answer, col(Answer.arm_id) == col(Arm.id))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .join(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(col(PromptSet.name) == set_name, col(Prompt.split) == "test", col(Answer.voided_at).is_(None))
    )
    return set(session.scalars(query.distinct()))


def study_named(session: Session, name: str) -> Study | None:
    return session.scalars(select(Study).where(col(Study.name) == name)).first()


def shipped_candidates(session: Session, since: float) -> Sequence[str]:
    """Names of the usable adapters compared in a study closed after `since`, the newest closing first."""
    query = (
        select(col(Adapter.name))
        .join(Arm, col(Arm.adapter_id) == col(Adapter.id))
        .join(StudyArm, col(StudyArm.arm_id) == col(Arm.id))
        .join(Study, col(Study.id) == col(StudyArm.study_id))
        .where(col(Study.state) == "closed", col(Study.closed_at) > since, col(Adapter.status) == "registered")
        .order_by(col(Study.closed_at).desc(), col(Adapter.id).desc())
    )
    return list(dict.fromkeys(session.scalars(query)))


def last_check(session: Session, adapter_id: int) -> IntegrityCheck | None:
    """The newest integrity check of an adapter."""
    query = select(IntegrityCheck).where(col(IntegrityCheck.adapter_id) == adapter_id)
    return session.scalars(query.order_by(col(IntegrityCheck.id).desc()).limit(1)).first()
