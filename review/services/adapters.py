"""Adapters as people see them: vetted, registered, wanted in memory, pinned, in use, removed.

The database says what is wanted; the running app's caretaker has the engine follow (`adapter_memory`). Must not know torch, screens or
HTTP.
"""

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlmodel import Session

from ft.adapters import Vetted, discard, install, judge
from ft.bases import EMBEDDED, BaseShape, describe_base, locate
from ft.blending import Part, blend
from ft.embedded import embedded_shape
from ft.engine import Engine, Identity
from ft.errors import BadInput, Conflict, NotFound, Refused, Unavailable, UserError
from review.services.adapter_memory import IN_USE, AdapterMemory, must_be_usable, size_of
from review.services.adapter_views import AdapterView, view
from review.services.faults import reading, writing
from review.services.handed_over import as_one
from storage.database import Database
from storage.queries import arms as queries
from storage.queries.people import audit
from storage.tables import Adapter, Promotion, User

NAME = re.compile(r"[^\W_][\w .+-]{0,63}")
RESERVED = ("base", "human", "none")
MAX_REASON = 2000


class NotAccepted(BadInput):
    """An adapter that was refused, with each reason by itself."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = tuple(reasons)


class Adapters:
    """`engine` None: rows and files only. `base` as in the settings, to vet against; `memory_mb` is the budget for adapters in memory."""

    def __init__(
        self, db: Database, home: Path, engine: Engine | None = None, base: str = "embedded", memory_mb: int = 2048, strict: bool = False
    ) -> None:
        self._db, self._home, self._base, self._strict = db, home, base, strict
        self.memory = AdapterMemory(db, home / "adapters", engine, memory_mb * 2**20)
        self._base_checked = ""
        self._distrusted = ""

    def vet(self, path: Path) -> Vetted:
        """Judge a folder or zip, its numbers included; nothing is registered."""
        shape = self._shape() or (embedded_shape() if self._base == EMBEDDED else None)
        verdict = judge(path, shape)
        facts = verdict.adapter
        if facts is None:
            return verdict
        if shape is None and _last_word(facts.base_name) != _last_word(self._base):
            words = (
                f"It was made for {facts.base_name or 'a model it does not name'}, and the base model here is {self._base}, which is not "
            )
            return replace(
                verdict, ok=False, adapter=None, reasons=(f"{words}on this machine to compare. Start the app once, then try again.",)
            )
        if shape and facts.base_hash and shape.base_hash and facts.base_hash != shape.base_hash:
            words = f"It was trained on other weights of this shape ({facts.base_hash}, here {shape.base_hash}); adding it asks for a yes."
            return replace(verdict, notes=(*verdict.notes, words))
        return verdict

    def register(
        self, path: Path, name: str, by: int | None, title: str = "", run_id: str | None = None, foreign: bool = False,
        about: dict[str, Any] | None = None,
    ) -> AdapterView:  # fmt: skip
        """Vet, store and list an adapter. `foreign` accepts one whose record names another base of the same shape.

        Raises BadInput with every reason against it, Conflict for a name or content that is there already.
        """
        name = name.strip()
        self._check_name(name)
        shape = self._shape()
        verdict = self.vet(path) if self._strict else judge(path, shape)
        facts = verdict.adapter
        if facts is None:
            raise NotAccepted(verdict.reasons)
        if shape and facts.base_hash and facts.base_hash != shape.base_hash and not foreign:
            words = f"It was trained on other weights than this base model has ({facts.base_hash}, not {shape.base_hash}). "
            raise NotAccepted([words + "Train it again on this base, or say that you accept it all the same."])
        with reading(self._db) as session:
            _must_be_new(session, name, facts.content_hash)
        folder = install(path, self._home / "adapters", facts)
        row = Adapter(
            name=name, title=title, folder=folder.name, content_hash=facts.content_hash, method=facts.method, rank=facts.rank,
            alpha=facts.alpha, targets=list(facts.targets), bytes=facts.bytes, base_hash=facts.base_hash, run_id=run_id, created_by=by,
            about=_about(verdict, path) | (about or {}),
        )  # fmt: skip
        try:
            with writing(self._db) as session:
                _must_be_new(session, name, facts.content_hash)
                session.add(row)
                audit(session, time.time(), by, "adapter registered", name=name, content=facts.content_hash)
        except UserError:
            self._clear(folder, facts.content_hash)
            raise
        return self.adapter(name)

    def receive(self, paths: Sequence[str | Path], name: str, by: int | None, foreign: bool = False) -> AdapterView:
        """Register an upload: a zip, or the files of a folder. `name` "" takes the zip's. Raises NotAccepted with the reasons."""
        with as_one(paths, self._room()) as path:
            title = name.strip() or (path.stem if path.suffix.lower() == ".zip" else "")
            if not title:
                raise BadInput("The adapter has no name. Give it one; the files do not tell it.")
            return self.register(path, title, by, foreign=foreign)

    def _room(self) -> Path:
        """Where uploads and blends lie until they are judged."""
        room = self._home / "quarantine"
        room.mkdir(parents=True, exist_ok=True, mode=0o700)
        return room

    def blend(self, name: str, weights: Mapping[str, float], by: int | None) -> AdapterView:
        """A new adapter: the weighted sum of registered ones. Raises BadInput, NotFound, Conflict."""
        if len(weights) < 2:
            raise BadInput("A blend needs two different adapters. Choose another second one.")
        self._check_name(name.strip())
        parts = [Part(part, self.folder(part), weight) for part, weight in weights.items()]
        made = [{"name": part.name, "weight": part.weight, "content_hash": part.folder.name} for part in parts]
        title = " + ".join(f"{part.weight:g} × {part.name}" for part in parts)
        with tempfile.TemporaryDirectory(prefix=".blend-", dir=self._room()) as work:
            blend(parts, Path(work) / "blend")
            return self.register(Path(work) / "blend", name, by, title=title, foreign=True, about={"parts": made, "file": ""})

    def _clear(self, folder: Path, content_hash: str) -> None:
        """Another upload of that name came first: the files go, unless they are that one's."""
        with reading(self._db) as session:
            if queries.adapter_of_content(session, content_hash) is None and folder.is_dir():
                discard(folder)

    def adapters(self) -> list[AdapterView]:
        """All that are registered or in quarantine, oldest first."""
        with reading(self._db) as session:
            in_use = queries.setting(session, IN_USE)
            return [self._seen(session, row, in_use) for row in queries.adapters(session)]

    def adapter(self, name: str) -> AdapterView:
        with reading(self._db) as session:
            return self._seen(session, self._row(session, name), queries.setting(session, IN_USE))

    def _seen(self, session: Session, row: Adapter, in_use: object) -> AdapterView:
        person = session.get(User, row.created_by) if row.created_by else None
        return view(row, in_use, person.name if person else "")

    def folder(self, name: str) -> Path:
        """Where an adapter's two files are."""
        with reading(self._db) as session:
            return self._folder(self._row(session, name))

    def want(self, name: str, resident: bool, by: int | None) -> None:
        """Ask for an adapter to be in memory, or not; a running app follows within a second or two."""
        with writing(self._db) as session:
            row = self._row(session, name)
            if resident and row.status == "quarantined":
                self._try_again(row)
            if not resident and row.pinned:
                raise Refused(f"{name} is pinned, so it stays in memory. Unpin it first.")
            row.wanted = resident
            session.add(row)
            audit(session, time.time(), by, "adapter wanted" if resident else "adapter not wanted", name=name)

    def _try_again(self, row: Adapter) -> None:
        """Out of quarantine, where its files are good for the base there is now; loading it looks closer."""
        verdict = self.vet(self._folder(row))
        if not verdict.ok:
            raise Refused(f"{row.name} stays set aside: {' '.join(verdict.reasons)}")
        row.status, row.status_reason = "registered", ""

    def pin(self, name: str, pinned: bool, by: int | None) -> None:
        """Keep an adapter in memory whatever else comes, or no longer. Raises Refused where the budget has no room for it."""
        state = self.memory.state()
        with writing(self._db) as session:
            row = self._row(session, name)
            if pinned and not row.pinned:
                must_be_usable(row)
                if state.pinned + size_of(row) > state.budget:
                    raise Refused(
                        f"{name} cannot be pinned: with it the pinned adapters would need more than the {state.budget >> 20} MB set aside. "
                        "Unpin another, or raise TIEBREAK_ADAPTER_MEMORY_MB."
                    )
                row.wanted = True
            row.pinned = pinned
            session.add(row)
            audit(session, time.time(), by, "adapter pinned" if pinned else "adapter unpinned", name=name)

    def use(self, name: str | None, by: int | None, reason: str = "", evidence: dict[str, Any] | None = None) -> None:
        """Put an adapter in use: first in chat and in new studies. None: the base alone. Why, and on what evidence, is kept."""
        with writing(self._db) as session:
            chosen = None
            if name is not None:
                row = self._row(session, name)
                must_be_usable(row)
                row.wanted, chosen = True, row.id
                session.add(row)
            queries.put_setting(session, IN_USE, chosen)
            session.add(Promotion(adapter_id=chosen, evidence=evidence or {}, reason=reason.strip(), decided_by=by))
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
            row.status, row.wanted, row.resident, row.pinned = "removed", False, False, False
            session.add(row)
            audit(session, time.time(), by, "adapter removed", name=name)
            folder = self._folder(row)
        if folder.is_dir():
            discard(folder)

    def check_base(self) -> Identity:
        """The engine's identity. Raises Conflict where answers in this data folder come from another base: they would be compared."""
        identity = self.memory.engine.identity()
        if self._distrusted:
            raise Unavailable(self._distrusted)
        with reading(self._db) as session:
            now = queries.base_now(session)
        if now and now != self._base:
            raise Unavailable(f"The base model was changed to {now}, and this program still runs {self._base}. Start the app again.")
        if self._base_checked != identity.base_hash:
            with reading(self._db) as session:
                other = queries.answer_of_another_base(session, identity.base_hash)
            if other:
                raise Conflict(
                    f"The answers in this data folder come from another base model ({other}, now {identity.base_hash}). "
                    "Set TIEBREAK_BASE back, change the base for good (tiebreak base use), or set TIEBREAK_HOME to a new folder."
                )
            self._base_checked = identity.base_hash
        return identity

    def distrust(self, words: str) -> None:
        """The base in memory is not the one known here: it answers nothing more in this process. "" trusts it again."""
        self._distrusted = words

    def bring(self, adapter_id: int) -> str:
        """Have an adapter in this process's engine now, loading it if need be. Returns its name there. Raises UserError."""
        self.check_base()
        return self.memory.bring(adapter_id)

    def reconcile(self) -> None:
        """Make the engine follow what is wanted, once it is ready."""
        if self.memory.engine.status().state == "ready":
            self.check_base()
            self.memory.reconcile()

    def reconcile_when_ready(self) -> None:
        """For one command: wait for the model, then follow."""
        self.memory.engine.wait_ready(600)
        self.reconcile()

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


def _about(verdict: Vetted, path: Path) -> dict[str, Any]:
    """What is told of an adapter beside its own columns."""
    facts = verdict.adapter
    assert facts is not None
    known: dict[str, Any] = {"base": facts.base_name, "layers": facts.layers, "dtype": facts.dtype, "file": path.name[:100]}
    known |= {"notes": list(verdict.notes), "card": dict(verdict.card)}
    return {key: value for key, value in known.items() if value}


def _last_word(name: str) -> str:
    """What a base's name comes down to: its last part, without the marks of quantised copies."""
    return re.sub(r"(-bnb)?-(4|8)bit$|-gguf$", "", name.rstrip("/").rpartition("/")[2].casefold())
