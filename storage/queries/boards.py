"""Answers to be scored, and evaluations with their scores: reads and writes.

Every function takes an open Session first and never commits. Must not know metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.queries.arms import arms as every_arm
from storage.queries.studies import ArmRow
from storage.tables import Answer, Evaluation, Prompt, PromptSet, ScoreRow, Study


@dataclass(frozen=True, slots=True)
class PairRow:
    """A live answer and the reference of its prompt."""

    prompt_id: int
    answer_id: int
    answer: str
    reference: str


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    evaluation: Evaluation
    scores: Sequence[ScoreRow]


def arms(session: Session) -> list[ArmRow]:
    """Every arm, oldest first."""
    return [ArmRow(arm.id or 0, arm.name, arm.kind, adapter.title if adapter else "") for arm, adapter in every_arm(session)]


def _live(set_id: int, split: str) -> tuple[Any, ...]:
    return col(Prompt.set_id) == set_id, col(Prompt.split) == split, col(Answer.voided_at).is_(None)


def pairs(session: Session, set_id: int, split: str, arm_id: int) -> list[PairRow]:
    """The arm's live answers to prompts that have a reference, by prompt."""
    query = (
        select(col(Prompt.id), col(Answer.id), col(Answer.text), col(Prompt.reference))
        .join(Answer, col(Answer.prompt_id) == col(Prompt.id))
        .where(*_live(set_id, split), col(Answer.arm_id) == arm_id, col(Prompt.reference) != "")
        .order_by(col(Prompt.id))
    )
    return [PairRow(*row) for row in session.execute(query)]


def answer_marks(session: Session, set_id: int, split: str) -> dict[int, list[tuple[int, int]]]:
    """Arm id -> (prompt id, answer id) of what `pairs` would give."""
    query = (
        select(col(Answer.arm_id), col(Prompt.id), col(Answer.id))
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(*_live(set_id, split), col(Prompt.reference) != "")
        .order_by(col(Prompt.id))
    )
    found: dict[int, list[tuple[int, int]]] = {}
    for arm_id, prompt_id, answer_id in session.execute(query):
        found.setdefault(arm_id, []).append((prompt_id, answer_id))
    return found


def answer_counts(session: Session, set_id: int, split: str) -> dict[int, int]:
    """Arm id -> live answers, with or without a reference."""
    query = select(col(Answer.arm_id), func.count()).join(Prompt, col(Answer.prompt_id) == col(Prompt.id)).where(*_live(set_id, split))
    return {arm_id: count for arm_id, count in session.execute(query.group_by(col(Answer.arm_id)))}


def prompt_counts(session: Session, set_id: int, split: str) -> tuple[int, int]:
    """(prompts, prompts with a reference)."""
    where = (col(Prompt.set_id) == set_id, col(Prompt.split) == split)
    every = session.execute(select(func.count()).select_from(Prompt).where(*where)).scalar_one()
    return every, session.execute(select(func.count()).select_from(Prompt).where(*where, col(Prompt.reference) != "")).scalar_one()


def newest_evaluations(session: Session, set_id: int, split: str) -> dict[int, EvaluationRow]:
    """Arm id -> its newest evaluation."""
    where = (col(Evaluation.set_id) == set_id, col(Evaluation.split) == split)
    newest = select(func.max(col(Evaluation.id))).where(*where).group_by(col(Evaluation.arm_id))
    found = session.scalars(select(Evaluation).where(col(Evaluation.id).in_(newest))).all()
    return {evaluation.arm_id: EvaluationRow(evaluation, _scores(session, evaluation.id)) for evaluation in found}


def _scores(session: Session, evaluation_id: int | None) -> Sequence[ScoreRow]:
    return session.scalars(select(ScoreRow).where(col(ScoreRow.evaluation_id) == evaluation_id)).all()


def add_evaluation(session: Session, evaluation: Evaluation, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Store an evaluation with its scores: metric -> columns of ScoreRow."""
    session.add(evaluation)
    session.flush()
    assert evaluation.id is not None
    session.add_all(ScoreRow(evaluation_id=evaluation.id, metric=metric, **values) for metric, values in scores.items())


def boards(session: Session) -> list[tuple[str, str, int, int]]:
    """(set, split, arms with live answers, arms with an evaluation) wherever there is either, test first.

    The team's own sets come first, the newest before the others.
    """
    answered = (
        select(col(Prompt.set_id), col(Prompt.split), func.count(func.distinct(col(Answer.arm_id))))
        .join(Answer, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(Answer.voided_at).is_(None))
        .group_by(col(Prompt.set_id), col(Prompt.split))
    )
    evaluated = select(col(Evaluation.set_id), col(Evaluation.split), func.count(func.distinct(col(Evaluation.arm_id)))).group_by(
        col(Evaluation.set_id), col(Evaluation.split)
    )
    answers = {(set_id, split): count for set_id, split, count in session.execute(answered)}
    scores = {(set_id, split): count for set_id, split, count in session.execute(evaluated)}
    sets = select(col(PromptSet.id), col(PromptSet.name), col(PromptSet.purpose) != "task")
    found = session.execute(sets).all()
    names, kept = {set_id: name for set_id, name, _ in found}, {set_id for set_id, _, aside in found if aside}
    order = sorted(answers.keys() | scores.keys(), key=lambda key: (key[0] in kept, -key[0], key[1] != "test", key[1]))
    return [(names[set_id], split, answers.get((set_id, split), 0), scores.get((set_id, split), 0)) for set_id, split in order]


def studies(session: Session, set_id: int, split: str) -> list[str]:
    """Names of the studies on the split that were opened, the newest opening first."""
    where = (col(Study.set_id) == set_id, col(Study.split) == split, col(Study.opened_at).is_not(None))
    return list(session.scalars(select(col(Study.name)).where(*where).order_by(col(Study.opened_at).desc(), col(Study.id).desc())))
