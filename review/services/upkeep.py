"""Upkeep: how the installation is doing, and backups of its database into the data folder.

Must not know screens or HTTP, or what the rows of the database mean.
"""

import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from ft.engine import Engine, Identity, Status
from ft.errors import BadInput, NotFound, Unavailable, UserError
from review.services.faults import reading, writing
from review.settings import Settings
from storage.database import Database
from storage.queries import people as queries
from storage.queries import totals

NAME = re.compile(r"tiebreak-[0-9]{8}-[0-9]{6}(-[0-9]+)?\.db")


@dataclass(frozen=True, slots=True)
class Health:
    """Sizes in bytes. `identity` is None until the model is ready."""

    engine: Status
    identity: Identity | None
    home: str
    disk_free: int
    disk_total: int
    database: str
    database_bytes: int
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackupView:
    name: str
    bytes: int
    made_at: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Read from the database at this moment. `jobs` by state."""

    votes: int
    jobs: dict[str, int]


class Upkeep:
    """Looks at the engine without opening it."""

    def __init__(self, settings: Settings, db: Database, engine: Engine) -> None:
        self._settings = settings
        self._db = db
        self._engine = engine

    def health(self) -> Health:
        status = self._engine.status()
        disk = shutil.disk_usage(self._settings.home)
        path = self._db.path
        return Health(
            engine=status,
            identity=self._identity() if status.state == "ready" else None,
            home=str(self._settings.home),
            disk_free=disk.free,
            disk_total=disk.total,
            database=self._db.where,
            database_bytes=sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.exists()) if path else 0,
            settings=self._settings.shown(),
        )

    def counts(self) -> Counts:
        """Raises Busy or Unavailable where the database does not answer."""
        with reading(self._db) as session:
            return Counts(totals.votes(session), totals.jobs_by_state(session))

    def back_up(self, by: int | None = None) -> BackupView:
        """Copy the live database, every acknowledged vote included, to a new file. Raises Unavailable where it does not fit."""
        folder = self._settings.folder("backups")
        stem = time.strftime("tiebreak-%Y%m%d-%H%M%S", time.gmtime())
        number, path = 1, folder / f"{stem}.db"
        while path.exists():
            number, path = number + 1, folder / f"{stem}-{number}.db"
        self._db.backup(path)
        with writing(self._db) as session:
            queries.audit(session, time.time(), by, "backup made", name=path.name)
        return _view(path)

    def backups(self) -> list[BackupView]:
        """Newest first."""
        found = [p for p in self._settings.folder("backups").iterdir() if NAME.fullmatch(p.name) and p.is_file() and not p.is_symlink()]
        return sorted((_view(path) for path in found), key=lambda view: view.made_at, reverse=True)

    def backup(self, name: str) -> Path:
        """The file of a backup. Raises BadInput for a name that cannot be one, NotFound."""
        if not NAME.fullmatch(name):
            raise BadInput("That is not the name of a backup. Choose one from the list.")
        path = self._settings.folder("backups") / name
        if path.is_symlink() or not path.is_file():
            raise NotFound(f"There is no backup {name}. Choose one from the list.")
        return path

    def _identity(self) -> Identity | None:
        try:
            return self._engine.identity()
        except Unavailable:
            return None


def _view(path: Path) -> BackupView:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"The backup {path.name} cannot be read ({error.strerror}). Look into the backups folder.") from error
    return BackupView(path.name, stat.st_size, stat.st_mtime)
