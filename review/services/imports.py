"""One file into one prompt set: read it whole, place its prompts, store everything in one transaction or nothing at all.

Nothing is stored while the file is read, and no lock is held while prompts are compared. Must not know screens or models.
"""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlmodel import Session

from ft import curate, records
from ft.errors import BadInput
from ft.records import Record, Reject
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import library as rows
from storage.queries.people import audit
from storage.tables import SPLITS, PromptSet

MAX_REJECTS = 20_000
MAX_ROWS = 100_000
MAX_BYTES = 100_000_000  # of text in memory
MAX_NAME = 100
TRIES = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came in. `rejected`: (line, why the row was kept aside). `splits` counts the added prompts. `moved`: (line, split) of rows that
    named another split than the near-duplicate they joined. `findings`: kind of personal data -> rows with it, `finding_lines` where."""

    set_name: str
    format: str
    fields: dict[str, str]
    added: int
    duplicates: int
    rejected: tuple[tuple[int, str], ...]
    splits: dict[str, int]
    moved: tuple[tuple[int, str], ...]
    examples: int
    findings: dict[str, int]
    finding_lines: dict[str, tuple[int, ...]]
    masked: bool
    note: str = curate.NOT_FOUND


@dataclass(slots=True)
class _Load:
    """A file as read: usable rows by content hash in the order of the file, and everything else."""

    format: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Record] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    duplicates: int = 0
    findings: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


def import_file(
    db: Database,
    path: Path,
    name: str,
    by: int | None,
    split: str | None,
    approve: bool,
    progress: Progress | None,
    fields: Mapping[str, str] | None,
    mask: bool,
) -> ImportReport:
    """See `Library.import_file`."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise BadInput(f"A prompt set needs a name of 1 to {MAX_NAME} printable characters. Give it one.")
    if split is not None and split not in SPLITS:
        raise BadInput(f"There is no split {split!r}. Choose {', '.join(SPLITS)}, or none to let near-duplicate clusters decide.")
    load = _read(Path(path), fields, mask, progress)
    placer = _Placer(db, load, name, split)
    for _ in range(TRIES):
        planned = placer.plan()
        with writing(db) as session:
            if rows.last_prompt_id(session) == planned.seen:
                return _store(session, planned, load, Path(path).name, name, by, approve, mask)
    raise BadInput("Other imports kept changing the library meanwhile. Nothing was imported; try again when they are done.")


def _read(path: Path, fields: Mapping[str, str] | None, mask: bool, progress: Progress | None) -> _Load:
    """The whole file. Raises BadInput where it has no usable row, or more than is read at once."""
    reading_ = records.read(path, fields)
    load, size, shown = _Load(format=reading_.format), 0, -1
    for item in reading_:
        if isinstance(item, Reject):
            load.rejects.append(item)
        else:
            size += sum(map(sys.getsizeof, (item.instruction, item.input, item.output)))
            _take(load, item, mask)
        _check_size(path, load, size)
        if progress and (percent := int(100 * reading_.share)) != shown:
            progress(percent, 100)
            shown = percent
    load.fields = reading_.fields
    if not load.rows:
        first = f"Line {load.rejects[0].line} {load.rejects[0].reason}." if load.rejects else "It has no rows."
        raise BadInput(f"No row of {path.name} can be used. {first} Mend it, or say which column is the instruction.")
    return load


def _check_size(path: Path, load: _Load, size: int) -> None:
    if len(load.rejects) > MAX_REJECTS:
        first = load.rejects[0]
        raise BadInput(
            f"More than {MAX_REJECTS:,} rows of {path.name} cannot be used (line {first.line} {first.reason}). "
            "Nothing was imported; check that it is the right file."
        )
    if len(load.rows) > MAX_ROWS or size > MAX_BYTES:
        raise BadInput(
            f"{path.name} holds more than {MAX_ROWS:,} prompts or {MAX_BYTES // 1_000_000} MB of text. "
            "Nothing was imported; split the file and import the parts into one set."
        )


def _take(load: _Load, item: Record, mask: bool) -> None:
    kinds = {finding.kind for text in (item.instruction, item.input, item.output) for finding in curate.find(text)}
    for kind in kinds:
        load.findings[kind].append(item.line)
    if mask and kinds:
        item = replace(item, instruction=curate.mask(item.instruction), input=curate.mask(item.input), output=curate.mask(item.output))
    content = curate.content_hash(item.instruction, item.input)
    first = load.rows.setdefault(content, item)
    if first is not item:
        _repeated(load, item, first.output, f"line {first.line}")


