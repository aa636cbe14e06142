"""Whole studies, read to be taken elsewhere and stored when they come from elsewhere.

Every function takes an open Session first and never commits. Must not know the rules of a study, only its rows.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import and_, func, insert, or_, select
from sqlmodel import Session, SQLModel, col

from storage.tables import Adapter, Answer, Arm, Assignment, Correction, IdenticalPair, Prompt, Skip, Study, StudyArm, User, Vote

ROWS = 2_000


def arms(session: Session, arm_ids: Sequence[int], study_id: int) -> list[tuple[Arm, str]]:
    """These arms and those of the study, oldest first, with their adapter's title."""
    own = select(col(StudyArm.arm_id)).where(col(StudyArm.study_id) == study_id)
    query = (
        select(Arm, col(Adapter.title))
        .outerjoin(Adapter, col(Adapter.id) == col(Arm.adapter_id))
        .where(or_(col(Arm.id).in_(arm_ids), col(Arm.id).in_(own)))
        .order_by(col(Arm.id))
    )
    return [(arm, title or "") for arm, title in session.execute(query)]


def prompts(session: Session, study: Study) -> Sequence[Prompt]:
    """Prompts of a study in the order they came in."""
    query = select(Prompt).where(col(Prompt.set_id) == study.set_id, col(Prompt.split) == study.split).order_by(col(Prompt.id))
    if study.last_prompt_id is not None:
        query = query.where(col(Prompt.id) <= study.last_prompt_id)
    return session.scalars(query).all()


def prompts_by_id(session: Session, prompt_ids: Sequence[int]) -> list[Prompt]:
    found: list[Prompt] = []
    for start in range(0, len(prompt_ids), ROWS):
        found += session.scalars(select(Prompt).where(col(Prompt.id).in_(prompt_ids[start : start + ROWS])).order_by(col(Prompt.id)))
    return found


def answers(session: Session, study: Study) -> list[Answer]:
    """The live answers of a study's arms to its prompts, and all that were judged or skipped in it; oldest first."""
    sides = (col(Assignment.left_answer_id), col(Assignment.right_answer_id))
    voted = [
        select(side).join(said, col(said.assignment_id) == col(Assignment.id)).where(col(Assignment.study_id) == study.id)  # type: ignore[attr-defined]
        for side in sides
        for said in (Vote, Skip)
    ]
    own = [
        col(Answer.voided_at).is_(None),
        col(Answer.arm_id).in_(select(col(StudyArm.arm_id)).where(col(StudyArm.study_id) == study.id)),
        col(Prompt.set_id) == study.set_id,
        col(Prompt.split) == study.split,
    ]
    if study.last_prompt_id is not None:
        own.append(col(Prompt.id) <= study.last_prompt_id)
    query = (
        select(Answer)
        .join(Prompt, col(Prompt.id) == col(Answer.prompt_id))
        .where(or_(and_(*own), *(col(Answer.id).in_(ids) for ids in voted)))
        .order_by(col(Answer.id))
    )
    return list(session.scalars(query))


def corrections(session: Session, study_id: int) -> dict[str, str]:
    """Assignment id -> its newest correction."""
    query = (
        select(col(Correction.assignment_id), col(Correction.text))
        .join(Assignment, col(Assignment.id) == col(Correction.assignment_id))
        .where(col(Assignment.study_id) == study_id)
        .order_by(col(Correction.created_at), col(Correction.id))
    )
    return {assignment: text for assignment, text in session.execute(query)}


def skips(session: Session, study_id: int) -> list[tuple[Skip, Assignment]]:
    """Oldest first."""
    query = (
        select(Skip, Assignment)
        .join(Assignment, col(Assignment.id) == col(Skip.assignment_id))
        .where(col(Assignment.study_id) == study_id)
        .order_by(col(Skip.created_at), col(Skip.assignment_id))
    )
    return [(skip, given) for skip, given in session.execute(query)]


def user_names(session: Session) -> set[str]:
    """In lower case."""
    return {name.casefold() for name in session.scalars(select(col(User.name)))}


def arms_by_name(session: Session) -> dict[str, Arm]:
    """By name in lower case."""
    return {arm.name.casefold(): arm for arm in session.scalars(select(Arm))}


def human_arm(session: Session) -> Arm | None:
    return session.scalars(select(Arm).where(col(Arm.kind) == "human")).first()


def adapter_names(session: Session) -> set[str]:
    """In lower case, the removed too."""
    return {name.casefold() for name in session.scalars(select(col(Adapter.name)))}


def arm_with_hash(session: Session, settings_hash: str) -> Arm | None:
    return session.scalars(select(Arm).where(col(Arm.settings_hash) == settings_hash)).first()


def newest_prompt(session: Session, set_id: int) -> int | None:
    return session.execute(select(func.max(Prompt.id)).where(col(Prompt.set_id) == set_id)).scalar_one()


def store(session: Session, table: type[SQLModel], rows: Iterable[dict[str, Any]]) -> None:
    found = list(rows)
    for start in range(0, len(found), ROWS):
        session.execute(insert(table), found[start : start + ROWS])


def store_numbered(session: Session, table: type[Prompt] | type[Answer] | type[User], rows: Iterable[dict[str, Any]]) -> list[int]:
    """The new ids, in the order of the rows."""
    found, ids = list(rows), []
    for start in range(0, len(found), ROWS):
        made = insert(table).returning(col(table.id), sort_by_parameter_order=True)
        ids += list(session.scalars(made, found[start : start + ROWS]))
    return [int(i) for i in ids if i is not None]


def store_identical(session: Session, study_id: int, pairs: Iterable[tuple[int, int, int]], at: float) -> None:
    """(prompt, answer, answer) ids."""
    columns = ("prompt_id", "first_answer_id", "second_answer_id")
    rows = [dict(zip(columns, (prompt, *sorted((one, other))), strict=True)) for prompt, one, other in pairs]
    store(session, IdenticalPair, ({"study_id": study_id, "created_at": at} | row for row in rows))
