"""Database: pragmas on every connection, transactions that wait and are whole, files that are private, errors in words."""

import os
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlmodel import Session, SQLModel, create_engine, select

from storage import errors
from storage.database import PRAGMAS, Database
from storage.tables import Audit, Setting, User
from tests.ballot_box import fill, vote, votes

ASSERTED = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1, "busy_timeout": 10_000}


def pragmas(session: Session) -> dict[str, object]:
    return {name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ASSERTED}


def stock(path: Path) -> Engine:
    """SQLModel as it comes."""
    engine = create_engine(f"sqlite:///{path}")
    SQLModel.metadata.create_all(engine)
    return engine


def increments(add_one: object, threads: int = 8, each: int = 10) -> None:
    barrier = threading.Barrier(threads)

    def work(_: int) -> None:
        barrier.wait()
        for _number in range(each):
            add_one()  # type: ignore[operator]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def test_pragmas_hold_on_every_pooled_connection_of_every_thread(db: Database) -> None:
    barrier = threading.Barrier(40)  # forty held at once are forty connections

    def look(_: int) -> dict[str, object]:
        with db.session() as session:
            found = pragmas(session)
            barrier.wait(30)
            return found

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(look, range(40))) == [ASSERTED] * 40
    with db.write() as session:
        assert pragmas(session) == ASSERTED


def test_stock_sqlmodel_lacks_the_pragmas(tmp_path: Path) -> None:
    """Positive control of the test above."""
    with Session(stock(tmp_path / "stock.db")) as session:
        found = pragmas(session)
    assert found["journal_mode"] == "delete"
    assert found["foreign_keys"] == 0
    assert found["busy_timeout"] != ASSERTED["busy_timeout"]


def test_a_connection_that_refuses_a_pragma_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRAGMAS, "journal_mode", "nonsense")
    with pytest.raises(errors.NotWritable, match="refuses safe settings: journal_mode=delete"):
        Database(f"sqlite:///{home / 'x.db'}").migrate()


def test_the_database_file_is_private_and_its_folder_too(home: Path) -> None:
    path = home / "deep" / "er" / "tiebreak.db"
    previous = os.umask(0)
    try:
        db = Database(f"sqlite:///{path}")
        db.migrate()
        with db.write() as session:
            session.add(Setting(key="a", value=1))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (path.parent, *path.parent.iterdir())}
    finally:
        os.umask(previous)
    assert modes == {"er": 0o700, "tiebreak.db": 0o600, "tiebreak.db-wal": 0o600, "tiebreak.db-shm": 0o600}


