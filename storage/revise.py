"""`python -m storage.revise "what changes"`: write the Alembic revision that turns the newest schema into the declared tables.

For developers, run after a change of `storage/tables.py`; read the file before committing it. New NOT NULL columns need a server default.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from storage import migrating


def revise(message: str) -> Path:
    """The new file, made against a fresh database in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/tiebreak.db")
        script = ScriptDirectory.from_config(migrating.config())
        number = f"{len(list(script.walk_revisions())) + 1:04d}"
        with engine.begin() as connection:  # no triggers: those of the declared tables may speak of tables still to come
            config = migrating.config(connection)
            if script.get_heads():
                command.upgrade(config, "head")
            made = command.revision(config, message, autogenerate=True, rev_id=number)
        engine.dispose()
    path = Path(made.path)  # type: ignore[union-attr]
    path.write_text("".join(line for line in path.open() if "# ###" not in line))
    for tidy in (["format"], ["check", "--fix"]):
        subprocess.run([sys.executable, "-m", "ruff", *tidy, "--quiet", str(path)], check=True)
    return path


if __name__ == "__main__":
    sys.stdout.write(f"{revise(' '.join(sys.argv[1:]) or 'change')}\n")
