"""`tiebreak base`: the base model of this data folder, and another one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table

if TYPE_CHECKING:
    from ft.base_cards import BaseCard

app = typer.Typer(no_args_is_help=True, help="The base model: show it, check another one, change it.")
Candidate = Annotated[str, typer.Argument(help="A model folder, a GGUF file, a hub id such as owner/name, or `embedded`.")]


def _rows(card: "BaseCard") -> list[tuple[str, Any]]:
    return [
        ("architecture", card.architecture), ("parameters", f"{card.parameters:,}" if card.parameters else ""),
        ("size", f"{card.bytes >> 20} MB, {card.dtype}" if card.bytes else ""), ("context", card.context_length or ""),
        ("chat template", card.template), ("licence", card.licence or "not said"), ("fingerprint", card.base_hash),
        ("on this machine", "yes" if card.here else "no"), *(("note", note) for note in card.notes),
        *(("against it", one) for one in card.reasons),
    ]  # fmt: skip


def _told(card: "BaseCard") -> dict[str, Any]:
    from review.commands.terminal import plain

    return {key: value for key, value in plain(card).items() if key != "shape"}


@app.command()
def show(as_json: AsJson = False) -> None:
    """The base model now, by its files."""
    with house() as open_house:
        found = open_house.bases.state()
    if as_json:
        emit_json({"base": _told(found.card), "running": found.running, "waiting": found.waiting, "fixed_by": found.fixed_by})
        return
    waiting = [("chosen for the next start", found.waiting)] if found.waiting else []
    table((found.card.name, ""), [*_rows(found.card), *waiting], "")


@app.command()
def check(candidate: Candidate, as_json: AsJson = False) -> None:
    """What another base is, what speaks against it, and what changing to it would mean. Changes nothing."""
    with house() as open_house:
        swap = open_house.bases.check(candidate)
    if as_json:
        told = {"ok": swap.card.ok, "reasons": swap.card.reasons, "base": _told(swap.card), "consequences": swap.consequences}
        emit_json({**told, "fits": swap.fits, "misfits": swap.misfits, "unknown": swap.unknown})
    else:
        table((swap.card.name, ""), _rows(swap.card), "")
        say("\n".join(f"  - {one}" for one in swap.consequences))
    raise typer.Exit(0 if swap.card.ok else 1)


@app.command()
def use(candidate: Candidate, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Change the base for the next start. The arms of the base before keep their answers and give no more."""
    with house() as open_house:
        swap = open_house.bases.check(candidate)
        if swap.card.ok and not yes:
            say("\n".join(f"  - {one}" for one in swap.consequences))
            typer.confirm(f"Change the base to {swap.card.name}?", abort=True)
        open_house.bases.use(candidate, by=None)
    say(f"The base is {swap.card.name} from the next start on. Start the app again.")
