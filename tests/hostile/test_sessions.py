"""T45 to T49: a page's session belongs to one person, sign-in holds against guessing, floods are bounded, failures say only an id."""

import secrets
import socket
import time

import pytest

from tests.hostile import stock
from tests.hostile.conftest import Site
from tests.hostile.site import Visitor

pytestmark = pytest.mark.hostile


def test_somebody_elses_page_session_is_refused_everywhere(site: Site) -> None:
    """T45."""
    rita, ron = site.visitor("Rita"), site.visitor("Ron")
    function = next(f for f in site.functions if f.mount == "/review" and not f.inputs)
    with site.watching():
        assert rita.act("/review", function.index, [])[0] == 200
        joined = rita.join("/review", function.index, [])
        event = joined.json()["event_id"]
        ron.hash = rita.hash
        assert ron.join("/review", function.index, []).status_code == 403
        assert ron.post("/review/gradio_api/run/predict", ron.payload(function.index, [])).status_code == 403
        assert ron.read("/review") == [{"msg": "refused", "status": 403}]
        assert ron.get(f"/review/gradio_api/heartbeat/{rita.hash}").status_code == 403
        assert ron.get("/review/?deep_link=x").status_code in (200, 404)
        assert ron.get(f"/review/gradio_api/deep_link?session_hash={rita.hash}").status_code == 404
        ron.hash = secrets.token_hex(6)
        for body in (
            {"session_hash": rita.hash, "fn_index": function.index, "event_id": event},
            {"session_hash": ron.hash, "fn_index": function.index, "event_id": event},
        ):
            assert ron.post("/review/gradio_api/cancel", body).status_code == 403
        assert ron.post("/review/gradio_api/reset", {"event_id": event}).status_code == 403
        assert rita.read("/review")[-1]["msg"] == "close_stream", "her own stream still works"


@pytest.mark.parametrize("name", ["", "x", "../../etc", "a" * 200, "ABCDEFGH", "abc def ghi", None, 7, ["abcdefgh"], {"a": 1}])
def test_a_session_name_has_one_form(site: Site, name: object) -> None:
    visitor = site.visitor("Rita")
    function = next(f for f in site.functions if f.mount == "/review")
    body = visitor.payload(function.index, []) | {"session_hash": name}
    assert visitor.post("/review/gradio_api/queue/join", body).status_code == 400


def _with(data: bytes, function: bytes = b"0") -> bytes:
    return b'{"data":%s,"fn_index":%s,"session_hash":"abcdefgh"}' % (data, function)


NOT_BODIES = (
    *(b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1,"a":2}', b"[" * 100_000),
    *(_with(b"[NaN]"), _with(b"[1e999]"), _with(b"{}"), _with(b"[" * 500 + b"]" * 500), _with(b"[123456789012345678901234567890]")),
    *(
        _with(b'["\\ud800"]'),
        _with(b'["\\u0000"]'),
        _with(b'[{"\\ud800":1}]'),
        _with(b"[]", b'"0"'),
        _with(b"[]", b"true"),
        _with(b"[]", b"null"),
    ),
)


@pytest.mark.parametrize("body", NOT_BODIES, ids=range(len(NOT_BODIES)))
def test_a_body_that_is_not_what_the_page_sends_is_refused(site: Site, body: bytes) -> None:
    with site.watching() as acted:
        reply = site.visitor("Rita").http.post("/review/gradio_api/run/predict", content=body, headers={"origin": site.base})
    assert reply.status_code == 400, reply.text
    assert acted == []


def test_password_guessing_is_stopped_and_tells_no_names(site: Site) -> None:
    """T46. No account has a password until one is set, and guessing looks the same for people who exist and who do not."""
    site.house.people.add("Gus", "viewer")
    visitor = site.visitor()
    told = {}
    for name in ("Gus", "Nobody at all"):
        replies = [
            visitor.http.post("/login", data={"name": name, "password": f"guess {i}"}, headers={"origin": site.base}) for i in range(11)
        ]
        assert [r.status_code for r in replies] == [401] * 10 + [429]
        told[name] = [r.text.replace(name, "NAME") for r in replies]
    assert told["Gus"] == told["Nobody at all"]
    for name, password in (("admin", "admin"), ("Ada", ""), ("Ada", "Ada"), ("Ada", "password")):
        reply = visitor.http.post("/login", data={"name": name, "password": password}, headers={"origin": site.base})
        assert reply.status_code == 401


def test_a_password_signs_in_and_a_form_too_large_does_not(site: Site) -> None:
    site.house.people.add("Pia", "viewer")
    site.house.people.set_password("Pia", "correct horse battery staple", by=None)
    visitor = site.visitor()
    big = visitor.http.post("/login", data={"name": "Pia", "password": "x" * 100_000}, headers={"origin": site.base})
    assert big.status_code == 413
    good = visitor.http.post("/login", data={"name": "Pia", "password": "correct horse battery staple"}, headers={"origin": site.base})
    assert (good.status_code, good.headers["location"]) == (303, "/boards")


def test_signing_out_ends_the_session_on_the_server(site: Site) -> None:
    visitor = site.visitor("Sam")
    kept = dict(visitor.http.cookies)
    assert visitor.post("/logout").status_code == 200
    assert Visitor(site.base, cookies=kept).get("/boards/", accept="*/*").status_code == 401


