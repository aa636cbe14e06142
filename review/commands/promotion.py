"""`tiebreak promote` and `tiebreak rollback`: what speaks for and against an adapter, and what is in use."""

from typing import TYPE_CHECKING, Annotated

import typer

from review.commands.terminal import AsJson, emit_json, house, say, table

if TYPE_CHECKING:
    from review.services.promotions import Case

Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the decision.")]


def promote(
    name: Annotated[str, typer.Argument(help="Adapter to put in use, or `base` for the base alone.")],
    reason: Reason = "",
    look: Annotated[bool, typer.Option("--look", help="Only show what speaks for and against it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put an adapter in use, showing first what speaks for and against it."""
    with house() as open_house:
        if name == "base":
            if not look:
                open_house.promotions.demote(by=None, reason=reason)
            say("Nothing to show for the base." if look else "The base alone is in use now.")
            return
        case = open_house.promotions.case(name)
        if not look:
            open_house.promotions.promote(name, by=None, reason=reason)
    if as_json:
        emit_json(case)
        return
    _show(case)
    say(f"{name} is in use now, instead of {case.used}. Take it back: tiebreak rollback" if not look else f"In use: {case.used}.")


def _show(case: "Case") -> None:
    if case.forbidden:
        say(case.forbidden)
    for words in case.against:
        say(f"  - {words}")
    if not case.against:
        say("Nothing speaks against it.")
    rows = [(study.study, study.state, study.votes, study.verdict.words) for study in case.studies]
    table(("study", "state", "votes", "verdict"), rows, "No study compares the two yet.")
    for worse in case.got_worse.worse[:10]:
        say(f"  worse, {worse.group}: {' '.join(worse.prompt.split())[:80]}  ({worse.why})")


def rollback(reason: Reason = "") -> None:
    """Take the last promotion back: what was in use before is in use again."""
    with house() as open_house:
        now = open_house.promotions.roll_back(by=None, reason=reason).adapter
    say(f"In use again: {now}.")
