"""`tiebreak train` and `runs`: from approved examples to an adapter on the board."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from ft.errors import BadInput
from ft.specs import TrainSpec
from review.commands.terminal import AsJson, emit_json, house, say, table
from review.services.caretaker import caretaking
from review.services.house import House
from review.services.training import RunView

runs = typer.Typer(no_args_is_help=True, help="Training runs: list, show, cancel.")
RunId = Annotated[str, typer.Argument(help="Id of the run, as `tiebreak runs list` shows it.")]
ENDED = ("finished", "failed", "cancelled", "lost")


def train(
    file: Annotated[Path | None, typer.Argument(metavar="[SPEC.json]", help="A TrainSpec as JSON; options given here override it.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new adapter.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank: 8 to 32 is usual.")] = None,
    alpha: Annotated[int | None, typer.Option(help="LoRA alpha: usually twice the rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="1e-4 to 2e-4 is usual for LoRA.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples: 1 to 5.")] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps, whatever the epochs say.")] = None,
    quantisation: Annotated[str | None, typer.Option(help="none, 8bit, or 4bit (QLoRA).")] = None,
    detach: Annotated[bool, typer.Option(help="Only queue it; a running app takes it up.")] = False,
    show_spec: Annotated[bool, typer.Option("--show-spec", help="Print the resolved spec as JSON and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on the approved examples, then answer and score the test set with it.

    Example: tiebreak train --name connectpro-v2 --epochs 3
    """
    spec = read_spec(file)
    lora = {key: value for key, value in {"rank": rank, "alpha": alpha}.items() if value is not None}
    given = {"name": name, "learning_rate": learning_rate, "epochs": epochs, "max_steps": steps, "quantisation": quantisation}
    spec = spec.with_(lora=spec.lora.with_(**lora), **{key: value for key, value in given.items() if value is not None})
    if show_spec:
        emit_json(spec.to_dict())
        return
    if problems := spec.problems():
        raise BadInput(" ".join(problems))
    with house() as open_house:
        snapshot = open_house.library.snapshot(by=None)
        run_id = open_house.training.start(snapshot.id, spec, by=None)
        if detach:
            emit_json({"run": run_id}) if as_json else say(f"Run {run_id} is queued.")
            return
        view = follow(open_house, run_id)
    emit_json(view) if as_json else say(f"{view.status}: {view.message}")
    raise typer.Exit(0 if view.status == "finished" else 1)


def read_spec(file: Path | None) -> TrainSpec:
    if file is None:
        return TrainSpec()
    try:
        return TrainSpec.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{file} is not a TrainSpec in JSON ({error}). `tiebreak train --show-spec` prints one to start from.") from error


def follow(open_house: House, run_id: str) -> RunView:
    """Show the run until it, its answers and its scores are done. Does the app's background work here when no app runs."""
    shown = -1
    with caretaking(open_house):
        while True:
            view = open_house.training.run(run_id)
            if view.step != shown:
                typer.echo(f"{view.status} step {view.step}/{view.steps} {view.message}", err=True)
                shown = view.step
            if view.status in ENDED and (view.status != "finished" or view.after == "scored"):
                return view
            time.sleep(1)


@runs.command("list")
def list_runs(as_json: AsJson = False) -> None:
    """Every run and how it ended."""
    with house() as open_house:
        found = open_house.training.runs()
    if as_json:
        emit_json(found)
    else:
        rows = [(r.id, r.status, f"{r.step}/{r.steps}", r.adapter or "", r.message[:80]) for r in found]
        table(("run", "status", "step", "adapter", ""), rows, "No run yet. Start one: tiebreak train")


@runs.command()
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """One run: spec, curves, the last lines of its log."""
    with house() as open_house:
        view = open_house.training.run(run_id)
    if as_json:
        emit_json(view)
    else:
        say(f"{view.id}: {view.status}, step {view.step} of {view.steps}. {view.message}\n{view.log}")


@runs.command()
def cancel(run_id: RunId) -> None:
    """Cancel a queued or running run."""
    with house() as open_house:
        open_house.training.cancel(run_id, by=None)
    say(f"{run_id} is being cancelled.")
