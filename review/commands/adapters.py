"""`tiebreak adapters`: vet, register, load, pin, switch and remove adapters while the app runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ft.errors import BadInput
from review.commands.terminal import AsJson, emit_json, house, say, table

if TYPE_CHECKING:
    from ft.adapters import AdapterFacts

app = typer.Typer(no_args_is_help=True, help="Register adapters; load, unload, pin and switch them while the app runs.")
Name = Annotated[str, typer.Argument(help="Name of the adapter, as `tiebreak adapters list` shows it.")]


@app.command("list")
def list_adapters(as_json: AsJson = False) -> None:
    """Registered adapters and where they are now."""
    with house() as open_house:
        found, in_use, memory = open_house.adapters.adapters(), open_house.adapters.in_use(), open_house.adapters.memory.state()
    if as_json:
        emit_json({"in_use": in_use, "adapters": found, "memory": memory})
        return
    where = {True: "in memory", False: "on disk"}
    rows = []
    for one in found:
        marks = ", ".join(word for word, holds in (("in use", one.name == in_use), ("pinned", one.pinned)) if holds)
        rows.append((one.name, marks, one.status, where[one.resident], one.method, one.rank, f"{one.bytes >> 10} KB"))
    empty = "No adapter yet. Train one (tiebreak train) or add a folder (tiebreak adapters add PATH --name NAME)."
    table(("adapter", "", "status", "where", "method", "rank", "size"), rows, empty)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """What an adapter is: method, rank, layers, size, base, where it came from."""
    with house() as open_house:
        found = open_house.adapters.adapter(name)
    if as_json:
        emit_json(found)
        return
    about = found.about
    rows: list[tuple[str, Any]] = [
        ("method", found.method), ("rank, alpha", f"{found.rank}, {found.alpha:g}"), ("layers", ", ".join(found.targets)),
        ("size", f"{found.bytes >> 10} KB, {about.get('dtype', '')}"), ("made for", about.get("base") or found.base_hash or "not said"),
        ("trained by run", found.run_id), ("added by", found.by or "command line"), ("status", f"{found.status} {found.status_reason}"),
        ("content", found.content_hash), *((key, value) for key, value in about.get("card", {}).items()),
        *(("part", f"{part['weight']:g} x {part['name']}") for part in about.get("parts", [])),
    ]  # fmt: skip
    table((name, ""), rows, "")


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="A PEFT adapter folder or a zip of one (safetensors only).")],
    name: Annotated[str, typer.Option(help="Its name here; a name is never overwritten.")] = "",
    foreign: Annotated[bool, typer.Option("--foreign", help="Accept it although it was trained on other weights of this shape.")] = False,
) -> None:
    """Vet an adapter and register it."""
    with house() as open_house:
        added = open_house.adapters.register(path, name or path.stem, by=None, foreign=foreign)
    facts = f"{added.method}, rank {added.rank}, {added.bytes >> 10} KB"
    say(f"{added.name} is registered: {facts}. Load it: tiebreak adapters load {added.name}")
    for note in added.about.get("notes", []):
        say(note)


@app.command()
def vet(path: Annotated[Path, typer.Argument(help="A PEFT adapter folder or a zip.")], as_json: AsJson = False) -> None:
    """Say what an adapter is, or exactly why it would be refused. Nothing is registered."""
    with house() as open_house:
        judged = open_house.adapters.vet(path)
    if as_json:
        emit_json(
            {
                "ok": judged.ok,
                "reasons": judged.reasons,
                "adapter": _facts(judged.adapter),
                "notes": judged.notes,
                "card": dict(judged.card),
            }
        )
    elif judged.ok and (facts := judged.adapter):
        say(f"Good: {facts.method}, rank {facts.rank}, alpha {facts.alpha:g}, {facts.bytes >> 10} KB, on {', '.join(facts.targets)}.")
        for note in judged.notes:
            say(note)
    else:
        say("Refused:\n" + "\n".join(f"  - {reason}" for reason in judged.reasons))
    raise typer.Exit(0 if judged.ok else 1)


def _facts(facts: "AdapterFacts | None") -> dict[str, Any] | None:
    """The adapter as other programs read it: its own fields, and the method in words."""
    from review.commands.terminal import plain

    return None if facts is None else {"method": facts.method, **plain(facts), "modules": list(facts.targets), "base": facts.base_name}


@app.command()
def load(name: Name) -> None:
    """Bring an adapter into the running app's memory, without a pause for the others."""
    with house() as open_house:
        open_house.adapters.want(name, True, by=None)
    say(f"{name} is wanted in memory; a running app brings it in within a second or two.")


@app.command()
def unload(name: Name) -> None:
    """Take an adapter out of memory. It stays registered."""
    with house() as open_house:
        open_house.adapters.want(name, False, by=None)
    say(f"{name} leaves memory once nothing uses it.")


@app.command()
def pin(name: Name) -> None:
    """Keep an adapter in memory, whatever else comes."""
    with house() as open_house:
        open_house.adapters.pin(name, True, by=None)
    say(f"{name} is pinned: it stays in memory.")


@app.command()
def unpin(name: Name) -> None:
    """Let an adapter leave memory again when others need the room."""
    with house() as open_house:
        open_house.adapters.pin(name, False, by=None)
    say(f"{name} is no longer pinned.")


@app.command()
def use(name: Annotated[str, typer.Argument(help="Adapter to put in use, or `base` for none.")]) -> None:
    """Switch the adapter in use: what chat answers with first, and what new studies compare against. `tiebreak promote` shows more."""
    with house() as open_house:
        if name == "base":
            open_house.promotions.demote(by=None)
        else:
            open_house.promotions.promote(name, by=None)
    say(f"In use now: {name}.")


@app.command()
def card(name: Name) -> None:
    """The model card of an adapter trained here, in Hugging Face's form."""
    with house() as open_house:
        say(open_house.cards.text(name))


@app.command("blend")
def blend_adapters(
    name: Annotated[str, typer.Argument(help="Name of the new adapter.")],
    parts: Annotated[list[str], typer.Argument(help="ADAPTER=WEIGHT, two of them.")],
) -> None:
    """Make a weighted sum of two adapters: a new one, exact, with both ranks together.

    Example: tiebreak adapters blend half connectpro-v1=0.5 connectpro-v2=0.5
    """
    weights: dict[str, float] = {}
    for part in parts:
        adapter, _, weight = part.rpartition("=")
        try:
            weights[adapter] = float(weight)
        except ValueError as error:
            raise BadInput(f"{part} is not ADAPTER=WEIGHT, such as connectpro-v1=0.5. Write it so.") from error
    with house() as open_house:
        made = open_house.adapters.blend(name, weights, by=None)
    say(f"{made.name} is registered: {made.title}, rank {made.rank}. Load it: tiebreak adapters load {made.name}")


@app.command()
def remove(name: Name) -> None:
    """Take an adapter off the list. Its stored answers and votes stay."""
    with house() as open_house:
        open_house.adapters.remove(name, by=None)
    say(f"{name} is removed. Its answers and votes stay.")
