"""From votes to examples, and from approved examples to a frozen snapshot. A test prompt never becomes an example.

Must not know screens or models.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from ft import curate
from ft.errors import BadInput, NotFound
from review.protocol.tally import counted
from review.services.faults import reading, writing
from review.services.preferences import Preferred, preferred
from review.services.study_reading import record
from storage.database import Database
from storage.queries import library as rows
from storage.queries import preferences, studies
from storage.queries import votes as cast
from storage.queries.people import audit
from storage.tables import Correction, Example, Prompt

TEST_REFUSED = "Test prompts never become training examples: an adapter that has learned them can no longer be tested on them."


@dataclass(frozen=True, slots=True)
class GatherReport:
    """New drafts from `corrections` and `winners`; what was `already_there`; what was `refused_test`, and why."""

    study: str
    corrections: int
    winners: int
    already_there: int
    refused_test: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """`train` and `validation` count its examples, `pairs` and `singles` what votes say of answers. Left out of it: `too_close` to a test
    prompt, `repeated` word for word."""

    id: int
    hash: str
    train: int
    validation: int
    created_at: float
    too_close: int = 0
    repeated: int = 0
    pairs: int = 0
    singles: int = 0


@dataclass(frozen=True, slots=True)
class TooClose:
    """An approved example that is not learned, since `like`, a prompt of the test set, asks nearly the same as `prompt`."""

    example: int
    prompt: str
    like: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    origin: str
    origin_id: str
    prompt: Prompt
    output: str


def gather(db: Database, study_name: str, by: int | None) -> GatherReport:
    """See `Library.gather`."""
    with reading(db) as session:
        study = studies.named(session, study_name)
        if study is None or study.id is None:
            raise NotFound(f"There is no study “{study_name}”. See the list of studies, or create one.")
        corrections, superseded = _corrections(session, study.id)
        corrected = {candidate.prompt.id for candidate in corrections}
        winners = [winner for winner in _winners(session, study.id) if winner.prompt.id not in corrected]
    found = [*corrections, *winners]
    learnable = [candidate for candidate in found if candidate.prompt.split != "test"]
    refused, now = len(found) - len(learnable), time.time()
    with writing(db) as session:
        new = _new(session, learnable)
        rows.add_examples(session, [_draft(candidate, now) for candidate in new])
        rows.reject_drafts(session, "correction", superseded, by, now)
        kinds = Counter(candidate.origin for candidate in new)
        audit(session, now, by, "examples gathered", study=study_name, **kinds, refused_test=refused)
    there = len(learnable) - len(new)
    return GatherReport(study_name, kinds["correction"], kinds["winner"], there, refused, TEST_REFUSED if refused else "")


def _corrections(session: Session, study_id: int) -> tuple[list[_Candidate], list[str]]:
    """The newest correction of each pair, and the ids of those that it replaced."""
    newest: dict[str, tuple[Correction, Prompt]] = {}
    replaced = []
    for correction, prompt in rows.corrections(session, study_id):
        if held := newest.get(correction.assignment_id):
            replaced.append(held[0].id)
        newest[correction.assignment_id] = (correction, prompt)
    return [_Candidate("correction", c.id, prompt, c.text) for c, prompt in newest.values()], replaced


def _winners(session: Session, study_id: int) -> list[_Candidate]:
    """Answers that won more votes than they lost. Pairs whose text names a model or a vendor teach nothing."""
    stored = cast.votes(session, study_id)
    sides = {row.assignment_id: (row.left_answer_id, row.right_answer_id) for row in stored}
    score: Counter[int] = Counter()
    for vote in counted(record(row) for row in stored):
        left, right = sides[vote.assignment]
        if vote.choice in ("left", "right"):
            won, lost = (left, right) if vote.choice == "left" else (right, left)
            score[won] += 1
            score[lost] -= 1
    answers = rows.answers_with_prompts(session, [answer_id for answer_id, points in score.items() if points > 0])
    return [_Candidate("winner", f"answer:{answer.id}", prompt, answer.text) for answer, prompt in answers]


def _new(session: Session, candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Those that are not an example yet, by origin or by prompt and text."""
    taken = {(origin, i) for origin in ("correction", "winner") for i in rows.origins(session, origin, [c.origin_id for c in candidates])}
    texts = rows.outputs_of(session, sorted({c.prompt.id or 0 for c in candidates}))
    new = []
    for candidate in candidates:
        text = (candidate.prompt.id or 0, candidate.output)
        if (candidate.origin, candidate.origin_id) not in taken and text not in texts and candidate.output.strip():
            texts.add(text)
            new.append(candidate)
    return new


def _draft(candidate: _Candidate, now: float) -> dict[str, Any]:
    prompt = candidate.prompt
    return {
        "prompt_id": prompt.id,
        "instruction": prompt.instruction,
        "input": prompt.input,
        "output": candidate.output,
        "split": prompt.split,
        "origin": candidate.origin,
        "origin_id": candidate.origin_id,
        "state": "draft",
        "created_at": now,
    }


