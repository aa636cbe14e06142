"""The process and its wall: it starts before the model, ends quickly, explains what keeps it from starting, and the guard's pieces hold."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from starlette.responses import Response

from review.guard import Guard, Mount, Policy, bodies, policy, replies
from review.guard.bindings import Bindings, Tally
from review.guard.bodies import Refusal
from review.settings import Settings
from tests.conftest import ROOT
from tests.hostile.site import Visitor, free_socket, served
from tests.tiny import make_base

HEAVY = ("torch", "transformers", "peft", "trl", "evaluate", "datasets", "bitsandbytes", "accelerate")
NOTICE = """
import sys, time
def notice(event, given):
    if event == "import" and given[0].split(".")[0] in {wanted!r} and "." not in given[0]:
        sys.stderr.write(f"imported {{given[0]}} {{time.monotonic()}}\\n"); sys.stderr.flush()
sys.addaudithook(notice)
sys.argv = ["tiebreak", "serve"]
import app
app.main()
"""


def free_port() -> int:
    with free_socket() as probe:
        return int(probe.getsockname()[1])


@contextmanager
def started(home: Path, *command: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The app in a process of its own, and its address; ended hard if it still lives at the end."""
    port = env.setdefault("TIEBREAK_PORT", str(free_port()))
    settings = {"TIEBREAK_HOME": str(home), "TIEBREAK_ENGINE": "scripted", "TIEBREAK_DEMO": "0", "PYTHONUNBUFFERED": "1"} | env
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIEBREAK_")}
    process = subprocess.Popen(
        command or [sys.executable, "app.py"],
        cwd=ROOT, env=kept | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def until_it_answers(process: subprocess.Popen[str], address: str, path: str = "/login", seconds: float = 60) -> httpx.Response:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            return httpx.get(address + path, trust_env=False, timeout=seconds)
        except httpx.TransportError:
            time.sleep(0.02)
    raise AssertionError("no answer")


def ended(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_the_first_page_comes_before_anything_heavy_is_imported(home: Path) -> None:
    """And not much later than bare Gradio itself is there. The same process imports torch afterwards, for the model."""
    base = make_base(home / "tiny")
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True)
    bare = time.monotonic() - begun
    command = (sys.executable, "-c", NOTICE.format(wanted=(*HEAVY, "gradio")))
    for attempt in ("first", "second"):
        with started(home, *command, TIEBREAK_ENGINE="local", TIEBREAK_BASE=str(base)) as (process, address):
            begun = time.monotonic()
            assert until_it_answers(process, address).status_code == 200
            first_page = time.monotonic()
            imported = imports_until(process, "torch")
        assert imported["gradio"] < first_page, "the hook sees imports"
        assert [name for name, at in imported.items() if name in HEAVY and at < first_page] == [], f"{attempt} start"
    assert first_page - begun < max(3.0, 2.5 * bare), f"first page after {first_page - begun:.1f} s, gradio alone {bare:.1f} s"


def imports_until(process: subprocess.Popen[str], last: str) -> dict[str, float]:
    """When each watched module was first imported, read from the process until `last` was."""
    assert process.stderr is not None
    imported: dict[str, float] = {}
    for line in iter(process.stderr.readline, ""):
        if found := re.fullmatch(r"imported (\w+) ([0-9.]+)\n", line):
            imported.setdefault(found[1], float(found[2]))
        if last in imported:
            return imported
    raise AssertionError(f"{last} was never imported")


def test_the_model_is_ready_behind_the_pages(home: Path) -> None:
    with started(home, TIEBREAK_ENGINE="local", TIEBREAK_BASE=str(make_base(home / "tiny"))) as (process, address):
        first = until_it_answers(process, address, "/ready")
        assert first.json()["state"] in ("loading", "ready")
        deadline = time.monotonic() + 60
        while (reply := httpx.get(f"{address}/ready", trust_env=False)).status_code != 200:
            assert reply.json()["state"] == "loading", reply.text
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_sigterm_ends_it_within_seconds_with_streams_open(home: Path) -> None:
    with started(home) as (process, address):
        until_it_answers(process, address)
        assert process.stdout is not None
        link = next(line.split()[-1] for line in iter(process.stdout.readline, "") if "/login/" in line)
        visitor = Visitor(address)
        assert visitor.post(link.removeprefix(address)).headers["location"] == "/admin"
        with visitor.http.stream("GET", "/admin/gradio_api/heartbeat/abcdef12") as stream:
            assert stream.status_code == 200
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code, _, err = ended(process)
        assert (code, time.monotonic() - begun < 15) == (0, True)
        assert "Traceback" not in err


def test_a_home_is_private_and_has_one_server(home: Path) -> None:
    with started(home) as (process, address):
        until_it_answers(process, address)
        with started(home) as (second, _):
            code, out, err = ended(second)
        assert code == 1
        assert out == ""
        assert re.fullmatch(r"tiebreak: Tiebreak is running already on .*http://127.*Open that one.*\n", err)
        for path in [home, *home.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def taken_port(home: Path) -> dict[str, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    KEPT.append(listener)
    return {"TIEBREAK_PORT": str(listener.getsockname()[1])}


def junk_database(home: Path) -> dict[str, str]:
    (home / "tiebreak.db").write_bytes(b"not a database, " * 1000)
    return {}


def home_is_a_file(home: Path) -> dict[str, str]:
    (home / "file").write_text("x")
    return {"TIEBREAK_HOME": str(home / "file")}


KEPT: list[socket.socket] = []
BROKEN: list[tuple[Callable[[Path], dict[str, str]], str]] = [
    (taken_port, r"Port \d+ on 127.0.0.1 is taken by another program. Set TIEBREAK_PORT"),
    (junk_database, r"tiebreak.db"),
    (home_is_a_file, r"The data folder .* Set TIEBREAK_HOME"),
    (lambda home: {"TIEBREAK_PORT": "http", "TIEBREAK_DEVCE": "cpu"}, r"TIEBREAK_DEVCE is not a setting; TIEBREAK_PORT is 'http'"),
    (lambda home: {"TIEBREAK_HOST": "999.1.1.1"}, r"The address 999.1.1.1 cannot be used. Set TIEBREAK_HOST"),
    (lambda home: {"TIEBREAK_DATABASE": "mysql://x"}, r"TIEBREAK_DATABASE is"),
]


@pytest.mark.parametrize(("broken", "says"), BROKEN)
def test_what_keeps_it_from_starting_is_one_sentence(home: Path, broken: Callable[[Path], dict[str, str]], says: str) -> None:
    with started(home, **broken(home)) as (process, _):
        code, out, err = ended(process)
    assert code in (1, 2)
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1, err
    assert re.search(says, err), err
    assert "Tiebreak runs at" not in out


def test_the_program_and_the_file_are_the_same() -> None:
    told = [
        subprocess.run([sys.executable, "app.py", *args], cwd=ROOT, capture_output=True, text=True)
        for args in (["--help"], ["serve", "--help"])
    ]
    assert all(done.returncode == 0 for done in told)
    assert "serve" in told[0].stdout
    assert "--port" in told[1].stdout


class TestBindings:
    def test_a_name_stays_with_whoever_brought_it(self) -> None:
        names = Bindings(2)
        assert names.claim("a", 1)
        assert names.claim("a", 1)
        assert not names.claim("a", 2)
        assert names.holds("a", 1)
        assert not names.holds("a", 2)

    def test_only_ones_own_new_names_push_an_old_one_out(self) -> None:
        gone: list[str] = []
        names = Bindings(2, forget=gone.append)
        for name in "abc":
            names.claim(name, 1)
        for number in range(10):
            names.claim(f"other {number}", 2)
        assert names.names_of(1) == ("b", "c")
        assert gone[0] == "a"
        assert len(names) == 4

    def test_a_name_in_use_stays_fresh(self) -> None:
        names = Bindings(2)
        for name in "abac":
            names.claim(name, 1)
        assert names.names_of(1) == ("a", "c")

    def test_a_tally_forgets_what_is_at_zero(self) -> None:
        tally = Tally()
        assert [tally.add("x", 2) for _ in range(3)] == [True, True, False]
        tally.drop("x")
        tally.drop("x")
        tally.drop("x")
        assert len(tally) == 0


class TestBodies:
    @pytest.mark.parametrize("value", [{"path": "/x"}, [[{"a": {"path": "/x"}}]], {"meta": {"_type": "gradio.FileData"}}, {"path": None}])
    def test_any_file_reference_is_refused_at_any_depth(self, value: Any) -> None:
        with pytest.raises(Refusal):
            bodies.checked({"data": [value]}, lambda path: False)

    def test_json_in_json_in_json_is_looked_into(self) -> None:
        text = json.dumps({"path": "/x", "meta": {"_type": "gradio.FileData"}})
        for _ in range(3):
            with pytest.raises(Refusal):
                bodies.checked([text], lambda path: False)
            text = json.dumps([text])

    def test_an_own_upload_keeps_its_known_fields_only(self) -> None:
        given = {
            "path": "/up/a.txt",
            "url": "http://evil.example/",
            "orig_name": "../../a.txt",
            "size": 3,
            "is_stream": True,
            "meta": {"_type": "x"},
        }
        kept = bodies.checked(given, lambda path: path == "/up/a.txt")
        assert kept == {"path": "/up/a.txt", "orig_name": "a.txt", "size": 3, "meta": {"_type": "gradio.FileData"}}

    @pytest.mark.parametrize(
        "text", ["{", "[1, 2", '{"path": 1}', '"path"', "[[[[path]]]]", "I typed <path> into {the} box", "[" * 5000 + "path", ""]
    )
    def test_prose_passes_unchanged(self, text: str) -> None:
        assert bodies.checked({"data": [text]}, lambda path: False) == {"data": [text]}


class TestReplies:
    STREAM = (
        b'data: {"msg":"estimation","event_id":"e","rank":3,"queue_size":7,"rank_eta":1.5}\n\n'
        b'data: {"msg":"process_starts","event_id":"e","eta":0.7}\n\n'
        b'data: {"msg":"process_completed","output":{"data":["a\\n\\nb"],"duration":0.3,"average_duration":0.2},"success":true}\n\n'
        b'data: {"msg":"process_completed","event_id":"e","output":{"error":"no","duration":10},"success":false}\n\n'
    )

    @pytest.mark.parametrize("size", [1, 7, 64, 10_000])
    def test_clocks_are_stopped_however_the_stream_is_cut(self, size: int) -> None:
        unclock = replies.Unclock()
        pieces = [self.STREAM[i : i + size] for i in range(0, len(self.STREAM), size)]
        out = b"".join(unclock.feed(piece, True) for piece in pieces) + unclock.feed(b"", False)
        events = [json.loads(event[6:]) for event in out.split(b"\n\n") if event]
        assert [events[0][key] for key in ("rank", "queue_size", "rank_eta")] == [None, 1, None]
        assert events[1]["eta"] is None
        assert events[2]["output"] == {"data": ["a\n\nb"], "duration": 0.0, "average_duration": 0.0}
        assert events[3]["output"]["duration"] == 10, "how long an error stays on the screen is no clock"

    def test_a_pages_own_scripts_are_named_by_hash_and_no_other_runs(self) -> None:
        html = b"<script>one</script><script type=module src=x></script><script data-a>two</script>"
        found = replies.page_policy(html, ("three",))
        assert found.count("'sha256-") == 3
        assert "script-src 'self' 'unsafe-eval' 'sha256-" in found
        assert replies.source(b"evil") not in found


class TestPolicy:
    MOUNT = Mount("/lab", ("engineer",), uploads=False)

    @pytest.mark.parametrize(
        "path", ["/lab/gradio_api/upload", "/lab/gradio_api/file=/etc/passwd", "/lab/config", "/lab/assets/../x", "/lab/assets/"]
    )
    def test_unknown_routes_have_no_name(self, path: str) -> None:
        assert {policy.route_of(self.MOUNT, method, path) for method in ("GET", "POST", "HEAD")} == {None}

    def test_a_public_address_is_the_only_origin(self) -> None:
        rules = Policy((), policy.known_hosts("0.0.0.0", 7860, "https://t.example.com"), public_url="https://t.example.com")
        assert rules.origin_is_ours("https://t.example.com", "127.0.0.1:7860")
        assert not rules.origin_is_ours("http://127.0.0.1:7860", "127.0.0.1:7860")
        assert not rules.host_is_known("evil.example")

    def test_a_server_for_the_network_takes_any_name_but_only_its_own_origin(self) -> None:
        rules = Policy((), policy.known_hosts("0.0.0.0", 7860, ""))
        assert rules.host_is_known("gpu-box:7860")
        assert rules.origin_is_ours("http://gpu-box:7860", "gpu-box:7860")
        assert not rules.origin_is_ours("http://other:7860", "gpu-box:7860")

    def test_behind_https_the_cookie_is_bound_to_the_host(self, home: Path) -> None:
        from types import SimpleNamespace

        from review.web import _cookie_name

        assert _cookie_name(SimpleNamespace(settings=Settings(home, public_url="https://t.example.com"))) == "__Host-tiebreak"  # type: ignore[arg-type]
        assert _cookie_name(SimpleNamespace(settings=Settings(home, port=8001))) == "tiebreak-8001"  # type: ignore[arg-type]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An app that tells what reached it, misbehaves where asked, and claims headers that are the guard's to give."""
    if scope["path"].endswith("broken"):
        raise RuntimeError("/secret/path")
    seen = {name.decode(): value.decode() for name, value in scope["headers"]}
    body = json.dumps({"headers": seen, "scheme": scope["scheme"]}).encode()
    given = [
        (b"content-type", b"application/json"),
        (b"access-control-allow-origin", b"*"),
        (b"cache-control", b"public"),
        (b"server", b"x"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": given})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Somebody:
    id: int = 1
    name: str = "Rita"
    role: str = "reviewer"


class TestWall:
    """The guard alone, in front of an app that would tell everything."""

    COOKIES: ClassVar = {"tiebreak": "a-session-token-of-rita"}

    @contextmanager
    def wall(self, who: Callable[[str], Any] = lambda token: Somebody(), room: int = 1 << 40, **rules: Any) -> Iterator[Visitor]:
        known = Policy((Mount("/review", ("reviewer",), uploads=True),), (), **rules)
        guard = Guard(echo, known, who, lambda status, words, person: Response(words, status), lambda: room)
        with served(guard) as address:
            yield Visitor(address, cookies=self.COOKIES)

    def test_the_app_sees_no_cookie_no_range_and_no_claim_of_a_proxy(self) -> None:
        claims = {
            "range": "bytes=0-1",
            "x-forwarded-host": "evil",
            "x-forwarded-proto": "https",
            "forwarded": "host=evil",
            "authorization": "x",
        }
        with self.wall() as visitor:
            seen = visitor.get("/review/theme.css", **claims).json()
        assert not {"cookie", *claims} & set(seen["headers"])
        assert seen["scheme"] == "http"

    def test_behind_https_the_app_sees_the_public_address(self) -> None:
        with self.wall(public_url="https://t.example.com") as visitor:
            reply = visitor.get("/review/theme.css")
            assert visitor.post("/review/gradio_api/upload").status_code == 403, "the inner address is no origin"
        assert (reply.json()["scheme"], reply.json()["headers"]["host"]) == ("https", "t.example.com")
        assert "strict-transport-security" in reply.headers

    def test_only_the_guard_says_who_may_read_and_keep(self) -> None:
        with self.wall() as visitor:
            reply = visitor.get("/review/theme.css")
        assert "access-control-allow-origin" not in reply.headers
        assert "server" not in reply.headers
        assert reply.headers["cache-control"] == "private, max-age=86400"

    def test_an_error_of_the_app_is_an_id(self, caplog: pytest.LogCaptureFixture) -> None:
        with self.wall() as visitor:
            reply = visitor.get("/broken")
        assert reply.status_code == 500
        assert re.search(r"\(id [0-9a-f]{8}\)", reply.text)
        assert "/secret/path" not in reply.text
        assert "/secret/path" in caplog.text

    def test_a_busy_database_is_said_as_it_is(self) -> None:
        def busy(token: str) -> None:
            raise Refusal(503, "The database is busy. Try again in a moment.")

        with self.wall(who=busy) as visitor:
            reply = visitor.get("/review/theme.css")
        assert (reply.status_code, reply.json()["detail"]) == (503, "The database is busy. Try again in a moment.")

    def test_an_upload_that_would_fill_the_disk_is_refused(self) -> None:
        with self.wall(room=300 << 20) as visitor:
            files = {"files": ("a", b"x" * 1000)}
            assert visitor.http.post("/review/gradio_api/upload", files=files, headers={"origin": visitor.base}).status_code == 200
        with self.wall(room=200 << 20) as visitor:
            assert visitor.http.post("/review/gradio_api/upload", files=files, headers={"origin": visitor.base}).status_code == 507

    def test_a_page_with_a_script_too_many_is_not_sent(self) -> None:
        with self.wall(page_scripts=1) as visitor:
            assert visitor.get("/review/").status_code == 500

    def test_cookies_of_other_programs_on_this_machine_do_no_harm(self) -> None:
        with self.wall() as visitor:
            others = 'theirs={"a": "b,c"}; x; =; "q"=1; tiebreak=a-session-token-of-rita; late=[1]'
            visitor.http.cookies.clear()
            assert visitor.get("/review/theme.css", cookie=others).status_code == 200

    @pytest.mark.parametrize("cookie", ["tiebreak=short", "tiebreak=" + "x" * 5000, "tiebreak=\xff; a=b", "=;;=", ""])
    def test_a_strange_cookie_is_nobody(self, cookie: str) -> None:
        with self.wall() as visitor:
            visitor.http.cookies.clear()
            assert visitor.http.get("/review/theme.css", headers={"cookie": cookie.encode("latin-1")}).status_code == 401
