"""Prompt sets, prompts, rejected rows, examples and snapshots: reads and writes.

Every function takes an open Session first and never commits. Must not know what makes two prompts alike or an example good.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import func, insert, or_, select, update
from sqlmodel import Session, col

from storage.tables import Answer, Assignment, Correction, Example, ImportReject, Prompt, PromptSet, Snapshot, SnapshotExample

AT_ONCE = 500  # values bound in one statement


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    set_id: int
    instruction: str
    input: str
    reference: str
    content_hash: str
    cluster: str
    split: str


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """An example with the cluster and the set of its prompt."""

    example: Example
    cluster: str
    set_name: str


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(values)
    while chunk := list(islice(rest, AT_ONCE)):
        yield chunk


def set_named(session: Session, name: str) -> PromptSet | None:
    return session.scalars(select(PromptSet).where(col(PromptSet.name) == name)).first()


def sets(session: Session) -> Sequence[PromptSet]:
    """Those of what must not get worse, then the team's own, each oldest first: the last is what one most likely works on."""
    return session.scalars(select(PromptSet).order_by(col(PromptSet.purpose) == "task", col(PromptSet.id))).all()


def split_counts(session: Session) -> dict[int, dict[str, int]]:
    """Set id -> split -> prompts."""
    query = select(col(Prompt.set_id), col(Prompt.split), func.count()).group_by(col(Prompt.set_id), col(Prompt.split))
    found: dict[int, dict[str, int]] = {}
    for set_id, split, count in session.execute(query):
        found.setdefault(set_id, {})[split] = count
    return found


def reference_counts(session: Session) -> dict[int, int]:
    """Set id -> prompts that have a reference."""
    query = select(col(Prompt.set_id), func.count()).where(col(Prompt.reference) != "").group_by(col(Prompt.set_id))
    return {set_id: count for set_id, count in session.execute(query)}


def reject_counts(session: Session) -> dict[int, int]:
    query = select(col(ImportReject.set_id), func.count()).group_by(col(ImportReject.set_id))
    return {set_id: count for set_id, count in session.execute(query)}


def last_prompt_id(session: Session) -> int:
    """Prompts are never deleted, so this says whether any was added."""
    return session.execute(select(func.max(col(Prompt.id)))).scalar_one() or 0


def known_prompts(session: Session) -> list[KnownPrompt]:
    """Every prompt of every set, oldest first."""
    columns = (Prompt.set_id, Prompt.instruction, Prompt.input, Prompt.reference, Prompt.content_hash, Prompt.cluster, Prompt.split)
    return [KnownPrompt(*row) for row in session.execute(select(*map(col, columns)).order_by(col(Prompt.id)))]


def test_prompts(session: Session) -> list[tuple[str, str, str]]:
    """(instruction, input, cluster) of every test prompt of every set."""
    query = select(col(Prompt.instruction), col(Prompt.input), col(Prompt.cluster)).where(col(Prompt.split) == "test")
    return [(instruction, context, cluster) for instruction, context, cluster in session.execute(query)]


