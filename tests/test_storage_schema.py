"""Migrations and triggers: the migrated schema is the declared one, and what is recorded for good cannot be changed by SQL."""
# ruff: noqa: S608 (SQL put together is what is tested here)

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable
from sqlmodel import Session, SQLModel, create_engine

from storage import errors, migrating, triggers
from storage.database import Database
from storage.tables import (
    APPEND_ONLY,
    Adjudication,
    Audit,
    Correction,
    Example,
    Guess,
    IdenticalPair,
    IntegrityCheck,
    PracticeVote,
    Preference,
    Promotion,
    ReviewerDecision,
    Run,
    RunEvent,
    Skip,
    Snapshot,
    SnapshotExample,
    Study,
    User,
    metadata,
)
from tests.ballot_box import fill, vote

ROOT = Path(__file__).parents[1]


def schema(path: Path) -> dict[str, str]:
    """Name to normalised SQL of everything in the file, column and constraint order aside."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'").fetchall()
    return {
        name: "\n".join(
            sorted(re.sub(r"\s+", " ", line).strip(" ,").replace('TABLE "', "TABLE ").replace('" (', " (") for line in _lines(sql))
        )
        for name, sql in rows
    }


def _lines(sql: str) -> list[str]:
    """One column or constraint a line: SQLite appends an added column to the last one."""
    return re.sub(r"\)\s*$", "", re.sub(r",\s*(?=(\w+|\"\w+\") (VARCHAR|TEXT|JSON|FLOAT|INTEGER|BOOLEAN))", ",\n", sql)).splitlines()


def file_bytes(db: Database) -> bytes:
    db.close()
    assert db.path is not None
    return db.path.read_bytes()


def run_sql(db: Database, sql: str) -> None:
    with db.write() as session:
        session.connection().exec_driver_sql(sql)


def test_the_migrated_schema_is_the_declared_one(db: Database, tmp_path: Path) -> None:
    with db.session() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    SQLModel.metadata.create_all(engine)
    with engine.begin() as connection:
        triggers.install(connection)
    assert db.path is not None
    assert schema(db.path) == schema(tmp_path / "declared.db"), "CHECKs too, which Alembic does not compare"


def test_a_difference_from_the_declared_schema_is_seen(db: Database) -> None:
    """Positive control of the test above."""
    run_sql(db, 'ALTER TABLE "user" ADD COLUMN shoe_size INTEGER')
    with db.session() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), metadata)


def test_migrating_twice_is_a_noop(db: Database) -> None:
    fill(db, 3)
    before = file_bytes(db)
    again = Database(str(db.url))
    again.migrate()
    assert file_bytes(again) == before


def test_every_trigger_is_there(db: Database) -> None:
    with db.session() as session:
        present = set(triggers._present(session.connection()))
    assert present == {triggers.PREFIX + rule.name for rule in triggers.rules()}
    assert {f"keep_{table}_{event}" for table in APPEND_ONLY for event in ("update", "delete")} <= present
    assert len(APPEND_ONLY) == 13


def test_a_missing_or_weakened_trigger_is_put_back(db: Database) -> None:
    run_sql(db, "DROP TRIGGER keep_vote_delete")
    run_sql(db, "DROP TRIGGER keep_vote_update")
    run_sql(db, "CREATE TRIGGER keep_vote_update BEFORE UPDATE ON vote BEGIN SELECT 1; END")
    run_sql(db, "CREATE TRIGGER keep_of_old AFTER INSERT ON vote BEGIN SELECT 1; END")
    db.migrate()
    test_every_trigger_is_there(db)
    vote(db, fill(db, 1)[0], "key")
    with pytest.raises(errors.Immutable):
        run_sql(db, "UPDATE vote SET choice = 'right'")


def add_one_of_each(db: Database) -> None:
    """A row in each append-only table, an example in a snapshot and one outside, and a run that uses the snapshot."""
    first, _ = fill(db, 2)
    vote(db, first, "key")
    with db.write() as session:
        session.add(Correction(id="c", assignment_id=first, reviewer_id=1, text="better", request_key="key"))
        session.add(Audit(id=1, user_id=1, action="did"))
        session.add(IdenticalPair(study_id=1, prompt_id=1, first_answer_id=1, second_answer_id=2))
        session.add(Guess(assignment_id=first, reviewer_id=1, choice="unsure"))
        session.add(Skip(assignment_id=first, reviewer_id=1, reason="no", request_key="key"))
        session.add(PracticeVote(user_id=1, pair=1, choice="left"))
        session.add(ReviewerDecision(study_id=1, reviewer_id=1, counted=False))
        session.add(Adjudication(study_id=1, prompt_id=1, first_answer_id=1, second_answer_id=2, choice="tie"))
        session.add(IntegrityCheck(kind="base", ok=True))
        session.add(Promotion(reason="better"))
        session.add_all(Example(id=n, instruction="i", output="o", origin="imported", origin_id=str(n)) for n in (1, 2))
        session.add(Snapshot(id=1, content_hash="h"))
        session.flush()
        session.add(SnapshotExample(snapshot_id=1, example_id=1))
        session.add(Preference(snapshot_id=1, seq=1, kind="pair", prompt_id=1, chosen="a", rejected="b"))
        session.flush()
        session.add(Run(id="r", snapshot_id=1, folder="f"))
        session.flush()
        session.add(RunEvent(run_id="r", seq=1, kind="step", at=1.0))


@pytest.fixture
def filled(db: Database) -> Database:
    add_one_of_each(db)
    return db


REFUSED = [
    *[f"DELETE FROM {table}" for table in (*APPEND_ONLY, "arm", "snapshot", "snapshot_example", "preference", "study", "study_arm")],
    "UPDATE vote SET choice = 'right'",
    "UPDATE vote SET comment = comment",
    "UPDATE assignment SET left_answer_id = right_answer_id, right_answer_id = left_answer_id",
    "UPDATE correction SET text = 'x'",
    "UPDATE audit SET user_id = NULL",
    "UPDATE run_event SET data = '[]'",
    "UPDATE identical_pair SET created_at = 0",
    "REPLACE INTO vote SELECT id, assignment_id, reviewer_id, revision, 'right', criteria, reasons, comment, request_key, 0, 0 FROM vote",
    "REPLACE INTO audit VALUES (1, 1.0, NULL, 'did not', '{}')",
    "INSERT INTO vote SELECT 'x', assignment_id, 99, 2, 'right', criteria, reasons, comment, 'other', 0, 0 FROM vote",
    "UPDATE arm SET system_prompt = 'x'",
    *[f"UPDATE study SET {change}" for change in (
        "name = 'x'", "rule = '{\"ship\": 0.1}'", "votes_per_pair = 9", "split = 'train'", "reveal = 'after_vote'", "criteria = '[1]'",
        "reasons = '[1]'", "set_id = 2", "last_prompt_id = 99", "state = 'draft'",
    )],
    "INSERT INTO study_arm VALUES (1, 3)",
    "UPDATE study_arm SET arm_id = 3 WHERE arm_id = 2",
    "UPDATE prompt SET instruction = 'x'",
    "UPDATE prompt SET split = 'train'",
    "UPDATE answer SET text = 'x'",
    "UPDATE answer SET arm_id = 2 WHERE arm_id = 1",
    "UPDATE example SET output = 'x'",
    "UPDATE example SET split = 'validation'",
    "UPDATE snapshot SET content_hash = 'x'",
    "UPDATE snapshot_example SET example_id = 2",
    "INSERT INTO snapshot_example VALUES (1, 2)",
    "INSERT INTO preference SELECT 1, 2, kind, prompt_id, chosen, rejected, label, split, vote_id FROM preference",
    "INSERT INTO study_reviewer VALUES (1, 1)",
    "UPDATE guess SET choice = 'left'",
    "UPDATE adjudication SET choice = 'first'",
    "UPDATE study SET scale = 'points'",
    "UPDATE study SET tags = '[\"a\"]'",
    "UPDATE study SET checks = 0",
    "UPDATE prompt SET history = '[1]'",
    "UPDATE answer SET engine = '[1]'",
]  # fmt: skip

ALLOWED = [
    "UPDATE study SET state = 'paused'",
    "UPDATE study SET state = 'closed', closed_at = 1.0",
    "UPDATE prompt SET tags = '[\"a\"]', cluster = 'c', category = 'd'",
    "UPDATE answer SET voided_at = 1.0, void_reason = 'the base changed'",
    "UPDATE example SET state = 'approved', decided_by = 1, decided_at = 1.0",
    "UPDATE run SET status = 'running'",
    "UPDATE study SET name = name",
    "INSERT OR IGNORE INTO vote SELECT * FROM vote",
]


@pytest.mark.hostile
@pytest.mark.parametrize("sql", REFUSED)
def test_sql_cannot_change_what_is_kept_for_good(filled: Database, sql: str) -> None:
    with pytest.raises(errors.Immutable, match=r"instead|own"):
        run_sql(filled, sql)


@pytest.mark.parametrize("sql", ALLOWED)
def test_what_may_change_still_changes(filled: Database, sql: str) -> None:
    run_sql(filled, sql)


@pytest.mark.hostile
@pytest.mark.parametrize("change", ["state = 'open'", "state = 'paused'", "state = 'draft'", "rule = '[]'"])
def test_a_closed_study_stays_closed(filled: Database, change: str) -> None:
    run_sql(filled, "UPDATE study SET state = 'closed'")
    with pytest.raises(errors.Immutable):
        run_sql(filled, f"UPDATE study SET {change}")


def test_a_draft_study_is_free(db: Database) -> None:
    fill(db, 1)
    with db.write() as session:
        session.add(Study(id=2, name="draft", set_id=1))
    run_sql(db, "INSERT INTO study_arm VALUES (2, 1)")
    run_sql(db, "UPDATE study SET votes_per_pair = 3, rule = '[]' WHERE id = 2")
    run_sql(db, "UPDATE study_arm SET arm_id = 2 WHERE study_id = 2")
    run_sql(db, "DELETE FROM study_arm WHERE study_id = 2")
    run_sql(db, "DELETE FROM study WHERE id = 2")


@pytest.mark.hostile
def test_stock_sqlmodel_lets_votes_be_rewritten(tmp_path: Path) -> None:
    """Positive control: the same tables without the triggers."""
    engine = create_engine(f"sqlite:///{tmp_path / 'stock.db'}")
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        connection = session.connection()
        connection.exec_driver_sql("INSERT INTO vote VALUES ('v', 'a', 1, 1, 'left', '{}', '[]', '', 'key', 0, 0)")
        connection.exec_driver_sql("UPDATE vote SET choice = 'right'")
        assert connection.exec_driver_sql("SELECT choice FROM vote").scalar_one() == "right"
        connection.exec_driver_sql("DELETE FROM vote")


def test_a_newer_database_is_refused_and_left_alone(db: Database) -> None:
    run_sql(db, "UPDATE alembic_version SET version_num = '9999'")
    before = file_bytes(db)
    again = Database(str(db.url))
    with pytest.raises(errors.Newer, match=r"newer Tiebreak.*9999.*Update"):
        again.migrate()
    assert file_bytes(again) == before


def at_revision(path: Path, number: str) -> None:
    """An empty database as that revision left it."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(migrating.config(connection), number)
    engine.dispose()


