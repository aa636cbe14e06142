"""`tiebreak arms`: what answers, and models on other servers as arms."""

from typing import Annotated

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table

app = typer.Typer(no_args_is_help=True, help="List what answers; add a model on another server as an arm.")


@app.command("list")
def list_arms(as_json: AsJson = False) -> None:
    """Every arm: the base, adapters, people, remote models, and those of studies from elsewhere."""
    with house() as open_house:
        found = open_house.answers.arms()
        costs = {arm.name: open_house.remotes.cost(arm.name) for arm in found if arm.kind == "remote"}
    if as_json:
        emit_json([{"name": a.name, "kind": a.kind, "title": a.title, "usable": a.usable, "cost": costs.get(a.name)} for a in found])
        return
    spent = {name: f"{cost:.4f}" for name, cost in costs.items()}
    rows = [(a.name, a.kind, a.title, "" if a.usable else "cannot answer", spent.get(a.name)) for a in found]
    table(("name", "kind", "", "", "cost so far"), rows, "No arm yet. Start the app once.")


@app.command("add-remote")
def add_remote(
    name: Annotated[str, typer.Argument(help="Its name here; a name is never used twice.")],
    url: Annotated[str, typer.Option(help="The server's address, such as https://api.example.com/v1.")],
    model: Annotated[str, typer.Option(help="The model's name on that server.")],
    key_env: Annotated[str, typer.Option(help="Name of the environment variable that holds the key.")] = "",
    price_in: Annotated[float, typer.Option(help="Price of a million tokens read.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million tokens written.")] = 0.0,
    system: Annotated[str, typer.Option(help="Its system text. Default: the base's.")] = "",
) -> None:
    """Add a model on another server as an arm. What it is asked leaves this machine.

    Example: tiebreak arms add-remote hosted --url https://api.example.com/v1 --model large --key-env EXAMPLE_KEY
    """
    with house() as open_house:
        open_house.remotes.add(name, url, model, key_env, price_in, price_out, system)
    say(f"{name} is an arm now. Let it answer a set: tiebreak answer SET --arm {name}. The prompts go to that server.")
