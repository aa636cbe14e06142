"""`tiebreak answer`, `score`, `chat` and `arms show`: what answers, and its answers."""

from typing import Annotated

import typer

from ft.engine import Message
from ft.errors import BadInput
from ft.specs import DecodeSpec
from review.commands.remotes import app
from review.commands.terminal import AsJson, emit_json, house, progress, say, table

SetName = Annotated[str, typer.Argument(help="Name of the prompt set.")]
Arms = Annotated[list[str] | None, typer.Option("--arm", help="An arm; give it again for more. Default: every arm.")]
Split = Annotated[str, typer.Option(help="train, validation or test.")]


@app.command("show")
def show_arm(name: Annotated[str, typer.Argument(help="Name of the arm.")], as_json: AsJson = False) -> None:
    """An arm's passport: base, adapter, template, system text, decoding, seed, device and library versions."""
    with house() as open_house:
        found = open_house.passports.passport(name)
    if as_json:
        emit_json(found)
        return
    rows = [("kind", found.kind), ("settings", found.settings_hash), ("system text", found.system_prompt or "—")]
    rows += [("decoding", ", ".join(f"{key} {value}" for key, value in found.decode.items()) or "—")]
    rows += [(f"adapter {key}", str(value)) for key, value in found.adapter.items() if value]
    rows += [(f"remote {key}", str(value)) for key, value in found.remote.items()]
    for made in found.answers:
        told = [f"{key} {value}" for key, value in made.items() if key not in ("engine", "last", "answers") and value not in ("", None)]
        engine = ", ".join(f"{key} {value}" for key, value in made["engine"].items())
        rows.append((f"{made['answers']} answers by", "; ".join([*told, *([engine] if engine else [])]) or "people"))
    rows += [("missing", words) for words in found.missing]
    table((name, ""), rows, "")


def answer(
    set_name: Annotated[str, typer.Argument(help="Name of the prompt set.")] = "",
    arms: Arms = None,
    split: Split = "test",
    replay: Annotated[int, typer.Option(help="Instead: give this stored answer again and say whether it is the same.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let arms answer a prompt set and store the answers. What is stored already is not asked again.

    Example: tiebreak answer connectpro --arm base --arm connectpro-v1
    """
    if replay:
        _replay(replay, as_json)
    if not set_name:
        raise BadInput("No prompt set is named. Name one (see tiebreak sets), or give --replay with an answer's number.")
    with house() as open_house, progress("answering") as advance:
        chosen = arms or [arm.name for arm in open_house.answers.arms() if arm.usable]
        job = open_house.answers.start(set_name, split, chosen, by=None)
        open_house.answers.run(job, progress=advance)
        done = next(j for j in open_house.answers.jobs() if j.id == job)
    if as_json:
        emit_json(done)
    else:
        say(f"{done.title}: {done.status}, {done.done} of {done.total} answers. {done.message}".rstrip())
    raise typer.Exit(0 if done.status == "finished" else 1)


def _replay(number: int, as_json: bool) -> None:
    """Answer again, compare, end with 0 where it is identical."""
    with house() as open_house:
        found = open_house.passports.replay(number)
    if as_json:
        emit_json(found)
    else:
        say(f"Answer {number} by {found.arm}: {found.words}")
    raise typer.Exit(0 if found.identical else 1)


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
    arms: Annotated[list[str] | None, typer.Option("--arm", help="Arms to ask, at most 4. Default: the base and what is in use.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Ask arms the same question side by side, from one mixed batch."""
    decode = DecodeSpec(max_new_tokens=max_new_tokens)
    if problems := decode.problems():
        raise BadInput(" ".join(problems))
    with house() as open_house:
        chosen = arms or [name for name in (open_house.answers.base_arm(), open_house.adapters.in_use()) if name]
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
