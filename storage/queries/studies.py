"""Studies: what was declared, with its arms, prompts and answers.

Every function takes an open Session first and never commits. Must not know the rules of a study, only its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from storage.tables import (
    Adapter,
    Answer,
    Arm,
    IdenticalPair,
    Prompt,
    PromptSet,
    Setting,
    Study,
    StudyArm,
    StudyReviewer,
    User,
)

OPEN = select(Study).where(col(Study.state) == "open").order_by(col(Study.opened_at), col(Study.id))


@dataclass(frozen=True, slots=True)
class ArmRow:
    id: int
    name: str
    kind: str
    title: str


def named(session: Session, name: str) -> Study | None:
    return session.scalars(select(Study).where(col(Study.name) == name)).first()


def every(session: Session) -> Sequence[Study]:
    return session.scalars(select(Study).order_by(col(Study.created_at), col(Study.id))).all()


def open_ones(session: Session) -> Sequence[Study]:
    """Open studies, the oldest opening first."""
    return session.scalars(OPEN).all()


def user(session: Session, user_id: int) -> User | None:
    return session.get(User, user_id)


def user_names(session: Session, user_ids: Sequence[int]) -> dict[int, str]:
    rows = session.execute(select(col(User.id), col(User.name)).where(col(User.id).in_(user_ids)))
    return {user_id: name for user_id, name in rows}


def prompt_set(session: Session, name: str) -> PromptSet | None:
    return session.scalars(select(PromptSet).where(col(PromptSet.name) == name)).first()


def set_name(session: Session, set_id: int) -> str:
    return session.scalars(select(col(PromptSet.name)).where(col(PromptSet.id) == set_id)).one()


def _prompts(set_id: int, split: str, upto: int | None) -> list[Any]:
    """Conditions on Prompt. `upto`: a study's `last_prompt_id`."""
    found = [col(Prompt.set_id) == set_id, col(Prompt.split) == split]
    return found if upto is None else [*found, col(Prompt.id) <= upto]


def prompt_count(session: Session, set_id: int, split: str, upto: int | None = None) -> int:
    return session.execute(select(func.count()).select_from(Prompt).where(*_prompts(set_id, split, upto))).scalar_one()


def prompt_tags(session: Session, set_id: int, split: str, upto: int | None = None) -> dict[int, list[str]]:
    """Prompt id -> its tags; a prompt without tags has its category as one, if it has that."""
    query = select(col(Prompt.id), col(Prompt.tags), col(Prompt.category)).where(*_prompts(set_id, split, upto)).order_by(col(Prompt.id))
    return {prompt_id: list(tags) or [category] * bool(category) for prompt_id, tags, category in session.execute(query)}


def answered_prompts(session: Session, set_id: int, split: str, arm_ids: Sequence[int], upto: int | None = None) -> list[tuple[int, int]]:
    """(arm, prompt) of every live answer."""
    query = (
        select(col(Answer.arm_id), col(Answer.prompt_id))
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(Answer.arm_id).in_(arm_ids), col(Answer.voided_at).is_(None), *_prompts(set_id, split, upto))
    )
    return [(arm, prompt) for arm, prompt in session.execute(query)]


def users_named(session: Session, names: Sequence[str]) -> dict[str, User]:
    return {user.name: user for user in session.scalars(select(User).where(col(User.name).in_(names)))}


def reviewers_of(session: Session, study_id: int) -> dict[int, str]:
    """Who may judge a study, id -> name; empty where everybody may."""
    query = (
        select(col(User.id), col(User.name))
        .join(StudyReviewer, col(StudyReviewer.user_id) == col(User.id))
        .where(col(StudyReviewer.study_id) == study_id)
        .order_by(col(User.id))
    )
    return {user_id: name for user_id, name in session.execute(query)}


def last_prompt(session: Session, set_id: int, split: str) -> int | None:
    return session.execute(select(func.max(Prompt.id)).where(*_prompts(set_id, split, None))).scalar_one()


def subject_texts(session: Session, study: Study) -> list[str]:
    """Prompts and references of a study: what it is about."""
    columns = (col(Prompt.instruction), col(Prompt.input), col(Prompt.reference))
    rows = session.execute(select(*columns).where(*_prompts(study.set_id, study.split, study.last_prompt_id)))
    return [" \n ".join(row) for row in rows]


_ARMS = select(col(Arm.id), col(Arm.name), col(Arm.kind), col(Adapter.title)).outerjoin(Adapter, col(Arm.adapter_id) == col(Adapter.id))


def arms_named(session: Session, names: Sequence[str]) -> dict[str, ArmRow]:
    rows = session.execute(_ARMS.where(col(Arm.name).in_(names)))
    return {row.name: ArmRow(row.id, row.name, row.kind, row.title or "") for row in rows}


