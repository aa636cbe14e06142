"""Adapters as people see them: registered, in memory, in use, removed; and `reconcile`, which makes the engine follow.

The database says what is wanted; the running app's caretaker brings the engine in line, one adapter at a time, without a pause for
rows being answered. Inside the engine an adapter's name is its content hash. Must not know torch, screens or HTTP.
"""

import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from ft.adapters import Vetted, discard, install, vet
from ft.bases import BaseShape, describe_base, locate
from ft.engine import Engine, Identity
from ft.errors import BadInput, Conflict, NotFound, Refused, Unavailable, UserError
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as queries
from storage.queries.people import audit
from storage.tables import Adapter

log = logging.getLogger(__name__)
NAME = re.compile(r"[^\W_][\w .+-]{0,63}")
RESERVED = ("base", "human", "none")
IN_USE = "in_use"
IN_MEMORY = 2  # bytes in memory for each on disk: adapters saved in half precision are kept in float32


@dataclass(frozen=True, slots=True)
class AdapterView:
    """An adapter as shown. `bytes` on disk; `wanted` is asked for, `resident` is in the running app's memory."""

    id: int
    name: str
    title: str
    method: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    bytes: int
    status: str
    status_reason: str
    wanted: bool
    resident: bool
    in_use: bool
    run_id: str | None
    content_hash: str
    created_at: float


