"""What can go wrong with the database, in sentences fit to show, and where each driver's errors are sorted.

    DatabaseError
    ├── BadUrl          the address cannot be used
    ├── NotWritable     the folder or the file cannot be opened or written
    ├── Unreachable     the database server does not answer, or its driver is missing
    ├── Damaged         the file is not a database, or is broken; it is kept as it is
    ├── Foreign         a sound database, but another program's
    ├── Newer           written by a newer Tiebreak
    ├── Locked          somebody else held it for too long; try again
    ├── DiskFailure     the disk failed to read or write
    │   └── DiskFull    no space left
    ├── Immutable       a trigger refused to change what is recorded for good
    └── Duplicate       a UNIQUE or PRIMARY KEY is already there

Must not know models, screens or services; `review/services/faults.py` turns these into messages for people.
"""

import errno
import sqlite3


class DatabaseError(Exception):
    """One or two sentences: what happened, and what to do."""


class BadUrl(DatabaseError):
    pass


class NotWritable(DatabaseError):
    pass


class Unreachable(DatabaseError):
    pass


class Damaged(DatabaseError):
    pass


class Foreign(DatabaseError):
    pass


class Newer(DatabaseError):
    pass


class Locked(DatabaseError):
    pass


class DiskFailure(DatabaseError):
    pass


class DiskFull(DiskFailure):
    pass


class Immutable(DatabaseError):
    pass


class Duplicate(DatabaseError):
    pass


def locked(where: str) -> Locked:
    return Locked(f"The database {where} is busy: somebody else is writing to it. Nothing was stored; try again in a moment.")


def damaged(where: str, detail: str) -> Damaged:
    return Damaged(
        f"The database {where} is damaged or not a Tiebreak database ({detail}). It was left as it is: "
        "move it aside and restore a backup, or point TIEBREAK_DATABASE at another file."
    )


def not_writable(where: str, detail: str) -> NotWritable:
    return NotWritable(
        f"The database {where} cannot be opened for writing ({detail}). Make its folder writable, or set TIEBREAK_HOME to another."
    )


def disk_full(where: str) -> DiskFull:
    return DiskFull(f"The disk that holds {where} is full. Nothing was stored; free some space and try again.")


def sorted_out(error: BaseException, where: str) -> DatabaseError | None:
    """The DatabaseError for a driver's `error` about the database `where`; None if it is none of ours (a bug, a broken CHECK)."""
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, OSError):
        return from_system(error, where)
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error, where)
    return _from_postgres(error, where)


def from_system(error: OSError, where: str) -> DatabaseError:
    return disk_full(where) if error.errno in (errno.ENOSPC, errno.EDQUOT) else not_writable(where, error.strerror or str(error))


def _from_sqlite(error: sqlite3.Error, where: str) -> DatabaseError | None:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name == "SQLITE_CONSTRAINT_TRIGGER":
        return Immutable(str(error))
    if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"):
        return Duplicate(f"That is already there ({str(error).removeprefix('UNIQUE constraint failed: ')}). Choose another.")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return locked(where)
    if name == "SQLITE_FULL":
        return disk_full(where)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(where, str(error))
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return not_writable(where, str(error))
    if name.startswith("SQLITE_IOERR"):
        return DiskFailure(f"The disk that holds {where} failed ({error}). Check the disk and its free space, then try again.")
    return None


def _from_postgres(error: BaseException, where: str) -> DatabaseError | None:
    state = getattr(error, "sqlstate", None) or ""
    if not state and type(error).__name__ not in ("OperationalError", "ConnectionTimeout"):
        return None
    if state == "23505":
        return Duplicate("That is already there. Choose another.")
    if state == "P0001":
        return Immutable(str(error).splitlines()[0])
    if state in ("55P03", "57014", "40001", "40P01"):
        return locked(where)
    if state == "53100":
        return disk_full(where)
    if state == "25006":
        return not_writable(where, str(error))
    if not state or state.startswith(("08", "28", "3D", "57P")):
        reason = " ".join(str(error).split())
        return Unreachable(f"The database server {where} does not answer ({reason}). Check that it runs and TIEBREAK_DATABASE is right.")
    return None
