"""A served house for programs: the real guard and routes on a real server without the screens, two registered adapters, a key per role.

Not a test itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ft.scripted import ScriptedEngine
from tests.hostile.site import free_socket, served
from tests.tiny import make_adapter, make_base

ADAPTERS = ("one", "two")


@dataclass
class Desk:
    """Where programs ask. `keys` by role."""

    base: str
    house: Any
    guard: Any
    keys: dict[str, str] = field(default_factory=dict)

    def client(self, role: str = "engineer") -> httpx.Client:
        return httpx.Client(base_url=self.base, headers={"authorization": f"Bearer {self.keys[role]}"}, timeout=20, trust_env=False)

    def ask(self, role: str = "engineer", **body: Any) -> httpx.Response:
        given = {"model": "base", "messages": [{"role": "user", "content": "How do I reset it?"}], **body}
        with self.client(role) as client:
            return client.post("/v1/chat/completions", json=given)


def make_adapters(room: Path) -> dict[str, Path]:
    base = make_base(room / "base")
    return {name: make_adapter(room / name, base, seed) for seed, name in enumerate(ADAPTERS, 1)}


@contextmanager
def desk(room: Path, engine: Any = None, rules: Any = None) -> Iterator[Desk]:
    from fastapi import FastAPI
    from starlette.responses import Response

    from review.guard import Guard, Policy
    from review.http.routes import attach
    from review.services.faults import open_database
    from review.services.house import build
    from review.settings import Settings

    listener = free_socket()
    settings = Settings(room / "home", engine="scripted", port=listener.getsockname()[1], demo=False)
    settings.folder("adapters")
    db = open_database(settings.database_url)
    db.migrate()
    house = build(settings, db, engine or ScriptedEngine())
    house.engine.open()
    for name, folder in make_adapters(room).items():
        house.adapters.register(folder, name, by=None)
    app = FastAPI(openapi_url=None)
    attach(app, house)
    rules = rules or Policy(mounts=(), hosts=())
    guard = Guard(app, rules, lambda token: None, lambda status, words, person: Response(words, status), key=house.keys.who)
    with served(guard, listener) as base:
        made = Desk(base, house, guard)
        for role in ("reviewer", "viewer", "engineer", "admin"):
            made.keys[role], _ = house.keys.add(f"{role} program", role)
        yield made
    house.engine.close()
    db.close()
