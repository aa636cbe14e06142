"""T3, T4: who may run which function, by which route; and what somebody without a session finds."""

import inspect
import time
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from tests.hostile import stock
from tests.hostile.conftest import Site
from tests.hostile.site import Visitor

pytestmark = pytest.mark.hostile
ROLES = {"reviewer": "Rita", "engineer": "Erik", "viewer": "Sam", "admin": "Ada"}
MAY = {"/review": {"reviewer"}, "/lab": {"engineer", "admin"}, "/boards": {"engineer", "viewer", "admin"}, "/admin": {"admin"}}
OPEN = ("/health", "/ready", "/login", "/login/x", "/favicon.ico", "/static/x")
DIRECT = (
    ("run", "predict"),
    ("run", "{name}"),
    ("api", "predict"),
    ("api", "{name}"),
    ("call", "{name}"),
    ("call", "{index}"),
    ("call/v2", "{name}"),
)


def test_every_part_is_mounted_for_the_roles_of_the_table(site: Site) -> None:
    assert set(site.blocks) == set(MAY)


def test_the_queue_runs_a_function_for_its_roles_and_for_nobody_else(site: Site) -> None:
    visitors: dict[str | None, Visitor] = {role: site.visitor(name) for role, name in ROLES.items()} | {None: site.visitor()}
    for role, visitor in visitors.items():
        for function in site.functions:
            with site.watching() as acted:
                status, events = visitor.act(function.mount, function.index, list(function.given))
            if role in MAY[function.mount]:
                assert status == 200, (role, function, status)
                assert [who for who, _ in acted] == [role], f"{function} ran without being let in: wrap it in parts.acts"
                assert "seen" in str(events)
            else:
                assert status == (401 if role is None else 403), (role, function, status)
                assert acted == [], (role, function)


def test_direct_routes_run_only_what_the_front_end_runs_directly(site: Site) -> None:
    visitors: dict[str | None, Visitor] = {role: site.visitor(name) for role, name in ROLES.items()} | {None: site.visitor()}
    for role, visitor in visitors.items():
        for function in site.functions:
            body = visitor.payload(function.index, list(function.given))
            for route, pattern in DIRECT:
                target = pattern.format(name=function.name.rsplit(".", 1)[-1], index=function.index)
                with site.watching() as acted:
                    reply = visitor.post(f"{function.mount}/gradio_api/{route}/{target}", body)
                is_front_end = (route, target) == ("run", "predict") and not function.queued and role in MAY[function.mount]
                assert bool(acted) == is_front_end, (role, function, route, target, reply.status_code)
                assert reply.status_code in ((500,) if is_front_end else (401, 403, 404)), (role, function, route, reply.text)


def call(handler: Any, name: str | None, given: tuple[Any, ...]) -> None:
    """Run a handler to its end as a person, without a web server."""
    done = handler(SimpleNamespace(username=name), *given)
    list(done if inspect.isgenerator(done) else ())


def test_every_handler_refuses_the_other_roles_by_itself(site: Site) -> None:
    """The second wall: called behind the guard's back, as a hole in it would let somebody do."""
    for function in site.functions:
        handler = site.blocks[function.mount].fns[function.index].fn
        for role, name in ROLES.items():
            with site.watching() as acted, pytest.raises(gr.Error) as refused:
                call(handler, name, function.given)
            allowed = role in MAY[function.mount]
            assert [who for who, _ in acted] == ([role] if allowed else []), (function, role)
            assert ("seen" in str(refused.value)) == allowed
        for nobody in (None, "", "No such person"):
            with site.watching() as acted, pytest.raises(gr.Error):
                call(handler, nobody, function.given)
            assert acted == []


def test_a_role_taken_away_counts_from_the_next_request(site: Site) -> None:
    site.house.people.add("Tess", "engineer")
    tess = site.visitor("Tess")
    assert tess.get("/lab/").status_code == 200
    site.house.people.set_role("Tess", "viewer", by=None)
    assert tess.get("/lab/").status_code == 403
    assert tess.get("/boards/").status_code == 200
    site.house.people.disable("Tess", by=None)
    assert tess.get("/boards/", accept="*/*").status_code == 401


def test_nobody_finds_anything_without_a_session(site: Site) -> None:
    """T4: every route of the app and of every Gradio app in it."""
    visitor = site.visitor()
    assert len(site.routes) > 80
    with site.watching() as acted:
        for method, path in site.routes:
            if path in OPEN:
                continue
            for accept in ("*/*", "text/html"):
                headers = {"origin": site.base, "accept": accept}
                reply = visitor.http.request(
                    method, path, headers=headers, content=b'{"session_hash":"abcdef123"}' if method == "POST" else None
                )
                assert reply.status_code in (401, 403, 404, 405, 303), (method, path, reply.status_code)
                if reply.status_code == 303:
                    assert reply.headers["location"] == "/login"
    assert acted == []