def arm_names(session: Session) -> list[str]:
    return list(session.scalars(select(col(Arm.name)).order_by(col(Arm.id))))


def arms_of(session: Session, study_id: int) -> list[ArmRow]:
    query = _ARMS.join(StudyArm, col(StudyArm.arm_id) == col(Arm.id)).where(col(StudyArm.study_id) == study_id).order_by(col(Arm.id))
    return [ArmRow(row.id, row.name, row.kind, row.title or "") for row in session.execute(query)]


def adapter_names(session: Session, arm_ids: Sequence[int]) -> list[str]:
    """Names and titles of the adapters behind the arms."""
    query = select(col(Adapter.name), col(Adapter.title)).join(Arm, col(Arm.adapter_id) == col(Adapter.id)).where(col(Arm.id).in_(arm_ids))
    return [name for row in session.execute(query) for name in row if name]


def model_names(session: Session, arm_ids: Sequence[int]) -> list[str]:
    """Names of the models behind the arms: of remote ones, of every base that this data folder has had."""
    remotes = session.scalars(select(col(Arm.remote)).where(col(Arm.id).in_(arm_ids), col(Arm.kind) == "remote"))
    known = session.get(Setting, "bases")
    bases = {known.value.get("now"), *known.value.get("arms", {})} if known and isinstance(known.value, dict) else set()
    return [*(str(remote.get("model") or "") for remote in remotes), *sorted(str(base) for base in bases if base)]


def answered(session: Session, set_id: int, split: str, arm_ids: Sequence[int], upto: int | None = None) -> dict[int, int]:
    """Arm id -> how many prompts of the split it has a live answer for."""
    query = (
        select(col(Answer.arm_id), func.count())
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(*_prompts(set_id, split, upto), col(Answer.arm_id).in_(arm_ids), col(Answer.voided_at).is_(None))
        .group_by(col(Answer.arm_id))
    )
    return {arm_id: count for arm_id, count in session.execute(query)}


def live_answers(session: Session, study: Study) -> list[tuple[int, int, int]]:
    """(prompt id, answer id, arm id) of all live answers of a study's arms, by prompt."""
    query = (
        select(col(Answer.prompt_id), col(Answer.id), col(Answer.arm_id))
        .join(StudyArm, col(StudyArm.arm_id) == col(Answer.arm_id))
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(StudyArm.study_id) == study.id, col(Answer.voided_at).is_(None))
        .where(*_prompts(study.set_id, study.split, study.last_prompt_id))
        .order_by(col(Answer.prompt_id), col(Answer.id))
    )
    return [(prompt, answer, arm) for prompt, answer, arm in session.execute(query)]


def live_state(session: Session, study: Study) -> tuple[int, int, int]:
    """Changes whenever `live_answers` or `identical_keys` do: how many live answers, the newest, how many identical pairs."""
    query = (
        select(func.count(), func.coalesce(func.max(Answer.id), 0))
        .join(StudyArm, col(StudyArm.arm_id) == col(Answer.arm_id))
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(StudyArm.study_id) == study.id, col(Answer.voided_at).is_(None))
        .where(*_prompts(study.set_id, study.split, study.last_prompt_id))
    )
    count, newest = session.execute(query).one()
    identical = select(func.count()).select_from(IdenticalPair).where(col(IdenticalPair.study_id) == study.id)
    return count, newest, session.execute(identical).scalar_one()


def live_texts(session: Session, study: Study) -> dict[int, str]:
    """Answer id -> text of all live answers of a study's arms."""
    query = (
        select(col(Answer.id), col(Answer.text))
        .join(StudyArm, col(StudyArm.arm_id) == col(Answer.arm_id))
        .join(Prompt, col(Answer.prompt_id) == col(Prompt.id))
        .where(col(StudyArm.study_id) == study.id, col(Answer.voided_at).is_(None))
        .where(*_prompts(study.set_id, study.split, study.last_prompt_id))
    )
    return {answer_id: text for answer_id, text in session.execute(query)}


def answer_texts(session: Session, answer_ids: Sequence[int]) -> dict[int, str]:
    """Texts of those of the answers that are live."""
    query = select(col(Answer.id), col(Answer.text)).where(col(Answer.id).in_(answer_ids), col(Answer.voided_at).is_(None))
    return {answer_id: text for answer_id, text in session.execute(query)}


def identical_keys(session: Session, study_id: int) -> set[tuple[int, int]]:
    """(smaller, larger) answer ids recorded as identical."""
    query = select(col(IdenticalPair.first_answer_id), col(IdenticalPair.second_answer_id)).where(col(IdenticalPair.study_id) == study_id)
    return {(first, second) for first, second in session.execute(query)}
