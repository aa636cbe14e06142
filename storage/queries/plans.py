"""What a study could be made of: a split's prompts with tags and turns, who has answered them, how long votes take.

Every function takes an open Session first and never commits. Must not know the rules of a study.
"""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.tables import Answer, Arm, Prompt, PromptSet, User, Vote


def prompts(session: Session, set_name: str, split: str) -> list[tuple[int, list[str], int, str]]:
    """(id, tags, earlier turns, how its input begins) of every prompt of a set's split."""
    query = (
        select(col(Prompt.id), col(Prompt.tags), col(Prompt.history), func.substr(col(Prompt.input), 1, 20))
        .join(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(col(PromptSet.name) == set_name, col(Prompt.split) == split)
    )
    return [(prompt_id, list(tags or ()), len(history or ()), begins or "") for prompt_id, tags, history, begins in session.execute(query)]


def answered(session: Session, set_name: str, split: str, arms: Sequence[str]) -> dict[str, set[int]]:
    """Arm -> prompts of the split that it has a live answer for; unknown arms are missing."""
    query = (
        select(col(Arm.name), col(Answer.prompt_id))
        .join(Arm, col(Arm.id) == col(Answer.arm_id))
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .join(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(col(PromptSet.name) == set_name, col(Prompt.split) == split)
        .where(col(Arm.name).in_(arms), col(Answer.voided_at).is_(None))
    )
    found: dict[str, set[int]] = {name: set() for name in session.scalars(select(col(Arm.name)).where(col(Arm.name).in_(arms)))}
    for arm, prompt in session.execute(query):
        found[arm].add(prompt)
    return found


def reviewers(session: Session) -> list[str]:
    """Names of those who may judge, in their order."""
    query = select(col(User.name)).where(col(User.role) == "reviewer", col(User.disabled_at).is_(None)).order_by(col(User.name))
    return list(session.scalars(query))


def paces(session: Session, most: int) -> list[float]:
    """Seconds from served to vote of the newest first votes in the house."""
    query = select(col(Vote.seconds)).where(col(Vote.revision) == 1).order_by(col(Vote.created_at).desc()).limit(most)
    return list(session.scalars(query))
