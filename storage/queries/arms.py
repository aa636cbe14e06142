"""Adapters, arms, answers and the jobs that make them: reads and writes. Each takes an open session first and never commits.

Must not know models, screens or rules.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, cast, func
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from storage.tables import Adapter, Answer, Arm, Job, Prompt, PromptSet, Run, Setting, Study, StudyArm

DONE_WITH = "removed"
BASES = "bases"  # setting: the base now, and which arms belong to which base


def setting(session: Session, key: str) -> Any:
    row = session.get(Setting, key)
    return row.value if row else None


def put_setting(session: Session, key: str, value: Any) -> None:
    session.merge(Setting(key=key, value=value))


def adapters(session: Session) -> list[Adapter]:
    """All but the removed, oldest first."""
    return list(session.exec(select(Adapter).where(Adapter.status != DONE_WITH).order_by(col(Adapter.id))))


def adapter_named(session: Session, name: str) -> Adapter | None:
    return session.exec(select(Adapter).where(Adapter.name == name, Adapter.status != DONE_WITH)).first()


def adapter_of_content(session: Session, content_hash: str) -> Adapter | None:
    return session.exec(select(Adapter).where(Adapter.content_hash == content_hash, Adapter.status != DONE_WITH)).first()


def names_taken(session: Session) -> set[str]:
    """Every name of an adapter or arm, the removed too, in lower case: a name is never used twice."""
    return {name.casefold() for name in [*session.exec(select(Adapter.name)), *session.exec(select(Arm.name))]}


def unfinished_studies(session: Session, adapter_id: int) -> list[str]:
    """Names of studies, not yet closed, that compare this adapter."""
    query = (
        select(Study.name)
        .join(StudyArm, col(StudyArm.study_id) == col(Study.id))
        .join(Arm, col(Arm.id) == col(StudyArm.arm_id))
        .where(Arm.adapter_id == adapter_id, Study.state != "closed")
    )
    return list(session.exec(query))


def open_studies(session: Session) -> list[str]:
    return list(session.exec(select(Study.name).where(col(Study.state).in_(("open", "paused"))).order_by(col(Study.id))))


def answers_of_models(session: Session) -> int:
    """Live answers that a base or an adapter gave."""
    query = select(func.count()).select_from(Answer).join(Arm, col(Arm.id) == col(Answer.arm_id))
    return session.exec(query.where(col(Answer.voided_at).is_(None), col(Arm.kind).in_(("base", "adapter")))).one()


def arms(session: Session) -> list[tuple[Arm, Adapter | None]]:
    """Arms in the order they were made, with their adapter."""
    query = select(Arm, Adapter).outerjoin(Adapter, col(Adapter.id) == col(Arm.adapter_id)).order_by(col(Arm.id))
    return [(arm, adapter) for arm, adapter in session.exec(query)]


def run_spec(session: Session, run_id: str | None) -> dict[str, Any]:
    run = session.get(Run, run_id) if run_id else None
    return dict(run.spec) if run else {}


def set_named(session: Session, name: str) -> PromptSet | None:
    return session.exec(select(PromptSet).where(PromptSet.name == name)).first()


def count_prompts(session: Session, set_id: int, split: str) -> int:
    return session.exec(select(func.count()).select_from(Prompt).where(Prompt.set_id == set_id, Prompt.split == split)).one()


def without_reference(session: Session, set_id: int, split: str) -> int:
    query = select(func.count()).select_from(Prompt).where(Prompt.set_id == set_id, Prompt.split == split)
    return session.exec(query.where(func.trim(Prompt.reference) == "")).one()


def unanswered(session: Session, set_id: int, split: str, arm_ids: Sequence[int]) -> list[tuple[int, int]]:
    """(prompt id, arm id) without a live answer, by prompt."""
    answered = select(Answer.prompt_id, Answer.arm_id).where(col(Answer.arm_id).in_(arm_ids), col(Answer.voided_at).is_(None))
    have = {(prompt_id, arm_id) for prompt_id, arm_id in session.exec(answered)}
    prompts = session.exec(select(Prompt.id).where(Prompt.set_id == set_id, Prompt.split == split).order_by(col(Prompt.id)))
    return [(prompt, arm) for prompt in prompts if prompt is not None for arm in arm_ids if (prompt, arm) not in have]


def prompt_sizes(session: Session, set_id: int, split: str) -> dict[int, int]:
    """Characters that a model reads of each prompt, about: for sorting."""
    earlier = func.length(cast(Prompt.history, Text))
    size = func.length(col(Prompt.instruction)) + func.length(col(Prompt.input)) + earlier
    query = columns(col(Prompt.id), size).where(col(Prompt.set_id) == set_id, col(Prompt.split) == split)
    return {prompt: int(found or 0) for prompt, found in session.execute(query)}


def prompts(session: Session, ids: Sequence[int]) -> dict[int, Prompt]:
    return {row.id: row for row in session.exec(select(Prompt).where(col(Prompt.id).in_(ids))) if row.id is not None}


def live_answer(session: Session, arm_id: int, prompt_id: int) -> Answer | None:
    return session.exec(
        select(Answer).where(Answer.arm_id == arm_id, Answer.prompt_id == prompt_id, col(Answer.voided_at).is_(None))
    ).first()


def computed_by(session: Session, arm_id: int) -> list[dict[str, Any]]:
    """What an arm's live answers were computed by, the newest kind first: hashes, engine and how many."""
    found: dict[str, dict[str, Any]] = {}
    query = select(Answer).where(Answer.arm_id == arm_id, col(Answer.voided_at).is_(None)).order_by(col(Answer.id).desc())
    for row in session.exec(query):
        base, dtype, quantisation = (*row.base_hash.split(":"), "", "")[:3]
        facts = {
            "base_hash": base, "dtype": dtype, "quantisation": quantisation, "adapter_hash": row.adapter_hash,
            "template_hash": row.template_hash, "decode_hash": row.decode_hash, "seed": row.seed, "engine": dict(row.engine),
        }  # fmt: skip
        known = found.setdefault(repr(facts), facts | {"answers": 0, "last": row.created_at})
        known["answers"] += 1
    return list(found.values())