def add_prompts(session: Session, set_id: int, rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Store the rows (columns of Prompt but set_id); content hash -> prompt id of those just stored."""
    ids: dict[str, int] = {}
    for chunk in _chunks({**row, "set_id": set_id} for row in rows):
        session.execute(insert(Prompt), chunk)
        query = select(col(Prompt.content_hash), col(Prompt.id)).where(
            col(Prompt.set_id) == set_id, col(Prompt.content_hash).in_([row["content_hash"] for row in chunk])
        )
        ids |= {content: prompt_id for content, prompt_id in session.execute(query)}
    return ids


def add_rejects(session: Session, set_id: int, rows: Iterable[tuple[int, str, str]]) -> None:
    """Store (line, reason, raw), except what is stored already."""
    query = select(col(ImportReject.line), col(ImportReject.reason), col(ImportReject.raw)).where(col(ImportReject.set_id) == set_id)
    there = {tuple(row) for row in session.execute(query)}
    for chunk in _chunks(row for row in rows if row not in there):
        columns = ("set_id", "line", "reason", "raw")
        session.execute(insert(ImportReject), [dict(zip(columns, (set_id, *row), strict=True)) for row in chunk])


def rejects(session: Session, set_id: int, offset: int, limit: int) -> Sequence[ImportReject]:
    query = select(ImportReject).where(col(ImportReject.set_id) == set_id).order_by(col(ImportReject.line), col(ImportReject.id))
    return session.scalars(query.offset(offset).limit(limit)).all()


def prompts(session: Session, set_id: int, split: str | None, words: str, offset: int, limit: int) -> Sequence[Prompt]:
    """Prompts of a set in the order they came in, those containing `words` in the prompt or its reference."""
    query = select(Prompt).where(*_prompt_filter(set_id, split, words)).order_by(col(Prompt.id))
    return session.scalars(query.offset(offset).limit(limit)).all()


def prompt_count(session: Session, set_id: int, split: str | None, words: str) -> int:
    return session.execute(select(func.count()).select_from(Prompt).where(*_prompt_filter(set_id, split, words))).scalar_one()


def _prompt_filter(set_id: int, split: str | None, words: str) -> list[Any]:
    found: list[Any] = [col(Prompt.set_id) == set_id]
    if split:
        found.append(col(Prompt.split) == split)
    if words:
        fields = (Prompt.instruction, Prompt.input, Prompt.reference)
        found.append(or_(*(col(field).icontains(words, autoescape=True) for field in fields)))
    return found


def add_examples(session: Session, rows: Iterable[dict[str, Any]]) -> int:
    """Store rows (columns of Example), and say how many."""
    stored = 0
    for chunk in _chunks(rows):
        session.execute(insert(Example), chunk)
        stored += len(chunk)
    return stored


def origins(session: Session, origin: str, ids: Sequence[str]) -> set[str]:
    """Those origin ids that already are examples."""
    found: set[str] = set()
    for chunk in _chunks(ids):
        query = select(col(Example.origin_id)).where(col(Example.origin) == origin, col(Example.origin_id).in_(chunk))
        found |= set(session.scalars(query))
    return found


def outputs_of(session: Session, prompt_ids: Sequence[int]) -> set[tuple[int, str]]:
    """(prompt id, output) of every example of these prompts."""
    found: set[tuple[int, str]] = set()
    for chunk in _chunks(prompt_ids):
        query = select(col(Example.prompt_id), col(Example.output)).where(col(Example.prompt_id).in_(chunk))
        found |= {(prompt, output) for prompt, output in session.execute(query)}
    return found


def examples(session: Session, state: str | None, origin: str | None, offset: int, limit: int | None) -> list[ExampleRow]:
    """Oldest first."""
    query = (
        select(Example, Prompt.cluster, PromptSet.name)  # type: ignore[call-overload]
        .outerjoin(Prompt, col(Prompt.id) == col(Example.prompt_id))
        .outerjoin(PromptSet, col(PromptSet.id) == col(Prompt.set_id))
        .where(*_example_filter(state, origin))
        .order_by(col(Example.id))
        .offset(offset)
        .limit(limit)
    )
    return [ExampleRow(example, cluster or "", name or "") for example, cluster, name in session.execute(query)]


def _example_filter(state: str | None, origin: str | None) -> list[Any]:
    wanted = ((Example.state, state), (Example.origin, origin))
    return [col(column) == value for column, value in wanted if value]


def example_counts(session: Session) -> dict[str, int]:
    """State -> examples."""
    return {state: count for state, count in session.execute(select(col(Example.state), func.count()).group_by(col(Example.state)))}


def decide(session: Session, ids: Sequence[int], state: str, by: int | None, at: float) -> int:
    """How many examples changed their state."""
    changed = 0
    for chunk in _chunks(ids):
        where = (col(Example.id).in_(chunk), col(Example.state) != state)
        changed += session.execute(select(func.count()).select_from(Example).where(*where)).scalar_one()
        session.execute(update(Example).where(*where).values(state=state, decided_by=by, decided_at=at))
    return changed


def reject_drafts(session: Session, origin: str, origin_ids: Sequence[str], by: int | None, at: float) -> None:
    for chunk in _chunks(origin_ids):
        where = (col(Example.origin) == origin, col(Example.origin_id).in_(chunk), col(Example.state) == "draft")
        session.execute(update(Example).where(*where).values(state="rejected", decided_by=by, decided_at=at))


def corrections(session: Session, study_id: int) -> list[tuple[Correction, Prompt]]:
    """Every correction of a study with its prompt, oldest first."""
    query = (
        select(Correction, Prompt)
        .join(Assignment, col(Assignment.id) == col(Correction.assignment_id))
        .join(Prompt, col(Prompt.id) == col(Assignment.prompt_id))
        .where(col(Assignment.study_id) == study_id)
        .order_by(col(Correction.created_at), col(Correction.id))
    )
    return [(correction, prompt) for correction, prompt in session.execute(query)]


def answers_with_prompts(session: Session, answer_ids: Sequence[int]) -> list[tuple[Answer, Prompt]]:
    """Those of the answers that are live, in the order of their ids."""
    found: list[tuple[Answer, Prompt]] = []
    for chunk in _chunks(sorted(answer_ids)):
        query = select(Answer, Prompt).join(Prompt, col(Prompt.id) == col(Answer.prompt_id)).where(col(Answer.id).in_(chunk))
        found += [(a, p) for a, p in session.execute(query.where(col(Answer.voided_at).is_(None)).order_by(col(Answer.id)))]
    return found


def snapshot_with(session: Session, content_hash: str) -> Snapshot | None:
    return session.scalars(select(Snapshot).where(col(Snapshot.content_hash) == content_hash)).first()


def snapshot(session: Session, snapshot_id: int) -> Snapshot | None:
    return session.get(Snapshot, snapshot_id)


def snapshots(session: Session) -> Sequence[Snapshot]:
    """Newest first."""
    return session.scalars(select(Snapshot).order_by(col(Snapshot.id).desc())).all()


def add_snapshot(session: Session, content_hash: str, example_ids: Sequence[int], by: int | None, at: float) -> Snapshot:
    made = Snapshot(content_hash=content_hash, created_by=by, created_at=at)
    session.add(made)
    session.flush()
    for chunk in _chunks(example_ids):
        session.execute(insert(SnapshotExample), [{"snapshot_id": made.id, "example_id": example_id} for example_id in chunk])
    return made


def snapshot_examples(session: Session, snapshot_id: int) -> Sequence[Example]:
    query = select(Example).join(SnapshotExample, col(SnapshotExample.example_id) == col(Example.id))
    return session.scalars(query.where(col(SnapshotExample.snapshot_id) == snapshot_id)).all()


def snapshot_splits(session: Session, snapshot_id: int) -> dict[str, int]:
    query = (
        select(col(Example.split), func.count())
        .join(SnapshotExample, col(SnapshotExample.example_id) == col(Example.id))
        .where(col(SnapshotExample.snapshot_id) == snapshot_id)
        .group_by(col(Example.split))
    )
    return {split: count for split, count in session.execute(query)}
