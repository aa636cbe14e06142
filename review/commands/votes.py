"""`tiebreak study`, `votes` and `review`: declare a comparison, vote blind in the terminal, take the votes out."""

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ft.errors import BadInput, NotFound
from review.commands.study_words import checks_in_words, show_arms, show_people
from review.commands.terminal import AsJson, emit_json, house, plain, say, table
from review.protocol.ballots import Ballot, BlindPair, Choice
from review.services.exchange import Exchange, recount
from review.services.spreadsheets import csv_text

study = typer.Typer(no_args_is_help=True, help="Studies: a declared comparison of arms, fixed before the first vote.")
votes = typer.Typer(no_args_is_help=True, help="Votes: count them, take them out.")
Name = Annotated[str, typer.Argument(help="Name of the study.")]
KEYS: dict[str, Choice] = {"1": "left", "2": "right", "3": "tie", "4": "both_bad"}


@study.command("list")
def list_studies(as_json: AsJson = False) -> None:
    """Every study and its state."""
    with house() as open_house:
        found = open_house.studies.studies()
    if as_json:
        emit_json(found)
    else:
        rows = [(s.name, s.state, s.set_name, ", ".join(s.arms)) for s in found]
        empty = "No study yet. Create one: tiebreak study create NAME --set SET --arm A --arm B"
        table(("study", "state", "prompt set", "arms"), rows, empty)


@study.command()
def create(
    name: Name,
    set_name: Annotated[str, typer.Option("--set", help="Prompt set to judge on.")],
    arms: Annotated[list[str], typer.Option("--arm", help="An arm; give at least two.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Only prompts with this tag; may be given several times.")] = None,
    reviewers: Annotated[
        list[str] | None, typer.Option("--reviewer", help="Only this reviewer may judge; may be given several times.")
    ] = None,
    votes_per_pair: Annotated[int, typer.Option(help="How many reviewers judge each pair.")] = 1,
    criteria: Annotated[list[str] | None, typer.Option("--criterion", help="Asked beside the vote. Default: the usual four.")] = None,
    no_criteria: Annotated[bool, typer.Option("--no-criteria", help="Ask for the vote alone.")] = False,
    scale: Annotated[str, typer.Option(help="How a criterion is judged: sides or points (1 to 5 for each answer).")] = "sides",
    reasons: Annotated[list[str] | None, typer.Option("--reason", help="Offered as a chip. Default: the usual seven.")] = None,
    checks: Annotated[bool, typer.Option("--checks/--no-checks", help="Mix in repeats, plain pairs and the blinding question.")] = True,
    reveal: Annotated[str, typer.Option(help="after_close, or after_vote: when reviewers learn which was which.")] = "after_close",
    against: Annotated[str, typer.Option(help="The arm to beat. Default: the base.")] = "",
    min_win_rate: Annotated[float | None, typer.Option(help="Ship from this win rate, 0.5 to 0.99.")] = None,
    max_both_bad: Annotated[float | None, typer.Option(help="Hold above this share of both bad, 0 to 1.")] = None,
    min_votes: Annotated[int | None, typer.Option(help="No verdict before so many votes.")] = None,
    e_value: Annotated[
        float | None, typer.Option(help="How sure to be: 20 (usual) is wrong at most once in 20 equal arms, 100 once in 100.")
    ] = None,
    min_reviewers: Annotated[int | None, typer.Option(help="No verdict before so many reviewers.")] = None,
    no_worse_tag: Annotated[bool, typer.Option("--no-worse-tag/--any-tag", help="Hold where clearly worse on any one tag.")] = True,
    open_now: Annotated[bool, typer.Option("--open", help="Open it for votes at once.")] = False,
) -> None:
    """Declare a study. Its arms need stored answers first (tiebreak answer)."""
    given = {"min_win_rate": min_win_rate, "max_both_bad": max_both_bad, "min_votes": min_votes, "min_reviewers": min_reviewers,
             "e_value": e_value}  # fmt: skip
    rule: dict[str, Any] = {setting: value for setting, value in given.items() if value is not None} | {"no_worse_tag": no_worse_tag}
    asked: dict[str, Any] = {} if reasons is None else {"reasons": reasons}
    if no_criteria or criteria is not None:
        asked["criteria"] = [] if no_criteria else criteria
    with house() as open_house:
        open_house.studies.create(
            name, set_name, list(arms), split, votes_per_pair, rule=rule, reveal=reveal, against=against or None, tags=tags or (),
            reviewers=reviewers or (), scale=scale, checks=checks, **asked,
        )  # fmt: skip
        if open_now:
            open_house.studies.open(name)
    say(f"“{name}” is {'open for votes' if open_now else 'a draft; open it with: tiebreak study open'}.")


