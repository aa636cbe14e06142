"""A sweep: a small grid of runs queued together, compared on validation, the best one proposed; and runs side by side.

The budget is stated before it starts. Only the run a person chooses goes on to the test set. Must not know torch, screens or processes.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft.errors import BadInput, Conflict, NotFound, UserError
from ft.specs import TrainSpec
from review.services.faults import reading, writing
from review.services.run_views import RunView, for_seconds
from review.services.training import Training
from storage.database import Database
from storage.queries import sweeps as rows
from storage.queries.people import audit
from storage.tables import Sweep

MOST = 12  # runs
OVER = ("finished", "failed", "cancelled", "lost")
VARIED = ("rank", "learning_rate", "epochs")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep would do: its specs, and the budget in words and in epochs over the data, the whole sweep together."""

    specs: tuple[TrainSpec, ...]
    epochs: float
    words: str


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep. `validation` is its best validation loss, None until there is one."""

    run: str
    name: str
    settings: dict[str, float]
    status: str
    validation: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class SweepView:
    """`best` is the run with the lowest validation loss among the finished; "" while there is none. `over`: no run is left to end."""

    id: int
    name: str
    budget: str
    runs: tuple[SweepRun, ...]
    best: str
    chosen: str
    over: bool
    created_at: float


class Sweeps:
    def __init__(self, db: Database, training: Training) -> None:
        self._db, self._training = db, training

    def plan(self, spec: TrainSpec, grid: Mapping[str, Sequence[float]], seconds: float | None = None) -> Plan:
        """Every combination of the grid (rank, learning_rate, epochs) on top of `spec`. `seconds`: measured for one run of `spec`.

        Raises BadInput with everything wrong at once.
        """
        if problems := _no_numbers(grid):
            raise BadInput(" ".join(problems))
        values = [list(dict.fromkeys(grid.get(name, ()))) or [_of(spec, name)] for name in VARIED]
        problems = _grid_problems(grid, math.prod(len(each) for each in values))
        some = itertools.islice(itertools.product(*values), MOST)
        specs = [_with(spec, dict(zip(VARIED, chosen, strict=True))) for chosen in some]
        problems += list(dict.fromkeys(problem for each in specs for problem in each.problems()))
        if problems:
            raise BadInput(" ".join(problems))
        epochs = sum(each.epochs for each in specs)
        words = f"{len(specs)} runs, one after the other, {epochs:g} epochs over the examples in all"
        if seconds is not None:
            words += f", {for_seconds(seconds * epochs / max(spec.epochs, 1e-9))}"
        return Plan(tuple(specs), epochs, f"{words}.")

    def start(
        self, snapshot_id: int, spec: TrainSpec, grid: Mapping[str, Sequence[float]], by: int | None, seconds: float | None = None
    ) -> int:
        """Queue the runs; the sweep's id. Where one cannot be queued the others are cancelled. Raises BadInput."""
        plan = self.plan(spec, grid, seconds)
        if problems := self._training.check(snapshot_id, plan.specs[0]).problems:
            raise BadInput(" ".join(problems))
        with writing(self._db) as session:
            asked = {"name": spec.name, "spec": spec.to_dict(), "grid": {k: list(v) for k, v in grid.items()}, "budget": plan.words}
            sweep = Sweep(snapshot_id=snapshot_id, spec=asked, created_by=by)
            session.add(sweep)
            session.flush()
            sweep_id = sweep.id or 0
            audit(session, time.time(), by, "sweep started", sweep=sweep_id, runs=len(plan.specs), budget=plan.words)
        queued: list[str] = []
        try:
            for each in plan.specs:
                queued.append(self._training.start(snapshot_id, each, by, sweep=sweep_id))
        except BaseException:
            for run_id in queued:
                with contextlib.suppress(UserError):
                    self._training.cancel(run_id, by)
            raise
        return sweep_id

    def sweeps(self) -> list[SweepView]:
        """Newest first."""
        with reading(self._db) as session:
            found = rows.sweeps(session)
        return [self._view(row) for row in found]

    def sweep(self, sweep_id: int) -> SweepView:
        return self._view(self._row(sweep_id))

    def cancel(self, sweep_id: int, by: int | None) -> None:
        """Cancel every run of it that is not over."""
        for run in self.sweep(sweep_id).runs:
            if run.status not in OVER:
                self._training.cancel(run.run, by)

    def choose(self, sweep_id: int, run_id: str, by: int | None) -> None:
        """Let one finished run go on: its adapter is registered, answers the test prompts and is scored. Once is enough."""
        view = self.sweep(sweep_id)
        run = next((each for each in view.runs if each.run == run_id), None)
        if run is None:
            raise NotFound(f"The sweep has no run {run_id}. Choose one of its runs.")
        if run.status != "finished":
            raise Conflict(f"That run is {run.status}, so there is no adapter to go on with. Choose a finished one.")
        with writing(self._db) as session:
            row = session.get_one(Sweep, sweep_id)
            if run_id in row.spec.get("chosen", ())[-1:]:
                return
            row.spec = {**row.spec, "chosen": [*row.spec.get("chosen", []), run_id]}
            session.add(row)
            audit(session, time.time(), by, "sweep run chosen", sweep=sweep_id, run=run_id)

    def _view(self, row: Sweep) -> SweepView:
        with reading(self._db) as session:
            ids = rows.runs_of(session, row.id or 0)
        runs = tuple(_run(self._training.run(run_id)) for run_id in ids)
        judged = [run for run in runs if run.status == "finished" and run.validation is not None]
        best = min(judged, key=lambda run: run.validation or math.inf).run if judged else ""
        return SweepView(
            id=row.id or 0, name=str(row.spec.get("name", "")), budget=str(row.spec.get("budget", "")), runs=runs, best=best,
            chosen=(row.spec.get("chosen") or [""])[-1], over=all(run.status in OVER for run in runs), created_at=row.created_at,
        )  # fmt: skip

    def _row(self, sweep_id: int) -> Sweep:
        with reading(self._db) as session:
            row = session.get(Sweep, sweep_id)
        if row is None:
            raise NotFound(f"There is no sweep {sweep_id}. See the list of sweeps.")
        return row


