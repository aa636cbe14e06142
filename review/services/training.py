"""Training runs as people act on them: start, pause, resume, cancel; and `sync`, which keeps the database in step with the run directories.

The run directory is the truth while a run lives; rows here are a copy. Must not know torch, screens or how training works.
"""

import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from ft import advice, prechecks, runs
from ft.errors import BadInput, Busy, Conflict, NotFound, UserError
from ft.runs import BaseChoice
from ft.specs import LoraSpec, TrainSpec
from review.services import learning
from review.services.adapters import NAME, RESERVED
from review.services.after_training import AfterTraining, free_name
from review.services.faults import reading, writing
from review.services.learning import TooClose
from review.services.library import Library
from review.services.preferences import preference_rows
from review.services.run_views import Point, RunView, Written, view
from review.services.sharing import ALONE, Sharing
from storage.database import Database
from storage.queries import training as queries
from storage.queries.arms import names_taken
from storage.queries.people import audit
from storage.tables import Adapter, Run, RunEvent

__all__ = ["Checked", "Point", "RunView", "Training", "Written"]
Rows = Sequence[runs.Row]


@dataclass(frozen=True, slots=True)
class Checked:
    """A spec beside the snapshot it would train on: what forbids the start, what is known to go wrong, what is worth knowing."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


class Training:
    """`after` does what follows a finished run; without it runs only train. `sharing` looks to it that run and model both have room."""

    def __init__(
        self, db: Database, home: Path, library: Library, base: BaseChoice, after: AfterTraining | None = None,
        sharing: Sharing | None = None,
    ) -> None:  # fmt: skip
        self._db, self._library, self._base, self._after, self._sharing = db, library, base, after, sharing
        self._folder, self._adapters = home / "runs", home / "adapters"

    def defaults(self) -> TrainSpec:
        return TrainSpec(accumulation=1)

    def adapters(self) -> list[str]:
        """Names of the adapters that a run may go on from, newest first."""
        with reading(self._db) as session:
            return queries.adapter_names(session)

    def too_close(self, spec: TrainSpec) -> list[TooClose]:
        """The approved examples a run on answers leaves out because of a test prompt."""
        return learning.too_close(self._db) if spec.objective == "sft" else []

    def check(self, snapshot_id: int, spec: TrainSpec) -> Checked:
        """Everything about a start at once. Raises NotFound for the snapshot."""
        sound = spec.sound()
        train, validation = self.rows(snapshot_id, sound.objective)
        notes, what = self._name_notes(sound), "examples" if sound.objective == "sft" else "judged answers"
        if not validation:
            train, validation = runs.hold_out(train)
            all_rows = len(train) + len(validation)
            notes.append(f"{len(validation)} of {all_rows} {what} are held out for validation, since none are marked for it.")
        if 0 < len(train) < 20:
            notes.append(f"{len(train)} {what} teach a tone at best: 100 or more are usual.")
        problems = self._wrong(spec, runs.data_problems(train, validation, sound.objective))
        if spec.start_from and not problems:
            notes.append(f"It goes on from {spec.start_from}, so that adapter's rank, alpha and layers are used.")
        return Checked(tuple(problems), tuple(advice.warnings(sound, len(train))), tuple(notes))

    def without_examples(self, spec: TrainSpec, why: str) -> Checked:
        """Everything about a start for which there is nothing to learn from: `why`, after all that is wrong with the spec itself."""
        return Checked(tuple(self._wrong(spec, [why])), (), ())

    def _wrong(self, spec: TrainSpec, with_data: list[str]) -> list[str]:
        sound = spec.sound()
        problems = spec.problems() + name_problems(sound.name) + prechecks.problems(sound, self._base, self._folder) + with_data
        try:
            self._started(sound)
        except UserError as error:
            problems.append(str(error))
        return problems

    def start(self, snapshot_id: int, spec: TrainSpec, by: int | None, sweep: int | None = None) -> str:
        """Queue a run, of a `sweep` or alone; its id. `sync` starts it when its turn comes. Raises BadInput with every problem at once."""
        if problems := self.check(snapshot_id, spec).problems:
            raise BadInput(" ".join(problems))
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)
        folder, spec = self.lay_out(self._folder, run_id, snapshot_id, spec)
        with writing(self._db) as session:
            row = Run(id=run_id, snapshot_id=snapshot_id, spec=spec.to_dict(), folder=str(folder), created_by=by, sweep_id=sweep)
            row.message = "Waiting for its turn."
            session.add(row)
            audit(session, time.time(), by, "run started", run=run_id, spec=spec.to_dict())
        return run_id

    def lay_out(self, root: Path, run_id: str, snapshot_id: int, spec: TrainSpec) -> tuple[Path, TrainSpec]:
        """The run directory of a spec on a snapshot, and the spec as it will train: an adapter it goes on from brings its own settings."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        spec, folder = self._started(spec)
        train, validation = self.rows(snapshot_id, spec.objective)
        return runs.create(root, run_id, spec, train, validation, self._base, folder), spec

    def _started(self, spec: TrainSpec) -> tuple[TrainSpec, Path | None]:
        """Raises NotFound or Conflict where the adapter to go on from cannot be used."""
        if not spec.start_from:
            return spec, None
        with reading(self._db) as session:
            found = queries.adapter_named(session, spec.start_from)
        if found is None:
            raise NotFound(f"There is no adapter {spec.start_from} to go on from. Choose one of the list, or begin fresh.")
        folder = self._adapters / found.folder
        if found.status != "registered" or not (folder / "adapter_model.safetensors").exists():
            raise Conflict(f"The adapter {spec.start_from} cannot be used now. Choose another to go on from, or begin fresh.")
        return spec.with_(lora=lora_of(found, spec.lora)), folder

    def runs(self) -> list[RunView]:
        """Newest first, without curves and log."""
        with reading(self._db) as session:
            return [view(session, row, whole=False) for row in queries.runs(session)]

    def run(self, run_id: str) -> RunView:
        """Raises NotFound."""
        with reading(self._db) as session:
            return view(session, self._row(session, run_id), whole=True)

    def cancel(self, run_id: str, by: int | None) -> None:
        """Ask the run to stop; returns at once. A trainer that ignores it is ended by `sync` after a grace period."""
        row = self._act(run_id, by, "run cancelled", queries.UNSETTLED, "is over already. There is nothing to cancel")
        folder = Path(row.folder)
        with contextlib.suppress(FileNotFoundError):  # its folder is gone: sync marks the run lost
            runs.ask_stop(folder)
            runs.enforce(folder)
        self._copy(row)

    def pause(self, run_id: str, by: int | None) -> None:
        """Ask the run to save itself and to let the machine go; returns at once."""
        row = self._act(run_id, by, "run paused", queries.ACTIVE, "is not under way. There is nothing to pause")
        with contextlib.suppress(FileNotFoundError):
            runs.pause(Path(row.folder))
        self._copy(row)

    def finish(self, run_id: str, by: int | None) -> None:
        """Ask a run that trains to end now: the best step so far becomes the adapter. Returns at once. Raises Conflict."""
        row = self._act(run_id, by, "run finished early", ("running",), "is not training. There is nothing to end")
        runs.finish(Path(row.folder))

    def resume(self, run_id: str, by: int | None) -> None:
        """Queue a paused, lost or failed run again: it goes on from its last good checkpoint. Raises Conflict."""
        row = self._act(run_id, by, "run resumed", ("paused", "lost", "failed"), "is not paused, lost or failed. Start a new run instead")
        try:
            runs.resume(Path(row.folder))
        except FileNotFoundError:
            raise Conflict(f"The folder of run {run_id} is gone, so it cannot go on. Start a new run with its settings.") from None
        with writing(self._db) as session:
            stored = self._row(session, run_id)
            stored.status, stored.message, stored.ended_at = "queued", runs.state(Path(row.folder)).message, None
            session.add(stored)

    def _act(self, run_id: str, by: int | None, action: str, when: Sequence[str], otherwise: str) -> Run:
        with writing(self._db) as session:
            row = self._row(session, run_id)
            if row.status not in when:
                raise Conflict(f"Run {run_id} ({row.status}) {otherwise}.")
            audit(session, time.time(), by, action, run=run_id)
        return row

    def sync(self) -> None:
        """Bring database and run directories in step. May be called at any time, by several processes, and be cut off anywhere."""
        with reading(self._db) as session:
            unsettled = list(queries.unsettled(session))
        for row in unsettled:
            folder = Path(row.folder)
            if folder.exists():
                runs.enforce(folder)
                self._take_up(row, folder)
            self._copy(row)
        self._start_next()
        if self._after:
            self._after.follow()

    def share(self) -> None:
        """Let this app's model leave the memory to the run under way, or come back. Each app does it for itself."""
        if not self._sharing:
            return
        with reading(self._db) as session:
            active = list(queries.active(session))
        alive = [row for row in active if Path(row.folder).exists()]
        if alive and all(row.status == "queued" for row in alive) and (Path(alive[0].folder) / ALONE).exists():
            return  # its model is leaving for the one that starts next
        self._sharing.follow(next((Path(row.folder) for row in alive if row.status == "running"), None))

    def _take_up(self, row: Run, folder: Path) -> None:
        """A lost run goes on by itself from its last good checkpoint, as long as it gets further each time; one that had no room beside
        the model, alone."""
        if row.status != "running":
            return
        state = runs.state(folder)
        if self._sharing and self._sharing.again_alone(folder, state):
            return
        if state.status == "lost":
            with contextlib.suppress(Conflict, OSError):
                runs.resume(folder, by_itself=True)

    def _start_next(self) -> None:
        with reading(self._db) as session:
            active = list(queries.active(session))
        waiting = [row for row in active if Path(row.folder).exists()]
        if not waiting or any(row.status == "running" for row in active):
            return
        folder = Path(waiting[0].folder)
        if self._sharing and not self._sharing.make_room(folder):
            return
        try:
            runs.start(folder)
        except (Busy, Conflict):
            return  # another app, or a run started by hand, was faster
        self._copy(waiting[0])

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
            if stored.status not in queries.UNSETTLED:
                return
            last = queries.last_event(session, row.id)
            fresh = [event for event in fresh if event.seq > last]
            session.add_all(RunEvent(run_id=row.id, seq=e.seq, kind=e.kind, step=e.step, data=e.data, at=e.at) for e in fresh)
            stored.status, stored.message = state.status, state.message
            stored.started_at = state.started_at
            over = state.status not in queries.UNSETTLED
            stored.ended_at = (state.ended_at or time.time()) if over else None
            session.add(stored)

    def rows(self, snapshot_id: int, objective: str) -> tuple[Rows, Rows]:
        """(train, validation) rows of a snapshot as the objective learns from them. Raises NotFound."""
        with reading(self._db) as session:
            if queries.snapshot(session, snapshot_id) is None:
                raise NotFound(f"There is no snapshot {snapshot_id}. Approve examples and take a snapshot first.")
        if objective in ("dpo", "kto"):
            return preference_rows(self._db, snapshot_id, objective)
        return self._library.snapshot_rows(snapshot_id)

    def _name_notes(self, spec: TrainSpec) -> list[str]:
        with reading(self._db) as session:
            name = free_name(spec.name, names_taken(session))
        return [] if name == spec.name.strip() else [f"The name {spec.name} is taken: the adapter will be called {name}."]

    def _row(self, session: Session, run_id: str) -> Run:
        row = queries.get(session, run_id)
        if row is None:
            raise NotFound(f"There is no run {run_id}. The Retrain screen and `tiebreak runs list` show those there are.")
        return row


def lora_of(adapter: Adapter, otherwise: LoraSpec) -> LoraSpec:
    """The settings an adapter was made with; dropout, which leaves no trace in it, is the run's own."""
    return LoraSpec(
        rank=adapter.rank, alpha=round(adapter.alpha), dropout=otherwise.dropout, targets=tuple(adapter.targets) or otherwise.targets,
        rslora=adapter.method.startswith("rs"), dora=adapter.method.endswith("DoRA"),
    )  # fmt: skip


def name_problems(name: str) -> list[str]:
    """What would keep the finished adapter from being registered under this name, said before the run and not after it."""
    name = name.strip()
    if not name or (NAME.fullmatch(name) and name.casefold() not in RESERVED):
        return []
    return [f"name is {name[:64]!r}: use up to 64 letters, digits, spaces and . + - _, not base or human."]
