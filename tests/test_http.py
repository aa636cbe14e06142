"""Programs ask over HTTP: the OpenAI protocol as its official client and curl speak it, adapters by vLLM's routes, figures."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ft.scripted import everyday_answer
from review.http.stops import Stops
from tests.conftest import ROOT
from tests.programs import Desk, desk
from tests.test_web import started, until_it_answers

ASK = {"messages": [{"role": "user", "content": "How do I reset it?"}]}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("http")) as made:
        yield made


@pytest.fixture
def client(at: Desk) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{at.base}/v1", api_key=at.keys["engineer"], max_retries=0) as made:
        yield made


def events(text: str) -> list[Any]:
    """Server-sent events of a stream, which must end as the protocol says."""
    *found, last, rest = text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in found]


def test_the_official_client_reads_a_whole_answer(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="one", max_tokens=5, **ASK)  # type: ignore[arg-type]
    assert reply.model == "one"
    assert len(reply.choices[0].message.content.split()) == 5
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 5
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 5


def test_the_official_client_reads_a_stream_that_joins_to_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="one", **ASK).choices[0].message.content  # type: ignore[arg-type]
    chunks = list(client.chat.completions.create(model="one", stream=True, stream_options={"include_usage": True}, **ASK))  # type: ignore[arg-type]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_official_client_lists_models_and_names_one(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert list(models) == ["base", "one", "two", "default"]
    assert client.models.retrieve("one").id == "one"
    with pytest.raises(openai.NotFoundError, match="There is no model 'three'"):
        client.models.retrieve("three")


def test_the_official_client_raises_its_own_errors(at: Desk, client: openai.OpenAI) -> None:
    cases: list[tuple[dict[str, Any], type[openai.APIStatusError], str]] = [
        ({"model": "three"}, openai.NotFoundError, "GET /v1/models lists"),
        ({"model": "base", "temperature": 3}, openai.BadRequestError, "from 0 to 2"),
        ({"model": "base", "messages": [{"role": "user", "content": "word " * 9000}]}, openai.BadRequestError, "tokens; this model reads"),
    ]
    for stream in (False, True):
        for body, error, says in cases:
            with pytest.raises(error, match=says):
                client.chat.completions.create(**(ASK | body | {"stream": stream}))  # type: ignore[call-overload]
    wrong = openai.OpenAI(base_url=f"{at.base}/v1", api_key="tb-" + "x" * 43, max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()


def test_plain_curl_works_as_the_docs_say(at: Desk) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed: apt install curl")
    command = [curl, "-sN", f"{at.base}/v1/chat/completions", "-H", f"Authorization: Bearer {at.keys['engineer']}"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(ASK | {"model": "default", "stream": True})]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events(told))


def test_the_model_field_is_the_arm(at: Desk) -> None:
    """What the engine was asked with is what the reply names: the default stands for the arm in use."""
    texts = {name: at.ask(model=name).json() for name in ("base", "one", "two", "default")}
    said = {name: reply["choices"][0]["message"]["content"] for name, reply in texts.items()}
    assert len({said["base"], said["one"], said["two"]}) == 3
    assert (texts["default"]["model"], said["default"]) == ("base", said["base"])
    assert len({reply["system_fingerprint"] for reply in texts.values()}) == 3
    at.house.adapters.use("two", by=None)
    try:
        reply = at.ask(model="default").json()
        assert (reply["model"], reply["choices"][0]["message"]["content"]) == ("two", said["two"])
    finally:
        at.house.adapters.use(None, by=None)


def test_the_whole_app_answers_programs_beside_its_pages(home: Path) -> None:
    """A key made on the command line counts at once in the app that runs."""
    with started(home) as (process, address):
        until_it_answers(process, address)
        env = {**os.environ, "TIEBREAK_HOME": str(home), "TIEBREAK_ENGINE": "scripted"}
        made = subprocess.run([sys.executable, "app.py", "keys", "add", "x", "--json"], cwd=ROOT, env=env, capture_output=True, check=True)
        key = json.loads(made.stdout)["key"]
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=8)
        reply = client.chat.completions.create(model="default", **ASK)  # type: ignore[call-overload]
        assert reply.model == "base"
        assert reply.choices[0].message.content
        assert httpx.get(f"{address}/ready", trust_env=False).json()["state"] == "ready"
        assert httpx.get(f"{address}/metrics", trust_env=False).status_code == 401


def test_an_arms_own_system_text_holds_unless_one_is_sent(at: Desk) -> None:
    plain = at.ask().json()["usage"]["prompt_tokens"]
    other = at.ask(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I reset it?"}]).json()
    assert other["usage"]["prompt_tokens"] == 2 + 5 < plain


def test_texts_in_parts_are_one_text(at: Desk) -> None:
    parts = [{"type": "text", "text": "How do I "}, {"type": "text", "text": "reset it?"}]
    assert at.ask(messages=[{"role": "user", "content": parts}]).json()["usage"] == at.ask().json()["usage"]


def test_models_tell_parent_and_root_as_vllm_does(at: Desk) -> None:
    with at.client() as http:
        told = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
    assert told["base"]["parent"] is None
    assert told["one"]["parent"] == "base"
    assert told["one"]["root"] == at.house.adapters.adapter("one").content_hash
    assert told["default"]["root"] == "base"
    assert told["one"]["max_model_len"] == 8192


def test_an_adapter_is_loaded_and_unloaded_by_vllms_routes(at: Desk) -> None:
    content = at.house.adapters.adapter("two").content_hash
    with at.client() as http:
        reply = http.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": "two"})
        assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'two' added successfully.")
        assert content in at.house.engine.adapters()
        assert http.post("/v1/load_lora_adapter", json={"lora_name": "two"}).status_code == 200, "loading twice is loading once"
        reply = http.post("/v1/unload_lora_adapter", json={"lora_name": "two"})
        assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'two' removed successfully.")
    at.house.adapters.reconcile()
    assert content not in at.house.engine.adapters()
    assert at.ask(model="two").status_code == 200, "asking for it brings it back"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"lora_name": "three"}, 404),
        ({"lora_name": "one", "lora_path": "/etc"}, 400),
        ({"lora_name": "one", "lora_path": "..\\one"}, 400),
        ({"lora_name": "one", "lora_path": "two"}, 400),
        ({"lora_name": 1}, 400),
        ({}, 400),
    ],
)
def test_a_load_that_names_no_registered_adapter_is_refused(at: Desk, body: dict[str, Any], status: int) -> None:
    with at.client() as http:
        reply = http.post("/v1/load_lora_adapter", json=body)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stops", ["account", ["zzz", "look at the"], "e"])
def test_an_answer_ends_before_its_stop(at: Desk, stops: Any, stream: bool) -> None:
    full = at.ask(model="one").json()["choices"][0]["message"]["content"]
    reply = at.ask(model="one", stop=stops, stream=stream)
    if stream:
        said = "".join(event["choices"][0]["delta"].get("content", "") for event in events(reply.text))
    else:
        said = reply.json()["choices"][0]["message"]["content"]
    listed = [stops] if isinstance(stops, str) else stops
    ends = [at for at in (full.find(stop) for stop in listed) if at >= 0]
    assert said == full[: min(ends, default=len(full))]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_stops_are_found_however_the_text_is_cut(size: int) -> None:
    text = "abcabXYabc"
    for stops, wanted in ((["abX"], "abc"), (["XYZ"], text), (["bca", "XY"], "a"), ([], text)):
        watch = Stops(stops)
        said = "".join(watch.feed(text[at : at + size]) for at in range(0, len(text), size)) + watch.rest()
        assert said == wanted, (stops, size)


def test_warm_answers_differ_and_a_seed_makes_them_the_same(at: Desk) -> None:
    """The seed reaches the engine; without one it is drawn."""
    seen = []
    original = at.house.engine.generate
    object.__setattr__(at.house.engine, "generate", lambda requests: (seen.extend(requests), original(requests))[1])
    try:
        for body in ({}, {}, {"seed": 7}, {"seed": 7}):
            at.ask(temperature=0.7, top_p=0.9, repetition_penalty=1.2, max_completion_tokens=9, **body)
    finally:
        del at.house.engine.generate
    decodes = [request.decode for request in seen]
    assert decodes[0].seed != decodes[1].seed
    assert [decode.seed for decode in decodes[2:]] == [7, 7]
    assert {(d.temperature, d.top_p, d.repetition_penalty, d.max_new_tokens) for d in decodes} == {(0.7, 0.9, 1.2, 9)}


def test_the_flex_tier_is_work_that_yields_to_people(at: Desk) -> None:
    seen = []
    original = at.house.engine.generate
    object.__setattr__(at.house.engine, "generate", lambda requests: (seen.extend(requests), original(requests))[1])
    try:
        assert [at.ask(service_tier=tier).status_code for tier in ("auto", "flex", "urgent")] == [200, 200, 400]
    finally:
        del at.house.engine.generate
    assert [request.background for request in seen] == [False, True]


def test_figures_are_read_by_prometheus_own_parser(at: Desk) -> None:
    at.ask(model="one", max_tokens=3)
    at.ask(model="nobody")
    with at.client("viewer") as http:
        reply = http.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {(s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(reply.text) for s in family.samples}
    assert samples["tiebreak_requests_total", "one", "200"] >= 1
    assert samples["tiebreak_requests_total", "", "404"] >= 1
    assert samples["tiebreak_tokens_total", "one", "completion"] >= 3
    assert samples["tiebreak_first_token_seconds_count",] >= 1
    assert samples["tiebreak_rows", "waiting"] == samples["tiebreak_rows", "running"] == 0
    assert samples["tiebreak_model_ready",] == 1
    assert samples["tiebreak_votes_total",] == 0
    assert samples["tiebreak_adapters_resident",] >= 1
    assert "nobody" not in reply.text


def test_the_figures_need_a_key_and_a_viewers_is_enough(at: Desk) -> None:
    with at.client("viewer") as viewer, at.client("reviewer") as reviewer:
        assert viewer.get("/metrics").status_code == 200
        assert viewer.get("/v1/models").status_code == 403
        assert reviewer.get("/metrics").status_code == 403


def test_a_scripted_answer_is_the_engines_own(at: Desk) -> None:
    """No text is lost or added on the way."""
    from ft.engine import Request
    from ft.template import with_system
    from review.http.wire import Message

    request = Request("x", with_system([Message("user", "How do I reset it?")]))
    assert at.ask().json()["choices"][0]["message"]["content"] == everyday_answer(request)
