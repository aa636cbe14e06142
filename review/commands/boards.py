"""`tiebreak board`: the automatic scores and the human result side by side."""

from typing import Annotated, Any

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table


def board(
    set_name: Annotated[str, typer.Argument(help="Name of the prompt set; default: the only or newest one.")] = "",
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Show the leaderboard of a prompt set."""
    with house() as open_house:
        found = open_house.boards.board(set_name or newest(open_house), split)
    show_board(found, as_json)


def newest(open_house: Any) -> str:
    from ft.errors import NotFound

    sets = open_house.library.sets()
    if not sets:
        raise NotFound("There is no prompt set yet. Bring one in: tiebreak import tickets.jsonl")
    return str(sets[-1].name)


def interval(view: Any) -> str:
    return "" if view is None else f"{view.value:.1f} [{view.low:.1f}, {view.high:.1f}]"


def show_board(found: Any, as_json: bool) -> None:
    """Print a board for people, or whole as JSON."""
    if as_json:
        emit_json(found)
        return
    metrics = sorted({metric for row in found.rows for metric in row.scores})
    rows = [
        (
            row.arm,
            "" if row.human is None else f"{row.human.value:.0%} [{row.human.low:.0%}, {row.human.high:.0%}] {row.human.votes} votes",
            *(interval(row.scores.get(metric)) for metric in metrics),
        )
        for row in found.rows
    ]
    table(("arm", "blind win rate", *metrics), rows, "No scores yet. Answer the set (tiebreak answer) and score it (tiebreak score).")
    for words in found.words.values() if isinstance(found.words, dict) else ([found.words] if found.words else []):
        say(f"  {words}")
