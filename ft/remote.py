"""A server that speaks the OpenAI protocol, over HTTP: streamed answers, with time-outs, retries and a limit on how many at once.

A key is read from the environment at each request; it is never stored, logged or shown. Light. Must not know engines, people or
the database.
"""

import email.utils
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from ft.engine import Message
from ft.errors import BadInput, NotFound, Refused, TooMany, Unavailable
from ft.specs import DecodeSpec
from ft.sse import Again, Ending, read

AGAIN = (408, 429, 500, 502, 503, 504)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_WAIT = 60.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask and how patiently. `key_env` names the environment variable that holds the key; "" for a server that needs none."""

    url: str
    key_env: str = ""
    connect_seconds: float = 10.0
    read_seconds: float = 120.0
    tries: int = 5
    first_wait: float = 0.5
    at_once: int = 8

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise BadInput("The server's address cannot be used. Give scheme, host and path only, such as https://api.example.com/v1.")
        if self.key_env and parts.scheme == "http" and not self.is_here:
            raise BadInput("A key would travel unencrypted to that address. Use an https:// address, or a server without a key.")

    @property
    def is_here(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK

    @property
    def root(self) -> str:
        """The address the protocol's routes are under, without a trailing slash."""
        url = self.url.rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"

    def key(self) -> str:
        """Raises Unavailable where the variable is not set."""
        if self.key_env and not os.environ.get(self.key_env):
            raise Unavailable(f"The environment variable {self.key_env} with the server's key is not set. Set it and start the app again.")
        return os.environ.get(self.key_env, "") if self.key_env else ""


@dataclass(slots=True)
class Leave:
    """Ends a conversation from another thread, also while it waits for the server."""

    asked: threading.Event = field(default_factory=threading.Event)
    _open: httpx.Response | None = None

    def now(self) -> None:
        self.asked.set()
        stream = self._open.extensions.get("network_stream") if self._open else None
        if stream is not None:
            with suppress(Exception):  # it may have ended just now
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    @contextmanager
    def while_open(self, reply: httpx.Response) -> Iterator[None]:
        self._open = reply
        try:
            yield
        finally:
            self._open = None


