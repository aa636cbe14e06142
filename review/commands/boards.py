"""`tiebreak board`: the automatic scores and the human result side by side."""

from typing import Annotated

import typer

from ft.errors import NotFound
from review.commands.terminal import AsJson, house, say, table
from review.services.boards import Board, ScoreView, WinRateView, board_json
from review.services.house import House


def board(
    set_name: Annotated[str, typer.Argument(help="Name of the prompt set; default: the only or newest one.")] = "",
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Show the leaderboard of a prompt set."""
    with house() as open_house:
        found = open_house.boards.board(set_name or newest(open_house), split)
    show_board(found, as_json)


def newest(open_house: House) -> str:
    sets = open_house.library.sets()
    if not sets:
        raise NotFound("There is no prompt set yet. Bring one in: tiebreak import tickets.jsonl")
    return sets[-1].name


OF_A_HUNDRED = ("bleu", "chrf")


def interval(view: ScoreView | None, metric: str) -> str:
    """Value and 95 % interval, on the metric's own scale."""
    if view is None:
        return ""
    digits = 1 if metric in OF_A_HUNDRED else 3
    return f"{view.value:.{digits}f} [{view.low:.{digits}f}, {view.high:.{digits}f}]"


def win_rate(view: WinRateView | None) -> str:
    return "" if view is None else f"{view.value:.0%} [{view.low:.0%}, {view.high:.0%}], {view.votes} votes"


def show_board(found: Board, as_json: bool) -> None:
    """Print a board for people, or whole as JSON."""
    if as_json:
        say(board_json(found))
        return
    rows = [(row.arm, win_rate(row.human), *(interval(row.scores.get(metric), metric) for metric in found.metrics)) for row in found.rows]
    titles = [found.titles[metric] for metric in found.metrics]
    table(("arm", "blind win rate", *titles), rows, "No scores yet. Answer the set (tiebreak answer) and score it (tiebreak score).")
    if found.study:
        say(f"“{found.study.study.name}”: {found.study.verdict.words}")
    for row in found.rows:
        if row.note:
            say(f"{row.arm}: {row.note}")
    say(found.caution)
