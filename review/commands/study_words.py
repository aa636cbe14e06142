"""A study's numbers as lines and tables in the terminal. Must not know the database or models."""

from collections.abc import Iterator

from review.commands.terminal import table
from review.services.study_views import StudyProgress, StudyResult


def show_people(progress: StudyProgress) -> None:
    rows = [
        (r.name, r.votes, f"{r.seconds:.0f} s", "aside" if r.aside else "", r.decision or "", "; ".join(r.doubts))
        for r in progress.reviewers
    ]
    table(("reviewer", "votes", "time", "", "decided", "look again because"), rows, "Nobody has voted yet.")


def checks_in_words(result: StudyResult) -> Iterator[str]:
    """Whether the numbers can be trusted, a line each."""
    for one in result.agreements:
        if one.nominal is not None:
            around = f" [{one.low:.2f}, {one.high:.2f}]" if one.low is not None and one.high is not None else ""
            ordinal = f", ordinal {one.ordinal:.2f}" if one.ordinal is not None else ""
            yield f"Agreement on {one.criterion}: alpha {one.nominal:.2f}{around}{ordinal}, {one.units} units."
    if result.consistency and result.consistency.share is not None:
        yield f"Reviewers repeated {result.consistency.share:.0%} of their {result.consistency.n} repeated votes."
    if result.side and result.side.share is not None and result.side.drawn:
        yield f"The left side won {result.side.share:.0%} of the votes for a side (p = {result.side.p:.3f})."
    if result.blinding and result.blinding.asked:
        yield result.blinding.words
    if result.flips:
        yield f"Without {' or '.join(result.flips)} the verdict would be another."
    if result.aside:
        yield f"Aside, in no number: {', '.join(result.aside)}, {result.aside_votes} votes."
    if result.undecided:
        yield f"In doubt, to be decided (tiebreak study decide): {', '.join(result.undecided)}."
    if result.adjudicated and result.adjudicated_rate:
        yield f"With {result.adjudicated} disputed pairs counted as decided, {result.best} wins {result.adjudicated_rate.value:.0%}."


def show_arms(result: StudyResult) -> None:
    rows = [(a.arm, f"{a.win_rate.value:.0%} [{a.win_rate.low:.0%}, {a.win_rate.high:.0%}]", a.votes) for a in result.arms]
    table(("arm", "blind win rate", "votes"), rows, "No vote yet.")
