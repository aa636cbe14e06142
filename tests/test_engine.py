"""One contract for every engine: the scripted one, the local one on a tiny model, the local one on the real model."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ft.adapters import fingerprint
from ft.engine import BASE, Delta, Done, Engine, Event, Failed, Message, Request
from ft.errors import BadInput, Conflict, Unavailable
from ft.scripted import ScriptedEngine
from ft.specs import DecodeSpec
from ft.template import messages_for
from tests.programs import desk
from tests.tiny import make_adapter, make_base

SHORT = DecodeSpec(max_new_tokens=12)
QUESTIONS = ("How do I reset my password?", "The invoice of March is wrong.", "Grüße 🔒!")


@dataclass
class Case:
    """An engine under test and adapters that fit it; `single` and `double` are different adapters."""

    engine: Engine
    single: Path
    double: Path
    max_new: int = 12


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


def local(base: Path, room: Path) -> Case:
    from ft.engine_local import LocalEngine

    engine = LocalEngine(str(base), room / "bases", device="cpu", dtype="float32")
    engine.wait_ready(240)
    return Case(engine, make_adapter(room / "one", base, 1), make_adapter(room / "two", base, 2, targets=("q_proj", "down_proj")))


@contextlib.contextmanager
def remote(room: Path) -> Iterator[Case]:
    """The remote engine against this project's own HTTP interface, where both adapters are registered."""
    from ft.engine_remote import RemoteEngine
    from ft.remote import Server

    with desk(room) as served, pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEY_OF_THE_SERVER", served.keys["engineer"])
        engine = RemoteEngine(Server(served.base, "KEY_OF_THE_SERVER"), "base", adapter_path="{name}")
        engine.wait_ready(20)
        yield Case(engine, room / "one", room / "two")


@pytest.fixture(scope="module", params=["scripted", "remote", "tiny", pytest.param("real", marks=pytest.mark.real)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    room = tmp_path_factory.mktemp("engine")
    tiny = request.getfixturevalue("tiny_base")
    with contextlib.ExitStack() as stack:
        if request.param == "remote":
            made = stack.enter_context(remote(room))
        elif request.param == "scripted":
            made = Case(ScriptedEngine(), make_adapter(room / "one", tiny, 1), make_adapter(room / "two", tiny, 2))
        else:
            made = local(tiny if request.param == "tiny" else request.getfixturevalue("base_folder"), room)
        yield made
        made.engine.close()
        assert made.engine.status().state == "failed"
        with pytest.raises(Unavailable):
            made.engine.wait_ready(1)
        assert [type(e) for e in made.engine.generate([ask("late")])] == [Failed]


@pytest.fixture(autouse=True)
def empty_of_adapters(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "case" in request.fixturenames:
        engine = request.getfixturevalue("case").engine
        for name in engine.adapters():
            engine.unload(name)


def ask(text: str, adapter: str = BASE, decode: DecodeSpec = SHORT, name: str = "") -> Request:
    return Request(name or f"{adapter}|{text}", messages_for(text), adapter, decode)


def run(engine: Engine, requests: Sequence[Request]) -> list[Event]:
    return list(engine.generate(requests))


def texts(events: Sequence[Event]) -> dict[str, str]:
    return {event.request_id: event.text for event in events if isinstance(event, Done)}


def test_ready_engine_says_who_answers(case: Case) -> None:
    assert case.engine.status().state == "ready"
    identity = case.engine.identity()
    assert identity.base_hash
    assert identity.template_hash
    assert identity.context_length > 0
    assert "device" in identity.reasons


def test_every_request_ends_exactly_once_and_deltas_join_to_the_text(case: Case) -> None:
    events = run(case.engine, [ask(text) for text in QUESTIONS])
    ends = [event for event in events if isinstance(event, Done | Failed)]
    assert sorted(event.request_id for event in ends) == sorted(f"{BASE}|{text}" for text in QUESTIONS)
    for end in ends:
        assert isinstance(end, Done)
        pieces = [event.text for event in events if isinstance(event, Delta) and event.request_id == end.request_id]
        assert "".join(pieces) == end.text
        assert end.adapter == BASE
        assert end.prompt_tokens > 0
        assert 0 <= end.new_tokens <= SHORT.max_new_tokens
        assert end.seconds >= 0


def test_rows_of_one_call_advance_in_step(case: Case) -> None:
    case.engine.load("one", case.single)
    live = {f"{adapter}|{text}" for adapter in (BASE, "one") for text in QUESTIONS[:2]}
    pending = set(live)
    for event in case.engine.generate([ask(text, adapter) for adapter in (BASE, "one") for text in QUESTIONS[:2]]):
        if isinstance(event, Delta):
            assert event.request_id in pending, "a row took a second step before another took its first"
        else:
            live.discard(event.request_id)
        pending.discard(event.request_id)
        if not pending:
            pending = set(live)
    assert not live


def test_the_same_request_gives_the_same_text(case: Case) -> None:
    assert texts(run(case.engine, [ask(QUESTIONS[0])])) == texts(run(case.engine, [ask(QUESTIONS[0])]))


def test_a_mixed_batch_gives_each_arm_the_text_it_gives_alone(case: Case) -> None:
    case.engine.load("one", case.single)
    case.engine.load("two", case.double)
    requests = [ask(text, adapter) for text in QUESTIONS[:2] for adapter in (BASE, "one", "two")]
    alone = {key: text for request in requests for key, text in texts(run(case.engine, [request])).items()}
    assert texts(run(case.engine, requests)) == alone
    assert alone[f"one|{QUESTIONS[0]}"] != alone[f"{BASE}|{QUESTIONS[0]}"]
    assert [e.adapter for e in run(case.engine, [ask("x", "two")]) if isinstance(e, Done)] == ["two"]


def test_the_limit_on_new_tokens_is_kept_and_named(case: Case) -> None:
    (end,) = [e for e in run(case.engine, [ask(QUESTIONS[0], decode=DecodeSpec(max_new_tokens=1))]) if isinstance(e, Done)]
    assert (end.new_tokens, end.finish) in ((1, "length"), (0, "stop"))


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request("r", messages_for("x"), "nobody"), "nobody is not in memory"),
        (Request("r", messages_for("   ")), "empty"),
        (Request("r", ()), "empty"),
        (Request("r", messages_for("word " * 9000)), "tokens"),
    ],
)
def test_a_row_that_cannot_be_answered_fails_alone_with_the_reason(case: Case, request_: Request, says: str) -> None:
    events = run(case.engine, [request_, ask(QUESTIONS[0])])
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.request_id == "r"
    assert says in failed.error
    assert len(texts(events)) == 1