@study.command()
def copy(name: Name, new_name: Annotated[str, typer.Argument(help="Name of the new study.")]) -> None:
    """A new draft that declares what a study does: to change anything of an opened study, or to ask again."""
    with house() as open_house:
        open_house.studies.copy(name, new_name)
    say(f"“{new_name}” is a draft like “{name}”; open it with: tiebreak study open")


@study.command("open")
def open_study(name: Name) -> None:
    """Open a draft or paused study for votes; from now on it cannot be changed."""
    with house() as open_house:
        open_house.studies.open(name, by=None)
    say(f"“{name}” is open for votes.")


@study.command()
def pause(name: Name) -> None:
    """Stop handing out pairs for now."""
    with house() as open_house:
        open_house.studies.pause(name, by=None)
    say(f"“{name}” is paused.")


@study.command()
def close(name: Name) -> None:
    """Close a study for good."""
    with house() as open_house:
        open_house.studies.close(name, by=None)
    say(f"“{name}” is closed.")


@study.command()
def status(name: Name, as_json: AsJson = False) -> None:
    """How far a study is, and what it says so far."""
    with house() as open_house:
        progress, result = open_house.studies.progress(name), open_house.studies.result(name)
    if as_json:
        emit_json({"progress": progress, "result": result})
        return
    say(f"{progress.votes} votes of {progress.needed} wanted. {result.verdict.words}")
    for condition in result.conditions:
        say(f"  {'met' if condition.met else 'not met'}: {condition.words}")
    show_arms(result)
    if result.tags:
        table(("tag", "win rate", "votes", ""), [(t.tag, f"{t.win_rate.value:.0%}", t.votes, t.words) for t in result.tags], "")
    show_people(progress)
    for words in checks_in_words(result):
        say(words)


@study.command()
def decide(
    name: Name,
    reviewer: Annotated[str, typer.Argument(help="Name of the reviewer.")],
    counted: Annotated[bool, typer.Option("--count/--aside", help="Let the votes count, or keep them out of every number.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")],
) -> None:
    """Decide whether a doubted reviewer's votes count."""
    with house() as open_house:
        open_house.studies.decide_reviewer(name, reviewer, counted, reason)
    say(f"The votes of {reviewer} in “{name}” {'count' if counted else 'are aside'} from now on.")


@study.command("disputes")
def list_disputes(name: Name, as_json: AsJson = False) -> None:
    """Pairs that reviewers judged differently, without a name of arm or reviewer."""
    with house() as open_house:
        found = open_house.studies.disagreements(name)
    if as_json:
        emit_json(found)
        return
    rows = [(one.id, one.prompt[:60], ", ".join(vote.choice for vote in one.votes), one.decided) for one in found]
    table(("pair", "prompt", "votes", "decided"), rows, "Reviewers do not disagree on any pair.")


@study.command()
def adjudicate(
    name: Name,
    pair: Annotated[str, typer.Argument(help="The pair, as `tiebreak study disputes` names it.")],
    choice: Annotated[str, typer.Argument(help="first, second, tie or both_bad.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")],
) -> None:
    """Decide a disputed pair. The votes stay; the result says both numbers."""
    parts = pair.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise BadInput(f"{pair!r} is not a pair. See: tiebreak study disputes")
    prompt, first, second = map(int, parts)
    with house() as open_house:
        open_house.studies.adjudicate(name, prompt, first, second, choice, reason)
    say(f"Decided: {choice}.")


