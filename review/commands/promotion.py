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


def worse(
    name: Annotated[str, typer.Argument(help="Adapter to look at.")],
    against: Annotated[str, typer.Option(help="Arm to compare with. Default: what is in use, or the base.")] = "",
    ask: Annotated[bool, typer.Option("--ask", help="First queue the answers that are missing, and gather good answers to keep.")] = False,
    as_json: AsJson = False,
) -> None:
    """What an adapter does worse: general questions, and good answers that must stay good."""
    with house() as open_house:
        if ask:
            queued = open_house.promotions.ask(name, by=None, against=against)
            words = f"{queued} answering jobs are queued; a running app does them." if queued else "Every question is answered already."
            typer.echo(words, err=as_json)
        used = open_house.adapters.in_use() or "base"
        found = open_house.keeping.compare(name, against or (used if used != name else "base"))
    if as_json:
        emit_json(found)
        return
    rows = [(group.name, group.total, group.old_good, group.new_good, group.worse) for group in found.groups]
    table(("subject", "prompts", f"good with {found.old}", f"good with {found.new}", "got worse"), rows, "Nothing is answered yet: --ask.")
    if 0 < found.compared < found.total:
        say(f"{found.compared} of {found.total} questions are answered by both so far. Queue the others: --ask.")
    for each in found.worse:
        say(f"\n{each.group}: {' '.join(each.prompt.split())[:120]}\n  {each.why}\n  before: {each.old[:300]}\n  now:    {each.new[:300]}")


def rollback(reason: Reason = "") -> None:
    """Take the last promotion back: what was in use before is in use again."""
    with house() as open_house:
        now = open_house.promotions.roll_back(by=None, reason=reason).adapter
    say(f"In use again: {now}.")