OLD_ROWS = """
INSERT INTO user (id, name, role, password_hash, created_at) VALUES (1, 'Rita', 'reviewer', '', 1.0);
INSERT INTO prompt_set (id, name, source, created_at) VALUES (1, 'tickets', '', 1.0);
INSERT INTO prompt (id, set_id, split, instruction, input, reference, category, cluster, content_hash, line)
    VALUES (1, 1, 'test', 'why', '', '', '', '', 'h', 1);
INSERT INTO arm (id, name, kind, system_prompt, settings_hash, created_at)
    VALUES (1, 'a', 'base', '', '1', 1.0), (2, 'b', 'base', '', '2', 1.0);
INSERT INTO answer (id, arm_id, prompt_id, text, prompt_tokens, new_tokens, finish, seconds, base_hash, adapter_hash, template_hash,
    decode_hash, seed, created_at, void_reason) SELECT id, id, 1, 'text', 1, 1, 'stop', 1, '', '', '', '', 0, 1.0, '' FROM arm;
INSERT INTO study (id, name, state, set_id, split, votes_per_pair, reveal, created_at)
    VALUES (1, 's', 'open', 1, 'test', 1, 'after_close', 1.0);
INSERT INTO assignment (id, study_id, reviewer_id, prompt_id, left_answer_id, right_answer_id, pair_key, kind, marked, served_at)
    VALUES ('x', 1, 1, 1, 1, 2, '1-2', 'real', '', 1.0);
INSERT INTO vote (id, assignment_id, reviewer_id, revision, choice, comment, request_key, seconds, created_at)
    VALUES ('v', 'x', 1, 1, 'left', '', 'k', 1.0, 1.0);
INSERT INTO snapshot (id, content_hash, created_at) VALUES (1, 'h', 1.0);
INSERT INTO run (id, snapshot_id, folder, status, message, after, created_at) VALUES ('r', 1, 'f', 'finished', '', '', 1.0);
INSERT INTO run_event (run_id, seq, kind, step, at) VALUES ('r', 1, 'step', 1, 1.0);
INSERT INTO job (id, kind, status, title, total, done, message, owner, created_at) VALUES (1, 'answer', 'finished', '', 0, 0, '', '', 1.0);
"""


