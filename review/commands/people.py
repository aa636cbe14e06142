"""`tiebreak users`: who may sign in, and as what."""

import getpass
from typing import Annotated

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table

app = typer.Typer(no_args_is_help=True, help="Add people, give them sign-in links, change what they may do.")
Name = Annotated[str, typer.Argument(help="The person's name, as shown on screen.")]
ROLE_HELP = "reviewer votes blind; engineer has the lab and the boards; viewer reads the boards; admin manages people and backups."


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """Everybody who may sign in."""
    with house() as open_house:
        users = open_house.people.users()
    if as_json:
        emit_json(users)
    else:
        rows = [(u.name, u.role, "disabled" if u.disabled else "") for u in users]
        table(("name", "role", ""), rows, "Nobody yet. Add one: tiebreak users add Rita --role reviewer")


@app.command()
def add(name: Name, role: Annotated[str, typer.Option(help=ROLE_HELP)] = "reviewer", as_json: AsJson = False) -> None:
    """Add a person and print their one-time sign-in link."""
    with house() as open_house:
        user = open_house.people.add(name, role)
        address = f"{open_house.settings.address}/login/{open_house.people.link(name)}"
    if as_json:
        emit_json({"name": user.name, "role": user.role, "link": address})
    else:
        say(f"{user.name} may sign in as {user.role}. One-time link: {address}")


@app.command()
def link(name: Name, hours: Annotated[float, typer.Option(help="How long it works.")] = 24) -> None:
    """Print a fresh one-time sign-in link."""
    with house() as open_house:
        say(f"{open_house.settings.address}/login/{open_house.people.link(name, hours)}")


@app.command()
def role(name: Name, new_role: Annotated[str, typer.Argument(help=ROLE_HELP)]) -> None:
    """Change what a person may do; it holds from their next click."""
    with house() as open_house:
        open_house.people.set_role(name, new_role, by=None)
    say(f"{name} is now {new_role}.")


@app.command()
def disable(name: Name) -> None:
    """Sign a person out everywhere and refuse further sign-ins. Their votes stay."""
    with house() as open_house:
        open_house.people.disable(name, by=None)
    say(f"{name} can no longer sign in. Their votes stay.")


@app.command()
def enable(name: Name) -> None:
    """Let a disabled person sign in again."""
    with house() as open_house:
        open_house.people.enable(name, by=None)
    say(f"{name} may sign in again. Give them a link: tiebreak users link {name}")


@app.command()
def password(name: Name) -> None:
    """Set a password (asked for, never on the command line)."""
    first = getpass.getpass(f"New password for {name}: ")
    if first != getpass.getpass("Again: "):
        raise typer.BadParameter("The two passwords differ. Nothing was changed; run the command again.")
    with house() as open_house:
        open_house.people.set_password(name, first, by=None)
    say(f"{name} can now sign in with the password.")
