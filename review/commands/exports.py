"""`tiebreak export`: an adapter for use elsewhere, proved before it is given out."""

from pathlib import Path
from typing import Annotated

import typer

from ft.errors import Unavailable
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
    with house() as open_house:
        view = open_house.exports.wait(open_house.exports.start(adapter, kind, by=None), 24 * 3600.0)
        if view.state != "finished":
            raise Unavailable(view.message)
        if out is not None:
            with out.open("wb") as file:
                file.writelines(zipped(view.folder))
    emit_json(view) if as_json else say(f"{out or view.folder}: {view.message}")


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
