"""The prompts an adapter must not unlearn: canaries and kept answers. Reads and writes; each takes an open session and never commits.

Must not know what the checks mean.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from storage.tables import Answer, Prompt, PromptSet, Study


def set_for(session: Session, purpose: str) -> PromptSet | None:
    return session.scalars(select(PromptSet).where(col(PromptSet.purpose) == purpose).order_by(col(PromptSet.id)).limit(1)).first()


def free_set_name(session: Session, wanted: str) -> str:
    """`wanted`, with a number where a set has that name."""
    taken = set(session.scalars(select(col(PromptSet.name))))
    names = (wanted if n == 1 else f"{wanted} {n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def prompts_of(session: Session, set_id: int) -> Sequence[Prompt]:
    return session.scalars(select(Prompt).where(col(Prompt.set_id) == set_id).order_by(col(Prompt.id))).all()


def texts_of(session: Session, arm_id: int, set_id: int) -> dict[int, str]:
    """Prompt id to the arm's live answer."""
    query = select(col(Answer.prompt_id), col(Answer.text)).join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
    found = session.execute(query.where(col(Answer.arm_id) == arm_id, col(Prompt.set_id) == set_id, col(Answer.voided_at).is_(None)))
    return {prompt_id: text for prompt_id, text in found}


def judged_studies(session: Session, split: str) -> Sequence[int]:
    """Ids of the studies on a split that took votes, oldest first."""
    query = select(col(Study.id)).where(col(Study.split) == split, col(Study.state) != "draft").order_by(col(Study.id))
    return [i for i in session.scalars(query) if i is not None]
