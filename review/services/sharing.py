"""Who has the machine while a run trains: the run alone, or the run and the model that answers beside it. Measured memory decides.

A run that needs the machine alone has a file `alone` in its directory, which every app of this data folder follows: its model leaves the
memory, says when it is back, and comes back. Must not know torch, screens, or how training and answering work.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ft import runs
from ft.errors import UserError
from ft.journal import Journal
from ft.memory import SPARE, Memory
from ft.rundir import RunFiles
from ft.runs import RunState
from review.services.run_views import for_seconds

ALONE = "alone"
MUST = "must"  # it ran out of memory beside the model: it stays alone whatever is measured
AGAIN = "There was no room for it beside the model that answers, so it goes on when that has left the memory."
RESERVE = 0.03  # of all memory: where a run leaves less, the model goes
TRIED_STEPS = 2  # a run's first step has the longest batch, and validation came before it: then its peak is known
FOR_CHATS = 60.0  # seconds that a run waits for answers people are reading
LIKE = ("objective", "quantisation", "batch_size", "max_length", "packing")


class Leaving(Protocol):
    """What of an engine this needs. `leave` says whether it is away."""

    @property
    def is_open(self) -> bool: ...

    @property
    def away(self) -> str: ...

    def leave(self, words: str, patience: float) -> bool: ...

    def come_back(self) -> None: ...


class Sharing:
    """`memory` is that of the device on which both compute."""

    def __init__(self, engine: Leaving, home: Path, memory: Memory) -> None:
        self._engine, self._home, self._memory = engine, home, memory
        self._needs = 0  # bytes that the model gave back when it left

    def make_room(self, folder: Path) -> bool:
        """Before a queued run is started: whether it may start now. A model that must leave first gets a while to finish what it says."""
        if not self._engine.is_open and not self._engine.away:
            return True
        if not (folder / ALONE).exists():
            if self._engine.away or self._both_fit(runs.read(folder)):
                return self._note(folder, alone=bool(self._engine.away))
            self._note(folder, alone=True)
        return self._leave(runs.state(folder))

    def again_alone(self, folder: Path, state: RunState) -> bool:
        """Whether a run that ran out of memory, or was killed, beside the model was queued again, to have the machine to itself."""
        no_room = state.room is None or state.room < 3 * RESERVE * self._memory.total()
        wanted = (state.status == "lost" and no_room) or (state.status == "failed" and state.cause == "memory")
        if not wanted or not self._engine.is_open or (folder / ALONE).exists():
            return False
        self._note(folder, alone=True, must=True)
        try:
            runs.resume(folder)
        except (UserError, OSError):
            (folder / ALONE).unlink(missing_ok=True)
            return False
        Journal(folder).status(message=AGAIN)
        return True

    def follow(self, folder: Path | None) -> None:
        """With the run that is under way, or None: let the model leave or come back. Called every second or so by each app."""
        if folder is None:
            self._engine.come_back()
            return
        state = runs.state(folder)
        self._look(folder, state)
        if (folder / ALONE).exists():
            self._leave(state)
        else:
            self._engine.come_back()

    def _look(self, folder: Path, state: RunState) -> None:
        """By what the run itself has measured meanwhile."""
        if state.room is None or state.step < TRIED_STEPS:
            return
        reserve, alone = RESERVE * self._memory.total(), folder / ALONE
        if alone.exists() and self._needs and not _must(alone) and state.room >= SPARE * self._needs + reserve:
            alone.unlink(missing_ok=True)
        elif not alone.exists() and self._engine.is_open and state.room < reserve:
            self._note(folder, alone=True)

    def _both_fit(self, given: RunFiles) -> bool:
        """By the newest measurement of a run like this one. Without one: on a GPU no, until the run has measured itself; in main memory
        where as much again is free as this process holds, half as much more."""
        measured = self.measured(given)
        if measured is None:
            return not self._memory.on_gpu and self._memory.free() >= 1.5 * self._memory.held()
        return self._memory.free() >= SPARE * measured + RESERVE * self._memory.total()

    def measured(self, given: RunFiles) -> int | None:
        """Bytes that a run like this one was measured to need at most; None where none was measured."""
        found = [(at, peak) for at, peak, like in self._measurements() if like == _likeness(given)]
        return max(found)[1] if found else None

    def _measurements(self) -> Iterator[tuple[float, int, list[Any]]]:
        """(when, peak memory, what kind of run) of each check and each run that got so far."""
        for path in [*self._home.glob("checks/*/check.json"), *self._home.glob("runs/*/status.json")]:
            try:
                told = json.loads(path.read_bytes())
                estimate = told.get("estimate") or (told if int(told.get("step", 0)) >= TRIED_STEPS else {})
                peak = int(estimate.get("peak_memory", 0))
                if peak:
                    yield path.stat().st_mtime, peak, _likeness(runs.read(path.parent))
            except (OSError, ValueError, TypeError, AttributeError, UserError):
                continue

    def _leave(self, state: RunState) -> bool:
        before = self._memory.free() if self._engine.is_open else None
        away = self._engine.leave(words(state), FOR_CHATS)
        if away and before is not None:
            self._needs = max(self._memory.free() - before, 0)
        return away

    @staticmethod
    def _note(folder: Path, *, alone: bool, must: bool = False) -> bool:
        if alone:
            (folder / ALONE).write_text(json.dumps({MUST: must, "at": time.time()}), encoding="ascii")
        return True


def words(state: RunState) -> str:
    """What people read who would talk to the model."""
    if state.seconds_left:
        return f"Training has the machine. The model is back in {for_seconds(state.seconds_left)}; studies go on meanwhile."
    return "Training has the machine. The model is back when the run is over, or shows that both fit; studies go on meanwhile."


def _must(alone: Path) -> bool:
    try:
        return bool(json.loads(alone.read_bytes()).get(MUST))
    except (OSError, ValueError, AttributeError):
        return False


def _likeness(given: RunFiles) -> list[Any]:
    spec, lora = given.spec, given.spec.lora
    alike = [getattr(spec, name) for name in LIKE]
    return [*alike, lora.rank, lora.targets, lora.dora, given.base.model, given.base.device, given.base.dtype]