@study.command("export")
def export_study(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="Write this file instead of printing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of JSON Lines; import reads both.")] = False,
) -> None:
    """Take a whole study out: arms, prompts, answers and votes in one file (docs/exchange.md)."""
    with house() as open_house:
        exchange = Exchange(open_house.db)
        if out is None:
            sys.stdout.writelines(exchange.export(name, as_list=as_json))
            return
        exchange.write(name, out, as_list=as_json)
    say(f"“{name}” is in {out}. It names arms and reviewers: keep it from people who still vote.")


@study.command("import")
def import_study(
    file: Annotated[Path, typer.Argument(help="A study file; see docs/exchange.md.")],
    name: Annotated[str, typer.Option(help="Name of the study here. Default: its own.")] = "",
    as_json: AsJson = False,
) -> None:
    """Bring in a study that was run elsewhere, as a closed study: all of it, or nothing."""
    with house() as open_house:
        found = Exchange(open_house.db).import_file(file, name)
    if as_json:
        emit_json(found)
        return
    say(f"“{found.study}” came in: {found.votes} votes of {found.reviewers} reviewers on {found.prompts} prompts and {found.arms} arms.")
    if found.skips:
        say(f"{found.skips} skipped pairs came along, with their reasons.")
    if found.identical:
        say(f"{found.identical} pairs of answers are identical; {found.identical_votes} votes on them are kept, but not counted.")
    if found.ignored:
        say(f"Fields that this format does not know were left out: {', '.join(found.ignored)}.")
    for old, new in found.renamed.items():
        say(f"{old} is called {new} here, because that name is taken.")


@study.command("recount")
def recount_study(file: Annotated[Path, typer.Argument(help="A study file; see docs/exchange.md.")], as_json: AsJson = False) -> None:
    """Compute a study's result from its file alone; nothing is stored."""
    found = recount(file)
    if as_json:
        emit_json(found)
    else:
        say(found.verdict.words)
        show_arms(found)


@votes.command("export")
def export(
    name: Name, form: Annotated[str, typer.Option("--format", help="csv (safe in a spreadsheet) or jsonl (exact).")] = "jsonl"
) -> None:
    """Print every vote of a study with its arms, prompt and answers."""
    if form not in ("csv", "jsonl"):
        raise BadInput(f"There is no format {form!r}. Choose csv or jsonl.")
    with house() as open_house:
        rows = [plain(row) for row in open_house.comparisons.export_votes(name)]
    if form == "jsonl":
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    if rows:
        sys.stdout.write(csv_text(list(rows[0]), rows))


@votes.command("list")
def count(as_json: AsJson = False) -> None:
    """How many votes each study has."""
    with house() as open_house:
        found = [(s.name, s.state, open_house.studies.progress(s.name)) for s in open_house.studies.studies()]
    if as_json:
        emit_json([{"study": name, "state": state, "votes": p.votes, "needed": p.needed} for name, state, p in found])
    else:
        table(("study", "state", "votes", "wanted"), [(n, s, p.votes, p.needed) for n, s, p in found], "No study yet, so no vote.")


def review(person: Annotated[str, typer.Option("--as", help="Name of a reviewer.")]) -> None:
    """Vote blind in the terminal: the same pairs, the same rules, no browser."""
    with house() as open_house:
        user = open_house.people.user(person)
        if user is None or user.role != "reviewer":
            raise NotFound(f"{person} is not a reviewer here. See `tiebreak users list`.")
        while True:
            pair = open_house.comparisons.next_pair(user.id)
            if not isinstance(pair, BlindPair):
                say(pair.message)
                return
            show_pair(pair)
            key = typer.prompt("1 left better · 2 right better · 3 both good · 4 both bad · q stop").strip()
            if key == "q":
                return
            if key in KEYS:
                open_house.comparisons.vote(user.id, Ballot(pair.assignment, KEYS[key], key=secrets.token_urlsafe(16)))


def show_pair(pair: BlindPair) -> None:
    say(f"\n{pair.done + 1} of {pair.total}\n\n{pair.prompt}\n\n── LEFT\n{pair.left}\n\n── RIGHT\n{pair.right}\n")