def _no_numbers(grid: Mapping[str, Sequence[float]]) -> list[str]:
    bad = [f"{name}: {value} is no number to try. Write it with digits, such as 8 or 2e-4."
           for name, values in grid.items() for value in values if not math.isfinite(value)]  # fmt: skip
    broken = [rank for rank in grid.get("rank", ()) if math.isfinite(rank) and rank != int(rank)]
    return [*bad, *(f"rank is {rank}: choose whole numbers, such as 8 or 16." for rank in broken)]


def _grid_problems(grid: Mapping[str, Sequence[float]], combinations: int) -> list[str]:
    problems = [f"{name} cannot vary: choose from {', '.join(VARIED)}." for name in grid if name not in VARIED]
    if combinations < 2:
        problems.append("One combination is no sweep: give two values or more of rank, learning rate or epochs.")
    if combinations > MOST:
        problems.append(f"{combinations} combinations are more than the {MOST} a sweep may have: leave some out.")
    return problems


def _run(view: RunView) -> SweepRun:
    losses = [loss for _, loss in view.validation if math.isfinite(loss)]
    seconds = view.ended_at - view.started_at if view.ended_at and view.started_at else None
    settings = {name: _of(view.spec, name) for name in VARIED}
    return SweepRun(view.id, view.name, settings, view.status, min(losses) if losses else None, seconds)


def _of(spec: TrainSpec, name: str) -> float:
    return float(spec.lora.rank if name == "rank" else getattr(spec, name))


def _with(spec: TrainSpec, chosen: Mapping[str, float]) -> TrainSpec:
    """Alpha keeps its proportion to rank; the name says what varies."""
    rank = int(chosen["rank"])
    alpha = max(1, round(spec.lora.alpha * rank / max(spec.lora.rank, 1)))
    name = f"{spec.name[:36]}-r{rank}-lr{chosen['learning_rate']:g}-e{chosen['epochs']:g}"
    lora = spec.lora.with_(rank=rank, alpha=alpha)
    return spec.with_(name=name, lora=lora, learning_rate=float(chosen["learning_rate"]), epochs=float(chosen["epochs"]))


def differences(views: Sequence[RunView]) -> list[tuple[str, list[Any]]]:
    """The settings in which runs differ, by name, each with its values in the order of the runs. Names of adapters aside."""
    flat = [_flat(view.spec.to_dict()) for view in views]
    names = list(dict.fromkeys(name for each in flat for name in each))
    found = [(name, [each.get(name) for each in flat]) for name in names if name != "name"]
    data: tuple[str, list[Any]] = ("snapshot", [view.snapshot for view in views])
    return [(name, values) for name, values in [data, *found] if any(value != values[0] for value in values)]


def _flat(spec: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in spec.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found
