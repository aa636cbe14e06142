"""`tiebreak sweep`: a small grid of runs, its budget told first, the best on validation proposed; and `tiebreak compare` for runs."""

from pathlib import Path
from typing import Annotated

import typer

from ft.errors import BadInput
from review.commands.terminal import AsJson, emit_json, house, say, table
from review.commands.training import read_spec
from review.services.sweeps import differences

app = typer.Typer(no_args_is_help=True, help="Sweeps: plan, start, list, choose, cancel.")
SpecFile = Annotated[Path | None, typer.Argument(metavar="[SPEC.json]", help="A TrainSpec as JSON that the grid varies.")]
Ranks = Annotated[str, typer.Option("--ranks", help="Numbers with commas, such as 8,16.")]
Rates = Annotated[str, typer.Option("--learning-rates", help="Numbers with commas, such as 1e-4,2e-4.")]
Epochs = Annotated[str, typer.Option("--epochs", help="Numbers with commas, such as 1,3.")]
SweepId = Annotated[int, typer.Argument(help="Number of the sweep, as `tiebreak sweep list` shows it.")]


def grid(ranks: str, rates: str, epochs: str) -> dict[str, list[float]]:
    """Raises BadInput for what is not a number."""
    found = {}
    for name, text in (("rank", ranks), ("learning_rate", rates), ("epochs", epochs)):
        try:
            found[name] = [float(word) for word in text.replace(",", " ").split()]
        except ValueError as error:
            raise BadInput(f"{name}: {text!r} is not a list of numbers. Write them with commas, such as 8,16.") from error
    return found


@app.command()
def plan(file: SpecFile = None, ranks: Ranks = "", learning_rates: Rates = "", epochs: Epochs = "", as_json: AsJson = False) -> None:
    """What a sweep would take; starts nothing."""
    with house() as open_house:
        spec = read_spec(file)
        told = open_house.sweeps.plan(spec, grid(ranks, learning_rates, epochs), open_house.estimates.seconds(spec))
    emit_json(told) if as_json else say(told.words)


@app.command()
def start(file: SpecFile = None, ranks: Ranks = "", learning_rates: Rates = "", epochs: Epochs = "", as_json: AsJson = False) -> None:
    """Queue every combination; a running app trains them one after the other."""
    with house() as open_house:
        spec, asked = read_spec(file), grid(ranks, learning_rates, epochs)
        seconds = open_house.estimates.seconds(spec)
        told = open_house.sweeps.plan(spec, asked, seconds)
        typer.echo(f"It takes {told.words}", err=as_json)
        sweep_id = open_house.sweeps.start(open_house.library.snapshot(by=None).id, spec, asked, by=None, seconds=seconds)
    emit_json({"sweep": sweep_id, "budget": told.words}) if as_json else say(f"Sweep {sweep_id} is queued.")


@app.command("list")
def list_sweeps(as_json: AsJson = False) -> None:
    """Every sweep with its runs, the best on validation marked."""
    with house() as open_house:
        found = open_house.sweeps.sweeps()
    if as_json:
        emit_json(found)
        return
    rows = [
        (sweep.id, run.run, f"{run.settings['rank']:g}", f"{run.settings['learning_rate']:g}", f"{run.settings['epochs']:g}", run.status,
         "" if run.validation is None else f"{run.validation:.3f}",
         " ".join(word for word, holds in (("best", run.run == sweep.best), ("chosen", run.run == sweep.chosen)) if holds))
        for sweep in found
        for run in sweep.runs
    ]  # fmt: skip
    table(("sweep", "run", "rank", "learning rate", "epochs", "status", "validation", ""), rows, "No sweep yet: tiebreak sweep start.")


@app.command()
def choose(sweep: SweepId, run: Annotated[str, typer.Argument(help="Id of one of its finished runs.")]) -> None:
    """Let one run go on: its adapter is registered, answers the test prompts and is scored."""
    with house() as open_house:
        open_house.sweeps.choose(sweep, run, by=None)
    say(f"Run {run} goes on; a running app does the rest.")


@app.command()
def cancel(sweep: SweepId) -> None:
    """Cancel what is left of a sweep."""
    with house() as open_house:
        open_house.sweeps.cancel(sweep, by=None)
    say(f"Sweep {sweep}: what was not over is cancelled.")


def compare(runs: Annotated[list[str], typer.Argument(help="Ids of two runs or more.")], as_json: AsJson = False) -> None:
    """Runs side by side: the settings in which they differ, and how each went."""
    if len(runs) < 2:
        raise BadInput("One run cannot be compared. Name two or more; tiebreak runs list shows them.")
    with house() as open_house:
        views = [open_house.training.run(run_id) for run_id in runs]
    differ = differences(views)
    if as_json:
        emit_json({"runs": [view.id for view in views], "settings": dict(differ), "validation": {v.id: v.validation for v in views}})
        return
    best = [f"{min(loss for _, loss in view.validation):.3f}" if view.validation else "" for view in views]
    rows = [(name, *map(str, values)) for name, values in differ]
    rows += [("status", *(view.status for view in views)), ("best validation loss", *best)]
    table(("", *(view.name for view in views)), rows, "")
