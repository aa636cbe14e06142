"""`tiebreak train` and `runs`: from approved examples or votes to an adapter on the board."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ft.advice import PRESETS
from ft.errors import BadInput
from ft.specs import TrainSpec
from review.commands.checks import show_check
from review.commands.terminal import AsJson, emit_json, house, say, table
from review.services.caretaker import caretaking
from review.services.house import House
from review.services.run_views import RunView

runs = typer.Typer(no_args_is_help=True, help="Training runs: list, show, pause, resume, finish, cancel.")
RunId = Annotated[str, typer.Argument(help="Id of the run, as `tiebreak runs list` shows it.")]
SpecFile = Annotated[Path | None, typer.Argument(metavar="[SPEC.json]", help="A TrainSpec as JSON; options given here override it.")]
ENDED = ("finished", "failed", "cancelled", "lost", "paused")


def train(
    file: SpecFile = None,
    preset: Annotated[str | None, typer.Option(help=f"Settings by name: {', '.join(PRESETS)}.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new adapter.")] = None,
    objective: Annotated[str | None, typer.Option(help="sft: right answers; dpo: better against worse; kto: good and bad.")] = None,
    start_from: Annotated[str | None, typer.Option(help="Name of an adapter to go on from.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank: 8 to 32 is usual.")] = None,
    alpha: Annotated[int | None, typer.Option(help="LoRA alpha: usually twice the rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="1e-4 to 2e-4 is usual for LoRA; for votes a tenth of that.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples: 1 to 5.")] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps, whatever the epochs say.")] = None,
    quantisation: Annotated[str | None, typer.Option(help="none, 8bit, or 4bit (QLoRA).")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Learn from this prompt set only; may be given again.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Look at the tokens and measure two steps, and start nothing.")] = False,
    detach: Annotated[bool, typer.Option(help="Only queue it; a running app takes it up.")] = False,
    show_spec: Annotated[bool, typer.Option("--show-spec", help="Print the resolved spec as JSON and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on the approved examples or on votes, then answer and score the test set with it.

    Example: tiebreak train --name connectpro-v2 --preset balanced
    """
    given = {
        "name": name, "objective": objective, "start_from": start_from, "learning_rate": learning_rate, "epochs": epochs,
        "max_steps": steps, "quantisation": quantisation,
    }  # fmt: skip
    spec = resolved(file, preset, given, {"rank": rank, "alpha": alpha})
    if show_spec:
        emit_json(spec.to_dict())
        return
    with house() as open_house:
        try:
            snapshot = open_house.library.snapshot(by=None, sets=sets or ())
        except BadInput as error:
            raise BadInput(" ".join(open_house.training.without_examples(spec, str(error)).problems)) from error
        if check:
            raise typer.Exit(0 if show_check(open_house, snapshot.id, spec, as_json) else 1)
        found = open_house.training.check(snapshot.id, spec)
        for words in found.warnings if not found.problems else ():
            typer.echo(f"Worth a look: {words}", err=True)
        run_id = open_house.training.start(snapshot.id, spec, by=None)
        if detach:
            emit_json({"run": run_id}) if as_json else say(f"Run {run_id} is queued.")
            return
        view = follow(open_house, run_id)
    emit_json(view) if as_json else say(f"{view.status}: {view.message}")
    raise typer.Exit(0 if view.status == "finished" else 1)


def resolved(file: Path | None, preset: str | None, given: dict[str, Any], lora: dict[str, Any]) -> TrainSpec:
    """The file's spec, then the preset, then what was given by option."""
    spec = read_spec(file)
    if preset is not None:
        if preset not in PRESETS:
            raise BadInput(f"There is no preset {preset!r}. Choose from: {', '.join(PRESETS)}.")
        spec = PRESETS[preset].on(spec)
    kept = {key: value for key, value in lora.items() if value is not None}
    return spec.with_(lora=spec.lora.with_(**kept), **{key: value for key, value in given.items() if value is not None})


def read_spec(file: Path | None) -> TrainSpec:
    if file is None:
        return TrainSpec()
    try:
        return TrainSpec.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read ({error.strerror}). Name a file with a spec; `tiebreak train --show-spec` prints one."
        ) from error
    except (ValueError, TypeError) as error:
        raise BadInput(f"{file} is not a TrainSpec in JSON ({error}). `tiebreak train --show-spec` prints one to start from.") from error


def follow(open_house: House, run_id: str) -> RunView:
    """Show the run until it and what follows it are done, or wait for people. Does the app's background work here when no app runs."""
    shown = -1
    with caretaking(open_house):
        while True:
            view = open_house.training.run(run_id)
            if view.step != shown:
                typer.echo(f"{view.status} step {view.step}/{view.steps} {view.message}", err=True)
                shown = view.step
            if view.status in ENDED and (view.status != "finished" or view.after == "checked" or view.stuck):
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
    """One run: spec, curves, scores of written answers, the last lines of its log."""
    with house() as open_house:
        view = open_house.training.run(run_id)
    if as_json:
        emit_json(view)
        return
    say(f"{view.id}: {view.status}, step {view.step} of {view.steps}. {view.message}")
    losses = dict(view.validation)
    found = [(one.step, f"{losses.get(one.step, 0):.3f}", *(f"{value:.3g}" for value in one.scores.values())) for one in view.written]
    if found:
        table(("step", "validation loss", *view.written[-1].scores), found, "")
    say("\n".join([*view.warnings, view.log]))


@runs.command()
def pause(run_id: RunId) -> None:
    """Let a run save itself and give the machine back; `resume` goes on from there."""
    with house() as open_house:
        open_house.training.pause(run_id, by=None)
    say(f"{run_id} is being paused. Go on with: tiebreak runs resume {run_id}")


@runs.command()
def finish(run_id: RunId) -> None:
    """End a run that trains: the best step so far becomes the adapter."""
    with house() as open_house:
        open_house.training.finish(run_id, by=None)
    say(f"{run_id} ends after the step it is at, and keeps the best one. A running app registers the adapter.")


@runs.command()
def resume(
    run_id: RunId, detach: Annotated[bool, typer.Option(help="Only queue it; a running app takes it up.")] = False, as_json: AsJson = False
) -> None:  # fmt: skip
    """Go on with a paused, lost or failed run from its last good checkpoint."""
    with house() as open_house:
        open_house.training.resume(run_id, by=None)
        if detach:
            emit_json({"run": run_id}) if as_json else say(f"Run {run_id} is queued.")
            return
        view = follow(open_house, run_id)
    emit_json(view) if as_json else say(f"{view.status}: {view.message}")
    raise typer.Exit(0 if view.status == "finished" else 1)


@runs.command()
def cancel(run_id: RunId) -> None:
    """Cancel a run that is queued, running or paused, for good."""
    with house() as open_house:
        open_house.training.cancel(run_id, by=None)
    say(f"{run_id} is being cancelled.")
