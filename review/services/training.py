"""Training runs as people see them: start, watch, cancel; and `sync`, which keeps the database in step with the run directories.

The run directory is the truth while a run lives; rows here are a copy. Must not know torch, screens or how training works.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from ft import runs
from ft.errors import BadInput, Busy, Conflict, NotFound, UserError
from ft.runs import BaseChoice, RunState
from ft.specs import TrainSpec
from review.services.adapters import NAME, RESERVED
from review.services.after_training import AfterTraining, free_name
from review.services.faults import reading, writing
from review.services.library import Library
from storage.database import Database
from storage.queries import training as queries
from storage.queries.arms import names_taken
from storage.queries.people import audit
from storage.tables import Run, RunEvent

Point = tuple[int, float]


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as shown. Curves are (step, loss) points; `seconds_left` is None when not known; `after`: "", registered, answered, scored."""

    id: str
    name: str
    status: str
    message: str
    spec: TrainSpec
    snapshot: int
    step: int
    steps: int
    seconds_left: float | None
    curve: tuple[Point, ...]
    validation: tuple[Point, ...]
    warnings: tuple[str, ...]
    adapter: str
    after: str
    log: str
    created_at: float
    started_at: float | None
    ended_at: float | None


class Training:
    """`after` does what follows a finished run; without it runs only train."""

    def __init__(self, db: Database, home: Path, library: Library, base: BaseChoice, after: AfterTraining | None = None) -> None:
        self._db, self._library, self._base, self._after = db, library, base, after
        self._folder = home / "runs"

    def defaults(self) -> TrainSpec:
        return TrainSpec(accumulation=1)

    def check(self, snapshot_id: int, spec: TrainSpec) -> tuple[list[str], list[str]]:
        """(problems, notes): everything that forbids the start, and what is worth knowing before it."""
        train: Sequence[runs.Row]
        validation: Sequence[runs.Row]
        train, validation = self._rows(snapshot_id)
        notes = self._name_notes(spec)
        if not validation:
            train, validation = runs.hold_out(train)
            all_rows = len(train) + len(validation)
            notes.append(f"{len(validation)} of {all_rows} examples are held out for validation, since none are marked for it.")
        if spec.lora.dora:
            notes.append("A DoRA adapter cannot answer in one batch with others: its answers take longer.")
        if len(train) < 20:
            notes.append(f"{len(train)} examples teach a tone at best: 100 or more are usual.")
        return spec.problems() + name_problems(spec.name) + runs.data_problems(train, validation), notes

    def start(self, snapshot_id: int, spec: TrainSpec, by: int | None) -> str:
        """Queue a run and return its id; `sync` starts it when its turn comes. Raises BadInput with every problem at once."""
        problems, _ = self.check(snapshot_id, spec)
        if problems:
            raise BadInput(" ".join(problems))
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = runs.create(self._folder, run_id, spec, *self._rows(snapshot_id), self._base)
        with writing(self._db) as session:
            row = Run(id=run_id, snapshot_id=snapshot_id, spec=spec.to_dict(), folder=str(folder), created_by=by)
            row.message = "Waiting for its turn."
            session.add(row)
            audit(session, time.time(), by, "run started", run=run_id, spec=spec.to_dict())
        return run_id

    def runs(self) -> list[RunView]:
        """Newest first, without curves and log."""
        with reading(self._db) as session:
            return [self._view(session, row, whole=False) for row in queries.runs(session)]

    def run(self, run_id: str) -> RunView:
        """Raises NotFound."""
        with reading(self._db) as session:
            return self._view(session, self._row(session, run_id), whole=True)

    def cancel(self, run_id: str, by: int | None) -> None:
        """Ask the run to stop; returns at once. A trainer that ignores it is ended by `sync` after a grace period."""
        with writing(self._db) as session:
            row = self._row(session, run_id)
            if row.status not in queries.ACTIVE:
                raise Conflict(f"Run {run_id} is over already ({row.status}). There is nothing to cancel.")
            audit(session, time.time(), by, "run cancelled", run=run_id)
        folder = Path(row.folder)
        try:
            runs.ask_stop(folder)
            runs.enforce(folder)
        except FileNotFoundError:
            pass  # its folder is gone: sync marks the run lost
        self._copy(row)

    def sync(self) -> None:
        """Bring database and run directories in step. May be called at any time, by several processes, and be cut off anywhere."""
        with reading(self._db) as session:
            active = list(queries.active(session))
        for row in active:
            if Path(row.folder).exists():
                runs.enforce(Path(row.folder))
            self._copy(row)
        self._start_next()
        if self._after:
            self._after.follow()

    def _start_next(self) -> None:
        with reading(self._db) as session:
            active = list(queries.active(session))
        if not active or any(row.status == "running" for row in active):
            return
        try:
            runs.start(Path(active[0].folder))
        except (Busy, Conflict):
            return  # another app, or a run started by hand, was faster
        self._copy(active[0])

    def _copy(self, row: Run) -> None:
        """Copy state and new events of one run directory. The state is read first: a final status never hides its last events."""
        folder = Path(row.folder)
        state = runs.state(folder)
        with reading(self._db) as session:
            known = queries.last_event(session, row.id)
        fresh = runs.events(folder, known)
        if not fresh and (state.status, state.message) == (row.status, row.message):
            return
        with writing(self._db) as session:
            stored = self._row(session, row.id)
            if stored.status not in queries.ACTIVE:
                return
            last = queries.last_event(session, row.id)
            fresh = [event for event in fresh if event.seq > last]
            session.add_all(RunEvent(run_id=row.id, seq=e.seq, kind=e.kind, step=e.step, data=e.data, at=e.at) for e in fresh)
            stored.status, stored.message = state.status, state.message
            stored.started_at = state.started_at
            stored.ended_at = state.ended_at or (time.time() if state.status == "lost" else None)
            session.add(stored)

    def _rows(self, snapshot_id: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        with reading(self._db) as session:
            if queries.snapshot(session, snapshot_id) is None:
                raise NotFound(f"There is no snapshot {snapshot_id}. Approve examples and take a snapshot first.")
        train, validation = self._library.snapshot_rows(snapshot_id)
        return list(train), list(validation)

    def _name_notes(self, spec: TrainSpec) -> list[str]:
        with reading(self._db) as session:
            name = free_name(spec.name, names_taken(session))
        return [] if name == spec.name.strip() else [f"The name {spec.name} is taken: the adapter will be called {name}."]

    def _row(self, session: Session, run_id: str) -> Run:
        row = queries.get(session, run_id)
        if row is None:
            raise NotFound(f"There is no run {run_id}. The Retrain screen and `tiebreak runs list` show those there are.")
        return row

    def _where(self, session: Session, row: Run) -> RunState:
        """Step and time left: by its directory while it runs, since not every step is an event; by its events afterwards."""
        if row.status == "running":
            return runs.state(Path(row.folder))
        newest = queries.newest_event(session, row.id, "train")
        return RunState(row.status, step=newest.step, steps=newest.data.get("steps", 0)) if newest else RunState(row.status)

    def _view(self, session: Session, row: Run, *, whole: bool) -> RunView:
        state = self._where(session, row)
        adapter = queries.adapter_of(session, row.id)
        events: Sequence[RunEvent] = queries.events(session, row.id, ("train", "validation", "warning")) if whole else ()
        spec = spec_of(row)
        return RunView(
            id=row.id, name=spec.name, status=row.status, message=row.message, spec=spec, snapshot=row.snapshot_id,
            step=state.step, steps=state.steps, seconds_left=state.seconds_left if row.status == "running" else None,
            curve=points(events, "train"), validation=points(events, "validation"),
            warnings=tuple(e.data.get("message", "") for e in events if e.kind == "warning"),
            adapter=adapter.name if adapter else "", after=row.after, log=runs.log_tail(Path(row.folder)) if whole else "",
            created_at=row.created_at, started_at=row.started_at, ended_at=row.ended_at,
        )  # fmt: skip


def spec_of(row: Run) -> TrainSpec:
    try:
        return TrainSpec.from_dict(row.spec)
    except UserError:  # written by a newer version of the program
        return TrainSpec(name=str(row.spec.get("name", row.id)))


def name_problems(name: str) -> list[str]:
    """What would keep the finished adapter from being registered under this name, said before the run and not after it."""
    name = name.strip()
    if not name or (NAME.fullmatch(name) and name.casefold() not in RESERVED):
        return []
    return [f"name is {name[:64]!r}: use up to 64 letters, digits, spaces and . + - _, not base or human."]


def points(events: Sequence[RunEvent], kind: str) -> tuple[Point, ...]:
    return tuple((e.step, e.data["loss"]) for e in events if e.kind == kind and e.data.get("loss") is not None)
