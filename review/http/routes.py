"""The routes of the HTTP interface and what each does. The guard has let in a key with the right role; it is looked at here once more.

Must not know screens or the database.
"""

import functools
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ft.errors import Refused
from review.guard import key_of
from review.guard.policy import MAY_ASK
from review.guard.replies import compact
from review.http.chat import ChatReply
from review.http.errors import said
from review.http.figures import CONTENT_TYPE, Figures
from review.http.wire import WrongField, ask_of, body_of, text_of
from review.services.asking import ModelView
from review.services.keys import KeyView, needs

if TYPE_CHECKING:
    from review.services.house import House

Handler = Callable[["House", Figures, KeyView, Request], Awaitable[Response]]


def attach(app: FastAPI, house: "House") -> None:
    """Add the routes to the app."""
    figures = Figures(house)
    for method, path, roles, handler in ROUTES:
        app.router.routes.append(Route(path, functools.partial(_run, handler, roles, house, figures), methods=[method]))


async def _run(handler: Handler, roles: tuple[str, ...], house: "House", figures: Figures, request: Request) -> Response:
    try:
        key = key_of(request.scope)
        if key is None:
            raise Refused("A key is missing. Send Authorization: Bearer KEY.")
        needs(key, *roles)
        return await handler(house, figures, key, request)
    except Exception as error:
        status, body = said(error)
        if handler is chat:
            figures.answered("", status, 0, 0)
        return Response(body, status, media_type="application/json")


async def chat(house: "House", figures: Figures, key: KeyView, request: Request) -> Response:
    ask = ask_of(await request.body())
    name = f"chatcmpl-{secrets.token_hex(12)}"
    return ChatReply(ask, name, lambda: house.asking.ask(ask.model, ask.messages, ask.changes, ask.background), figures)


async def models(house: "House", figures: Figures, key: KeyView, request: Request) -> Response:
    found = await anyio.to_thread.run_sync(house.asking.models)
    return _json({"object": "list", "data": [_told(view) for view in found]})


async def model(house: "House", figures: Figures, key: KeyView, request: Request) -> Response:
    return _json(_told(await anyio.to_thread.run_sync(house.asking.model, request.path_params["name"])))


async def load(house: "House", figures: Figures, key: KeyView, request: Request) -> Response:
    name = _adapter_named(await request.body())

    def bring() -> None:
        view = house.adapters.adapter(name)
        house.adapters.want(name, True, by=key.maker_id)
        house.adapters.bring(view.id)
        house.keys.note(key, "adapter loaded over HTTP", name=name)

    await anyio.to_thread.run_sync(bring)
    return Response(f"Success: LoRA adapter '{name}' added successfully.", media_type="text/plain")


async def unload(house: "House", figures: Figures, key: KeyView, request: Request) -> Response:
    name = text_of(body_of(await request.body()), "lora_name")

    def let_go() -> None:
        house.adapters.want(name, False, by=key.maker_id)
        house.keys.note(key, "adapter unloaded over HTTP", name=name)

    await anyio.to_thread.run_sync(let_go)
    return Response(f"Success: LoRA adapter '{name}' removed successfully.", media_type="text/plain")


async def metrics(house: "House", figures: Figures, key: KeyView, request: Request) -> Response:
    return Response(await anyio.to_thread.run_sync(figures.text), headers={"content-type": CONTENT_TYPE})


ROUTES: tuple[tuple[str, str, tuple[str, ...], Handler], ...] = (
    ("POST", "/v1/chat/completions", MAY_ASK, chat),
    ("GET", "/v1/models", MAY_ASK, models),
    ("GET", "/v1/models/{name}", MAY_ASK, model),
    ("POST", "/v1/load_lora_adapter", MAY_ASK, load),
    ("POST", "/v1/unload_lora_adapter", MAY_ASK, unload),
    ("GET", "/metrics", ("viewer", *MAY_ASK), metrics),
)


def _adapter_named(raw: bytes) -> str:
    """The adapter of a load request. vLLM's `lora_path` is a folder of the server; here it can only be a registered adapter's name."""
    body = body_of(raw)
    name = text_of(body, "lora_name")
    path = text_of(body, "lora_path") if "lora_path" in body else name
    if "/" in path or "\\" in path:
        raise WrongField(
            "lora_path must be a registered adapter's name: no folder of this server is opened. Register it first.", "lora_path"
        )
    if path != name:
        raise WrongField("An adapter answers under its own name. Give lora_name and lora_path the same name.", "lora_path")
    return name


def _told(view: ModelView) -> dict[str, Any]:
    return {
        "id": view.name, "object": "model", "created": int(view.created_at), "owned_by": "tiebreak", "root": view.root,
        "parent": view.parent or None, "max_model_len": view.context or None, "in_use": view.in_use,
    }  # fmt: skip


def _json(value: Any) -> Response:
    return Response(compact(value), media_type="application/json")
