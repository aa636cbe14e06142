"""Database(url): one address, its connections, its transactions, its migrations and its backups.

SQLite: WAL, synchronous=FULL, foreign keys and a busy timeout on every connection, read back and asserted; `write()` is BEGIN IMMEDIATE,
so it waits for its turn instead of failing at the first clash; what it committed survives `kill -9`. PostgreSQL by changing the URL
(run on 15 by tests/test_storage_postgres.py): one advisory lock makes writers queue as they do on SQLite. What goes wrong is a
`storage.errors.DatabaseError` with a sentence fit to show, inside a transaction too.
There is no engine at module level. Must not know models, screens or services.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, exc, make_url
from sqlmodel import Session

from storage import backups, errors, migrating

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1, "cache_size": -512}
CHECKED_AT_START = 512 * 2**20  # bytes; a larger file would hold up the start for seconds
ADDRESSES = "Set TIEBREAK_DATABASE to sqlite:////folder/tiebreak.db or postgresql+psycopg://user@host/name."
POSTGRES_WRITER = 7_413_306  # any number: the advisory lock that makes writers queue as on SQLite


class ReadSession(Session):
    """A session that refuses to write, so that nothing is changed in a transaction that will never commit."""

    def flush(self, objects: Any = None) -> None:
        if self.new or self.dirty or self.deleted:
            raise RuntimeError("Database.session() only reads. Use Database.write() to change rows.")


class Database:
    """`busy_seconds` is how long a writer waits for this process's other writers, and again for other processes', before Locked.

    Creates the SQLite file and its folder. Raises BadUrl, NotWritable, Damaged.
    """

    def __init__(self, url: str, *, busy_seconds: float = 10.0) -> None:
        self.url = _read_url(url)
        self.busy_seconds = busy_seconds
        self.path = Path(self.url.database) if self.is_sqlite and self.url.database else None
        self.where = str(self.path) if self.path else self.url.render_as_string(hide_password=True)
        if self.path:
            _prepare_file(self.path)
        self._engine = self._make_engine()
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self._engine.execution_options(reads=True, **options)
        self._turn = threading.Lock()
        self._writer: int | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def migrate(self) -> None:
        """Bring schema and triggers to this program's: all or nothing, a no-op when they are. Raises Newer, Foreign, Damaged."""
        with self._clear():
            if self.path and self.path.stat().st_size <= CHECKED_AT_START:
                self.check()
            with self._engine.connect() as connection:
                connection.detach()  # its foreign keys are off: it must not go back to the pool
                migrating.migrate(connection, self.where)

    def check(self) -> None:
        """Read the whole SQLite file once. Raises Damaged."""
        if not self.path:
            return
        with self._clear(), self._reading.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            raise errors.damaged(self.where, str(found).splitlines()[-1])

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A read transaction: everything read in it is of one moment. Changing rows in it raises RuntimeError."""
        with self._clear(), ReadSession(self._reading, expire_on_commit=False) as session:
            yield session
            session.flush()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction, committed to disk at exit, rolled back on any exception. Keep it short: it is the only writer.

        Raises Locked after `busy_seconds`, Duplicate, Immutable, DiskFull; RuntimeError when this thread is in one already.
        """
        with self._my_turn(), self._clear(), Session(self._engine, expire_on_commit=False) as session:
            session.connection()  # begin now: the lock is waited for here, not at the first row
            yield session
            session.commit()

    def backup(self, path: Path) -> None:
        """Write a complete, checked copy to `path` while others go on writing. Raises NotWritable, DiskFull, Damaged."""
        if not self.path:
            raise errors.BadUrl(f"{self.where} is not a SQLite file. Back it up with pg_dump.")
        backups.back_up(self.path, Path(path))

    def close(self) -> None:
        self._engine.dispose()

    def _make_engine(self) -> Engine:
        if not self.is_sqlite:
            return self._make_postgres()
        engine = create_engine(
            self.url,
            hide_parameters=True,
            connect_args={"timeout": self.busy_seconds, "check_same_thread": False, "isolation_level": None},
            pool_size=16,
            max_overflow=112,
            pool_timeout=self.busy_seconds,
        )
        event.listen(engine, "connect", self._set_pragmas)
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "handle_error", self._sort_out)
        return engine

    def _make_postgres(self) -> Engine:
        try:
            engine = create_engine(self.url, pool_size=16, max_overflow=48, pool_timeout=self.busy_seconds, pool_pre_ping=True)
        except ImportError as error:
            raise errors.Unreachable(f"The driver for {self.where} is missing. Install it with: pip install 'psycopg[binary]'") from error
        event.listen(engine, "begin", self._begin_postgres)
        event.listen(engine, "handle_error", self._sort_out)
        return engine

    def _set_pragmas(self, connection: Any, _record: object) -> None:
        wanted = {"busy_timeout": int(self.busy_seconds * 1000)} | PRAGMAS
        try:
            for name, value in wanted.items():
                connection.execute(f"PRAGMA {name}={value}")
            found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}
        except sqlite3.Error as error:
            if sorted_out := errors.sorted_out(error, self.where):
                raise sorted_out from error
            raise
        if found != wanted:
            wrong = ", ".join(f"{name}={found[name]}" for name in wanted if found[name] != wanted[name])
            raise errors.not_writable(self.where, f"it refuses safe settings: {wrong}; is it on a network share?")

    def _begin_postgres(self, connection: Connection) -> None:
        if connection.get_execution_options().get("reads"):
            return
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(self.busy_seconds * 1000)}ms'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_WRITER})")

    def _sort_out(self, context: ExceptionContext) -> None:
        sorted_out = errors.sorted_out(context.original_exception, self.where)
        if sorted_out is not None:
            context.chained_exception = sorted_out

    @contextmanager
    def _clear(self) -> Iterator[None]:
        """What the engine's own hook does not see: the pool's timeout, and errors raised while connecting."""
        try:
            yield
        except exc.TimeoutError as error:
            raise errors.locked(self.where) from error
        except exc.DBAPIError as error:
            if error.orig and (sorted_out := errors.sorted_out(error.orig, self.where)):
                raise sorted_out from error
            raise

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Writers of this process queue here, which is fairer and quicker than SQLite's polling."""
        if self._writer == threading.get_ident():
            raise RuntimeError("Database.write() inside Database.write(): pass the open session on instead.")
        if not self._turn.acquire(timeout=self.busy_seconds):
            raise errors.locked(self.where)
        self._writer = threading.get_ident()
        try:
            yield
        finally:
            self._writer = None
            self._turn.release()


def _begin_sqlite(connection: Connection) -> None:
    reads = bool(connection.get_execution_options().get("reads"))
    connection.exec_driver_sql(f"PRAGMA query_only={int(reads)}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _read_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise errors.BadUrl(f"The database address cannot be read. {ADDRESSES}") from error
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise errors.BadUrl(f"Tiebreak cannot use a {parsed.drivername} database. {ADDRESSES}")
    if (parsed.database or ":memory:").startswith((":memory:", "file:")):
        raise errors.BadUrl(f"A database in memory would lose every vote. {ADDRESSES}")
    return parsed.set(database=str(Path(parsed.database or "").absolute()))


def _prepare_file(path: Path) -> None:
    """Make the folder (0700) and an empty file (0600), or look at the file that is there, without changing a byte of it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with path.open("rb") as file:
            start = file.read(16)
        path.chmod(0o600)
    except OSError as error:
        raise errors.from_system(error, str(path)) from error
    wal = path.with_name(path.name + "-wal")
    if not start and wal.exists() and wal.stat().st_size:
        raise errors.damaged(str(path), "the file is empty, but its write-ahead log is not")
    if start and start != b"SQLite format 3\0":
        raise errors.damaged(str(path), "it does not start like a SQLite file")
