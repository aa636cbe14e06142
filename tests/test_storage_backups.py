"""Backups: complete under writes, checked, private, and never over something that is there."""

import shutil
import stat
import threading
from pathlib import Path

import pytest

from storage import errors
from storage.database import Database
from tests.ballot_box import fill, vote, votes


@pytest.mark.hostile
def test_a_backup_under_writes_restores_with_every_earlier_vote(db: Database, tmp_path: Path) -> None:
    assignment = fill(db, 1)[0]
    acknowledged: list[str] = []
    stop = threading.Event()

    def keep_voting() -> None:
        while not stop.is_set():
            acknowledged.append(vote(db, assignment, f"key {len(acknowledged)}", len(acknowledged) + 1))

    voter = threading.Thread(target=keep_voting)
    voter.start()
    try:
        for number in range(5):
            while len(acknowledged) < 20 * (number + 1):
                stop.wait(0.01)
            before = set(acknowledged)
            target = tmp_path / f"{number}.db"
            db.backup(target)
            restored = Database(f"sqlite:///{target}")
            restored.migrate()
            assert before <= {row.id for row in votes(restored)}
            restored.close()
    finally:
        stop.set()
        voter.join()
    assert {row.id for row in votes(db)} == set(acknowledged)


@pytest.mark.hostile
def test_copying_the_file_loses_what_the_backup_keeps(db: Database, tmp_path: Path) -> None:
    """Positive control of the test above: the write-ahead log is hot."""
    assignment = fill(db, 1)[0]
    for number in range(50):
        vote(db, assignment, f"key {number}", number + 1)
    assert db.path is not None
    shutil.copy(db.path, tmp_path / "copied.db")
    db.backup(tmp_path / "backed up.db")
    counts = []
    for name in ("copied.db", "backed up.db"):
        copy = Database(f"sqlite:///{tmp_path / name}")
        copy.migrate()
        counts.append(len(votes(copy)))
    assert counts == [0, 50]


def test_a_backup_is_one_private_file(db: Database, tmp_path: Path) -> None:
    db.backup(tmp_path / "b.db")
    assert [path.name for path in tmp_path.iterdir()] == ["b.db"]
    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o600


def test_a_backup_never_overwrites(db: Database, tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    target.write_bytes(b"precious")
    with pytest.raises(errors.NotWritable, match="already"):
        db.backup(target)
    assert target.read_bytes() == b"precious"
    assert db.path is not None
    with pytest.raises(errors.NotWritable):
        db.backup(db.path)


def test_a_failed_backup_leaves_nothing_behind(db: Database, tmp_path: Path) -> None:
    assert db.path is not None
    db.close()
    db.path.write_bytes(b"junk" * 1000)
    with pytest.raises(errors.Damaged):
        db.backup(tmp_path / "b.db")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_to_nowhere_is_named_and_leaves_nothing(db: Database, tmp_path: Path) -> None:
    with pytest.raises(errors.NotWritable, match="missing folder"):
        db.backup(tmp_path / "missing folder" / "b.db")
    assert list(tmp_path.iterdir()) == []
