"""The way back: reshapes a reply while it passes, by what kind of route it answers.

Must not know who is asking.
"""

import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Send

from review.guard import replies
from review.guard.policy import Mount, Policy, Route


class Outgoing:
    """A `send` that adds headers, and where the route asks for it holds the whole body back to read or to rewrite it."""

    def __init__(self, send: Send, rules: Policy) -> None:
        self._send = send
        self._rules = rules
        self._kind = "page"
        self._own = True
        self._mount: Mount | None = None
        self._route: Route | None = None
        self._on_json: Callable[[Any], None] | None = None
        self._otherwise: Callable[[], None] = lambda: None
        self._stream: replies.Unclock | None = None
        self._start: Message | None = None
        self._held: list[bytes] = []
        self.started = False
        self.ended = False

    def plain(self) -> None:
        """A reply of the guard's own."""
        self._kind, self._own, self._route, self._on_json = "page", True, None, None

    def ours(self, asset: bool) -> None:
        """A page or file of this project's own: no script runs in it but files of ours."""
        self._kind = "asset" if asset else "page"

    def gradio(self, mount: Mount, route: Route) -> None:
        self._own, self._mount, self._route = False, mount, route
        self._kind = "asset" if route == "asset" else "page"
        if route == "data" and mount.steady:
            self._stream = replies.Unclock()

    def on_json(self, read: Callable[[Any], None], otherwise: Callable[[], None] = lambda: None) -> None:
        """Show a successful JSON reply to `read` before it is sent; call `otherwise` for any other."""
        self._on_json, self._otherwise = read, otherwise

    @property
    def _holds(self) -> bool:
        steady = self._mount is not None and self._mount.steady
        return self._on_json is not None or self._route == "page" or (self._route == "run" and steady)

    async def end(self) -> None:
        """Finish a reply that was cut off."""
        if self.started and not self.ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            if not self._holds:
                await self._begin(replies.OURS_ONLY)
        elif message["type"] == "http.response.body":
            await self._body(message.get("body", b""), message.get("more_body", False))
        else:
            await self._send(message)

    async def _body(self, piece: bytes, more: bool) -> None:
        if self._holds:
            self._held.append(piece)
            if not more:
                await self._whole(b"".join(self._held))
            return
        if self._stream:
            piece = self._stream.feed(piece, more)
        self.ended = not more
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _whole(self, body: bytes) -> None:
        assert self._start is not None
        policy = replies.OURS_ONLY
        if self._on_json:
            self._on_json(json.loads(body)) if self._start["status"] == 200 else self._otherwise()
        if self._route == "run":
            body = replies.unclocked_json(body)
        if self._route == "page" and self._start["status"] == 200:
            body, policy = self._page(body)
        kept = [(n, v) for n, v in self._start["headers"] if n.lower() != b"content-length"]
        if self._start["status"] not in (204, 304):
            kept.append((b"content-length", str(len(body)).encode()))
        self._start["headers"] = kept
        await self._begin(policy)
        self.ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _page(self, html: bytes) -> tuple[bytes, str]:
        """The page without its manifest link, and its policy. A page with a script too many is not sent at all."""
        assert self._mount is not None
        expected = self._rules.page_scripts
        if html and expected is not None and len(replies.inline_scripts(html)) != expected:
            raise RuntimeError("the page holds a script that is not Gradio's own")
        return replies.MANIFEST.sub(b"", html), replies.page_policy(html, self._mount.scripts)

    async def _begin(self, policy: str) -> None:
        assert self._start is not None
        added = replies.headers(self._kind, policy, self._rules.https)
        self._start["headers"] = replies.cleaned(list(self._start.get("headers", [])), added, self._own)
        self.started = True
        await self._send(self._start)
