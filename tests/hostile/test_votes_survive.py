"""T31, T24 and T32 at the level of the database: an acknowledged vote outlives `kill -9`, and one intended vote is one row.

The few kills of an everyday run become 20 kills and 5,000 votes with TIEBREAK_FULL=1.
"""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from storage.database import Database
from tests.ballot_box import fill, vote, votes

pytestmark = pytest.mark.hostile
ROOT = Path(__file__).parents[2]
FULL = os.environ.get("TIEBREAK_FULL") == "1"
KILLS, VOTES = (20, 250) if FULL else (5, 40)  # kills, and the fewest acknowledged votes before each


def voter(db: Database, assignment: str, prefix: str, eager: bool = False, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "tests.hostile.voter", str(db.url), assignment, prefix, str(int(eager))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)


def acknowledged_until_killed(process: subprocess.Popen[str], at_least: int) -> set[str]:
    """Ids it printed whole: at least so many, then whatever else came before the kill hit."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(at_least)]
    time.sleep(random.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    return {line.split()[0] for line in lines if line.endswith("\n")}


def test_acknowledged_votes_survive_kill_9(db: Database) -> None:
    assignment = fill(db, 1)[0]
    db.close()
    acknowledged: set[str] = set()
    for kill in range(KILLS):
        acknowledged |= acknowledged_until_killed(voter(db, assignment, f"kill {kill}"), VOTES)
        start = time.monotonic()
        db.migrate()
        stored = votes(db)
        assert time.monotonic() - start < 10
        assert acknowledged <= {row.id for row in stored}
        assert len(stored) - len(acknowledged) <= 4 * (kill + 1), "stored but not said: at most one a thread and kill"
        with db.session() as session:
            assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
            assert session.connection().exec_driver_sql("PRAGMA foreign_key_check").all() == []
        db.close()
    assert len(acknowledged) >= KILLS * VOTES


def test_acknowledging_before_storing_is_noticed(db: Database) -> None:
    """Positive control: a program that speaks too early loses votes under the same kills."""
    assignment = fill(db, 1)[0]
    lost = 0
    for kill in range(20):
        acknowledged = acknowledged_until_killed(voter(db, assignment, f"kill {kill}", eager=True), VOTES)
        lost += len(acknowledged - {row.id for row in votes(db)})
        if lost:
            break
    assert lost > 0


def test_every_acknowledged_vote_was_synced_to_disk_first(db: Database, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt install strace")
    assignment = fill(db, 1)[0]
    trace = tmp_path / "trace"
    process = voter(db, assignment, "traced", False, "strace", "-f", "-qq", "-e", "trace=fdatasync,fsync", "-o", str(trace), "-I1")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(30)]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert all(lines)
    assert len(re.findall(r"f(?:data)?sync\(\d+\)", trace.read_text())) >= 30


def test_the_same_vote_sent_20_times_at_once_is_one_row(db: Database) -> None:
    assignments = fill(db, 5)
    for assignment in assignments:
        with ThreadPoolExecutor(20) as pool:
            receipts = set(pool.map(lambda _, a=assignment: vote(db, a, f"key of {a}"), range(20)))
        assert len(receipts) == 1
        assert vote(db, assignment, f"key of {assignment}") in receipts, "a replay much later"
    assert len(votes(db)) == 5


def test_a_table_without_its_unique_key_stores_doubles(home: Path) -> None:
    """Positive control: the constraint is what holds, not the timing."""
    with closing(sqlite3.connect(home / "stock.db")) as raw:
        raw.execute("CREATE TABLE vote (id PRIMARY KEY, request_key)")
        raw.executemany("INSERT INTO vote VALUES (?, 'same key')", [(n,) for n in range(20)])
        assert raw.execute("SELECT count(*) FROM vote").fetchone() == (20,)
