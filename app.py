"""The entry: settings, database, engine, services, web, in this order. `python app.py` and `tiebreak serve` are the same.

Must not import torch or anything that does: the first page comes before the model.
"""

import errno
import fcntl
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Annotated, Any

import typer

from ft.errors import BadInput, Conflict, Unavailable, UserError
from ft.memory import few_arenas
from review.settings import Settings

GRACE_SECONDS = 3
CONNECTIONS = 1000
FIRST_PAGE_SECONDS = 2.0
PAGE_FILES_SECONDS = 1.0  # a page asks for its files before the model competes for the processor
PAGES = ("/login", "/review", "/lab", "/boards", "/admin")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: TIEBREAK_HOST or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. Default: TIEBREAK_PORT or 7860.")] = None,
) -> None:
    """Start the web app: prints its address and, for the demo, one-time sign-in links. Stop it with Ctrl+C."""
    settings = Settings.from_env()
    settings = replace(settings, host=host or settings.host, port=port or settings.port)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _end)
    tempfile.tempdir = str(settings.folder("uploads"))  # a large upload must not fill /tmp, which is often memory
    with only_server(settings), listening(settings) as listener:
        run_server(settings, listener)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


@contextmanager
def only_server(settings: Settings) -> Iterator[None]:
    """Hold the data folder's lock. Raises Conflict while another server holds it."""
    path = settings.folder() / "server.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            other = lock.read(200).strip() or "another process"
            raise Conflict(
                f"Tiebreak is running already on {settings.home} ({other}). Open that one, or set TIEBREAK_HOME to another folder."
            ) from error
        lock.truncate(0)
        lock.write(f"{settings.address}, process {os.getpid()}")
        lock.flush()
        yield


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, taken before anything slow. Raises Unavailable for a taken port, BadInput for an unusable address."""
    try:
        # the protocol must be named: asyncio turns Nagle off only then, and without that every answer comes 40 ms later
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, proto, _, address = found[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise BadInput(f"The address {settings.host} cannot be used. Set TIEBREAK_HOST to 127.0.0.1 or 0.0.0.0.") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(512)
        except PermissionError as error:
            raise Unavailable(f"Port {settings.port} needs more rights. Set TIEBREAK_PORT to a number above 1023.") from error
        except OSError as error:
            words = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise Unavailable(f"Port {settings.port} on {settings.host} {words}. Set TIEBREAK_PORT to a free one.") from error
        yield listener


def run_server(settings: Settings, listener: socket.socket) -> None:
    """Serve until told to stop. The model is opened once the first page is out, or shortly after the start."""
    import uvicorn

    from review.services.caretaker import Caretaker
    from review.services.house import open_house
    from review.web import build_app

    with open_house(settings) as house:
        if house.settings.base == "embedded" and settings.engine == "local":
            bring_base(settings)
        if settings.demo:
            load_demo(house)
        caretaker = Caretaker(house)
        served, ending = threading.Event(), threading.Event()

        def open_model() -> None:
            served.wait(FIRST_PAGE_SECONDS)
            if ending.wait(PAGE_FILES_SECONDS):
                return
            with suppress(UserError):  # its status says so on every page that needs it
                house.training.share()  # a run under way may need the memory
                house.engine.open()
            caretaker.start()

        def stop() -> None:
            ending.set()
            caretaker.stop()

        opening = threading.Thread(target=open_model, name="open-model", daemon=True)
        guard = build_app(house, started=opening.start, stopped=stop)
        config = uvicorn.Config(
            noticing(guard, served), log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
            timeout_graceful_shutdown=GRACE_SECONDS, timeout_keep_alive=30, limit_concurrency=CONNECTIONS, lifespan="on",
        )  # fmt: skip

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                guard.close()
                await super().shutdown(sockets)

        typer.echo(first_words(house))
        Server(config).run(sockets=[listener])


def bring_base(settings: Settings) -> None:
    """The embedded base model into a new data folder, with a bar in the terminal. Without it the app starts all the same."""
    from ft.bases import is_complete
    from ft.embedded import fetch_embedded, show_bar

    folder = settings.home / "bases" / "embedded"
    if is_complete(folder):
        return
    try:
        fetch_embedded(folder, show_bar)
    except UserError as error:
        typer.echo(f"\n{error} Reviewing goes on with stored answers meanwhile.", err=True)


def load_demo(house: Any) -> None:
    """Bring the demo into a new data folder. What goes wrong there does not keep the app from starting."""
    from demo.load import load

    try:
        if load(house):
            typer.echo("The ConnectPro demo is loaded. Start without it: TIEBREAK_DEMO=0")
    except (UserError, OSError) as error:
        typer.echo(f"The demo could not be loaded whole: {error} Start again to go on with it, or set TIEBREAK_DEMO=0.", err=True)


def noticing(app: Any, served: threading.Event) -> Any:
    """The same app; `served` is set once a page of it has gone out."""

    async def notice(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "http" and scope["path"].startswith(PAGES):
            served.set()

    return notice


def first_words(house: Any) -> str:
    """The address, and a one-time sign-in link for each person of the demo; for an admin where nobody else could get in."""
    from demo.load import PEOPLE
    from review.screens.parts import ROLE_WORDS

    people, address = house.people, house.settings.address
    if not people.users():
        people.add("admin", "admin")
    welcome = {name for name, _ in PEOPLE} if house.settings.demo else {"admin"}
    links = [
        f"  {ROLE_WORDS[person.role]:<12} {person.name:<6} {address}/login/{people.link(person.name)}"
        for person in people.users()
        if person.name in welcome and not person.disabled
    ]
    heading = ["", "Sign in with a link; each works once, for 24 hours. Make more: tiebreak users link NAME", *links] if links else []
    return "\n".join([f"Tiebreak runs at {address}", *heading, "", "Stop it with Ctrl+C."])


def main() -> None:
    """The `tiebreak` command; without arguments `python app.py` serves."""
    # Threads that spin for each other stall when a run trains on the same cores: with short spins a busy machine answers one row
    # 3.4 times as fast, an idle one loses 9 %. Read by the OpenMP runtime when torch comes in.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    few_arenas()
    from review.commands.main import run

    run(serve)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.argv.append("serve")
    main()