class Adapters:
    """`engine` None: rows and files only. `base` as in the settings, to vet against; `memory_mb` is the budget for adapters in memory."""

    def __init__(self, db: Database, home: Path, engine: Engine | None = None, base: str = "embedded", memory_mb: int = 2048) -> None:
        self._db, self._home, self._engine, self._base = db, home, engine, base
        self._budget = memory_mb * 2**20
        self._loading = threading.Lock()  # one adapter at a time goes in or out
        self._base_checked = ""
        self._used: dict[int, float] = {}  # adapter id -> when it last answered, for the budget

    def vet(self, path: Path) -> Vetted:
        """Judge a folder or zip; nothing is registered."""
        return vet(path, self._shape())

    def register(
        self, path: Path, name: str, by: int | None, title: str = "", run_id: str | None = None, foreign: bool = False
    ) -> AdapterView:
        """Vet, store and list an adapter. `foreign` accepts one whose record names another base of the same shape.

        Raises BadInput with every reason against it, Conflict for a name or content that is there already.
        """
        name = name.strip()
        self._check_name(name)
        shape = self._shape()
        verdict = vet(path, shape)
        facts = verdict.adapter
        if facts is None:
            raise BadInput(" ".join(verdict.reasons))
        if shape and facts.base_hash and facts.base_hash != shape.base_hash and not foreign:
            raise BadInput(
                f"It was trained on other weights than this base model has ({facts.base_hash}, not {shape.base_hash}). "
                "Train it again on this base."
            )
        with reading(self._db) as session:
            _must_be_new(session, name, facts.content_hash)
        folder = install(path, self._home / "adapters", facts)
        row = Adapter(
            name=name, title=title, folder=folder.name, content_hash=facts.content_hash, method=facts.method, rank=facts.rank,
            alpha=facts.alpha, targets=list(facts.targets), bytes=facts.bytes, base_hash=facts.base_hash, run_id=run_id, created_by=by,
        )  # fmt: skip
        with writing(self._db) as session:
            _must_be_new(session, name, facts.content_hash)
            session.add(row)
            audit(session, time.time(), by, "adapter registered", name=name, content=facts.content_hash)
        return self.adapter(name)

    def adapters(self) -> list[AdapterView]:
        """All that are registered or in quarantine, oldest first."""
        with reading(self._db) as session:
            in_use = queries.setting(session, IN_USE)
            return [_view(row, in_use) for row in queries.adapters(session)]

    def adapter(self, name: str) -> AdapterView:
        with reading(self._db) as session:
            return _view(self._row(session, name), queries.setting(session, IN_USE))

    def want(self, name: str, resident: bool, by: int | None) -> None:
        """Ask for an adapter to be in memory, or not; a running app follows within a second or two."""
        with writing(self._db) as session:
            row = self._row(session, name)
            if resident and row.status == "quarantined":
                self._try_again(row)
            row.wanted = resident
            session.add(row)
            audit(session, time.time(), by, "adapter wanted" if resident else "adapter not wanted", name=name)

    def _try_again(self, row: Adapter) -> None:
        """Out of quarantine, where its files are good for the base there is now; loading it looks closer."""
        verdict = self.vet(self._folder(row))
        if not verdict.ok:
            raise Refused(f"{row.name} stays in quarantine: {' '.join(verdict.reasons)}")
        row.status, row.status_reason = "registered", ""

    def use(self, name: str | None, by: int | None) -> None:
        """Put an adapter in use: first in chat and in new studies. None: the base alone."""
        with writing(self._db) as session:
            chosen = None
            if name is not None:
                row = self._row(session, name)
                _must_be_usable(row)
                row.wanted, chosen = True, row.id
                session.add(row)
            queries.put_setting(session, IN_USE, chosen)
            audit(session, time.time(), by, "adapter in use", name=name)

    def in_use(self) -> str | None:
        return next((view.name for view in self.adapters() if view.in_use), None)

    def remove(self, name: str, by: int | None) -> None:
        """Take it off the list and delete its files; its answers and votes stay. Raises Refused while something needs it."""
        with writing(self._db) as session:
            row = self._row(session, name)
            if queries.setting(session, IN_USE) == row.id:
                raise Refused(f"{name} is in use. Switch to another adapter or to the base first.")
            if studies := queries.unfinished_studies(session, row.id or 0):
                raise Refused(f"{name} is compared in the study {studies[0]}. Close the study first.")
            row.status, row.wanted, row.resident = "removed", False, False
            session.add(row)
            audit(session, time.time(), by, "adapter removed", name=name)
            folder = self._folder(row)
        if folder.is_dir():
            discard(folder)

    def check_base(self) -> Identity:
        """The engine's identity. Raises Conflict where answers in this data folder come from another base: they would be compared."""
        identity = self._the_engine().identity()
        if self._base_checked != identity.base_hash:
            with reading(self._db) as session:
                other = queries.answer_of_another_base(session, identity.base_hash)
            if other:
                raise Conflict(
                    f"The answers in this data folder come from another base model ({other}, now {identity.base_hash}). "
                    "Set TIEBREAK_BASE back, or TIEBREAK_HOME to a new folder."
                )
            self._base_checked = identity.base_hash
        return identity

    def bring(self, adapter_id: int) -> str:
        """Have an adapter in this process's engine now, loading it if need be. Returns its name there. Raises UserError."""
        engine = self._the_engine()
        self.check_base()
        with reading(self._db) as session:
            row = session.get(Adapter, adapter_id)
        if row is None or row.status == "removed":
            raise NotFound("That adapter has been removed. Choose another.")
        _must_be_usable(row)
        self._used[adapter_id] = time.monotonic()
        if not row.wanted:
            self._mark(adapter_id, wanted=True)  # first, or the caretaker would take it out again
        if row.content_hash not in engine.adapters():
            self._make_room(row)
            self._load(row)
        return row.content_hash

    def reconcile(self) -> None:
        """Load what is wanted, unload what is not, write down what is in memory. An adapter that is refused goes to quarantine."""
        engine = self._the_engine()
        if engine.status().state != "ready":
            return
        self.check_base()
        with reading(self._db) as session:
            rows = {row.content_hash: row for row in queries.adapters(session)}
        for row in self._within_budget([row for row in rows.values() if row.wanted and row.status == "registered"]):
            if row.content_hash not in engine.adapters():
                try:
                    self._load(row)
                except UserError as error:
                    log.warning("adapter %s was not loaded: %s", row.name, error)
        with reading(self._db) as session:
            wanted = {row.content_hash for row in queries.adapters(session) if row.wanted and row.status == "registered"}
        for internal in set(engine.adapters()) - wanted:
            with self._loading:
                engine.unload(internal)
        resident = engine.adapters()
        for row in rows.values():
            if row.id is not None and row.resident != (row.content_hash in resident):
                self._mark(row.id, resident=row.content_hash in resident)

    def _load(self, row: Adapter) -> None:
        """Into the engine; on failure quarantine (a bad adapter) or no longer wanted (no memory, no file), with the reason."""
        engine = self._the_engine()
        with self._loading:
            if row.content_hash in engine.adapters():
                return
            try:
                engine.load(row.content_hash, self._folder(row))
            except BadInput as error:
                self._mark(row.id, status="quarantined", status_reason=str(error), wanted=False, resident=False)
                raise
            except UserError as error:
                self._mark(row.id, status_reason=str(error), wanted=False)
                raise
        if row.status_reason:
            self._mark(row.id, status_reason="")

    def _within_budget(self, wanted: list[Adapter]) -> list[Adapter]:
        """Those that fit in memory, the last used first; the others are no longer wanted."""
        with reading(self._db) as session:
            in_use = queries.setting(session, IN_USE)
        kept: list[Adapter] = []
        total = 0
        for row in sorted(wanted, key=lambda row: (row.id != in_use, -self._used.get(row.id or 0, 0.0), -(row.id or 0))):
            total += row.bytes * IN_MEMORY
            if total <= self._budget or not kept:
                kept.append(row)
            else:
                self._mark(row.id, wanted=False, status_reason="It left memory to make room for others. Load it again when you need it.")
        return kept

    def _make_room(self, coming: Adapter) -> None:
        with reading(self._db) as session:
            wanted = [row for row in queries.adapters(session) if row.wanted and row.status == "registered" and row.id != coming.id]
        kept = {row.content_hash for row in self._within_budget([coming, *wanted])}
        for row in wanted:
            if row.content_hash not in kept:
                self._the_engine().unload(row.content_hash)

    def _mark(self, adapter_id: int | None, **changes: object) -> None:
        with writing(self._db) as session:
            row = session.get(Adapter, adapter_id)
            if row is not None and row.status != "removed":
                for key, value in changes.items():
                    setattr(row, key, value)
                session.add(row)

    def _the_engine(self) -> Engine:
        if self._engine is None:
            raise Unavailable("No model runs in this program. Start the app to load adapters.")
        return self._engine

    def _shape(self) -> BaseShape | None:
        folder = locate(self._base, self._home / "bases")
        return describe_base(folder, self._base) if folder else None

    def _folder(self, row: Adapter) -> Path:
        return self._home / "adapters" / row.folder

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name) or name.casefold() in RESERVED:
            shown = name[:64]
            raise BadInput(f"{shown!r} cannot be an adapter's name. Use up to 64 letters, digits, spaces and . + - _, not base or human.")

    @staticmethod
    def _row(session: Session, name: str) -> Adapter:
        row = queries.adapter_named(session, name)
        if row is None:
            raise NotFound(f"There is no adapter {name}. Look at the list of adapters for the right name.")
        return row


def _must_be_new(session: Session, name: str, content_hash: str) -> None:
    if twin := queries.adapter_of_content(session, content_hash):
        raise Conflict(f"The same adapter is registered already, as {twin.name}. Use that one.")
    if name.casefold() in queries.names_taken(session):
        raise Conflict(f"The name {name} is taken. Choose another.")


def _must_be_usable(row: Adapter) -> None:
    if row.status != "registered":
        raise Refused(f"{row.name} is in quarantine: {row.status_reason} Choose another adapter.")


def _view(row: Adapter, in_use: object) -> AdapterView:
    return AdapterView(
        id=row.id or 0, name=row.name, title=row.title, method=row.method, rank=row.rank, alpha=row.alpha, targets=tuple(row.targets),
        bytes=row.bytes, status=row.status, status_reason=row.status_reason, wanted=row.wanted, resident=row.resident,
        in_use=row.id is not None and row.id == in_use, run_id=row.run_id, content_hash=row.content_hash, created_at=row.created_at,
    )  # fmt: skip
