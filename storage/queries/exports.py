"""What an export is proved with: held-out prompts and the arm's system text. Each function takes an open session and never commits.

Must not know what an export is.
"""

from sqlalchemy import select
from sqlmodel import Session, col

from storage.tables import Answer, Arm, Prompt, PromptSet


def system_prompt(session: Session, arm: str) -> str:
    return session.scalars(select(col(Arm.system_prompt)).where(col(Arm.name) == arm)).first() or ""


def held_out(session: Session, arm: str, most: int) -> list[str]:
    """Test prompts of the team's own sets, those the arm has answered first; each instruction and input as one text."""
    answered = (
        select(col(Prompt.id))
        .join(Answer, col(Answer.prompt_id) == col(Prompt.id))
        .join(Arm, col(Arm.id) == col(Answer.arm_id))
        .where(col(Arm.name) == arm)
    )
    query = (
        select(col(Prompt.instruction), col(Prompt.input))
        .join(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(col(Prompt.split) == "test", col(PromptSet.purpose) == "task")
        .order_by(col(Prompt.id).in_(answered).desc(), col(Prompt.id))
        .limit(most)
    )
    return [f"{instruction}\n\n{context}".strip() for instruction, context in session.execute(query)]
