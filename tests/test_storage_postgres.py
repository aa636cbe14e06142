"""The same walls on PostgreSQL, each test in a database of its own. Runs where POSTGRES_URL names a server and psycopg is installed:

POSTGRES_URL=postgresql://postgres@127.0.0.1:5432/postgres python -m pytest tests/test_storage_postgres.py
"""

import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, make_url
from sqlmodel import select

from review.services.people import People
from storage import errors
from storage.database import Database
from storage.tables import Setting, User, metadata
from tests.ballot_box import fill, vote, votes
from tests.test_storage_schema import ALLOWED, REFUSED, add_one_of_each, run_sql

SERVER = os.environ.get("POSTGRES_URL", "")
pytestmark = pytest.mark.skipif(not SERVER, reason="POSTGRES_URL names no server")
SQLITE_ONLY = ("REPLACE", "INSERT OR")


@pytest.fixture
def db() -> Iterator[Database]:
    pytest.importorskip("psycopg")
    url = make_url(SERVER).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    database = Database(url.set(database=name).render_as_string(hide_password=False), busy_seconds=1.0)
    database.migrate()
    yield database
    database.close()
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


def test_the_migrated_schema_is_the_declared_one_and_migrating_twice_a_noop(db: Database) -> None:
    db.migrate()
    with db.session() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), metadata) == []


def test_sql_cannot_change_what_is_kept_for_good(db: Database) -> None:
    add_one_of_each(db)
    for sql in [sql for sql in REFUSED if not sql.startswith(SQLITE_ONLY)]:
        with pytest.raises(errors.Immutable, match=r"instead|own"):
            run_sql(db, sql)
    with pytest.raises(errors.Immutable):
        run_sql(db, "TRUNCATE vote")
    for sql in [sql for sql in ALLOWED if not sql.startswith(SQLITE_ONLY)]:
        run_sql(db, sql)
    with pytest.raises(errors.Immutable):
        run_sql(db, "UPDATE study SET state = 'open'")


def test_no_update_is_lost_between_threads(db: Database) -> None:
    with db.write() as session:
        session.add(Setting(key="counter", value=0))
    barrier = threading.Barrier(8)

    def add_ten(_: int) -> None:
        barrier.wait()
        for _number in range(10):
            with db.write() as session:
                session.get_one(Setting, "counter").value += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_ten, range(8)))
    with db.session() as session:
        assert session.get_one(Setting, "counter").value == 80


def test_the_same_vote_sent_20_times_at_once_is_one_row(db: Database) -> None:
    assignment = fill(db, 1)[0]
    with ThreadPoolExecutor(20) as pool:
        receipts = set(pool.map(lambda _: vote(db, assignment, "key"), range(20)))
    assert {row.id for row in votes(db)} == receipts
    assert len(receipts) == 1


def test_another_writer_is_waited_for_and_then_said(db: Database) -> None:
    other = Database(db.url.render_as_string(hide_password=False))
    with other.write(), pytest.raises(errors.Locked, match="busy"), db.write():
        pass
    other.close()


def test_a_read_session_refuses_to_write_and_sees_one_moment(db: Database) -> None:
    with pytest.raises(errors.NotWritable), db.session() as session:
        session.connection().exec_driver_sql("DELETE FROM setting")
    with db.session() as session:
        assert session.exec(select(User)).all() == []
        with db.write() as writer:
            writer.add(User(name="Rita", role="reviewer"))
        assert session.exec(select(User)).all() == []


def test_people_sign_in(db: Database) -> None:
    people = People(db)
    people.add("Rita", "reviewer")
    token, _ = people.redeem(people.link("Rita"))
    assert people.who(token) == people.user("Rita")


def test_a_server_that_is_not_there_is_named() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(errors.Unreachable, match="does not answer"):
        Database("postgresql://me:hunter2@127.0.0.1:1/none").migrate()
