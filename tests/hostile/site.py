"""The attackers' tools: a real server on loopback, visitors with and without a session, and every function and route it has.

Not a test itself. Nothing here touches the network beyond 127.0.0.1.
"""

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

TIMEOUT = 20.0


@dataclass(frozen=True)
class Function:
    """One function of one mounted part, as Gradio numbers it."""

    mount: str
    index: int
    name: str
    inputs: int
    queued: bool
    given: tuple[Any, ...] = ()


class Recorder:
    """ASGI around an app that keeps every byte it sends, headers and all, while `on`."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.on = False
        self.replies: list[tuple[str, list[tuple[bytes, bytes]], bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers: list[tuple[bytes, bytes]] = []
        body = bytearray()

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers.extend(message["headers"])
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, keep)
        finally:
            if self.on and scope["type"] == "http":
                self.replies.append((scope["path"], headers, bytes(body)))


@contextmanager
def served(app: Any, listener: socket.socket | None = None) -> Iterator[str]:
    """The app on a real uvicorn server; gives its address."""
    if listener is None:
        listener = free_socket()
    config = uvicorn.Config(app, log_level="critical", proxy_headers=False, server_header=False, ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def free_socket() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # without the protocol asyncio leaves Nagle on
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


@dataclass
class Visitor:
    """Somebody with a browser's manners and an attacker's freedom: any body, any session hash, any header."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)
    hash: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.base, cookies=self.cookies, timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = {"origin": self.base, **more.pop("headers", {})}
        return self.http.post(path, json=body, headers=headers, **more)

    def payload(self, function: int, data: list[Any], **more: Any) -> dict[str, Any]:
        return {"data": data, "fn_index": function, "trigger_id": None, "session_hash": self.hash, "event_data": None, **more}

    def join(self, mount: str, function: int, data: list[Any], **more: Any) -> httpx.Response:
        return self.post(f"{mount}/gradio_api/queue/join", self.payload(function, data, **more))

    def read(self, mount: str, session: str | None = None, seconds: float = TIMEOUT) -> list[dict[str, Any]]:
        """The events of a session until the server closes the stream."""
        events: list[dict[str, Any]] = []
        until = time.monotonic() + seconds
        with self.http.stream("GET", f"{mount}/gradio_api/queue/data", params={"session_hash": session or self.hash}) as reply:
            if reply.status_code != 200:
                return [{"msg": "refused", "status": reply.status_code}]
            for line in reply.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]))
                if (events and events[-1]["msg"] in ("close_stream", "unexpected_error")) or time.monotonic() > until:
                    break
        return events

    def act(self, mount: str, function: int, data: list[Any]) -> tuple[int, list[dict[str, Any]]]:
        """Join the queue and read to the end."""
        joined = self.join(mount, function, data)
        return joined.status_code, self.read(mount) if joined.status_code == 200 else []


def blocks_of(app: Any) -> dict[str, Any]:
    """Every Blocks mounted in a FastAPI app, by path."""
    return {route.path: route.app.get_blocks() for route in app.routes if hasattr(getattr(route, "app", None), "get_blocks")}


def functions_of(app: Any) -> list[Function]:
    """Every Python function any mounted Blocks would run."""
    return [
        Function(path, index, _name_of(fn), len(fn.inputs), bool(fn.queue), tuple(map(_at_first, fn.inputs)))
        for path, blocks in blocks_of(app).items()
        for index, fn in blocks.fns.items()
        if fn.fn is not None
    ]


def _name_of(fn: Any) -> str:
    return str(getattr(fn.fn, "__qualname__", fn.api_name))


def _at_first(component: Any) -> Any:
    """What the page would send for an input nobody has touched."""
    return None if type(component).__name__ == "State" else component.get_config().get("value")


def routes_of(app: Any) -> list[tuple[str, str]]:
    """Every (method, path) of the app and of what is mounted in it, path parameters filled in."""
    found = []
    for route in app.routes:
        inner = getattr(route, "app", None)
        if hasattr(inner, "get_blocks"):
            found += [(method, route.path + path) for method, path in routes_of(inner)]
        elif getattr(route, "path", None):
            found += [(method, _filled(route.path)) for method in sorted(getattr(route, "methods", None) or {"GET"})]
    return sorted(set(found))


def _filled(path: str) -> str:
    values = {"{session_hash}": "abcdef123", "{component_id}": "1", "{path:path}": "etc/passwd", "{path_or_url:path}": "/etc/passwd"}
    for name, value in values.items():
        path = path.replace(name, value)
    while "{" in path:
        start, end = path.index("{"), path.index("}")
        path = path[:start] + "x" + path[end + 1 :]
    return path


def file_data(path: str, **more: Any) -> dict[str, Any]:
    """What Gradio takes for a file it may read."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.txt", **more}