def test_no_requests_are_no_events(case: Case) -> None:
    assert run(case.engine, []) == []


def test_loading_twice_is_one_adapter_and_names_its_content(case: Case) -> None:
    case.engine.load("one", case.single)
    case.engine.load("one", case.single)
    assert case.engine.adapters() == {"one": fingerprint(case.single)}


def test_a_name_is_never_overwritten(case: Case) -> None:
    case.engine.load("one", case.single)
    before = texts(run(case.engine, [ask(QUESTIONS[0], "one")]))
    with pytest.raises(Conflict, match="Unload it first"):
        case.engine.load("one", case.double)
    assert texts(run(case.engine, [ask(QUESTIONS[0], "one")])) == before


@pytest.mark.parametrize("name", ["", BASE])
def test_the_bases_name_is_not_for_adapters(case: Case, name: str) -> None:
    with pytest.raises(BadInput):
        case.engine.load(name, case.single)


def test_a_folder_that_is_no_adapter_is_refused_and_leaves_nothing(case: Case, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        case.engine.load("empty", tmp_path)
    assert case.engine.adapters() == {}


def test_unloading_forgets_and_unknown_names_are_ignored(case: Case) -> None:
    case.engine.load("one", case.single)
    case.engine.unload("one")
    case.engine.unload("one")
    case.engine.unload("nobody")
    assert case.engine.adapters() == {}
    assert [type(event) for event in run(case.engine, [ask("x", "one")])] == [Failed]


def test_an_adapter_answers_the_same_after_leaving_and_coming_back(case: Case) -> None:
    case.engine.load("one", case.single)
    base, first = texts(run(case.engine, [ask(QUESTIONS[0])])), texts(run(case.engine, [ask(QUESTIONS[0], "one")]))
    case.engine.unload("one")
    assert texts(run(case.engine, [ask(QUESTIONS[0])])) == base
    case.engine.load("one", case.single)
    assert texts(run(case.engine, [ask(QUESTIONS[0], "one")])) == first


def test_closing_the_stream_early_leaves_the_engine_answering(case: Case) -> None:
    stream = case.engine.generate([ask(QUESTIONS[0], decode=DecodeSpec(max_new_tokens=200))])
    next(stream)
    stream.close()
    assert list(stream) == []
    assert texts(run(case.engine, [ask(QUESTIONS[1])]))


def test_many_threads_each_get_their_own_answers(case: Case) -> None:
    case.engine.load("one", case.single)
    requests = [ask(text, adapter) for text in QUESTIONS for adapter in (BASE, "one")]
    alone = {key: text for request in requests for key, text in texts(run(case.engine, [request])).items()}
    got: dict[str, str] = {}
    threads = [threading.Thread(target=lambda r=r: got.update(texts(run(case.engine, [r])))) for r in requests]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == alone


def test_a_conversation_of_several_turns_is_answered(case: Case) -> None:
    turns = (*messages_for("Hello"), Message("assistant", "Good day."), Message("user", "And now?"))
    assert texts(run(case.engine, [Request("r", turns, decode=SHORT)])).keys() == {"r"}


def test_a_script_is_a_table_or_a_function_and_a_gap_in_it_fails_its_row() -> None:
    table = ScriptedEngine({"Hello": "Good day to you."})
    assert texts(run(table, [ask("Hello", name="a"), ask("Bye", name="b")])) == {"a": "Good day to you."}
    assert texts(run(ScriptedEngine(lambda request: request.adapter), [ask("Hello", name="a")])) == {"a": BASE}


def test_opening_the_local_engine_returns_before_the_model_is_there(tiny_base: Path, tmp_path: Path) -> None:
    from ft.engine_local import LocalEngine

    engine = LocalEngine(str(tiny_base), tmp_path, device="cpu")
    with contextlib.closing(engine):
        early: Any = engine.status().state
        events = run(engine, [ask("x")])
        if early == "loading" and engine.status().state == "loading":
            assert isinstance(events[0], Failed)
            assert "loading" in events[0].error
        engine.wait_ready(120)
        assert texts(run(engine, [ask("x")]))
