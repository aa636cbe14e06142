"""The library: prompt sets and what came into them, examples and the decisions about them, snapshots to train on.

Must not know screens or models.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from ft.errors import BadInput, NotFound
from review.services import imports, learning
from review.services.faults import reading, writing
from review.services.imports import ImportReport, Progress
from review.services.learning import GatherReport, SnapshotView
from storage.database import Database
from storage.queries import library as rows
from storage.queries.people import audit
from storage.tables import EXAMPLE_STATES, SPLITS, Example, Prompt, PromptSet

ORIGINS = ("imported", "correction", "winner")
MOST = 10_000_000

__all__ = ["ExampleView", "GatherReport", "ImportReport", "Library", "PromptView", "RejectView", "SetView", "SnapshotView"]


@dataclass(frozen=True, slots=True)
class SetView:
    """`splits` counts prompts, `references` those with a reference answer, `rejected` rows kept aside."""

    id: int
    name: str
    source: str
    splits: dict[str, int]
    references: int
    rejected: int
    created_at: float

    @property
    def prompts(self) -> int:
        return sum(self.splits.values())


@dataclass(frozen=True, slots=True)
class PromptView:
    id: int
    split: str
    instruction: str
    input: str
    reference: str
    category: str
    tags: tuple[str, ...]
    cluster: str
    line: int


@dataclass(frozen=True, slots=True)
class RejectView:
    """`reason` finishes the sentence "the row …"; `raw` is what was there, cut to 2,000 characters."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class ExampleView:
    """`origin` is imported, correction or winner; `set_name` is that of its prompt."""

    id: int
    state: str
    split: str
    origin: str
    instruction: str
    input: str
    output: str
    set_name: str
    created_at: float
    decided_at: float | None


class Library:
    """`by` is the acting user's id; None is the command line."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def import_file(
        self,
        path: Path | str,
        name: str,
        by: int | None = None,
        split: str | None = None,
        approve: bool = False,
        progress: Progress | None = None,
        fields: Mapping[str, str] | None = None,
        mask: bool = False,
    ) -> ImportReport:
        """Bring the file's rows into the prompt set `name`, which is made or grows. All or nothing; the same file again adds nothing.

        Rows of train and validation that have an answer become examples: approved with `approve`, else drafts. `split` puts every row in
        one split, except beside a near-duplicate that has its place already. `fields` maps fields to columns. `mask` replaces personal
        data found by rules; without it, it is only reported. `progress` gets (percent, 100). Raises BadInput, NotFound, Unavailable.
        """
        return imports.import_file(self._db, Path(path), name, by, split, approve, progress, fields, mask)

    def sets(self) -> list[SetView]:
        """Those of what must not get worse, then the team's own, each oldest first."""
        with reading(self._db) as session:
            splits, references, rejected = rows.split_counts(session), rows.reference_counts(session), rows.reject_counts(session)
            return [
                SetView(
                    id=s.id or 0,
                    name=s.name,
                    source=s.source,
                    splits={split: splits.get(s.id or 0, {}).get(split, 0) for split in SPLITS},
                    references=references.get(s.id or 0, 0),
                    rejected=rejected.get(s.id or 0, 0),
                    created_at=s.created_at,
                )
                for s in rows.sets(session)
            ]

    def prompts(self, name: str, split: str | None = None, query: str = "", offset: int = 0, limit: int = 50) -> list[PromptView]:
        """Prompts of a set in the order they came in; `query` is looked for in prompt and reference. Raises NotFound."""
        with reading(self._db) as session:
            prompt_set = set_named(session, name)
            return [_prompt_view(p) for p in rows.prompts(session, prompt_set.id or 0, split, query, *_page(offset, limit))]

    def prompt_count(self, name: str, split: str | None = None, query: str = "") -> int:
        """How many `prompts` there are without a limit. Raises NotFound."""
        with reading(self._db) as session:
            return rows.prompt_count(session, set_named(session, name).id or 0, split, query)

    def rejects(self, name: str, offset: int = 0, limit: int = 1000) -> list[RejectView]:
        """Rows of a set that were kept aside. Raises NotFound."""
        with reading(self._db) as session:
            found = rows.rejects(session, set_named(session, name).id or 0, *_page(offset, limit))
            return [RejectView(r.line, r.reason, r.raw) for r in found]

    def examples(self, state: str | None = None, origin: str | None = None, offset: int = 0, limit: int = 50) -> list[ExampleView]:
        """Oldest first. Raises BadInput for an unknown state or origin."""
        _one_of("state", state, EXAMPLE_STATES)
        _one_of("origin", origin, ORIGINS)
        with reading(self._db) as session:
            return [_example_view(row.example, row.set_name) for row in rows.examples(session, state, origin, *_page(offset, limit))]

    def example_counts(self) -> dict[str, int]:
        """State -> examples, for every state."""
        with reading(self._db) as session:
            counts = rows.example_counts(session)
        return {state: counts.get(state, 0) for state in EXAMPLE_STATES}

    def decide(self, ids: Iterable[int], state: str, by: int | None = None) -> int:
        """Set the state of examples; how many changed. Unknown ids are ignored. Raises BadInput for an unknown state."""
        _one_of("state", state, EXAMPLE_STATES)
        chosen = sorted(set(ids))
        with writing(self._db) as session:
            changed = rows.decide(session, chosen, state, by, time.time())
            if changed:
                audit(session, time.time(), by, "examples decided", state=state, changed=changed, examples=chosen[:1000])
        return changed

    def gather(self, study_name: str, by: int | None = None) -> GatherReport:
        """Turn a study's corrections and winning answers on train and validation prompts into draft examples; those on test prompts are
        refused and counted. An answer wins with more votes for it than against; a corrected pair gives the correction alone.
        Raises NotFound."""
        return learning.gather(self._db, study_name, by)

    def snapshot(self, by: int | None = None, ids: Iterable[int] | None = None, sets: Collection[str] = ()) -> SnapshotView:
        """Freeze the approved examples (or those of `ids`, or of the prompt sets named), without those too close to any test prompt. The
        same content is the same snapshot. Raises BadInput when nothing is approved."""
        return learning.snapshot(self._db, by, ids, sets)

    def snapshots(self) -> list[SnapshotView]:
        """Newest first."""
        return learning.snapshots(self._db)

    def snapshot_rows(self, snapshot_id: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """(train, validation) rows of instruction, input and output, in an order that depends on their content alone. Raises NotFound."""
        return learning.snapshot_rows(self._db, snapshot_id)


def _one_of(what: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise BadInput(f"There is no {what} {value!r}. Choose {', '.join(known)}.")


def _page(offset: int, limit: int) -> tuple[int, int]:
    return min(max(int(offset), 0), MOST), min(max(int(limit), 0), MOST)


def set_named(session: Session, name: str) -> PromptSet:
    """Raises NotFound."""
    found = rows.set_named(session, name)
    if found is None:
        raise NotFound(f"There is no prompt set “{name}”. Import it first, or choose one from the list.")
    return found


def _prompt_view(p: Prompt) -> PromptView:
    return PromptView(p.id or 0, p.split, p.instruction, p.input, p.reference, p.category, tuple(p.tags), p.cluster, p.line)


def _example_view(e: Example, set_name: str) -> ExampleView:
    return ExampleView(e.id or 0, e.state, e.split, e.origin, e.instruction, e.input, e.output, set_name, e.created_at, e.decided_at)
