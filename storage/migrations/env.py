"""What Alembic runs: every pending revision, in the one transaction that `storage/migrating.py` opened.

There is no alembic.ini and no other way in: the connection comes from there, foreign keys off, write lock held.
"""

from typing import Any, Literal

from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from storage.tables import metadata


def plain_strings(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """SQLModel's string type is SQLAlchemy's under another name: revisions do without SQLModel."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


def run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,
        compare_type=True,
        render_item=plain_strings,
        compare_server_default=True,
    )
    context.run_migrations()


run()
