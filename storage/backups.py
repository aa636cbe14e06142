"""A copy of a live SQLite file, complete and checked: written beside its place, then renamed into it.

Copying the file itself while the write-ahead log is hot loses rows; SQLite's backup API does not. Must not know the tables.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from storage import errors


def back_up(source: Path, target: Path) -> None:
    """Raises NotWritable (also where `target` exists already: no backup is overwritten), DiskFull, Damaged."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # the name is taken: nobody else can
    except FileExistsError as error:
        raise errors.NotWritable(f"{target} is there already and was not touched. Choose another name for the backup.") from error
    except OSError as error:
        raise errors.from_system(error, str(target)) from error
    part = target.with_name(target.name + ".part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _copy(source, part)
        part.replace(target)
    except BaseException as error:
        for left in (target, part, part.with_name(part.name + "-journal")):
            left.unlink(missing_ok=True)
        if sorted_out := errors.sorted_out(error, str(target)):
            raise sorted_out from error
        raise
    _sync(target.parent)


def _copy(source: Path, part: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")  # one file, whole without a write-ahead log beside it
        found = new.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise errors.damaged(str(part), found)
    _sync(part)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
