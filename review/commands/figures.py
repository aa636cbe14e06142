"""`tiebreak rank` and `tiebreak agreement`: figures of votes and ratings that come as a CSV, or of a study. Nothing is stored.

Must not know the database or models.
"""

from pathlib import Path
from typing import Annotated

import typer

from ft.errors import BadInput
from review.commands.terminal import AsJson, emit_json, house, say, table
from review.services import figures
from review.services.figures import Agreement, Ranking, agreement_file, rank_file


def rank(
    votes: Annotated[Path, typer.Argument(help="CSV with the columns left, right, winner and, if known, reviewer and prompt.")],
    as_json: AsJson = False,
) -> None:
    """Rank arms from a CSV of votes: Bradley-Terry strengths and win rates with 95 % intervals.

    winner is left, right, tie or both_bad. Ties count half, both_bad apart. Strengths are natural logs with mean 0.
    """
    found = rank_file(votes)
    if as_json:
        emit_json(found)
    else:
        show_ranking(found)


def show_ranking(found: Ranking) -> None:
    rows = [
        (
            arm.arm,
            "" if arm.log_strength is None else f"{arm.log_strength:+.3f} [{arm.low:+.3f}, {arm.high:+.3f}]",
            f"{arm.win_rate:.0%} [{arm.win_rate_low:.0%}, {arm.win_rate_high:.0%}]",
            arm.votes,
        )
        for arm in found.arms
    ]
    table(("arm", "log strength", "win rate", "votes"), rows, "No vote.")
    for words in filter(None, (found.note, found.signature)):
        say(words)


def agreement(
    ratings: Annotated[Path | None, typer.Argument(help="CSV with the columns unit, coder, value.")] = None,
    study: Annotated[str, typer.Option(help="Instead of a file: the counted votes of this study, by pair and reviewer.")] = "",
    as_json: AsJson = False,
) -> None:
    """How well people agree in a CSV of ratings: Krippendorff's alpha (nominal, ordinal, interval), Cohen's kappa by pair.

    An empty value is a missing rating. Ordinal and interval need numbers throughout.
    """
    if (ratings is None) == (not study):
        raise BadInput("Name a CSV of ratings or a study, one of the two: tiebreak agreement RATINGS.csv")
    found = agreement_file(ratings) if ratings else agreement_of_study(study)
    if as_json:
        emit_json(found)
        return
    rows = [(f"alpha, {level}", "" if value is None else f"{value:.4f}") for level, value in found.alpha.items()]
    rows += [(f"kappa, {pair}", "" if value is None else f"{value:.4f}") for pair, value in found.kappa.items()]
    table(("measure", "value"), rows, "No rating.")
    say(f"{found.units_compared} of {found.units} units were rated by several of {found.coders} coders.")
    for words in filter(None, (found.note, found.signature)):
        say(words)


def agreement_of_study(study: str) -> Agreement:
    with house() as open_house:
        return figures.agreement(figures.ratings_of(open_house.comparisons.export_votes(study)))
