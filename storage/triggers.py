"""The triggers that keep what is recorded for good: votes, declared studies, arms, answers, snapshots.

One list of rules, written out for SQLite and for PostgreSQL. `install` runs at the end of every migration, inside its transaction, because
rebuilding a table (Alembic's batch mode) silently drops the triggers on it.
SQLite fires DELETE triggers for INSERT OR REPLACE only with `recursive_triggers=ON`, which `storage/database.py` sets on every connection.
Must not know models, screens or services.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from storage.tables import APPEND_ONLY

PREFIX = "keep_"


@dataclass(frozen=True, slots=True)
class Rule:
    """Refuse `event` on `table` where `condition` (SQL over OLD and NEW; empty: always) holds."""

    name: str
    table: str
    event: str  # UPDATE | DELETE | INSERT
    message: str
    condition: str = ""


def _changed(*columns: str) -> str:
    """SQL: any of the columns differs. Cast to text because PostgreSQL's json has no equality."""
    return " OR ".join(f"CAST(OLD.{c} AS TEXT) IS DISTINCT FROM CAST(NEW.{c} AS TEXT)" for c in columns)


def _always(table: str, message: str) -> Iterator[Rule]:
    yield Rule(f"{table}_update", table, "UPDATE", message)
    yield Rule(f"{table}_delete", table, "DELETE", message)


DECLARED = (
    "id", "name", "set_id", "split", "tags", "votes_per_pair", "reveal", "criteria", "scale", "checks", "reasons", "rule",
    "last_prompt_id", "created_by", "created_at",
)  # fmt: skip
PROMPT_FIXED = ("id", "set_id", "split", "instruction", "input", "history", "reference", "content_hash")
ANSWER_FIXED = (
    "id", "arm_id", "prompt_id", "text", "prompt_tokens", "new_tokens", "finish", "seconds",
    "base_hash", "adapter_hash", "template_hash", "decode_hash", "engine", "cost", "seed", "created_at",
)  # fmt: skip
EXAMPLE_FIXED = ("id", "prompt_id", "instruction", "input", "output", "split", "origin", "origin_id", "created_at")
_STATE = "(SELECT state FROM study WHERE id = {row}.study_id) <> 'draft'"


def rules() -> list[Rule]:
    """Every rule, in a fixed order."""
    found: list[Rule] = []
    for table in APPEND_ONLY:
        found += _always(table, f"{table} rows are kept for good: they are never changed or deleted. Add a new row instead.")
    for table in ("snapshot", "snapshot_example", "preference"):
        found += _always(table, "A snapshot is frozen. Make a new one instead.")
    found += _always("arm", "An arm never changes. Other settings are another arm: add one instead.")
    fixed = "What a study declares is fixed once it is open. Make a new study instead."
    found += [
        Rule("study_declared", "study", "UPDATE", fixed, f"OLD.state <> 'draft' AND ({_changed(*DECLARED)})"),
        Rule("study_back", "study", "UPDATE", "An opened study never becomes a draft again. Make a new study instead.",
             "OLD.state <> 'draft' AND NEW.state = 'draft'"),
        Rule("study_closed", "study", "UPDATE", "A closed study stays closed. Make a new study instead.",
             "OLD.state = 'closed' AND NEW.state <> 'closed'"),
        Rule("study_delete", "study", "DELETE", "An opened study is kept for good. Close it instead.", "OLD.state <> 'draft'"),
        Rule("prompt_text", "prompt", "UPDATE", "A prompt's texts and split are for life. Import a new prompt instead.",
             _changed(*PROMPT_FIXED)),
        Rule("answer_text", "answer", "UPDATE", "A stored answer never changes. Void it and store another instead.",
             _changed(*ANSWER_FIXED)),
        Rule("example_text", "example", "UPDATE", "An example's texts never change. Add another example instead.",
             _changed(*EXAMPLE_FIXED)),
        *(Rule(f"{table}_used", table, "INSERT", "A run uses this snapshot already. Make a new one instead.",
               "EXISTS (SELECT 1 FROM run WHERE run.snapshot_id = NEW.snapshot_id)") for table in ("snapshot_example", "preference")),
        Rule("vote_own", "vote", "INSERT", "A vote comes from the reviewer who was given the pair. Ask for a pair of your own.",
             "NEW.reviewer_id IS DISTINCT FROM (SELECT reviewer_id FROM assignment WHERE id = NEW.assignment_id)"),
    ]  # fmt: skip
    for table in ("study_arm", "study_reviewer"):
        found += [
            Rule(f"{table}_insert", table, "INSERT", fixed, _STATE.format(row="NEW")),
            Rule(f"{table}_update", table, "UPDATE", fixed, f"{_STATE.format(row='OLD')} OR {_STATE.format(row='NEW')}"),
            Rule(f"{table}_delete", table, "DELETE", fixed, _STATE.format(row="OLD")),
        ]
    for table in ("guess", "skip", "correction"):
        found.append(
            Rule(
                f"{table}_own",
                table,
                "INSERT",
                "It comes from the reviewer who was given the pair. Ask for a pair of your own.",
                "NEW.reviewer_id IS DISTINCT FROM (SELECT reviewer_id FROM assignment WHERE id = NEW.assignment_id)",
            )
        )
    return found


