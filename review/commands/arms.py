"""`tiebreak adapters`, `answer`, `score` and `chat`: what answers, and its answers."""

from pathlib import Path
from typing import Annotated

import typer

from ft.engine import Message
from ft.errors import BadInput
from ft.specs import DecodeSpec
from review.commands.terminal import AsJson, emit_json, house, progress, say, table

adapters = typer.Typer(no_args_is_help=True, help="Register adapters; load, unload and switch them while the app runs.")
Name = Annotated[str, typer.Argument(help="Name of the adapter, as `tiebreak adapters list` shows it.")]
SetName = Annotated[str, typer.Argument(help="Name of the prompt set.")]
Arms = Annotated[list[str] | None, typer.Option("--arm", help="An arm; give it again for more. Default: every arm.")]
Split = Annotated[str, typer.Option(help="train, validation or test.")]


@adapters.command("list")
def list_adapters(as_json: AsJson = False) -> None:
    """Registered adapters and where they are now."""
    with house() as open_house:
        found, in_use = open_house.adapters.adapters(), open_house.adapters.in_use()
    if as_json:
        emit_json({"in_use": in_use, "adapters": found})
        return
    marks = {in_use: "in use"}
    where = {True: "in memory", False: "on disk"}
    rows = [(a.name, marks.get(a.name), a.status, where[a.resident], a.method, a.rank, f"{a.bytes >> 10} KB") for a in found]
    empty = "No adapter yet. Train one (tiebreak train) or add a folder (tiebreak adapters add PATH --name NAME)."
    table(("adapter", "", "status", "where", "method", "rank", "size"), rows, empty)


@adapters.command()
def add(
    path: Annotated[Path, typer.Argument(help="A PEFT adapter folder or a zip of one (safetensors only).")],
    name: Annotated[str, typer.Option(help="Its name here; a name is never overwritten.")] = "",
) -> None:
    """Vet an adapter and register it."""
    with house() as open_house:
        added = open_house.adapters.register(path, name or path.stem, by=None)
    facts = f"{added.method}, rank {added.rank}, {added.bytes >> 10} KB"
    say(f"{added.name} is registered: {facts}. Load it: tiebreak adapters load {added.name}")


@adapters.command()
def vet(path: Annotated[Path, typer.Argument(help="A PEFT adapter folder or a zip.")], as_json: AsJson = False) -> None:
    """Say what an adapter is, or exactly why it would be refused. Nothing is registered."""
    with house() as open_house:
        judged = open_house.adapters.vet(path)
    if as_json:
        emit_json(judged)
    elif judged.ok and (facts := judged.adapter):
        say(f"Good: {facts.method}, rank {facts.rank}, alpha {facts.alpha:g}, {facts.bytes >> 10} KB, on {', '.join(facts.targets)}.")
    else:
        say("Refused:\n" + "\n".join(f"  - {reason}" for reason in judged.reasons))
    raise typer.Exit(0 if judged.ok else 1)


@adapters.command()
def load(name: Name) -> None:
    """Bring an adapter into the running app's memory, without a pause for the others."""
    with house() as open_house:
        open_house.adapters.want(name, True, by=None)
    say(f"{name} is wanted in memory; a running app brings it in within a second or two.")


@adapters.command()
def unload(name: Name) -> None:
    """Take an adapter out of memory. It stays registered."""
    with house() as open_house:
        open_house.adapters.want(name, False, by=None)
    say(f"{name} leaves memory once nothing uses it.")


@adapters.command()
def use(name: Annotated[str, typer.Argument(help="Adapter to put in use, or `base` for none.")]) -> None:
    """Switch the adapter in use: what chat answers with first, and what new studies compare against."""
    with house() as open_house:
        open_house.adapters.use(None if name == "base" else name, by=None)
    say(f"In use now: {name}.")


@adapters.command()
def remove(name: Name) -> None:
    """Take an adapter off the list. Its stored answers and votes stay."""
    with house() as open_house:
        open_house.adapters.remove(name, by=None)
    say(f"{name} is removed. Its answers and votes stay.")


def answer(set_name: SetName, arms: Arms = None, split: Split = "test", as_json: AsJson = False) -> None:
    """Let arms answer a prompt set and store the answers. What is stored already is not asked again.

    Example: tiebreak answer connectpro --arm base --arm connectpro-v1
    """
    with house() as open_house, progress("answering") as advance:
        chosen = arms or [arm.name for arm in open_house.answers.arms() if arm.kind != "imported"]
        job = open_house.answers.start(set_name, split, chosen, by=None)
        open_house.answers.run(job, progress=advance)
        done = next(j for j in open_house.answers.jobs() if j.id == job)
    if as_json:
        emit_json(done)
    else:
        say(f"{done.title}: {done.status}, {done.done} of {done.total} answers. {done.message}".rstrip())
    raise typer.Exit(0 if done.status == "finished" else 1)


def score(set_name: SetName, arms: Arms = None, split: Split = "test", as_json: AsJson = False) -> None:
    """Score stored answers against the references: BLEU, chrF, ROUGE and METEOR with 95 % intervals."""
    from review.commands.boards import show_board

    with house() as open_house, progress("scoring") as advance:
        chosen = arms or [arm.name for arm in open_house.answers.arms()]
        open_house.boards.score(set_name, split, chosen, by=None, progress=advance)
        board = open_house.boards.board(set_name, split)
    show_board(board, as_json)


def chat(
    text: Annotated[str, typer.Argument(help="What the customer asks.")],
    arms: Annotated[list[str] | None, typer.Option("--arm", help="Arms to ask, at most 4. Default: base and the adapter in use.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Ask arms the same question side by side, from one mixed batch."""
    decode = DecodeSpec(max_new_tokens=max_new_tokens)
    if problems := decode.problems():
        raise BadInput(" ".join(problems))
    with house() as open_house:
        chosen = arms or [name for name in ("base", open_house.adapters.in_use()) if name]
        texts: dict[str, str] = {}
        for step in open_house.answers.chat(chosen, [Message("user", text)], decode):
            texts = dict(step.texts)
            if step.failed:
                raise BadInput(str(step.failed))
    if as_json:
        emit_json(texts)
    else:
        for name, reply in texts.items():
            say(f"── {name}\n{reply}\n")
