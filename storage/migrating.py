"""Alembic without its command line: bring an open connection's database to the newest schema, in one transaction.

The revisions lie beside this file as package data. Must not know models, screens or services.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from storage import errors, triggers

FOLDER = Path(__file__).parent / "migrations"


def config(connection: Connection | None = None) -> Config:
    made = Config()
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def migrate(connection: Connection, where: str) -> None:
    """Run what is pending, then the triggers. Foreign keys are off meanwhile, checked at the end. Raises Newer, Foreign, Damaged."""
    if connection.dialect.name == "sqlite":  # inside a transaction the pragma would do nothing
        connection.connection.dbapi_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
    with connection.begin():
        if _pending(connection, where):
            triggers.remove(connection)
            command.upgrade(config(connection), "head")
            _check_foreign_keys(connection, where)
        triggers.install(connection)


def _pending(connection: Connection, where: str) -> bool:
    script = ScriptDirectory.from_config(config())
    heads = MigrationContext.configure(connection).get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = set(heads) - known
    if unknown:
        raise errors.Newer(
            f"The database {where} was written by a newer Tiebreak (schema {', '.join(sorted(unknown))}). "
            "Update Tiebreak, or restore a backup made before the update."
        )
    tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    if tables and not heads:
        raise errors.Foreign(
            f"The database {where} belongs to another program. It was left as it is: point TIEBREAK_DATABASE at a new file."
        )
    return set(heads) != set(script.get_heads())


def _check_foreign_keys(connection: Connection, where: str) -> None:
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise errors.damaged(where, f"a row of {broken[0]} points at a missing row of {broken[2]}")
