"""One furnished house for all attacks, behind the real guard on a real server; a beacon that counts who calls home."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.furnishing import Canaries, furnish, payloads
from tests.hostile.site import Function, Recorder, Visitor, blocks_of, free_socket, functions_of, routes_of, served


class Beacon:
    """Another site, of the attacker's: every request to it is a hit."""

    def __init__(self) -> None:
        self.address = ""
        self.hits: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.hits.append(scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})
            await send({"type": "http.response.body", "body": b""})


@dataclass
class Site:
    """The app under attack."""

    base: str
    house: Any
    guard: Any
    recorder: Recorder
    canaries: Canaries
    acted: list[tuple[str, str]] = field(default_factory=list)
    stop_acting: bool = False

    @property
    def app(self) -> Any:
        return self.guard.app

    @property
    def blocks(self) -> dict[str, Any]:
        return blocks_of(self.app)

    @property
    def functions(self) -> list[Function]:
        return functions_of(self.app)

    @property
    def routes(self) -> list[tuple[str, str]]:
        return routes_of(self.app)

    def visitor(self, name: str | None = None) -> Visitor:
        """Somebody signed in by a one-time link; nobody in particular without a name."""
        visitor = Visitor(self.base)
        if name:
            reply = visitor.http.post(f"/login/{self.house.people.link(name)}", headers={"origin": self.base})
            assert reply.status_code == 303, reply.text
        return visitor

    @contextmanager
    def watching(self, stop: bool = True) -> Iterator[list[tuple[str, str]]]:
        """(role, handler) of every handler let in meanwhile. With `stop` none of them does its work."""
        import gradio as gr

        from review.screens import parts

        acted: list[tuple[str, str]] = []

        def observe(person: Any, name: str) -> None:
            acted.append((person.role, name))
            if stop:
                raise gr.Error("seen", print_exception=False)

        parts.observers.append(observe)
        try:
            yield acted
        finally:
            parts.observers.remove(observe)


@pytest.fixture(scope="session")
def beacon() -> Iterator[Beacon]:
    found = Beacon()
    with served(found) as address:
        found.address = address
        yield found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, beacon: Beacon) -> Iterator[Site]:
    from ft.scripted import ScriptedEngine
    from review.services.house import build, open_database
    from review.settings import Settings
    from review.web import build_app

    listener = free_socket()
    canaries = Canaries()
    home: Path = tmp_path_factory.mktemp("hostile") / canaries("home")
    settings = Settings(home, engine="scripted", port=listener.getsockname()[1])
    settings.folder("adapters")
    db = open_database(settings.database_url)
    db.migrate()
    house = build(settings, db, ScriptedEngine())
    house.engine.open()
    furnish(house, canaries, payloads(beacon.address))
    guard = build_app(house)
    recorder = Recorder(guard)
    with served(recorder, listener) as base:
        yield Site(base, house, guard, recorder, canaries)
    db.close()
