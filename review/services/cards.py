"""What an adapter was made from, gathered from the run, its snapshot and its scores, and written into its folder as a model card.

Must not know screens or torch.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session

from ft.cards import CardFacts, CardScore, card
from ft.errors import NotFound, Unavailable
from ft.metrics import METRIC_TITLES
from ft.personal import find
from ft.template import DEFAULT_SYSTEM
from review.services.boards import Boards
from review.services.faults import reading
from review.services.keeping import Keeping
from review.services.learning import too_close
from storage.database import Database
from storage.queries import cards as rows
from storage.queries import preferences, promotions
from storage.queries import training as runs
from storage.tables import Run

log = logging.getLogger(__name__)
NAME = "README.md"


@dataclass(frozen=True, slots=True)
class _Row:
    """One thing learned from."""

    split: str
    category: str
    origin: str
    text: str


@dataclass(frozen=True, slots=True)
class _Learned:
    """What a run learned from, and whose word it rests on."""

    what: str
    rows: Sequence[_Row]
    by: Mapping[str, int]


def _learned(session: Session, run: Run) -> _Learned:
    objective = str(run.spec.get("objective", "sft"))
    if objective == "sft":
        examples = rows.examples_of(session, run.snapshot_id)
        people = rows.names(session, {e.decided_by for e, _ in examples if e.decided_by is not None})
        found = [_Row(e.split, category, e.origin, f"{e.instruction}\n{e.input}\n{e.output}") for e, category in examples]
        return _Learned("examples", found, Counter(people.get(e.decided_by or 0, "the importer") for e, _ in examples))
    kind = "pair" if objective == "dpo" else "single"
    judged = preferences.of(session, run.snapshot_id, kind)
    found = [_Row(one.split, p.category, "votes", f"{p.instruction}\n{p.input}\n{one.chosen}\n{one.rejected}") for one, p in judged]
    return _Learned("judged pairs" if kind == "pair" else "judged answers", found, rows.judges(session, run.snapshot_id, kind))


class Cards:
    def __init__(self, db: Database, home: Path, boards: Boards, keeping: Keeping) -> None:
        self._db, self._home, self._boards, self._keeping = db, home, boards, keeping

    def text(self, adapter: str, form: str = "adapter") -> str:
        """The card of an adapter that was trained here, in one of its forms. Raises NotFound for others."""
        return card(self.facts(adapter), form)

    def facts(self, adapter: str) -> CardFacts:
        """Raises NotFound for an adapter that no run of this installation made."""
        with reading(self._db) as session:
            row = rows.adapter_row(session, adapter)
            run = runs.get(session, row.run_id) if row and row.run_id else None
            if row is None or run is None:
                raise NotFound(f"{adapter} was not trained here, so there is no card to write. Its passport tells what is known.")
            data = _learned(session, run)
            snapshot = runs.snapshot(session, run.snapshot_id)
            sets = promotions.scored_sets(session, adapter)
        record = _record(Path(run.folder))
        counted = record.get("rows") or {}
        return CardFacts(
            name=adapter,
            base=str(record.get("base") or row.about.get("base") or "a base that is not known any more"),
            run_id=run.id,
            spec={**run.spec, "system_prompt": run.spec.get("system_prompt") or DEFAULT_SYSTEM},
            record=record,
            snapshot_hash=snapshot.content_hash if snapshot else "",
            train=int(counted.get("train", sum(one.split == "train" for one in data.rows))),
            validation=int(counted.get("validation", sum(one.split == "validation" for one in data.rows))),
            categories=Counter(one.category for one in data.rows if one.category),
            origins=Counter(one.origin for one in data.rows),
            approved_by=data.by,
            personal=Counter(kind for one in data.rows for kind in {each.kind for each in find(one.text)}),
            too_long=int(counted.get("left_out", 0)),
            too_close=len(too_close(self._db)) if data.what == "examples" else None,
            what=data.what,
            curve=tuple((int(step), float(loss)) for step, loss in record.get("validation_curve") or ()),
            scores=tuple(self._scores(sets, adapter)),
            worse=tuple(self._worse(adapter)),
            made_at=run.ended_at or row.created_at,
            content_hash=row.content_hash,
        )

    def write(self, adapter: str) -> Path:
        """Put the card beside the adapter's weights, replacing an older one; its path. Raises NotFound, Unavailable."""
        text = self.text(adapter)
        with reading(self._db) as session:
            row = rows.adapter_row(session, adapter)
        folder = self._home / "adapters" / (row.folder if row else "")
        part, target = folder / f".{NAME}", folder / NAME
        try:
            folder.chmod(0o700)
            try:
                part.write_text(text, encoding="utf-8")
                os.replace(part, target)
                target.chmod(0o400)
            finally:
                part.unlink(missing_ok=True)
                folder.chmod(0o500)
        except OSError as error:
            raise Unavailable(f"The model card could not be written: {error.strerror or error}. Check the disk and try again.") from error
        return target

    def _scores(self, sets: list[str], adapter: str) -> Iterator[CardScore]:
        for name in sets:
            board = self._boards.board(name, "test")
            if found := board.row(adapter):
                for metric, score in found.scores.items():
                    less = found.versus_base.get(metric)
                    versus = (less.value, less.low, less.high) if less else None
                    yield CardScore(name, METRIC_TITLES[metric], score.value, score.low, score.high, score.n, versus)

    def _worse(self, adapter: str) -> Iterator[str]:
        found = self._keeping.compare(adapter, "base")
        for group in found.groups:
            if group.worse:
                yield f"{group.name}: {group.worse} of {group.total} answers that were good with the base"


def _record(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "record.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        log.warning("the record of the run in %s cannot be read", folder.name)
        return {}
