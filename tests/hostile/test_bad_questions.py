"""Bad questions, arms and uploads where people and programs bring them: the screens' own handlers and /v1, with a real tiny model."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest

from review.services.house import House
from tests.hostile.test_bad_input import PROMPTS, house, model, tiny_base
from tests.programs import Desk, desk
from tests.tiny import make_adapter

__all__ = ["house", "model", "tiny_base"]
pytestmark = pytest.mark.hostile
FAR_TOO_LONG = ("100,000 tokens", "one word of a megabyte")
REFUSED = {"empty": "", "spaces": "", "half a surrogate pair": "broken characters", **dict.fromkeys(FAR_TOO_LONG, "256 tokens")}
ERIK = SimpleNamespace(username="Erik")
TOKENS, HEAT = 8, 0


@pytest.fixture
def lab(house: House) -> Callable[[str], Callable[..., Any]]:
    """Finds a handler of the lab by its name, as the page would call it for Erik."""
    from review.screens import lab

    house.people.add("Erik", "engineer")
    house.answers.ensure_arms()
    found = {fn.fn.__name__: fn.fn for fn in lab.build(house).fns.values() if fn.fn is not None}

    def handler(name: str) -> Callable[..., Any]:
        return lambda *values: found[name](ERIK, *values)

    return handler


def said_by(act: Callable[[], Any]) -> str:
    """What the page shows at last, or the sentence of the error."""
    try:
        shown = act()
        return str(list(shown)[-1] if isinstance(shown, Iterator) else shown)
    except gr.Error as error:
        refusal = error.message
    assert refusal.endswith(".")
    assert "went wrong" not in refusal, "an error nobody foresaw"
    return f"refused: {refusal}"


@pytest.mark.parametrize("what", PROMPTS)
def test_the_chat_tab_takes_any_question_and_then_the_next(lab: Callable[[str], Callable[..., Any]], what: str) -> None:
    def ask(words: str) -> str:
        return said_by(lambda: lab("ask")(words, "base", "one", TOKENS, HEAT, []))

    def ask_blind(words: str) -> str:
        return said_by(lambda: lab("ask_blind")(words, "base", "one", TOKENS, HEAT, None))

    for asked in (ask, ask_blind):
        said = asked(PROMPTS[what])
        if what in ("empty", "spaces"):
            assert said.startswith("refused: There is no question yet")
        elif what in REFUSED:
            assert REFUSED[what] in said or "longer than 8,000 characters" in said or "could not answer" in said
        else:
            assert "refused" not in said
        assert "tb-reply" in asked("Hello")


def test_the_chat_tab_names_an_arm_that_is_unknown_or_was_removed_a_moment_ago(
    house: House, lab: Callable[[str], Callable[..., Any]]
) -> None:
    assert "There is no arm ghost" in said_by(lambda: lab("ask")("x", "ghost", None, TOKENS, HEAT, []))
    talk = lab("ask")("Hello", "base", "one", TOKENS, HEAT, [])
    next(talk)
    next(talk)
    house.adapters.remove("one", None)
    gone = threading.Thread(target=house.adapters.reconcile)
    gone.start()
    assert "tb-reply" in str(list(talk)[-1])
    gone.join(20)
    assert "has been removed" in said_by(lambda: lab("ask")("Hello", "base", "one", TOKENS, HEAT, []))
    assert (
        "One of the two" in (blind := said_by(lambda: lab("ask_blind")("Hello", "base", "one", TOKENS, HEAT, None))) or "removed" in blind
    )
    assert "tb-reply" in said_by(lambda: lab("ask")("Hello", "base", None, TOKENS, HEAT, []))


def test_two_uploads_of_one_name_at_once_are_one_adapter_and_one_refusal(
    house: House, lab: Callable[[str], Callable[..., Any]], tiny_base: Path, tmp_path: Path
) -> None:
    folders = [make_adapter(tmp_path / f"up{seed}", tiny_base, seed) for seed in (5, 6)]
    together, said = threading.Barrier(2), []

    def upload(folder: Path) -> None:
        together.wait()
        said.append(said_by(lambda: lab("add_adapter")(None, [str(path) for path in folder.iterdir()], "same", False)))

    threads = [threading.Thread(target=upload, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    refused = [words for words in said if words.startswith("refused")]
    assert len(said) == 2
    assert len(refused) == 1
    assert "The name same is taken" in refused[0] or "There is an adapter named same" in refused[0] or "same" in refused[0]
    assert [view.name for view in house.adapters.adapters()] == ["one", "same"]
    assert len([path for path in (house.settings.home / "adapters").iterdir() if path.is_dir()]) == 2
    assert list((house.settings.home / "quarantine").iterdir()) == []


# /v1


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Desk]:
    from ft.engine_local import LocalEngine

    room = tmp_path_factory.mktemp("questions")
    engine = LocalEngine(str(tiny_base), room / "bases", device="cpu", dtype="float32")
    engine.wait_ready(240)
    with desk(room, engine) as made:
        yield made


def answered(reply: httpx.Response) -> bool:
    return reply.status_code == 200 and "content" in reply.json()["choices"][0]["message"]


@pytest.mark.parametrize("what", PROMPTS)
def test_v1_takes_any_question_and_then_the_next(at: Desk, what: str) -> None:
    body = json.dumps({"model": "one", "max_tokens": TOKENS, "messages": [{"role": "user", "content": PROMPTS[what]}]})
    with at.client() as http:
        reply = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    if what in REFUSED or what == "NUL":
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error["message"].endswith(".")
        assert what not in FAR_TOO_LONG or "256" in error["message"]
    else:
        assert answered(reply)
    assert answered(at.ask(model="one", max_tokens=TOKENS))


def test_v1_names_an_arm_that_is_unknown_or_was_removed_a_moment_ago_and_lets_a_stream_end(at: Desk) -> None:
    assert at.ask(model="ghost").status_code == 404
    with (
        at.client() as http,
        http.stream(
            "POST", "/v1/chat/completions",
            json={"model": "two", "stream": True, "max_tokens": 60, "messages": [{"role": "user", "content": "Hello"}]},
        ) as stream,
    ):  # fmt: skip
        lines = stream.iter_lines()
        next(lines)
        at.house.adapters.remove("two", None)
        gone = threading.Thread(target=at.house.adapters.reconcile)
        gone.start()
        rest = [line for line in lines if line]
        gone.join(20)
    assert rest[-1] == "data: [DONE]"
    assert not [line for line in rest if '"error"' in line]
    late = at.ask(model="two")
    assert late.status_code == 404
    assert late.json()["error"]["code"] == "model_not_found"
    assert answered(at.ask(model="base", max_tokens=TOKENS))
    assert answered(at.ask(model="one", max_tokens=TOKENS))
