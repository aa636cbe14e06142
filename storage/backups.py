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
    if target.exists():
        raise errors.NotWritable(f"{target} is there already and was not touched. Choose another name for the backup.")
    part = target.with_name(target.name + ".part")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        _copy(source, part)
        os.link(part, target)
    except sqlite3.Error as error:
        raise errors.sorted_out(error, str(target)) or error from error
    except OSError as error:
        raise errors.not_writable(str(target), error.strerror or str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Path, part: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")  # one file, whole without a write-ahead log beside it
        found = new.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise errors.damaged(str(part), found)
    with part.open("rb") as file:
        os.fsync(file.fileno())
