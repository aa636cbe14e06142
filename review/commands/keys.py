"""`tiebreak keys`: keys for programs that ask over HTTP."""

from typing import Annotated

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys for the HTTP interface (docs/http.md).")
Name = Annotated[str, typer.Argument(help="The key's name: which program has it.")]
ROLE_HELP = "engineer asks models, loads and unloads adapters and reads the figures; viewer only reads the figures."


@app.command()
def add(name: Name, role: Annotated[str, typer.Option(help=ROLE_HELP)] = "engineer", as_json: AsJson = False) -> None:
    """Make a key and print it, once: only its hash is kept."""
    with house() as open_house:
        key, made = open_house.keys.add(name, role)
    if as_json:
        emit_json({"name": made.name, "role": made.role, "key": key})
    else:
        say(f"Key of {made.name} ({made.role}), not shown again: {key}")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Every key there is or was; never the keys themselves."""
    with house() as open_house:
        found = open_house.keys.keys()
    if as_json:
        emit_json(found)
    else:
        rows = [(key.name, key.role, key.made_by or "command line", "revoked" if key.revoked else "") for key in found]
        table(("name", "role", "made by", ""), rows, "No key yet. Make one: tiebreak keys add NAME")


@app.command()
def revoke(name: Name) -> None:
    """From the next request on the key opens nothing."""
    with house() as open_house:
        open_house.keys.revoke(name, by=None)
    say(f"The key of {name} opens nothing any more.")
