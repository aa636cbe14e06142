"""The `tiebreak` program: every command in one tree. `serve` comes from app.py, which alone knows the web process."""

import sys
from collections.abc import Callable

import typer

from ft.errors import UserError
from review.commands import (
    adapters,
    arms,
    bases,
    boards,
    data,
    exports,
    figures,
    integrity,
    jobs,
    keys,
    people,
    promotion,
    remotes,
    sweeps,
    training,
    votes,
)


def program(serve: Callable[..., None]) -> typer.Typer:
    """The whole command tree; `serve` is the function that starts the web app."""
    app = typer.Typer(
        name="tiebreak",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Blind A/B review, leaderboards and retraining for a fine-tuned model. Settings are TIEBREAK_ variables; see the README.",
    )
    app.command("serve")(serve)
    app.command("import")(data.import_file)
    app.command("sets")(data.list_sets)
    app.add_typer(data.examples, name="examples")
    app.add_typer(adapters.app, name="adapters")
    app.add_typer(bases.app, name="base")
    app.command("promote")(promotion.promote)
    app.command("rollback")(promotion.rollback)
    app.command("worse")(promotion.worse)
    app.add_typer(exports.app, name="export")
    app.command("integrity")(integrity.integrity)
    app.add_typer(jobs.app, name="jobs")
    app.add_typer(remotes.app, name="arms")
    app.command("answer")(arms.answer)
    app.command("score")(arms.score)
    app.command("chat")(arms.chat)
    app.command("board")(boards.board)
    app.add_typer(votes.study, name="study")
    app.add_typer(votes.votes, name="votes")
    app.command("review")(votes.review)
    app.command("rank")(figures.rank)
    app.command("agreement")(figures.agreement)
    app.command("train")(training.train)
    app.add_typer(training.runs, name="runs")
    app.add_typer(sweeps.app, name="sweep")
    app.command("compare")(sweeps.compare)
    app.add_typer(people.app, name="users")
    app.add_typer(keys.app, name="keys")
    return app


def run(serve: Callable[..., None]) -> None:
    """Run the program; a UserError becomes one line on standard error and exit code 1."""
    try:
        program(serve)()
    except UserError as error:
        typer.echo(f"tiebreak: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
