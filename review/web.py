"""The web process: sign-in, sessions, the mounts of the four parts, health; the guard in front of all of it.

Gradio is imported here and in the screens only. Must not import torch or anything that does.
"""

import functools
import logging
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from ft.errors import NotFound, TooMany, UserError
from review import sign_in
from review.downloads import add_downloads
from review.guard import Guard, Mount, Policy, Refusal, person_of, token_of
from review.guard.policy import known_hosts
from review.guard.replies import inline_scripts
from review.http.routes import attach
from review.screens.mark import MARK
from review.services.house import House
from review.services.people import UserView

log = logging.getLogger(__name__)
SESSION_SECONDS = 30 * 24 * 3600
SCREENS = Path(__file__).parent / "screens"
STATIC = {"look.css": "text/css", "sign_in.css": "text/css", "look.js": "text/javascript", "sign_in.js": "text/javascript"}
QUEUE = 256


def quiet_gradio(home: Path) -> None:
    """Settle Gradio's own settings before its first import: nothing leaves the machine, nothing lands in /tmp."""
    for name in [n for n in os.environ if n.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(home / "uploads"), GRADIO_SSR_MODE="False")


def build_app(house: House, started: Callable[[], None] = lambda: None, stopped: Callable[[], None] = lambda: None) -> Guard:
    """The whole web app behind its guard. `started` and `stopped` run with the server; `started` must return at once."""
    quiet_gradio(house.settings.home)
    house.settings.folder("uploads")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        started()
        yield
        await anyio.to_thread.run_sync(stopped)

    app = FastAPI(title="Tiebreak", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    cookie = _cookie_name(house)
    _health(app, house)
    _sign_in_routes(app, house, cookie)
    add_downloads(app, house)
    attach(app, house)
    _error_pages(app)
    mounts = _mounts(app, house)

    def asked(who: Callable[[str], Any]) -> Callable[[str], Any]:
        def look(secret: str) -> Any:
            try:
                return who(secret)
            except UserError as error:
                raise Refusal(error.status, str(error)) from error

        return look

    def room() -> int:
        return shutil.disk_usage(house.settings.home).free

    return Guard(app, _policy(house, cookie, mounts), asked(house.people.who), _refusal, room, asked(house.keys.who))


def _cookie_name(house: House) -> str:
    """Cookies know no ports: two installations on one machine must not sign each other out."""
    https = house.settings.public_url.startswith("https://")
    return "__Host-tiebreak" if https else f"tiebreak-{house.settings.port}"


def _policy(house: House, cookie: str, mounts: tuple[Mount, ...]) -> Policy:
    import gradio

    settings = house.settings
    template = Path(gradio.__file__).parent / "templates" / "frontend" / "index.html"
    return Policy(
        mounts=mounts,
        hosts=known_hosts(settings.host, settings.port, settings.public_url),
        public_url=settings.public_url,
        cookie=cookie,
        upload_bytes=settings.max_upload_mb << 20,
        page_scripts=len(inline_scripts(template.read_bytes())),
    )


def _refusal(status: int, words: str, person: Any) -> Response:
    return HTMLResponse(sign_in.refusal(status, words, person is not None), status)


def _mounts(app: FastAPI, house: House) -> tuple[Mount, ...]:
    from review.screens import admin, boards, lab, parts, review

    builders = {"review": review.build, "lab": lab.build, "boards": boards.build, "admin": admin.build}
    return tuple(mount(app, house, part, parts.PARTS[part][0], parts.roles_of(part), build) for part, build in builders.items())


def mount(app: FastAPI, house: House, part: str, path: str, roles: tuple[str, ...], build: Callable[[House], Any]) -> Mount:
    """Mount one part for its roles. The two flags at the end keep Gradio from reading any file it is asked for."""
    import gradio as gr

    from review.screens.theme import look

    def known(request: Request) -> str | None:
        person = person_of(request.scope)
        return person.name if person is not None and person.role in roles else None

    blocks = build(house)
    blocks.delete_cache = (3600, 24 * 3600)
    blocks.state_session_capacity = 2000
    blocks.queue(max_size=QUEUE, api_open=False, default_concurrency_limit=8)
    dressed = look(part)
    gr.mount_gradio_app(
        app, blocks, path, auth_dependency=known, show_error=False, run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False,
        mcp_server=False, footer_links=[], max_file_size=house.settings.max_upload_mb << 20, **dressed,
    )  # fmt: skip
    blocks.has_launched = blocks.is_running = True
    uploads = any(isinstance(block, (gr.File, gr.UploadButton)) and block.interactive is not False for block in blocks.blocks.values())
    scripts = tuple(code.decode() for code in inline_scripts(str(dressed.get("head", "")).encode()))
    return Mount(path, roles, uploads=uploads, steady=part == "review", scripts=scripts)


def _health(app: FastAPI, house: House) -> None:
    @app.get("/health")
    def health() -> dict[str, str]:
        """The process answers."""
        return {"state": "alive"}

    @app.get("/ready")
    def ready(request: Request) -> JSONResponse:
        """Whether the database answers and the model can. Review and boards work before the model can."""
        house.upkeep.counts()
        status = house.engine.status()
        told: dict[str, Any] = {"state": status.state, "share": status.share}
        person = person_of(request.scope)
        if person is not None and person.role in ("engineer", "admin"):  # the words may name the model, which a reviewer must not read
            told["message"] = status.message
        return JSONResponse(told, 200 if status.state == "ready" else 503)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name == "mark.svg":
            return Response(_mark(), media_type="image/svg+xml")
        if name not in STATIC:
            raise HTTPException(404)
        return Response((SCREENS / name).read_bytes(), media_type=STATIC[name])

    @app.get("/favicon.ico")
    def favicon() -> Response:
        return Response(_mark(), media_type="image/svg+xml")


@functools.cache
def _mark() -> str:
    """The mark as a file of its own, with the colours a style sheet cannot bring."""
    coloured = MARK.replace("<circle ", '<circle fill="#9a4a00" ')
    return coloured.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" fill="#0f655f" ')


def _sign_in_routes(app: FastAPI, house: House, cookie: str) -> None:
    from review.screens.parts import PARTS, PARTS_OF, ROLE_WORDS

    people = house.people
    secure = cookie.startswith("__Host-")

    def let_in(token: str, person: UserView) -> Response:
        reply = RedirectResponse(PARTS[PARTS_OF[person.role][0]][0], 303)
        reply.set_cookie(cookie, token, max_age=SESSION_SECONDS, path="/", secure=secure, httponly=True, samesite="strict")
        return reply

    async def end_old(request: Request) -> None:
        """A browser that signs in starts afresh: the session it brought, if any, ends."""
        if old := token_of(request.scope):
            await anyio.to_thread.run_sync(people.sign_out, old)

    @app.get("/")
    def front(request: Request) -> Response:
        person = person_of(request.scope)
        return RedirectResponse(PARTS[PARTS_OF[person.role][0]][0], 303)

    @app.get("/login")
    def form(request: Request) -> Response:
        return RedirectResponse("/", 303) if person_of(request.scope) else HTMLResponse(sign_in.sign_in_form())

    @app.post("/login")
    async def by_password(request: Request) -> Response:
        given = await request.form(max_files=0, max_fields=4)
        name, password = (str(given.get(key, "")) for key in ("name", "password"))
        try:
            token, person = await anyio.to_thread.run_sync(people.sign_in, name, password)
        except UserError as error:
            return HTMLResponse(sign_in.sign_in_form(str(error), name), error.status if isinstance(error, TooMany) else 401)
        await end_old(request)
        return let_in(token, person)

    @app.get("/login/{token}")
    def show_link(token: str) -> Response:
        try:
            person = people.peek(token)
        except NotFound as error:
            return HTMLResponse(sign_in.dead_link(str(error)), 404)
        return HTMLResponse(sign_in.continue_as(person.name, ROLE_WORDS[person.role], token))

    @app.post("/login/{token}")
    async def by_link(request: Request, token: str) -> Response:
        try:
            session, person = await anyio.to_thread.run_sync(people.redeem, token)
        except NotFound as error:
            return HTMLResponse(sign_in.dead_link(str(error)), 404)
        await end_old(request)
        return let_in(session, person)

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        await end_old(request)
        reply = HTMLResponse(sign_in.signed_out())
        reply.delete_cookie(cookie, path="/", secure=secure, httponly=True, samesite="strict")
        return reply


def _error_pages(app: FastAPI) -> None:
    def shown(request: Request, status: int, words: str) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return _refusal(status, words, person_of(request.scope))
        return JSONResponse({"detail": words}, status)

    @app.exception_handler(StarletteHTTPException)
    async def known_status(request: Request, error: StarletteHTTPException) -> Response:
        words = "There is no such page. Start from the front page." if error.status_code in (404, 405) else str(error.detail)
        return shown(request, error.status_code, words)

    @app.exception_handler(UserError)
    async def for_people(request: Request, error: UserError) -> Response:
        return shown(request, error.status, str(error))

    @app.exception_handler(Exception)
    async def anything(request: Request, error: Exception) -> Response:
        number = secrets.token_hex(4)
        log.error("error %s at %s", number, request.url.path, exc_info=error)
        return shown(request, 500, f"Something went wrong (id {number}). Try again; if it stays, give this id to the admin.")
