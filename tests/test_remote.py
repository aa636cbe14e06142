"""Models on other servers: what goes wrong is tried again or said; a remote arm answers by the usual job and its cost is counted."""

import asyncio
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ft.engine import BASE, Delta, Done, Event, Failed, Message, Request
from ft.engine_remote import RemoteEngine
from ft.errors import BadInput, Conflict, Unavailable, UserError
from ft.remote import Server
from ft.specs import DecodeSpec
from ft.template import messages_for
from review.protocol.ballots import Ballot, BlindPair
from review.screens.lab.remote_arms import remotes_html
from review.services.answers import Answers
from review.services.chat import ChatStep
from review.services.house import House, build
from review.services.live import LiveCompare
from review.settings import Settings
from storage.tables import Answer, Arm, Assignment, Prompt
from tests.hostile.site import free_socket, served
from tests.judging import practised
from tests.programs import Desk, desk, make_adapters

CANARY = "sk-canary-of-the-key"
WORDS = ("Good ", "day ", "to ", "you.")


def chunk(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    body = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def good(asked: Asked) -> Response:
    async def pieces() -> Any:
        for word in WORDS:
            yield chunk(word)
        yield chunk(finish="stop", usage={"prompt_tokens": 30, "completion_tokens": 4})
        yield b"data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


def status(code: int, words: str = "no", **headers: str) -> Callable[[Asked], Any]:
    async def reply(asked: Asked) -> Response:
        return JSONResponse({"error": {"message": words}}, code, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return reply


def stream(*pieces: bytes, hang: float = 0) -> Callable[[Asked], Any]:
    async def reply(asked: Asked) -> Response:
        async def told() -> Any:
            for piece in pieces:
                yield piece
            await asyncio.sleep(hang)

        return StreamingResponse(told(), media_type="text/event-stream")

    return reply


@dataclass
class Shaky:
    """A server that behaves as the list of plans says, one plan a request, the last one again and again."""

    plans: list[Callable[[Asked], Any]] = field(default_factory=lambda: [good])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    open: int = 0
    most: int = 0
    address: str = ""
    loads: list[Callable[[Asked], Any]] = field(default_factory=lambda: [status(200)])

    def app(self) -> Starlette:
        async def models(asked: Asked) -> Response:
            return JSONResponse({"data": [{"id": "large", "max_model_len": 1000}]})

        async def load(asked: Asked) -> Response:
            return await self.loads.pop(0)(asked)  # type: ignore[no-any-return]

        posts = (("chat/completions", self.chat), ("load_lora_adapter", load), ("unload_lora_adapter", load))
        return Starlette(routes=[Route("/v1/models", models), *(Route(f"/v1/{path}", act, methods=["POST"]) for path, act in posts)])

    async def chat(self, asked: Asked) -> Response:
        self.bodies.append(await asked.json())
        self.headers.append(dict(asked.headers))
        self.times.append(time.monotonic())
        return await self.plans[min(len(self.bodies), len(self.plans)) - 1](asked)  # type: ignore[no-any-return]


@pytest.fixture
def shaky() -> Iterator[Shaky]:
    made = Shaky()
    with served(made.app()) as made.address:
        yield made


@pytest.fixture
def engine_of(shaky: Shaky, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RemoteEngine]]:
    monkeypatch.setenv("SHAKY_KEY", CANARY)
    opened = []

    def make(**settings: Any) -> RemoteEngine:
        engine = RemoteEngine(Server(shaky.address, "SHAKY_KEY", **({"first_wait": 0.01} | settings)), "large")
        engine.wait_ready(10)
        opened.append(engine)
        return engine

    yield make
    for engine in opened:
        engine.close()


def ask(name: str = "a", **decode: Any) -> Request:
    return Request(name, messages_for("How do I reset it?"), BASE, DecodeSpec(**decode))


def end(engine: RemoteEngine, request: Request | None = None) -> Event:
    return list(engine.generate([request or ask()]))[-1]


def test_an_answer_comes_in_pieces_with_the_servers_own_count(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    *deltas, done = engine_of().generate([ask(max_new_tokens=50)])
    assert [event.text for event in deltas if isinstance(event, Delta)] == list(WORDS)
    assert isinstance(done, Done)
    assert (done.text, done.prompt_tokens, done.new_tokens, done.finish) == ("".join(WORDS), 30, 4, "stop")
    (body,) = shaky.bodies
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("large", 50, 0)
    assert body["messages"][0]["role"] == "system"
    assert shaky.headers[0]["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("trouble", [status(429), status(500), status(503), stream(), stream(b'data: {"error": {"message": "busy"}}\n\n')])
def test_what_may_pass_is_tried_again(shaky: Shaky, engine_of: Callable[..., RemoteEngine], trouble: Any) -> None:
    shaky.plans = [trouble, trouble, good]
    done = end(engine_of())
    assert isinstance(done, Done), done
    assert done.text == "".join(WORDS)
    assert len(shaky.bodies) == 3


def test_each_pause_is_longer_and_the_servers_wish_is_kept(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    shaky.plans = [status(503), status(503), status(429, retry_after="1"), good]
    assert isinstance(end(engine_of(first_wait=0.1)), Done)
    first, second, third = (b - a for a, b in zip(shaky.times, shaky.times[1:], strict=False))
    assert 0.05 <= first < 0.4
    assert 0.1 <= second < 0.6
    assert 1.0 <= third < 2.0


@pytest.mark.parametrize(
    ("trouble", "says", "times"),
    [
        (status(500), "The server answers 500: no", 3),
        (status(429, retry_after="86400"), "The server answers 429", 1),
        (status(401, f"Incorrect key {CANARY}"), "refuses the key in SHAKY_KEY", 1),
        (status(404, "no such model"), "does not know that model", 1),
        (status(400, f"bad {CANARY} <b>"), r"refuses the request \(400: bad \*\*\* <b>\)", 1),
        (status(302, location="http://127.0.0.1:1/"), "not of the OpenAI protocol", 1),
        (stream(b"data: <html>\n\n"), "cannot be read", 1),
        (stream(chunk("Good ")), "broke off before its end", 1),
        (stream(chunk("x" * (1 << 20)), chunk("x")), "has no end", 1),
        (stream(hang=5), "did not answer in time", 3),
    ],
)
def test_what_does_not_pass_fails_the_row_in_words(
    shaky: Shaky, engine_of: Callable[..., RemoteEngine], trouble: Any, says: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    shaky.plans = [trouble]
    caplog.set_level(logging.DEBUG)
    engine = engine_of(tries=3, read_seconds=0.3)
    failed = end(engine)
    assert isinstance(failed, Failed)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(failed.error)
    assert len(shaky.bodies) == times
    assert CANARY not in failed.error + caplog.text + repr(engine) + repr(vars(engine))
    assert engine.activity().running == 0
    shaky.plans = [good]
    assert isinstance(end(engine), Done), "the next row is answered"


def test_an_answer_broken_off_after_some_text_is_not_asked_twice(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    """Its beginning has been shown: a second answer would be glued to it."""
    shaky.plans = [stream(chunk("Good ")), good]
    events = list(engine_of().generate([ask()]))
    assert [type(event) for event in events] == [Delta, Failed]
    assert len(shaky.bodies) == 1


def test_newer_servers_get_the_limit_under_its_new_name(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    shaky.plans = [status(400, "Use 'max_completion_tokens' instead."), good]
    engine = engine_of()
    assert isinstance(end(engine, ask(max_new_tokens=9)), Done)
    assert shaky.bodies[1]["max_completion_tokens"] == 9
    assert "max_tokens" not in shaky.bodies[1]


def test_no_more_than_the_limit_are_under_way(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    async def slow(asked: Asked) -> Response:
        shaky.open += 1
        shaky.most = max(shaky.most, shaky.open)
        await asyncio.sleep(0.05)
        shaky.open -= 1
        return await good(asked)

    shaky.plans = [slow]
    ends = [event for event in engine_of(at_once=2).generate([ask(str(n)) for n in range(6)]) if isinstance(event, Done)]
    assert len(ends) == 6
    assert shaky.most == 2


def test_a_closed_stream_ends_the_request_on_the_server(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    gone = threading.Event()

    async def endless(asked: Asked) -> Response:
        async def told() -> Any:
            try:
                yield chunk("Good ")
                await asyncio.sleep(60)
            finally:
                gone.set()

        return StreamingResponse(told(), media_type="text/event-stream")

    shaky.plans = [endless]
    engine = engine_of()
    events = engine.generate([ask()])
    next(events)
    begun = time.monotonic()
    events.close()
    assert gone.wait(2)
    while engine.activity().running:
        assert time.monotonic() - begun < 2
        time.sleep(0.01)
    assert list(events) == []


def test_a_server_started_again_gets_its_adapters_anew(shaky: Shaky, engine_of: Callable[..., RemoteEngine], tmp_path: Path) -> None:
    adapter = make_adapters(tmp_path)["one"]
    engine = engine_of(tries=2)
    again = status(400, "The lora adapter 'one' has already been loaded.")
    shaky.loads = [status(200), again, status(404), status(400, "rank 64 is too large")]
    engine.load("one", adapter)
    shaky.plans = [status(404, "The model `one` does not exist.")]
    (failed,) = engine.generate([Request("a", messages_for("Hello"), "one")])
    assert isinstance(failed, Failed)
    assert engine.adapters() == {}
    shaky.plans = [good]
    engine.load("one", adapter)
    assert list(engine.adapters()) == ["one"]
    with pytest.raises(Unavailable, match="--enable-lora"):
        engine.load("two", adapter)
    with pytest.raises(BadInput, match="rank 64 is too large"):
        engine.load("two", adapter)
    assert list(engine.adapters()) == ["one"]


@pytest.mark.parametrize("mixes", [False, True])
def test_a_server_that_mixes_an_adapter_into_the_base_is_found_at_load(
    shaky: Shaky, engine_of: Callable[..., RemoteEngine], tmp_path: Path, mixes: bool
) -> None:
    """As a real server was seen to do: whoever is asked as the base beside the adapter gets the adapter's words."""
    under_way: list[str] = []

    async def chat(asked: Asked) -> Response:
        model = shaky.bodies[-1]["model"]
        under_way.append(model)
        await asyncio.sleep(0.05)
        tuned = model == "one" or (mixes and "one" in under_way)
        await asyncio.sleep(0.05)
        under_way.remove(model)
        return await stream(chunk("Tuned." if tuned else "Plain."), chunk(finish="stop"), b"data: [DONE]\n\n")(asked)

    shaky.plans, shaky.loads = [chat], [status(200), status(200)]
    engine = engine_of()
    if mixes:
        with pytest.raises(Unavailable, match=r"mixes this adapter into the base's answers .* --max-loras"):
            engine.load("one", make_adapters(tmp_path)["one"])
        assert engine.adapters() == {}
    else:
        engine.load("one", make_adapters(tmp_path)["one"])
        check = engine.check("one")
        assert (check.ok, check.kind, check.detail) == (True, "pair", {"questions": 3, "mixed": 0})


def test_another_base_on_the_server_is_noticed(shaky: Shaky, engine_of: Callable[..., RemoteEngine]) -> None:
    engine, other = engine_of(), stream(chunk("Another."), chunk(finish="stop"))
    assert engine.check().ok
    assert engine.check().ok, "the same server again"
    shaky.bodies.clear()
    shaky.plans = [other, good]
    assert engine.check().ok, "one answer may differ"
    shaky.plans = [other]
    check = engine.check()
    assert (check.ok, check.kind) == (False, "base")
    assert "another model may run there" in check.words
    shaky.plans = [status(500)]
    with pytest.raises(Unavailable):
        engine_of(tries=1).check()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x/", ""), ("x", ""), ("", ""), ("https://", ""), ("https://user:pw@x/", ""), ("https://x/?key=1", ""),
        ("http://models.example/v1", "SHAKY_KEY"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_or_would_bare_the_key_is_refused(url: str, key: str) -> None:
    with pytest.raises(BadInput):
        Server(url, key)


def test_a_server_that_comes_later_is_waited_for_and_one_that_refuses_is_told(shaky: Shaky, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = free_socket()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    engine = RemoteEngine(Server(address))
    with pytest.raises(Unavailable, match="cannot be reached"):
        engine.wait_ready(0.5)
    assert engine.status().state == "loading"
    engine.close()
    keyless = RemoteEngine(Server(shaky.address, "NOT_SET_ANYWHERE"))
    with pytest.raises(Unavailable, match="NOT_SET_ANYWHERE"):
        keyless.wait_ready(5)
    keyless.close()
    unnamed = RemoteEngine(Server(shaky.address))
    unnamed.wait_ready(5)
    assert (unnamed.identity().base, unnamed.identity().context_length) == ("large", 1000)
    unnamed.close()


# Remote arms


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Another installation of this very product, as the server of a remote arm."""
    with desk(tmp_path_factory.mktemp("other")) as made:
        yield made


@pytest.fixture
def house(home: Path, db: Any, other: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    from ft.scripted import ScriptedEngine

    monkeypatch.setenv("OTHER_KEY", other.keys["engineer"])
    made = build(Settings(home, engine="scripted", demo=False), db, ScriptedEngine())
    rows = home / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"Question {n}?", "output": f"Reply {n}"}) + "\n" for n in range(3)))
    made.library.import_file(rows, "set", split="test")
    yield made
    made.remotes.close()


def answered(house: House, *arms: str) -> tuple[str, str, list[Answer]]:
    job = house.answers.start("set", "test", arms, by=None)
    house.answers.run(job)
    view = next(view for view in house.answers.jobs() if view.id == job)
    with house.db.session() as session:
        return view.status, view.message, list(session.query(Answer).all())


def test_a_remote_arm_answers_a_set_by_the_usual_job_and_its_cost_is_counted(house: House, other: Desk) -> None:
    house.remotes.add("hosted", other.base, "one", "OTHER_KEY", price_in=2.0, price_out=8.0)
    status, _, answers = answered(house, "base", "hosted")
    assert status == "finished"
    remote = [row for row in answers if row.engine.get("model") == "one"]
    assert len(answers) == 6
    assert len(remote) == 3
    for row in remote:
        assert row.text
        assert row.new_tokens
        assert row.cost == pytest.approx((row.prompt_tokens * 2 + row.new_tokens * 8) / 1e6)
        assert (row.base_hash, row.engine["server"]) == ("", other.base)
    assert house.remotes.cost("hosted") == pytest.approx(sum(row.cost for row in remote))
    assert house.remotes.cost("base") == 0
    assert house.adapters.check_base(), "answers of other servers are no answers of another base here"
    kept = b"".join(path.read_bytes() for path in house.settings.home.rglob("*") if path.is_file())
    assert other.keys["engineer"].encode() not in kept


def test_a_server_that_is_away_fails_its_own_rows_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from review.services import answering

    monkeypatch.setattr(answering, "SERVER_SECONDS", 0.3)
    house.remotes.add("away", "http://127.0.0.1:9/v1", "x")
    status, message, answers = answered(house, "base", "away")
    assert status == "failed"
    assert "3 of 6 answers are missing: away: The server cannot be reached" in message
    assert len(answers) == 3


def test_a_remote_arm_is_a_model_here_too(house: House, other: Desk) -> None:
    house.remotes.add("hosted", other.base, "one", "OTHER_KEY")
    assert [view.root for view in house.asking.models() if view.name == "hosted"] == ["one"]
    engine = house.remotes.engine(next(arm for arm in arms(house) if arm.name == "hosted"))
    engine.wait_ready(10)
    events = list(house.asking.ask("hosted", messages_for("Hello"), {}).stream)
    assert isinstance(events[-1], Done)


def arms(house: House) -> list[Arm]:
    with house.db.session() as session:
        return list(session.query(Arm).all())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "base"}, BadInput), ({"name": "../x"}, BadInput), ({"name": ""}, BadInput), ({"name": "HOSTED"}, Conflict),
        ({"url": "https://user:pw@x/"}, BadInput), ({"model": " "}, BadInput), ({"key_env": "sk-1234"}, BadInput),
        ({"price_in": -1}, BadInput), ({"price_out": float("nan")}, BadInput), ({"name": "twin"}, Conflict),
    ],
)  # fmt: skip
def test_a_remote_arm_that_cannot_be_is_refused(house: House, change: dict[str, Any], error: type[UserError]) -> None:
    given: dict[str, Any] = {"name": "hosted", "url": "https://models.example/v1", "model": "large", "key_env": "OTHER_KEY"}
    house.remotes.add(**given)
    with pytest.raises(error):
        house.remotes.add(**({"name": "another"} | {k: v for k, v in given.items() if k != "name"} | change))
    assert [arm.name for arm in arms(house) if arm.kind == "remote"] == ["hosted"]


def test_the_engine_of_the_settings_can_be_a_server(other: Desk, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft.engines import open_engine

    monkeypatch.setenv("OTHER_KEY", other.keys["engineer"])
    given = {"TIEBREAK_ENGINE": "remote", "TIEBREAK_REMOTE_URL": other.base, "TIEBREAK_REMOTE_KEY_ENV": "OTHER_KEY"}
    settings = Settings.from_env({"TIEBREAK_HOME": str(home), **given})
    assert other.keys["engineer"] not in str(settings.shown())
    engine = open_engine(settings)
    engine.wait_ready(10)
    assert engine.identity().base == "base"
    assert isinstance(list(engine.generate([ask()]))[-1], Done)
    engine.close()
    with pytest.raises(BadInput, match="TIEBREAK_REMOTE_URL is not set"):
        open_engine(Settings(home, engine="remote"))
    with pytest.raises(BadInput, match="never the key itself"):
        Settings.from_env({"TIEBREAK_HOME": str(home), **given, "TIEBREAK_REMOTE_KEY_ENV": "sk-1234"})


def test_answers_is_the_service_that_knows_remote_arms(house: House) -> None:
    house.remotes.add("hosted", "https://models.example/v1", "large")
    view = next(view for view in house.answers.arms() if view.name == "hosted")
    assert (view.kind, view.title, view.usable) == ("remote", "large on models.example", True)
    assert isinstance(house.answers, Answers)


# Chat with remote arms


def said(house: House, *names: str) -> list[ChatStep]:
    return list(house.answers.chat(names, [Message("user", "How do I reset it?")]))


def test_a_remote_arm_chats_beside_the_base_and_both_texts_come_whole(house: House, other: Desk) -> None:
    house.remotes.add("hosted", other.base, "one", "OTHER_KEY")
    *before, last = said(house, "base", "hosted")
    assert before
    assert all(set(step.texts.values()) == {""} and not step.done for step in before), "a pace would tell who is who"
    assert last.done
    assert not last.failed
    assert all(last.texts[name] for name in ("base", "hosted"))
    assert said(house, "hosted")[-1].texts["hosted"] == last.texts["hosted"]


def test_blind_both_panes_stay_empty_until_both_are_whole_whichever_side_the_server_is_on(house: House, other: Desk) -> None:
    house.remotes.add("hosted", other.base, "one", "OTHER_KEY")
    sides = set()
    for _ in range(12):
        live = LiveCompare(house.answers)
        *before, last = live.ask("Hello?", ("base", "hosted"), DecodeSpec(max_new_tokens=8))
        whole = (last.turns[0].left, last.turns[0].right)
        assert {(shown.turns[0].left, shown.turns[0].right) for shown in before} <= {("", ""), whole}
        assert ("", "") in {(shown.turns[0].left, shown.turns[0].right) for shown in before}
        assert last.may_vote
        sides.add(live.vote("tie").left_arm)
    assert sides == {"base", "hosted"}


def test_a_server_that_is_away_is_said_before_a_chat_begins_and_the_base_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from review.services import answers

    monkeypatch.setattr(answers, "SERVER_SECONDS", 0.3)
    house.remotes.add("away", "http://127.0.0.1:9/v1", "x")
    with pytest.raises(Unavailable, match="cannot be reached"):
        said(house, "base", "away")
    assert said(house, "base")[-1].texts["base"]


def test_remote_arms_are_shown_with_prices_and_cost_and_never_the_key(house: House, other: Desk) -> None:
    house.remotes.add("hosted", other.base, "one", "OTHER_KEY", price_in=2.0, price_out=8.0)
    house.remotes.add("idle", other.base, "base", "OTHER_KEY")
    answered(house, "hosted")
    hosted, idle = house.remotes.arms()
    assert (hosted.name, hosted.model, hosted.answers) == ("hosted", "one", 3)
    assert hosted.cost == pytest.approx(house.remotes.cost("hosted"))
    assert hosted.cost > 0
    assert (idle.answers, idle.cost) == (0, 0.0)
    drawn = remotes_html([hosted, idle])
    assert other.base in drawn
    assert "OTHER_KEY" in drawn
    assert other.keys["engineer"] not in drawn
    assert "No model on another server" in remotes_html([])


def test_the_name_of_a_remote_model_gives_an_arm_away(house: House, other: Desk) -> None:
    house.remotes.add("hosted", other.base, "maker/Kanari-Large", "OTHER_KEY")
    answered(house, "base")
    with house.db.write() as session:
        arm = next(arm for arm in session.query(Arm) if arm.name == "hosted")
        for prompt in session.query(Prompt):
            text = "I am kanari large." if prompt.instruction == "Question 0?" else "Turn it off and on."
            session.add(Answer(arm_id=arm.id, prompt_id=prompt.id, text=text))
    rita = house.people.add("Rita", "reviewer").id
    practised(house.db, rita)
    house.studies.create("Study", "set", ["base", "hosted"], checks=False)
    house.studies.open("Study")
    while isinstance(pair := house.comparisons.next_pair(rita), BlindPair):
        house.comparisons.vote(rita, Ballot(pair.assignment, "left", key=secrets.token_hex(16)))
    with house.db.session() as session:
        asked = {prompt.id: prompt.instruction for prompt in session.query(Prompt)}
        marked = {asked[given.prompt_id]: given.marked for given in session.query(Assignment)}
    assert len(marked) == 3
    assert "Kanari-Large" in marked.pop("Question 0?")
    assert set(marked.values()) == {""}
