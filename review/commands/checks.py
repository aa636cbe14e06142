"""`tiebreak train --check`: what a run would learn from, token by token, and what it would take. Must not know torch."""

from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from ft.specs import TrainSpec
from review.commands.terminal import emit_json, plain, say, table
from review.services.estimates import Check
from review.services.house import House
from review.services.run_views import for_seconds, megabytes

SHOWN = 10


def show_check(house: House, snapshot: int, spec: TrainSpec, as_json: bool) -> bool:
    """Print all that is known before the start; whether nothing stands against it."""
    found = house.training.check(snapshot, spec)
    check: Check | None = None
    if not found.problems:
        typer.echo("Measuring two real steps at the longest batch …", err=True)
        check = house.estimates.wait(house.estimates.start(snapshot, spec))
    excluded = house.training.too_close(spec)
    if as_json:
        emit_json({"settings": found, "check": check, "too_close": excluded})
    else:
        _say(found.problems, found.warnings, found.notes)
        for one in excluded[:SHOWN]:
            say(f"Left out, too close to a test prompt: {one.prompt[:90]!r} asks nearly the same as {one.like[:90]!r}.")
        if len(excluded) > SHOWN:
            say(f"… and {len(excluded) - SHOWN} more like these.")
        if check:
            _say_check(check)
    return bool(check and check.fits is not False and check.state != "failed")


def _say(problems: tuple[str, ...], warnings: tuple[str, ...], notes: tuple[str, ...]) -> None:
    for title, words in (("Cannot start", problems), ("Worth a look", warnings), ("Note", notes)):
        for one in words:
            say(f"{title}: {one}")


def _say_check(check: Check) -> None:
    raw = check.raw
    columns = ("rows", "total", "trained", "mean", "median", "p95", "longest")
    rows = [(name, *(plain(found[key]) for key in columns)) for name, found in (raw.get("tokens") or {}).items()]
    table(("tokens", *columns), rows, "")
    for cut in (raw.get("cut") or [])[:SHOWN]:
        say(f"Left out, {cut['over']} tokens too long ({cut['tokens']}): {cut['question']!r}")
    if raw.get("cut_total", 0) > SHOWN:
        say(f"… and {raw['cut_total'] - SHOWN} more that are too long.")
    if raw.get("batch"):
        say("The first batch. The loss is on what is marked:")
        console = Console()
        for row in raw["batch"]:
            console.print(coloured(row), end="\n\n")
    if estimate := raw.get("estimate"):
        took, memory, disk = for_seconds(estimate["seconds"]), megabytes(estimate["peak_memory"]), megabytes(estimate["disk_needed"])
        say(f"Measured: {estimate['steps']} steps, {took} in all; peak memory {memory} of {megabytes(raw.get('memory_there', 0))}.")
        say(f"Disk: about {disk} needed, {megabytes(raw.get('disk_free', 0))} free.")
    _say((check.message,) if check.message else (), (), check.advice)


def coloured(row: list[Any]) -> Text:
    """Tokens with a loss in reverse; bars part them where there is no colour."""
    text = Text()
    for token, on in row:
        text.append(token.replace("\n", "⏎\n"), style="black on green" if on else "dim")
    return text
