"""Faults: every storage error reaches a person as a UserError of the right kind, with its sentence, in one place."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import select

from ft.errors import BadInput, Busy, Conflict, Refused, Unavailable, UserError
from review.services import faults
from storage import errors
from storage.database import Database
from storage.tables import Audit, User


def kinds(base: type[errors.DatabaseError]) -> list[type[errors.DatabaseError]]:
    return [base, *(deeper for kind in base.__subclasses__() if kind.__module__ == "storage.errors" for deeper in kinds(kind))]


@pytest.mark.parametrize("kind", kinds(errors.DatabaseError))
def test_every_storage_error_has_a_kind_for_people(kind: type[errors.DatabaseError]) -> None:
    with pytest.raises(UserError, match="what to do") as caught, faults.clear():
        raise kind("what to do")
    expected = {"Locked": 503, "Duplicate": 409, "Immutable": 403, "BadUrl": 400}.get(kind.__name__, 503)
    assert caught.value.status == expected
    assert isinstance(caught.value.__cause__, kind)


def test_other_exceptions_pass_untouched() -> None:
    for error in (BadInput("mine"), ZeroDivisionError("a bug")):
        with pytest.raises(type(error)) as caught, faults.clear():
            raise error
        assert caught.value is error


def add_twice(db: Database) -> None:
    with db.write() as session:
        session.add_all(User(name="Rita", role="reviewer") for _ in range(2))


def rewrite(db: Database) -> None:
    with db.write() as session:
        session.add(Audit(action="x"))
        session.flush()
        session.exec(select(Audit)).one().action = "y"


@pytest.mark.parametrize(("act", "kind", "underneath"), [(add_twice, Conflict, errors.Duplicate), (rewrite, Refused, errors.Immutable)])
def test_the_apps_database_speaks_to_people(
    home: Path, act: Callable[[Database], None], kind: type[UserError], underneath: type[errors.DatabaseError]
) -> None:
    db = faults.open_database(f"sqlite:///{home / 'tiebreak.db'}")
    db.migrate()
    with pytest.raises(kind) as caught:
        act(db)
    assert isinstance(caught.value, underneath), "a service may still catch the storage error"


def test_a_plain_database_speaks_to_people_through_reading_and_writing(db: Database) -> None:
    def add() -> None:
        with faults.writing(db) as session:
            session.add_all(User(name="Rita", role="reviewer") for _ in range(2))

    with pytest.raises(Conflict):
        add()
    with faults.writing(db) as session:
        session.add(User(name="Rita", role="reviewer"))
    with faults.reading(db) as session:
        assert session.exec(select(User)).one().name == "Rita"


def test_bad_addresses_junk_files_and_locks_speak_to_people(home: Path) -> None:
    with pytest.raises(BadInput, match="sqlite:////"):
        faults.open_database("mysql://x/y")
    (home / "junk.db").write_text("junk")
    with pytest.raises(Unavailable, match=r"junk\.db"):
        faults.open_database(f"sqlite:///{home / 'junk.db'}")
    db = faults.open_database(f"sqlite:///{home / 'tiebreak.db'}", busy_seconds=0.1)
    db.migrate()
    with pytest.raises(Unavailable, match="already"):
        db.backup(home / "junk.db")
    with closing(sqlite3.connect(home / "tiebreak.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="try again"), db.write():
            pass