def _repeated(load: _Load, item: Record, kept: str, where: str) -> None:
    """The same prompt again: dropped when it adds nothing, kept aside when its answer is another."""
    if not item.output or curate.normal(item.output) == curate.normal(kept):
        load.duplicates += 1
    else:
        raw = f"{item.instruction}\n{item.input}\n{item.output}"[: records.RAW_KEPT]
        other = "another answer" if kept else "an answer where that one has none"
        load.rejects.append(Reject(item.line, f"asks the same as {where} and has {other}; the first is kept", raw))


@dataclass(frozen=True, slots=True)
class _Plan:
    """`seen`: the newest prompt id that the plan took into account."""

    seen: int
    new: Sequence[tuple[str, Record, curate.Placed]]
    repeated: Sequence[tuple[Record, str]]


class _Placer:
    """Says which rows are new to the set, and their clusters and splits among all prompts of all sets."""

    def __init__(self, db: Database, load: _Load, name: str, split: str | None) -> None:
        self._db, self._load, self._name, self._split = db, load, name, split

    def plan(self) -> _Plan:
        with reading(self._db) as session:
            seen = rows.last_prompt_id(session)
            prompt_set = rows.set_named(session, self._name)
            known = rows.known_prompts(session)
        there = {prompt.content_hash: prompt for prompt in known if prompt_set and prompt.set_id == prompt_set.id}
        fresh = [(content, record) for content, record in self._load.rows.items() if content not in there]
        placed = curate.place(
            [curate.New(curate.whole(r.instruction, r.input), content, self._split or r.split) for content, r in fresh],
            [curate.Known(curate.whole(p.instruction, p.input), p.cluster, p.split) for p in known] if fresh else [],
        )
        repeated = [(record, there[content].reference) for content, record in self._load.rows.items() if content in there]
        return _Plan(seen, [(content, record, place) for (content, record), place in zip(fresh, placed, strict=True)], repeated)


def _store(session: Session, plan: _Plan, load: _Load, source: str, name: str, by: int | None, approve: bool, mask: bool) -> ImportReport:
    for record, kept in plan.repeated:
        _repeated(load, record, kept, "a prompt that is in the set already")
    now = time.time()
    prompt_set = rows.set_named(session, name)
    if prompt_set is None:
        prompt_set = PromptSet(name=name, source=source, created_by=by, created_at=now)
        session.add(prompt_set)
        session.flush()
    assert prompt_set.id is not None
    ids = rows.add_prompts(session, prompt_set.id, (_prompt_row(*item) for item in plan.new))
    rejects = sorted(load.rejects, key=lambda reject: reject.line)
    rows.add_rejects(session, prompt_set.id, [(reject.line, reject.reason, reject.raw) for reject in rejects])
    learnable = ((ids[content], record, place) for content, record, place in plan.new if record.output and place.split != "test")
    examples = rows.add_examples(session, (_example_row(*item, approve, by, now) for item in learnable))
    splits = Counter(place.split for _, _, place in plan.new)
    report = ImportReport(
        set_name=name,
        format=load.format,
        fields=load.fields,
        added=len(plan.new),
        duplicates=load.duplicates,
        rejected=tuple((reject.line, reject.reason) for reject in rejects),
        splits={split: splits[split] for split in SPLITS},
        moved=tuple((record.line, place.split) for _, record, place in plan.new if place.moved),
        examples=examples,
        findings={kind: len(lines) for kind, lines in load.findings.items()},
        finding_lines={kind: tuple(lines) for kind, lines in load.findings.items()},
        masked=mask,
    )
    audit(session, now, by, "prompts imported", set=name, source=source, added=report.added, duplicates=report.duplicates,
          rejected=len(rejects), splits=report.splits, approved=approve, masked=mask)  # fmt: skip
    return report


def _prompt_row(content: str, record: Record, place: curate.Placed) -> dict[str, Any]:
    return {
        "split": place.split,
        "instruction": record.instruction,
        "input": record.input,
        "reference": record.output,
        "category": record.category,
        "tags": list(record.tags),
        "cluster": place.cluster,
        "content_hash": content,
        "line": record.line,
    }


def _example_row(prompt_id: int, record: Record, place: curate.Placed, approve: bool, by: int | None, now: float) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "instruction": record.instruction,
        "input": record.input,
        "output": record.output,
        "split": place.split,
        "origin": "imported",
        "origin_id": f"prompt:{prompt_id}",
        "state": "approved" if approve else "draft",
        "decided_by": by if approve else None,
        "decided_at": now if approve else None,
        "created_at": now,
    }