def sqlite_trigger(rule: Rule) -> str:
    """IS NOT is SQLite's IS DISTINCT FROM, which it only learned in 3.39."""
    when = f" WHEN {rule.condition.replace('IS DISTINCT FROM', 'IS NOT')}" if rule.condition else ""
    return (
        f'CREATE TRIGGER {PREFIX}{rule.name} BEFORE {rule.event} ON "{rule.table}"{when} '
        f"BEGIN SELECT RAISE(ABORT, '{_quoted(rule.message)}'); END"
    )


def postgres_trigger(rule: Rule) -> list[str]:
    """A function and its trigger. The condition sits in the function: PostgreSQL allows no subquery in WHEN."""
    name = f"{PREFIX}{rule.name}"
    row = "OLD" if rule.event == "DELETE" else "NEW"
    refuse = f"RAISE EXCEPTION '{_quoted(rule.message)}';"
    body = f"IF {rule.condition} THEN {refuse} END IF; RETURN {row};" if rule.condition else refuse
    statements = [
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f'DROP TRIGGER IF EXISTS {name} ON "{rule.table}"',
        f'CREATE TRIGGER {name} BEFORE {rule.event} ON "{rule.table}" FOR EACH ROW EXECUTE FUNCTION {name}()',
    ]
    if rule.event == "DELETE" and not rule.condition:
        statements += [
            f'DROP TRIGGER IF EXISTS {name}_all ON "{rule.table}"',
            f'CREATE TRIGGER {name}_all BEFORE TRUNCATE ON "{rule.table}" FOR EACH STATEMENT EXECUTE FUNCTION {name}()',
        ]
    return statements


def _quoted(message: str) -> str:
    return message.replace("'", "''")


def remove(connection: Connection) -> None:
    """Drop all of them, so that a migration may rewrite old rows. `install` must follow in the same transaction."""
    if connection.dialect.name == "sqlite":
        for name in _present(connection):
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        return
    for rule in rules():
        connection.exec_driver_sql(f'ALTER TABLE IF EXISTS "{rule.table}" DISABLE TRIGGER USER')


def install(connection: Connection) -> None:
    """Make the database's triggers those of `rules()`; where they are already, nothing is written."""
    if connection.dialect.name != "sqlite":
        for rule in rules():
            for statement in postgres_trigger(rule):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f'ALTER TABLE "{rule.table}" ENABLE TRIGGER USER')
        return
    wanted = {f"{PREFIX}{rule.name}": sqlite_trigger(rule) for rule in rules()}
    present = _present(connection)
    for name in present.keys() - wanted.keys():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    for name, statement in wanted.items():
        if present.get(name) == statement:
            continue
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        connection.exec_driver_sql(statement)


def _present(connection: Connection) -> dict[str, str]:
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE :prefix ESCAPE '\\'")
    return {str(name): str(sql) for name, sql in connection.execute(query, {"prefix": PREFIX.replace("_", "\\_") + "%"})}