def base_now(session: Session) -> str:
    """The base chosen for this data folder, or "" where none was chosen here."""
    return str((setting(session, BASES) or {}).get("now", ""))


def retired_arms(session: Session) -> dict[int, str]:
    """Arms of earlier bases, by id, with the base's name: they keep their answers and give no more."""
    known = setting(session, BASES) or {}
    return {arm: name for name, arms in known.get("arms", {}).items() if name != known.get("now") for arm in arms}


def base_arm(session: Session) -> str:
    """Name of the arm of the base there is now, or "" where it has none yet."""
    retired = retired_arms(session)
    return next((arm.name for arm, _ in arms(session) if arm.kind == "base" and arm.id not in retired), "")


def answer_of_another_base(session: Session, base_hash: str) -> str:
    """Base hash of some live answer that this base did not give, earlier bases' arms aside, or ""."""
    query = select(Answer.base_hash).where(Answer.base_hash != "", col(Answer.voided_at).is_(None))
    query = query.where(col(Answer.arm_id).not_in(retired_arms(session)))
    found = session.exec(query.where(col(Answer.base_hash).not_like(f"{base_hash}:%")).limit(1)).first()
    return found.partition(":")[0] if found else ""


def cost_of(session: Session, arm_name: str) -> float:
    """Of an arm's stored answers, the voided too: they were paid for."""
    query = select(func.coalesce(func.sum(Answer.cost), 0.0)).join(Arm, col(Arm.id) == col(Answer.arm_id)).where(Arm.name == arm_name)
    return float(session.exec(query).one())


def paid_for(session: Session) -> dict[int, tuple[int, float]]:
    """Arm id -> how many answers each remote arm has stored, the voided too, and what they cost."""
    count, cost = func.count(col(Answer.id)), func.coalesce(func.sum(Answer.cost), 0.0)
    query = (
        select(Arm.id, count, cost).outerjoin(Answer, col(Answer.arm_id) == col(Arm.id)).where(Arm.kind == "remote").group_by(col(Arm.id))
    )
    return {int(arm or 0): (answers, float(spent)) for arm, answers, spent in session.exec(query)}


def jobs(session: Session, limit: int = 50) -> list[Job]:
    """Newest first."""
    return list(session.exec(select(Job).order_by(col(Job.id).desc()).limit(limit)))


def next_queued(session: Session) -> Job | None:
    return session.exec(select(Job).where(Job.status == "queued").order_by(col(Job.id)).limit(1)).first()


def running_jobs(session: Session) -> list[Job]:
    return list(session.exec(select(Job).where(Job.status == "running")))