def snapshot(db: Database, by: int | None, ids: Iterable[int] | None, sets: Collection[str] = ()) -> SnapshotView:
    """See `Library.snapshot`. Compares outside the write: a prompt that comes in meanwhile joins the split of those it resembles."""
    with reading(db) as session:
        approved, tests = rows.examples(session, "approved", None, 0, None), rows.test_prompts(session)
        judged = preferred(session)
    kept, too_close, repeated = _learnable(_chosen(_of(approved, sets), ids, judged), tests)
    if not kept and not judged:
        raise BadInput("Every approved example is too close to a test prompt. Approve others.")
    content = _content_hash(kept, judged)
    with writing(db) as session:
        found = rows.snapshot_with(session, content)
        if found is None:
            found = rows.add_snapshot(session, content, [e.id for e in kept if e.id is not None], by, time.time())
            preferences.add(session, found.id or 0, [one.row() for one in judged])
            audit(session, time.time(), by, "snapshot taken", snapshot=found.id, hash=content, examples=len(kept), preferences=len(judged))
    counts, kinds = Counter(example.split for example in kept), Counter(one.kind for one in judged)
    return SnapshotView(
        found.id or 0, content, counts["train"], counts["validation"], found.created_at, too_close, repeated, kinds["pair"], kinds["single"]
    )  # fmt: skip


def _of(approved: Sequence[rows.ExampleRow], sets: Collection[str]) -> Sequence[rows.ExampleRow]:
    """Those of these prompt sets, or all where none is named. Raises BadInput where that leaves none."""
    found = [row for row in approved if not sets or row.set_name in sets]
    if approved and not found:
        raise BadInput(f"No example of {', '.join(sets)} is approved. Approve some first, or choose other prompt sets.")
    return found


def _chosen(approved: Sequence[rows.ExampleRow], ids: Iterable[int] | None, judged: Sequence[Preferred]) -> Sequence[rows.ExampleRow]:
    """The approved examples with these ids, or all."""
    if ids is not None:
        wanted = set(ids)
        approved = [row for row in approved if row.example.id in wanted]
        if len(approved) < len(wanted):
            raise BadInput(f"{len(wanted) - len(approved)} of the chosen examples are not approved. Approve them first, or choose others.")
    if not approved and not judged:
        raise BadInput("No example is approved yet. Approve some under Retrain first.")
    return approved


def _learnable(chosen: Sequence[rows.ExampleRow], tests: Sequence[tuple[str, str, str]]) -> tuple[list[Example], int, int]:
    """(examples to learn, in the order of their content; how many are too close to a test prompt; how many repeat another)."""
    clusters = {cluster for _, _, cluster in tests if cluster}
    texts = [curate.whole(row.example.instruction, row.example.input) for row in chosen]
    near = curate.near(texts, [curate.whole(instruction, context) for instruction, context, _ in tests]) if tests else set()
    far = [row.example for at, row in enumerate(chosen) if at not in near and row.cluster not in clusters]
    kept: dict[str, Example] = {}
    for example in far:
        kept.setdefault(_line(example), example)
    return [kept[line] for line in sorted(kept)], len(chosen) - len(far), len(far) - len(kept)


def _line(example: Example) -> str:
    return json.dumps([example.split, example.instruction, example.input, example.output], ensure_ascii=False)


def _content_hash(examples: Sequence[Example], judged: Sequence[Preferred]) -> str:
    return hashlib.sha256("\n".join([*map(_line, examples), *(one.line for one in judged)]).encode()).hexdigest()


def snapshots(db: Database) -> list[SnapshotView]:
    """See `Library.snapshots`."""
    with reading(db) as session:
        stored = [(s, Counter(rows.snapshot_splits(session, s.id or 0))) for s in rows.snapshots(session)]
        judged = preferences.counts(session)
    return [
        SnapshotView(
            s.id or 0, s.content_hash, n["train"], n["validation"], s.created_at,
            pairs=judged.get((s.id or 0, "pair"), 0), singles=judged.get((s.id or 0, "single"), 0),
        )
        for s, n in stored
    ]  # fmt: skip


def too_close(db: Database) -> list[TooClose]:
    """The approved examples that a snapshot leaves out because of a test prompt, each with that prompt."""
    with reading(db) as session:
        approved, tests = rows.examples(session, "approved", None, 0, None), rows.test_prompts(session)
    by_cluster = {cluster: curate.whole(instruction, context) for instruction, context, cluster in tests if cluster}
    known = [curate.whole(instruction, context) for instruction, context, _ in tests]
    texts = [curate.whole(row.example.instruction, row.example.input) for row in approved]
    near = curate.near(texts, known) if tests else set()
    found = []
    for at, row in enumerate(approved):
        if at in near or row.cluster in by_cluster:
            like = by_cluster.get(row.cluster) or max(known, key=lambda one, text=texts[at]: _alike(text, one))  # type: ignore[misc]
            found.append(TooClose(row.example.id or 0, texts[at], like))
    return found


def _alike(first: str, second: str) -> float:
    ours, theirs = set(first.casefold().split()), set(second.casefold().split())
    return len(ours & theirs) / max(len(ours | theirs), 1)


def snapshot_rows(db: Database, snapshot_id: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """See `Library.snapshot_rows`."""
    with reading(db) as session:
        if rows.snapshot(session, snapshot_id) is None:
            raise NotFound(f"There is no snapshot {snapshot_id}. Take one of the approved examples first.")
        examples = sorted(rows.snapshot_examples(session, snapshot_id), key=_line)
    by_split: dict[str, list[dict[str, str]]] = defaultdict(list)
    for example in examples:
        by_split[example.split].append({"instruction": example.instruction, "input": example.input, "output": example.output})
    return by_split["train"], by_split["validation"]
