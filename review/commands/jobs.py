"""`tiebreak jobs`: the work in the background, and stopping it for a while or for good."""

from typing import Annotated

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table

app = typer.Typer(no_args_is_help=True, help="Work in the background: answering prompt sets, scoring. List, pause, resume, cancel.")
Number = Annotated[int, typer.Argument(help="Number of the job, as `tiebreak jobs list` shows it.")]


@app.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """Jobs, newest first, and how far they are."""
    with house() as open_house:
        found = open_house.answers.jobs()
    if as_json:
        emit_json({"jobs": found})
        return
    rows = [(job.id, job.title, job.status, f"{job.done} of {job.total}", job.message) for job in found]
    table(("job", "work", "state", "done", "remark"), rows, "No work yet. Start some: tiebreak answer SET --arm base")


@app.command()
def pause(number: Number) -> None:
    """Stop a job until it is resumed. What is answered is kept."""
    with house() as open_house:
        open_house.answers.pause(number)
    say(f"Job {number} is paused. Go on with it: tiebreak jobs resume {number}")


@app.command()
def resume(number: Number) -> None:
    """Queue a paused job again; a running app goes on with what is missing."""
    with house() as open_house:
        open_house.answers.resume(number)
    say(f"Job {number} waits for a running app to go on with it.")


@app.command()
def cancel(number: Number) -> None:
    """End a job for good. What is answered is kept."""
    with house() as open_house:
        open_house.answers.cancel(number)
    say(f"Job {number} is cancelled. What was answered is kept.")