class Remote:
    """One server. Thread-safe; at most `at_once` answers are under way."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._places = threading.BoundedSemaphore(server.at_once)
        self._limit_name = "max_tokens"
        self._http = httpx.Client(
            timeout=httpx.Timeout(server.read_seconds, connect=server.connect_seconds),
            limits=httpx.Limits(max_connections=server.at_once + 2),
            trust_env=not server.is_here,  # a proxy of the machine is for addresses elsewhere
            follow_redirects=False,
        )

    def models(self, tries: int = 1) -> list[dict[str, Any]]:
        """What the server lists. Raises UserError."""
        reply = self._call("GET", "/models", None, tries)
        with suppress(ValueError, AttributeError):
            found = reply.json().get("data")
            if isinstance(found, list):
                return [each for each in found if isinstance(each, dict)]
        raise Unavailable("The server's list of models cannot be read. Check that its address is the one of an OpenAI-compatible server.")

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Have the server do something. Raises NotFound, BadInput, Unavailable."""
        self._call("POST", path, body, self.server.tries)

    def answer(self, model: str, messages: Sequence[Message], decode: DecodeSpec, leave: Leave) -> Iterator[str | Ending]:
        """Pieces of one answer, then its ending. Tries again, as long as nothing has come yet, where that could help."""
        while not self._places.acquire(timeout=LOOK_SECONDS):
            if leave.asked.is_set():
                return
        try:
            yield from self._answered(model, messages, decode, leave)
        finally:
            self._places.release()

    def close(self) -> None:
        self._http.close()

    def _answered(self, model: str, messages: Sequence[Message], decode: DecodeSpec, leave: Leave) -> Iterator[str | Ending]:
        for attempt in range(1, self.server.tries + 1):
            begun = False
            try:
                for piece in self._once(self._body(model, messages, decode), leave):
                    begun = True
                    yield piece
                return
            except Again as again:
                if leave.asked.is_set():
                    return
                if begun or attempt == self.server.tries or again.after > LONGEST_WAIT:
                    raise again.error from again
                leave.asked.wait(self._pause(attempt, again))

    def _once(self, body: dict[str, Any], leave: Leave) -> Iterator[str | Ending]:
        address = f"{self.server.root}/chat/completions"
        with (
            _connection(),
            self._http.stream("POST", address, json=body, headers=self._headers()) as reply,
            leave.while_open(reply),
        ):
            if leave.asked.is_set():
                return
            if reply.status_code != 200:
                reply.read()
                if self._wants_other_limit(reply, body):
                    raise Again(Unavailable("The server wants another name for the token limit. Try again."))
                raise self._refused(reply)
            yield from read(reply.iter_lines())

    def _body(self, model: str, messages: Sequence[Message], decode: DecodeSpec) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model, "messages": [{"role": m.role, "content": m.content} for m in messages],
            self._limit_name: decode.max_new_tokens, "temperature": decode.temperature, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        if decode.temperature > 0:
            body |= {"top_p": decode.top_p, "seed": decode.seed}
        if decode.repetition_penalty != 1:
            body["repetition_penalty"] = decode.repetition_penalty
        return body

    def _wants_other_limit(self, reply: httpx.Response, body: dict[str, Any]) -> bool:
        """Newer hosted models take the limit under its new name only."""
        if reply.status_code == 400 and "max_completion_tokens" in reply.text and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
            return True
        return False

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, tries: int) -> httpx.Response:
        for attempt in range(1, tries + 1):
            try:
                with _connection():
                    reply = self._http.request(method, self.server.root + path, json=body, headers=self._headers())
                if reply.status_code != 200:
                    raise self._refused(reply)
                return reply
            except Again as again:
                if attempt == tries or again.after > LONGEST_WAIT:
                    raise again.error from again
                time.sleep(self._pause(attempt, again))
        raise AssertionError

    def _headers(self) -> dict[str, str]:
        key = self.server.key()
        return {"authorization": f"Bearer {key}"} if key else {}

    def _pause(self, attempt: int, again: "Again") -> float:
        """Seconds: what the server asked for, or twice as long each time; with a random part, so that not all come back at once."""
        longest = min(self.server.first_wait * 2 ** (attempt - 1), LONGEST_WAIT)
        return again.after + random.uniform(0, longest) if again.after else random.uniform(longest / 2, longest)

    def _refused(self, reply: httpx.Response) -> Exception:
        """What a status other than 200 means: an error for people, or one to try again."""
        status, said = reply.status_code, self._said(reply)
        if status in (401, 403):
            where = f"in {self.server.key_env}" if self.server.key_env else "(none is set)"
            return Refused(f"The server refuses the key {where} ({status}). Check the key and what it may do.")
        if status == 404:
            return NotFound(f"The server does not know that model or address (404{said}). Check both.")
        if status in AGAIN:
            kind = TooMany if status == 429 else Unavailable
            return Again(kind(f"The server answers {status}{said}. Try again later."), _asked_to_wait(reply))
        if 400 <= status < 500:
            return BadInput(f"The server refuses the request ({status}{said}). Change it and try again.")
        return Unavailable(f"The server answers {status}, which is not of the OpenAI protocol. Check its address.")

    def _said(self, reply: httpx.Response) -> str:
        """The server's own sentence, short, and without the key should it repeat it."""
        try:
            error = reply.json().get("error")
            words = error.get("message") if isinstance(error, dict) else error or reply.json().get("message")
        except (ValueError, AttributeError):
            return ""
        key = os.environ.get(self.server.key_env, "") if self.server.key_env else ""
        text = " ".join(str(words or "").split())
        text = text.replace(key, "***") if key else text
        return f": {text[:300]}" if text else ""


@contextmanager
def _connection() -> Iterator[None]:
    """Failures of the connection as something to try again."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Again(Unavailable("The server did not answer in time. Try again later.")) from error
    except httpx.HTTPError as error:
        raise Again(Unavailable(f"The server cannot be reached ({type(error).__name__}). Check its address and the network.")) from error


def _asked_to_wait(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text[:6])
    with suppress(ValueError, TypeError, OverflowError):
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    return 0.0
