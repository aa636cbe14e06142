"""Which adapters are in the engine's memory: brought in when needed, the least recently used out first, pinned ones never.

The database says what is wanted; `reconcile` makes the engine follow, one adapter at a time, without a pause for rows being answered.
Inside the engine an adapter's name is its content hash. Must not know torch, screens or HTTP.
"""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ft.engine import Check, Engine
from ft.errors import BadInput, NotFound, Refused, Unavailable, UserError
from review.services import proofs
from review.services.adapter_views import MemoryView
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Adapter

log = logging.getLogger(__name__)
IN_USE = "in_use"
IN_MEMORY = 1.2  # bytes in memory for each on disk: kept in the type of the file, and side by side with others for the mix
LEAVES = 2.0  # seconds to wait for an adapter to leave; one in use may take minutes
LEFT = "It left memory to make room for others. Load it again when you need it."


class AdapterMemory:
    """`engine` None: nothing can be loaded in this program. `budget` in bytes."""

    def __init__(self, db: Database, folder: Path, engine: Engine | None, budget: int) -> None:
        self._db, self._folder, self._engine, self.budget = db, folder, engine, budget
        self._loading = threading.Lock()  # one adapter at a time comes in
        self._used: dict[int, float] = {}  # adapter id -> when it last answered, for the budget

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise Unavailable("No model runs in this program. Start the app to load adapters.")
        return self._engine

    def bring(self, adapter_id: int) -> str:
        """Have an adapter in this process's engine now, loading it if need be. Returns its name there. Raises UserError."""
        engine = self.engine
        with reading(self._db) as session:
            row = session.get(Adapter, adapter_id)
        if row is None or row.status == "removed":
            raise NotFound("That adapter has been removed. Choose another.")
        must_be_usable(row)
        self._used[adapter_id] = time.monotonic()
        if row.content_hash not in engine.adapters():
            self._make_room(row)
            self.mark(adapter_id, wanted=True)  # first, or the caretaker would take it out again
            self.load(row)
        elif not row.wanted:
            self.mark(adapter_id, wanted=True)
        return row.content_hash

    def reconcile(self) -> None:
        """Load what is wanted, unload what is not, write down what is in memory. An adapter that is refused goes to quarantine."""
        engine = self.engine
        with reading(self._db) as session:
            rows = {row.content_hash: row for row in queries.adapters(session)}
        for row in self._within_budget(_wanted(rows.values())):
            if row.content_hash not in engine.adapters():
                try:
                    self.load(row)
                except UserError as error:
                    log.warning("adapter %s was not loaded: %s", row.name, error)
        with reading(self._db) as session:
            wanted = {row.content_hash for row in _wanted(queries.adapters(session))}
        for internal in set(engine.adapters()) - wanted:
            self._unload(internal, rows.get(internal))
        resident = engine.adapters()
        for row in rows.values():
            if row.id is not None and row.resident != (row.content_hash in resident):
                self.mark(row.id, resident=row.content_hash in resident)

    def load(self, row: Adapter) -> None:
        """Into the engine; on failure quarantine (a bad adapter) or no longer wanted (no memory, no file), with the reason."""
        engine = self.engine
        with self._loading:
            if row.content_hash in engine.adapters():
                return
            try:
                engine.load(row.content_hash, self._folder / row.folder)
            except BadInput as error:
                proofs.record(self._db, Check("adapter", False, str(error)), row)
                self.mark(row.id, status="quarantined", status_reason=str(error), wanted=False, resident=False)
                raise
            except UserError as error:
                self._failed(row, str(error))
                raise
            if not self.look_at(row):
                raise Refused(f"{row.name} was set aside: beside others it does not compute what it does alone. See the page Integrity.")
        if row.status_reason:
            self.mark(row.id, status_reason="")

    def _failed(self, row: Adapter, words: str) -> None:
        """No fault of the adapter, unless the base was good before and is not any more."""
        if self.engine.status().state == "failed":
            proofs.record(self._db, Check("base", False, words), row)
            self.mark(row.id, status="quarantined", status_reason=words)
        self.mark(row.id, status_reason=words, wanted=False)

    def look_at(self, row: Adapter) -> bool:
        """Check an adapter in memory and write it down; a bad one is taken out."""
        try:
            check = self.engine.check(row.content_hash)
        except Unavailable:
            return True  # it left meanwhile, or the engine stopped, which is said elsewhere
        proofs.record(self._db, check, row)
        if not check.ok:
            log.error("adapter %s was set aside: %s", row.name, check.words)
            self.engine.unload(row.content_hash)
        return check.ok

    def state(self) -> MemoryView:
        with reading(self._db) as session:
            wanted = _wanted(queries.adapters(session))
        return MemoryView(sum(map(size_of, wanted)), sum(size_of(row) for row in wanted if row.pinned), self.budget)

    def mark(self, adapter_id: int | None, **changes: object) -> None:
        with writing(self._db) as session:
            row = session.get(Adapter, adapter_id)
            if row is not None and row.status != "removed":
                for key, value in changes.items():
                    setattr(row, key, value)
                session.add(row)

    def _unload(self, internal: str, row: Adapter | None) -> None:
        """It is asked for no more at once; it leaves when its last row has ended, which nobody else waits for."""
        leaving = threading.Thread(target=self._let_go, args=(internal, row), name="adapter-leaves", daemon=True)
        leaving.start()
        leaving.join(LEAVES)

    def _let_go(self, internal: str, row: Adapter | None) -> None:
        with suppress(Unavailable):  # an engine that is being stopped
            self.engine.unload(internal)
            check = self.engine.check()
            if not check.ok:
                proofs.record(self._db, check, row)

    def _within_budget(self, wanted: list[Adapter]) -> list[Adapter]:
        """Those that fit in memory: the pinned ones, the one in use, then the last used; the others are no longer wanted."""
        with reading(self._db) as session:
            in_use = queries.setting(session, IN_USE)
        kept: list[Adapter] = []
        total = 0
        for row in sorted(wanted, key=lambda row: (not row.pinned, row.id != in_use, -self._used.get(row.id or 0, 0.0), -(row.id or 0))):
            if row.pinned or not kept or total + size_of(row) <= self.budget:
                total += size_of(row)
                kept.append(row)
            else:
                self.mark(row.id, wanted=False, status_reason=LEFT)
        return kept

    def _make_room(self, coming: Adapter) -> None:
        """Unload the least recently used until `coming` fits. Raises Unavailable where the pinned ones leave no room for it."""
        with reading(self._db) as session:
            wanted = [row for row in _wanted(queries.adapters(session)) if row.id != coming.id]
        pinned = sum(size_of(row) for row in wanted if row.pinned)
        if pinned and not coming.pinned and pinned + size_of(coming) > self.budget:
            raise Unavailable(
                f"{coming.name} needs {size_of(coming) >> 20} MB of memory, and pinned adapters leave {max(0, self.budget - pinned) >> 20} "
                "MB of it. Unpin one, or raise TIEBREAK_ADAPTER_MEMORY_MB."
            )
        kept = {row.content_hash for row in self._within_budget([coming, *wanted])}
        for row in wanted:
            if row.content_hash not in kept:
                self._unload(row.content_hash, row)


def _wanted(rows: Iterable[Adapter]) -> list[Adapter]:
    return [row for row in rows if row.wanted and row.status == "registered"]


def size_of(row: Adapter) -> int:
    return int(row.bytes * IN_MEMORY)


def must_be_usable(row: Adapter) -> None:
    if row.status != "registered":
        raise Refused(f"{row.name} is set aside: {row.status_reason} Choose another adapter.")
