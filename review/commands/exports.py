"""`tiebreak export`: an adapter for use elsewhere, proved before it is given out."""

from pathlib import Path
from typing import Annotated

import typer

from ft.errors import BadInput, Unavailable
from review.commands.terminal import AsJson, emit_json, house, say, table
from review.services.exports import KINDS, zipped

app = typer.Typer(no_args_is_help=True, help="Exports: make, list, delete.")


@app.command()
def make(
    adapter: Annotated[str, typer.Argument(help="Name of the adapter.")],
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS)}.")] = "adapter",
    out: Annotated[Path | None, typer.Option(help="Write a zip there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export an adapter and prove it on held-out prompts; the files stay in the data folder."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise BadInput(f"{out} cannot be written: it must be a file in a folder that is there, such as {adapter}.zip.")
    with house() as open_house:
        view = open_house.exports.wait(open_house.exports.start(adapter, kind, by=None), 24 * 3600.0)
    if view.state != "finished":
        raise Unavailable(view.message)
    if out is not None:
        write_zip(view.folder, out)
    emit_json(view) if as_json else say(f"{out or view.folder}: {view.message}")


def write_zip(folder: Path, out: Path) -> None:
    """The folder's files as a zip that is there whole or not at all. Raises Unavailable."""
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(zipped(folder))
        part.replace(out)
    except OSError as error:
        raise Unavailable(f"{out} could not be written: {error.strerror or error}. The export itself is kept in {folder}.") from error
    finally:
        part.unlink(missing_ok=True)


@app.command("list")
def list_exports(as_json: AsJson = False) -> None:
    """Exports, newest first."""
    with house() as open_house:
        found = open_house.exports.exports()
    if as_json:
        emit_json(found)
        return
    rows = [(one.id, one.adapter, one.kind, one.state, one.message, one.folder if one.state == "finished" else "") for one in found]
    table(("export", "adapter", "form", "state", "proof", "files"), rows, "Nothing was exported yet: tiebreak export make NAME.")


@app.command()
def delete(export: Annotated[str, typer.Argument(help="Id of the export.")]) -> None:
    """Delete an export's files."""
    with house() as open_house:
        open_house.exports.delete(export, by=None)
    say(f"Export {export} is deleted.")