def test_a_write_holds_the_lock_from_its_start(db: Database) -> None:
    """BEGIN IMMEDIATE, before any row is touched."""
    assert db.path is not None
    with db.write(), closing(sqlite3.connect(db.path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    with db.session(), closing(sqlite3.connect(db.path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")


def test_no_update_is_lost_between_threads(db: Database) -> None:
    with db.write() as session:
        session.add(Setting(key="counter", value=0))

    def add_one() -> None:
        with db.write() as session:
            row = session.get_one(Setting, "counter")
            row.value += 1

    increments(add_one)
    with db.session() as session:
        assert session.get_one(Setting, "counter").value == 80


def test_no_update_is_lost_between_processes_either(db: Database) -> None:
    """Two Database objects share no lock in memory: only BEGIN IMMEDIATE is between them."""
    others = [Database(str(db.url)) for _ in range(4)]
    with db.write() as session:
        session.add(Setting(key="counter", value=0))

    def add_one() -> None:
        with others[threading.get_ident() % 4].write() as session:
            row = session.get_one(Setting, "counter")
            row.value += 1

    increments(add_one)
    with db.session() as session:
        assert session.get_one(Setting, "counter").value == 80


def test_stock_sqlmodel_loses_updates(tmp_path: Path) -> None:
    """Positive control of the two tests above."""
    engine = stock(tmp_path / "stock.db")
    with Session(engine) as session:
        session.add(Setting(key="counter", value=0))
        session.commit()

    def add_one() -> None:
        with Session(engine) as session:
            row = session.get_one(Setting, "counter")
            row.value += 1
            time.sleep(0.001)
            try:
                session.commit()
            except Exception:
                session.rollback()

    increments(add_one)
    with Session(engine) as session:
        assert session.get_one(Setting, "counter").value < 80


def test_a_write_that_fails_leaves_nothing(db: Database) -> None:
    def fail_after_a_row() -> None:
        with db.write() as session:
            session.add(Setting(key="a", value=1))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_a_row()
    with db.session() as session:
        assert session.exec(select(Setting)).all() == []


def test_rows_read_stay_readable_after_the_session(db: Database) -> None:
    with db.write() as session:
        row = Setting(key="a", value=[1])
        session.add(row)
    assert row.value == [1]


def test_a_read_session_sees_one_moment(db: Database) -> None:
    with db.session() as session:
        assert session.exec(select(Setting)).all() == []
        with db.write() as writer:
            writer.add(Setting(key="a", value=1))
        assert session.exec(select(Setting)).all() == []
    with db.session() as session:
        assert len(session.exec(select(Setting)).all()) == 1


def test_a_read_session_refuses_to_change_rows(db: Database) -> None:
    with pytest.raises(RuntimeError, match="only reads"), db.session() as session:
        session.add(Setting(key="a", value=1))
    with pytest.raises(errors.NotWritable), db.session() as session:
        session.connection().execute(text("INSERT INTO setting VALUES ('a', 1)"))
    with db.write() as session:
        session.add(Setting(key="b", value=1))
    with db.session() as session:
        assert [row.key for row in session.exec(select(Setting))] == ["b"]


def test_a_write_inside_a_write_is_a_bug_said_at_once(db: Database) -> None:
    with db.write(), pytest.raises(RuntimeError, match="inside"), db.write():
        pass
    with db.write() as session:
        session.add(Setting(key="a", value=1))


@contextmanager
def lock_held(path: Path, seconds: float) -> Iterator[None]:
    """Another program holds the write lock for a while."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, lambda: other.execute("ROLLBACK"))
        timer.start()
        yield
        timer.join()


@pytest.mark.hostile
def test_a_lock_held_for_a_while_is_waited_for(db: Database) -> None:
    assert db.path is not None
    with lock_held(db.path, 1.5), db.write() as session:
        session.add(Setting(key="a", value=1))
    with db.session() as session:
        assert session.get(Setting, "a") is not None


@pytest.mark.hostile
def test_a_lock_held_for_too_long_is_said_and_recovered_from(home: Path) -> None:
    db = Database(f"sqlite:///{home / 'tiebreak.db'}", busy_seconds=0.3)
    db.migrate()
    assert db.path is not None
    with lock_held(db.path, 1.5):
        with pytest.raises(errors.Locked, match=r"busy.*try again"), db.write() as session:
            session.add(Setting(key="a", value=1))
        with db.session() as session:
            assert session.get(Setting, "a") is None, "reading goes on meanwhile"
    with db.write() as session:
        session.add(Setting(key="a", value=1))


def test_a_writer_of_this_process_waits_for_too_long(home: Path) -> None:
    db = Database(f"sqlite:///{home / 'tiebreak.db'}", busy_seconds=0.2)
    db.migrate()

    def second() -> str:
        with pytest.raises(errors.Locked) as caught, db.write():
            pass
        return str(caught.value)

    with db.write(), ThreadPoolExecutor(1) as pool:
        assert "busy" in pool.submit(second).result()


@pytest.mark.hostile
@pytest.mark.parametrize("junk", [b"hello", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 9000, b"PK\x03\x04zip"])
def test_a_junk_database_is_named_and_kept(home: Path, junk: bytes) -> None:
    path = home / "tiebreak.db"
    path.write_bytes(junk)
    with pytest.raises(errors.Damaged, match="It was left as it is") as caught:
        Database(f"sqlite:///{path}").migrate()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == junk


@pytest.mark.hostile
def test_a_database_broken_in_the_middle_is_named_and_kept(db: Database) -> None:
    fill(db, 300)
    assert db.path is not None
    db.close()
    with closing(sqlite3.connect(db.path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(db.path.read_bytes())
    content[40_960:90_112] = os.urandom(49_152)
    db.path.write_bytes(content)
    with pytest.raises(errors.Damaged) as caught:
        Database(str(db.url)).migrate()
    assert str(db.path) in str(caught.value)
    assert db.path.read_bytes() == content


@pytest.mark.hostile
def test_an_emptied_file_beside_a_full_log_is_not_started_afresh(db: Database) -> None:
    """SQLite itself would delete the log, and every vote in it."""
    assert db.path is not None
    fill(db, 1)
    log = db.path.with_name(db.path.name + "-wal")
    assert log.stat().st_size
    os.truncate(db.path, 0)
    with pytest.raises(errors.Damaged, match="write-ahead log"):
        Database(str(db.url))
    assert log.stat().st_size


def test_another_programs_database_is_left_alone(home: Path) -> None:
    path = home / "tiebreak.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE accounts (id)")
    with pytest.raises(errors.Foreign, match="another program"):
        Database(f"sqlite:///{path}").migrate()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("accounts",)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "cannot be read"),
        ("tiebreak.db", "cannot be read"),
        ("mysql://root@host/db", "mysql"),
        ("nonsense://x", "nonsense"),
        ("sqlite+pysqlcipher:///x.db", "pysqlcipher"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_with_an_example(url: str, said: str) -> None:
    with pytest.raises(errors.BadUrl, match=said) as caught:
        Database(url)
    assert "sqlite:////" in str(caught.value)


def test_a_relative_address_is_that_of_the_folder_it_was_opened_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    db = Database("sqlite:///here.db")
    monkeypatch.chdir("/")
    db.migrate()
    assert db.path == home / "here.db"
    assert (home / "here.db").stat().st_size > 0


def test_passwords_in_addresses_are_not_shown() -> None:
    for url in ("postgresql://me:hunter2@127.0.0.1:1/none", "mysql://me:hunter2@host/db", "postgres//me:hunter2@host"):
        with pytest.raises(errors.DatabaseError) as caught:
            Database(url).migrate()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("folder", ["/proc/tiebreak", "/dev/null/tiebreak"])
def test_a_folder_that_cannot_be_written_is_named(folder: str) -> None:
    with pytest.raises(errors.NotWritable, match=folder):
        Database(f"sqlite:///{folder}/tiebreak.db")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_named(home: Path) -> None:
    home.chmod(0o500)
    with pytest.raises(errors.NotWritable, match="writable"):
        Database(f"sqlite:///{home / 'tiebreak.db'}")
    home.chmod(0o700)


@pytest.mark.hostile
def test_a_full_database_is_said_nothing_is_half_stored_and_it_recovers(db: Database) -> None:
    """SQLite's own limit stands for the disk's: the error is the same one."""
    with db.write() as session:
        session.connection().exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(errors.DiskFull, match=r"full.*free some space"), db.write() as session:
        session.add(Audit(action="x" * 100_000))
    with db.write() as session:
        session.connection().exec_driver_sql("PRAGMA max_page_count=1073741823")
        assert session.exec(select(Audit)).all() == []
        session.add(Audit(action="y"))


@pytest.mark.hostile
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_gives_no_false_acknowledgement(home: Path) -> None:
    """A real disk of 2 MB: votes until it is full, then again once there is space, in the same process."""
    disk = home / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 400_000)
        db = Database(f"sqlite:///{disk / 'tiebreak.db'}")
        db.migrate()
        assignment = fill(db, 1)[0]
        acknowledged = []

        def vote_until_full() -> None:
            for number in range(1, 10_000):
                acknowledged.append(vote(db, assignment, f"key {number}", number))

        with pytest.raises(errors.DiskFailure):
            vote_until_full()
        assert {row.id for row in votes(db)} == set(acknowledged)
        ballast.unlink()
        acknowledged.append(vote(db, assignment, "after", len(acknowledged) + 1))
        assert {row.id for row in votes(db)} == set(acknowledged)
        db.check()
        db.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_duplicate_is_told_from_a_broken_rule(db: Database) -> None:
    with db.write() as session:
        session.add(User(name="Rita", role="reviewer"))
    with pytest.raises(errors.Duplicate, match="already"), db.write() as session:
        session.add(User(name="Rita", role="reviewer"))
    with pytest.raises(Exception, match="CHECK") as caught, db.write() as session:
        session.add(User(name="secret name", role="root"))
    assert not isinstance(caught.value, errors.DatabaseError)
    assert "secret name" not in str(caught.value), "what was typed stays out of logs"


def test_foreign_keys_are_enforced_where_stock_sqlmodel_lets_them_dangle(db: Database, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="FOREIGN KEY"), db.write() as session:
        session.add(Audit(action="x", user_id=99))
    with Session(stock(tmp_path / "stock.db")) as session:
        session.add(Audit(action="x", user_id=99))
        session.commit()


def test_more_readers_than_the_pool_holds_get_busy_words(home: Path) -> None:
    db = Database(f"sqlite:///{home / 'tiebreak.db'}", busy_seconds=0.2)
    db.migrate()
    with ExitStack() as held:
        for _ in range(128):
            held.enter_context(db.session()).exec(select(Setting)).all()
        with pytest.raises(errors.Locked), db.session() as session:
            session.exec(select(Setting)).all()
    with db.session() as session:
        session.exec(select(Setting)).all()


def test_there_is_no_engine_at_module_level() -> None:
    import storage.database as module

    assert not [name for name, value in vars(module).items() if isinstance(value, Engine | Database)]