def test_open_pages_tell_nobody_anything(site: Site) -> None:
    visitor = site.visitor()
    told = "".join(visitor.get(path).text for path in (*OPEN, "/login/" + "a" * 43))
    assert not [word for word in site.canaries.words.values() if word in told]
    assert not [name for name in ("Rita", "Erik", "Ada") if name in told]


def test_unused_routes_of_gradio_are_closed_to_everybody(site: Site) -> None:
    closed = (
        "config",
        "gradio_api/info",
        "gradio_api/openapi.json",
        "monitoring",
        "monitoring/summary",
        "gradio_api/deep_link",
        "gradio_api/queue/status",
        "gradio_api/startup-events",
        "gradio_api/app_id",
        "gradio_api/token",
        "gradio_api/user",
        "gradio_api/runs",
        "gradio_api/vibe-code",
        "manifest.json",
        "robots.txt",
        "logout",
        "login",
        "gradio_api/dev/reload",
        "gradio_api/stream/abcdef123/x/1/playlist.m3u8",
        "gradio_api/custom_component/a/client/b/c",
        "svelte/x",
    )
    for name, mounts in (("Ada", ("/admin", "/lab", "/boards")), ("Rita", ("/review",))):
        visitor = site.visitor(name)
        for mount in mounts:
            for path in closed:
                assert visitor.get(f"{mount}/{path}").status_code == 404, path
            for path in (
                "gradio_api/component_server",
                "gradio_api/stream/x",
                "gradio_api/process_recording",
                "gradio_api/vibe-edit",
                "login",
            ):
                assert visitor.post(f"{mount}/{path}", {}).status_code == 404, path


@pytest.mark.parametrize(
    "path",
    [
        "/review/../lab/",
        "/review/..%2flab/",
        "/review/%2e%2e/lab/",
        "/review/%252e%252e/lab",
        "/review//lab/",
        "//lab/",
        "/lab%00",
        "/review/..\\lab",
        "/review;/lab",
        "/review/.%2e/lab/",
    ],
)
def test_no_spelling_of_a_path_leads_out_of_ones_part(site: Site, path: str) -> None:
    """T8, for the mounts."""
    visitor = site.visitor("Rita")
    raw = visitor.http.build_request("GET", site.base, headers={"accept": "text/html"})
    raw.url = raw.url.copy_with(raw_path=path.encode())
    reply = visitor.http.send(raw)
    assert reply.status_code in (400, 403, 404), (path, reply.status_code)


class TestControl:
    """What stock Gradio lets in."""

    def test_stock_runs_hidden_private_functions_for_anybody_signed_in(self) -> None:
        log: list[str] = []
        with stock.stock(stock.echo(log), who=lambda request: "anybody") as base:
            visitor = Visitor(base)
            status, _ = visitor.act("/app", stock.HIDDEN, ["x"])
            assert status == 200
            assert visitor.post("/app/gradio_api/run/predict", visitor.payload(stock.HIDDEN, ["x"])).status_code == 200
            assert visitor.post("/app/gradio_api/api/predict", visitor.payload(stock.HIDDEN, ["x"])).status_code == 200
        assert log == ["hidden"] * 3

    def test_stock_answers_without_a_session(self) -> None:
        with stock.stock(stock.echo(), who=lambda request: None) as base:
            visitor = Visitor(base)
            assert visitor.get("/app/").status_code == 401
            for path in ("app_id", "token", "startup-events"):
                assert visitor.get(f"/app/gradio_api/{path}").status_code == 200, path
            cancelled = visitor.post("/app/gradio_api/cancel", {"session_hash": "abcdef123", "fn_index": 0, "event_id": "x"})
            assert cancelled.status_code == 200

    def test_stock_lets_anybody_stop_somebody_elses_work(self) -> None:
        log: list[str] = []
        signed_in: dict[str, Any] = {"cookie": "yes"}
        with stock.stock(stock.echo(log), who=lambda request: request.headers.get("x-user")) as base:
            owner, stranger = Visitor(base), Visitor(base)
            owner.http.headers["x-user"] = str(signed_in)
            event = owner.join("/app", stock.SLOW, []).json()["event_id"]
            time.sleep(0.5)
            stranger.post("/app/gradio_api/cancel", {"session_hash": owner.hash, "fn_index": stock.SLOW, "event_id": event})
            time.sleep(0.3)
            so_far = len(log)
            time.sleep(0.5)
            assert 0 < so_far < 60
            assert len(log) <= so_far + 1