def test_joins_that_nobody_reads_are_bounded(site: Site) -> None:
    """T47."""
    visitor = site.visitor("Rita")
    function = next(f for f in site.functions if f.mount == "/review" and not f.inputs)
    with site.watching():
        statuses = [visitor.join("/review", function.index, []).status_code for _ in range(200)]
        assert statuses.count(200) == site.guard.rules.unread
        assert set(statuses[-50:]) == {429}
        visitor.read("/review")
        assert visitor.join("/review", function.index, []).status_code == 200
        visitor.read("/review")


def test_page_sessions_and_counters_are_bounded(site: Site) -> None:
    visitor = site.visitor("Ron")
    function = next(f for f in site.functions if f.mount == "/review" and not f.inputs and not f.queued)
    rules = site.guard.rules
    with site.watching():
        for _ in range(rules.sessions + 50):
            visitor.hash = secrets.token_hex(6)
            visitor.post("/review/gradio_api/run/predict", visitor.payload(function.index, []))
    people = len(site.house.people.users())
    assert len(site.guard.sessions) <= rules.sessions * people
    assert len(site.guard.sessions.names_of(site.house.people.user("Ron").id)) == rules.sessions


def test_open_streams_are_bounded_and_given_back(site: Site) -> None:
    visitor = site.visitor("Ron")
    host, port = site.base.removeprefix("http://").split(":")
    cookie = "; ".join(f"{k}={v}" for k, v in visitor.http.cookies.items())
    held = []
    for number in range(site.guard.rules.readers):
        line = socket.create_connection((host, int(port)))
        line.sendall(
            f"GET /review/gradio_api/heartbeat/abcdef{number} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\n\r\n".encode()
        )
        assert b" 200 " in line.recv(200).split(b"\r\n")[0]
        held.append(line)
    assert visitor.get("/review/gradio_api/heartbeat/abcdefzz").status_code == 429
    for line in held:
        line.close()
    deadline = time.monotonic() + 10
    while len(site.guard.readers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(site.guard.readers) == 0


def test_too_large_bodies_are_refused_before_they_arrive(site: Site) -> None:
    """T48: by the announced length, without waiting for a byte of it; and by counting, where nothing was announced."""
    visitor = site.visitor("Erik")
    host, port = site.base.removeprefix("http://").split(":")
    cookie = "; ".join(f"{k}={v}" for k, v in visitor.http.cookies.items())
    for path, size in (
        ("/lab/gradio_api/upload", site.guard.rules.upload_bytes + 1),
        ("/lab/gradio_api/queue/join", site.guard.rules.body_bytes + 1),
        ("/login", site.guard.rules.form_bytes + 1),
    ):
        with socket.create_connection((host, int(port))) as line:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {site.base}\r\nCookie: {cookie}\r\nContent-Length: {size}\r\n\r\n"
            )
            line.sendall(head.encode())
            line.settimeout(5)
            assert b" 413 " in line.recv(100).split(b"\r\n")[0], path

    def endless() -> object:
        for _ in range(200):
            yield b"x" * 65536

    reply = visitor.http.post("/lab/gradio_api/queue/join", content=endless(), headers={"origin": site.base})  # type: ignore[arg-type]
    assert reply.status_code == 413
    assert visitor.http.post("/lab/gradio_api/upload", content=endless(), headers={"origin": site.base}).status_code == 411  # type: ignore[arg-type]


def test_a_failure_tells_an_id_and_the_log_the_rest(site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """T49."""
    rita = site.visitor("Rita")
    monkeypatch.setattr(site.house.onboarding, "next", _fails)
    monkeypatch.setattr(site.house.comparisons, "next_pair", _fails)
    told = ""
    for function in [f for f in site.functions if f.mount == "/review" and (f.name.endswith("begin") or not f.inputs)]:
        _, events = rita.act("/review", function.index, [{}] * function.inputs)
        direct = rita.post("/review/gradio_api/run/predict", rita.payload(function.index, [{}] * function.inputs))
        told += str(events) + direct.text
    assert "/secret/kanari-path" not in told
    assert "Something went wrong (id " in told
    assert "/secret/kanari-path" in caplog.text


def _fails(*_: object) -> None:
    raise RuntimeError("cannot open /secret/kanari-path")


class TestControl:
    def test_stock_gives_a_stranger_the_state_of_a_session(self) -> None:
        with stock.stock(stock.echo(), who=lambda request: request.headers.get("x-user")) as base:
            owner, stranger = Visitor(base), Visitor(base)
            owner.http.headers["x-user"], stranger.http.headers["x-user"] = "owner", "stranger"
            assert owner.act("/app", stock.STATE, ["kanari-state", None])[0] == 200
            stranger.hash = owner.hash
            _, events = stranger.act("/app", stock.STATE, ["", None])
            assert "kanari-state" in str(events)

    def test_stock_lets_anybody_read_somebody_elses_stream(self) -> None:
        with stock.stock(stock.echo(), who=lambda request: request.headers.get("x-user")) as base:
            owner, stranger = Visitor(base), Visitor(base)
            owner.http.headers["x-user"], stranger.http.headers["x-user"] = "owner", "stranger"
            assert owner.join("/app", stock.TEXT, ["kanari-answer"]).status_code == 200
            assert "kanari-answer" in str(stranger.read("/app", session=owner.hash))

    def test_stock_takes_joins_without_end(self) -> None:
        with stock.stock(stock.echo()) as base:
            visitor = Visitor(base)
            assert {visitor.join("/app", stock.TEXT, ["x"]).status_code for _ in range(200)} == {200}
