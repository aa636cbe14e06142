"""Where the database's errors become messages for people; no other service catches `storage.errors`.

    with writing(self._db) as session:      # instead of self._db.write()
        ...
    with reading(self._db) as session:      # instead of self._db.session()
        ...

What comes out is a `ft.errors.UserError` and still the storage error it was, so a service that has something better to say may catch
`storage.errors.Duplicate` around it. `open_database(url)` gives a Database whose own `session()`, `write()`, `migrate()` and `backup()`
do this already: the app is built with it, so that a service that forgets is clear too. Must not know screens or models.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlmodel import Session

from ft.errors import BadInput, Busy, Conflict, Refused, Unavailable, UserError
from storage import errors
from storage.database import Database


class DatabaseBusy(Busy, errors.Locked):
    pass


class AlreadyThere(Conflict, errors.Duplicate):
    pass


class KeptForGood(Refused, errors.Immutable):
    pass


class DatabaseFull(Unavailable, errors.DiskFull):
    pass


class DatabaseAddress(BadInput, errors.BadUrl):
    pass


class DatabaseUnavailable(Unavailable, errors.DatabaseError):
    pass


KINDS: tuple[tuple[type[errors.DatabaseError], type[UserError]], ...] = (
    (errors.Locked, DatabaseBusy),
    (errors.Duplicate, AlreadyThere),
    (errors.Immutable, KeptForGood),
    (errors.DiskFull, DatabaseFull),
    (errors.BadUrl, DatabaseAddress),
    (errors.DatabaseError, DatabaseUnavailable),
)


def for_people(error: errors.DatabaseError) -> UserError:
    """The same sentence as a UserError of the right kind."""
    if isinstance(error, UserError):
        return error
    return next(made for kind, made in KINDS if isinstance(error, kind))(str(error))


@contextmanager
def clear() -> Iterator[None]:
    """Turn any storage error raised in the block (or in the function it decorates) into one for people."""
    try:
        yield
    except errors.DatabaseError as error:
        raise for_people(error) from error


@contextmanager
def reading(db: Database) -> Iterator[Session]:
    with clear(), db.session() as session:
        yield session


@contextmanager
def writing(db: Database) -> Iterator[Session]:
    with clear(), db.write() as session:
        yield session


class _ClearDatabase(Database):
    @contextmanager
    def session(self) -> Iterator[Session]:
        with clear(), super().session() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with clear(), super().write() as session:
            yield session

    def migrate(self) -> None:
        with clear():
            super().migrate()

    def backup(self, path: Path) -> None:
        with clear():
            super().backup(path)


def open_database(url: str, *, busy_seconds: float = 10.0) -> Database:
    """A Database that speaks to people. Raises BadInput for an unusable address, Unavailable for an unusable file."""
    with clear():
        return _ClearDatabase(url, busy_seconds=busy_seconds)
