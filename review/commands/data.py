"""`tiebreak import`, `sets` and `examples`: rows in, and which of them may be learned."""

from pathlib import Path
from typing import Annotated

import typer

from ft.errors import BadInput
from review.commands.terminal import AsJson, emit_json, house, progress, say, table

examples = typer.Typer(no_args_is_help=True, help="What a run may learn: list, approve, reject, gather from votes.")
SHOWN_REJECTS = 20


def import_file(
    file: Annotated[Path, typer.Argument(help="JSON Lines with instruction/input/output; also JSON, CSV, TSV or chat messages.")],
    name: Annotated[str, typer.Option("--set", help="Name of the prompt set; an existing one grows.")] = "",
    split: Annotated[str, typer.Option(help="Put every row in train, validation or test. Default: by near-duplicate cluster.")] = "",
    field: Annotated[
        list[str] | None, typer.Option(help="Say which column is which, such as instruction=Question; give it again for more.")
    ] = None,
    mask: Annotated[bool, typer.Option(help="Replace e-mail addresses, phone and card numbers and the like by placeholders.")] = False,
    approve: Annotated[bool, typer.Option(help="The rows are checked: training rows count as approved examples.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import prompts (and their reference answers) from a file.

    Bad rows are named by line with the reason and kept aside; the good ones come in together or not at all.
    Example: tiebreak import tickets.jsonl --set tickets --approve
    """
    with house() as open_house, progress("reading") as advance:
        report = open_house.library.import_file(
            file, name or file.stem, split=split or None, approve=approve, progress=advance, fields=pairs(field), mask=mask
        )
    if as_json:
        emit_json(report)
        return
    splits = ", ".join(f"{count} {name}" for name, count in report.splits.items() if count)
    say(f"{report.added} prompts came into “{report.set_name}” ({splits or 'none new'}); {report.duplicates} were there already.")
    for line, reason in report.rejected[:SHOWN_REJECTS]:
        say(f"  line {line}: {reason}")
    if report.rejected:
        say(f"{len(report.rejected)} rows were kept aside. Mend them in the file and import it again; the rest is not doubled.")
    for kind, count in report.findings.items():
        say(f"  personal data: {count} x {kind}" + (" (replaced)" if report.masked else ""))
    say(report.note)


def pairs(given: list[str] | None) -> dict[str, str] | None:
    """["instruction=Question"] as a mapping. Raises BadInput for anything else."""
    found = {}
    for item in given or []:
        name, separator, column = item.partition("=")
        if not (name and separator and column):
            raise BadInput(f"--field {item} is not of the form field=column. Write for example --field instruction=Question.")
        found[name] = column
    return found or None


def list_sets(as_json: AsJson = False) -> None:
    """The prompt sets and how many prompts each split has."""
    with house() as open_house:
        sets = open_house.library.sets()
    if as_json:
        emit_json(sets)
    else:
        rows = [(s.name, *(s.splits.get(part, 0) for part in ("train", "validation", "test")), s.rejected) for s in sets]
        table(("set", "train", "validation", "test", "kept aside"), rows, "No prompt set yet. Bring one in: tiebreak import tickets.jsonl")


@examples.command("list")
def list_examples(
    state: Annotated[str, typer.Option(help="draft, approved or rejected.")] = "",
    origin: Annotated[str, typer.Option(help="imported, correction or winner.")] = "",
    limit: int = 50,
    as_json: AsJson = False,
) -> None:
    """Examples: a prompt and the answer to learn."""
    with house() as open_house:
        found = open_house.library.examples(state=state or None, origin=origin or None, offset=0, limit=limit)
    if as_json:
        emit_json(found)
    else:
        rows = [(e.id, e.state, e.origin, e.instruction[:60], e.output[:60]) for e in found]
        table(("id", "state", "origin", "prompt", "answer"), rows, "No example matches. Import rows, or gather them from a study.")


@examples.command()
def decide(
    state: Annotated[str, typer.Argument(help="approved, rejected or draft.")],
    ids: Annotated[list[int] | None, typer.Argument(help="Ids from `tiebreak examples list`.")] = None,
    all_drafts: Annotated[bool, typer.Option(help="Every draft instead of named ids.")] = False,
) -> None:
    """Approve or reject examples."""
    with house() as open_house:
        if all_drafts:
            ids = [e.id for e in open_house.library.examples(state="draft", origin=None, offset=0, limit=1_000_000)]
        if not ids:
            raise BadInput("No example was named. Give ids from `tiebreak examples list`, or --all-drafts.")
        count = open_house.library.decide(ids, state, by=None)
    say(f"{count} examples are now {state}.")


@examples.command()
def gather(study: Annotated[str, typer.Argument(help="Name of the study.")], as_json: AsJson = False) -> None:
    """Turn corrections and winning answers of a study into draft examples."""
    with house() as open_house:
        report = open_house.library.gather(study, by=None)
    if as_json:
        emit_json(report)
        return
    say(f"{report.corrections} corrections and {report.winners} winning answers are drafts now; {report.already_there} were there already.")
    if report.reason:
        say(report.reason)