def test_a_database_of_the_first_schema_migrates_with_everything_in_it(home: Path) -> None:
    path = home / "tiebreak.db"
    at_revision(path, "0001")
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(OLD_ROWS)
    db = Database(f"sqlite:///{path}")
    db.migrate()
    with db.session() as session:
        connection = session.connection()
        for table in ("vote", "assignment", "run", "run_event", "job", "study", "prompt"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 1, table
        assert connection.exec_driver_sql("SELECT scale, tags, checks FROM study").one() == ("sides", "[]", 1)
    run_sql(db, "UPDATE run SET status = 'paused'")
    for wrong in ("UPDATE run SET status = '?'", "UPDATE job SET kind = '?'", "UPDATE prompt_set SET purpose = '?'"):
        with pytest.raises(Exception, match="CHECK constraint failed"):
            run_sql(db, wrong)
    test_every_trigger_is_there(db)


def test_two_programs_migrating_at_once_both_succeed(home: Path) -> None:
    code = "import sys; from storage.database import Database; Database(sys.argv[1]).migrate()"
    url = f"sqlite:///{home / 'tiebreak.db'}"
    running = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [("", 0)] * 3


@pytest.mark.hostile
@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "os._exit(1)", "raise_(OSError('no'))"])
@pytest.mark.parametrize("step", ["triggers.install", "triggers.remove", "migrating._check_foreign_keys"])
def test_a_migration_killed_midway_leaves_the_old_schema(home: Path, step: str, death: str) -> None:
    path = home / "tiebreak.db"
    code = f"""if True:
        import os, sys
        from storage import migrating, triggers
        from storage.database import Database
        def raise_(error): raise error
        def die(connection, *_):
            connection.exec_driver_sql("CREATE TABLE half_done (id)")
            {death}
        {step} = die
        Database(sys.argv[1]).migrate()"""
    assert subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], check=False, capture_output=True, cwd=ROOT).returncode
    assert schema(path) == {}
    Database(f"sqlite:///{path}").migrate()
    assert "vote" in schema(path)


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Adds a revision, with this body, after the newest."""

    def add(body: str) -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(migrating.FOLDER, folder)
        head = max(path.name[:4] for path in (folder / "versions").glob("*.py"))
        start = ["import sqlalchemy as sa", "from alembic import op", "revision = '9000'", f"down_revision = '{head}'"]
        (folder / "versions" / "9000_next.py").write_text("\n".join([*start, "def upgrade():", body]))
        monkeypatch.setattr(migrating, "FOLDER", folder)

    return add


def test_a_revision_may_rebuild_a_parent_table_and_rewrite_votes(db: Database, next_revision: Callable[[str], None]) -> None:
    """With foreign keys on, or the triggers in the way, this deletes every child row or fails."""
    vote(db, fill(db, 2)[0], "key")
    next_revision("""
    with op.batch_alter_table('assignment', recreate='always') as batch:
        batch.add_column(sa.Column('note', sa.String(), nullable=False, server_default=''))
    op.execute("UPDATE vote SET comment = 'migrated'")
    """)
    db.migrate()
    with db.session() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("SELECT count(*) FROM assignment WHERE note = ''").scalar_one() == 2
        assert connection.exec_driver_sql("SELECT comment FROM vote").scalars().all() == ["migrated"]
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1, "the pool never sees the connection without"
    test_every_trigger_is_there(db)


def test_a_revision_that_leaves_rows_dangling_is_taken_back(db: Database, next_revision: Callable[[str], None]) -> None:
    fill(db, 2)
    next_revision("    op.execute('DELETE FROM answer')")
    with pytest.raises(errors.Damaged, match="points at a missing row"):
        db.migrate()
    with db.session() as session:
        assert session.connection().exec_driver_sql("SELECT count(*) FROM answer").scalar_one() == 4
    test_every_trigger_is_there(db)


def test_migrations_are_found_from_any_folder(home: Path, tmp_path: Path) -> None:
    code = "import sys; from storage.database import Database; Database(sys.argv[1]).migrate()"
    environment = {"PYTHONPATH": str(ROOT)}
    url = f"sqlite:///{home / 'tiebreak.db'}"
    subprocess.run([sys.executable, "-c", code, url], check=True, cwd=tmp_path, env=environment)
    assert "vote" in schema(home / "tiebreak.db")


def test_checks_live_in_sql(db: Database) -> None:
    rows = [User(name="x", role="root"), Study(name="x", set_id=1, votes_per_pair=0), Study(name="y", set_id=1, state="?")]
    for row in rows:
        with pytest.raises(Exception, match="CHECK constraint failed"), db.write() as session:
            session.add(row)


def test_tables_and_triggers_can_be_written_for_postgres() -> None:
    """Not run on a server: only that every statement comes out, and that conditions sit in functions."""
    dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect)).strip().startswith("CREATE TABLE")
    for rule in triggers.rules():
        function, _, trigger, *_ = triggers.postgres_trigger(rule)
        assert rule.condition in function
        assert "WHEN" not in trigger
