"""The wall itself. Every request is admitted, refused or reshaped here: host, path, origin, method, person, role, route, body.

Must not know screens, services, the database or the look of a page: it is handed functions for those.
"""

import logging
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from review.guard import bodies, policy, replies
from review.guard.bindings import Bindings, Tally
from review.guard.bodies import Refusal
from review.guard.calls import API_KEY, KEY, SESSION, Call, Person, check_arrival
from review.guard.outgoing import Outgoing
from review.guard.policy import Mount, Policy, Route

log = logging.getLogger(__name__)
STREAMS: tuple[Route, ...] = ("data", "heartbeat", "upload_progress")
UNSENT = (b"range", b"if-range", b"cookie", b"authorization", b"x-gradio-server", b"x-gradio-user", b"forwarded", b"accept-encoding")


Who = Callable[[str], Person | None]
Page = Callable[[int, str, Person | None], Response]


class Guard:
    """ASGI in front of `app`. `who` reads a session token's person from the database and may raise Refusal; `page` draws a refusal;
    `room` says how many bytes uploads may still take; `key` is to a program's key what `who` is to a session.
    """

    def __init__(
        self, app: ASGIApp, rules: Policy, who: Who, page: Page, room: Callable[[], int] = lambda: 1 << 62, key: Who = lambda key: None
    ) -> None:
        self.app = app
        self.rules = rules
        self._who = who
        self._page = page
        self._key = key
        self._room = room
        self._threads: anyio.CapacityLimiter | None = None
        self._streams: set[anyio.CancelScope] = set()
        self.readers = Tally()
        self.asking = Tally()
        self.unread = Tally()
        self.sessions = Bindings(rules.sessions, forget=self.unread.clear)
        self.events = Bindings(rules.sessions * 4)
        self.uploads = Bindings(rules.sessions)
        self.upload_ids = Bindings(rules.sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        call = Call.of(scope)
        outgoing = Outgoing(send, self.rules)
        person: Person | None = None
        try:
            check_arrival(call, self.rules)
            if self.rules.is_keyed(call.path):
                await self._keyed(call, receive, outgoing)
                return
            person = await self._person(call)
            await self._admit(call, person, receive, outgoing)
        except Refusal as refusal:
            await self._instead(self._refused(call, refusal, person), scope, receive, outgoing)
        except Exception as error:
            if outgoing.ended:  # FastAPI has answered and logged, and tells the server once more
                return
            number = secrets.token_hex(4)
            log.error("error %s at %s", number, call.path, exc_info=error)
            broken = Refusal(500, f"Something went wrong (id {number}). Try again; if it stays, give this id to the admin.")
            await self._instead(self._refused(call, broken, person), scope, receive, outgoing)

    @staticmethod
    async def _instead(reply: Response, scope: Scope, receive: Receive, outgoing: Outgoing) -> None:
        """Send a reply of the guard's own; where another one has begun already, cut it off."""
        if outgoing.started:
            raise ConnectionAbortedError
        outgoing.plain()
        await reply(scope, receive, outgoing)

    async def _person(self, call: Call) -> Person | None:
        token = cookie_parser(call.header(b"cookie")).get(self.rules.cookie, "")
        person = await self._looked_up(self._who, token)
        call.scope[SESSION] = token if person else None
        return person

    async def _looked_up(self, who: Who, secret: str) -> Person | None:
        if not 16 <= len(secret) <= 256:
            return None
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(16)
        return await anyio.to_thread.run_sync(who, secret, limiter=self._threads)

    async def _keyed(self, call: Call, receive: Receive, outgoing: Outgoing) -> None:
        """A program with a key. Its cookies are not looked at; its whole body is read before the app sees the request."""
        key = await self._looked_up(self._key, call.bearer)
        if key is None:
            raise Refusal(401, "A key is missing, or it is not valid any more. Send Authorization: Bearer KEY; an admin makes keys.")
        roles = policy.roles_for_key(call.method, call.path)
        if roles is None:
            raise Refusal(404, f"There is no {call.method} here. See docs/http.md for what there is.")
        if key.role not in roles:
            raise Refusal(403, f"A key with the role {key.role} may not do that. Ask an admin for one with the role {roles[0]}.")
        if self._too_long(call, self.rules.keyed_bytes):
            raise Refusal(413, f"That is larger than {self.rules.keyed_bytes >> 10} KB. Send less.")
        if not self.asking.add(str(key.id), self.rules.keyed_open):
            raise Refusal(429, f"This key has {self.rules.keyed_open} requests open already. Wait for one to end, then try again.")
        try:
            receive = bodies.replayed(await bodies.read(receive, self.rules.keyed_bytes), receive)
            call.scope[KEY], call.scope[API_KEY] = None, key
            outgoing.ours(asset=False)
            await self._stream(self._seen_from(call), receive, outgoing)
        finally:
            self.asking.drop(str(key.id))

    async def _admit(self, call: Call, person: Person | None, receive: Receive, outgoing: Outgoing) -> None:
        mount = self.rules.mount_of(call.path)
        if person is None and not self.rules.is_open(call.path):
            if call.wants_page:
                raise Refusal(303, "")
            raise Refusal(401, "You are signed out. Open the sign-in page and sign in again.")
        call.scope[KEY] = person
        if mount is None or person is None:
            if self._too_long(call, self.rules.form_bytes):
                raise Refusal(413, "That form is too large. Send less.")
            outgoing.ours(asset=call.path.startswith("/static/"))
            await self.app(self._seen_from(call), bodies.metered(receive, self.rules.form_bytes), outgoing)
            return
        if person.role not in mount.roles:
            raise Refusal(403, "This part of Tiebreak is not part of your role. Ask an admin if it should be.")
        route = policy.route_of(mount, call.method, call.path)
        if route is None:
            raise Refusal(404, "There is no such page. Start from the front page.")
        with ExitStack() as stack:
            receive = await self._check(call, mount, route, person, receive, stack, outgoing)
            outgoing.gradio(mount, route)
            if route in STREAMS:
                await self._stream(self._seen_from(call), receive, outgoing)
            else:
                await self.app(self._seen_from(call), receive, outgoing)

    async def _stream(self, scope: Scope, receive: Receive, outgoing: Outgoing) -> None:
        """A reply that may last for hours, ended in good order when the server closes."""
        with anyio.CancelScope() as lifetime:
            self._streams.add(lifetime)
            try:
                await self.app(scope, receive, outgoing)
            finally:
                self._streams.discard(lifetime)
        if lifetime.cancelled_caught:
            await outgoing.end()

    def close(self) -> None:
        """End every open stream, so that the server need not wait for the browsers. Call it in the event loop."""
        for lifetime in tuple(self._streams):
            lifetime.cancel()

    async def _check(
        self, call: Call, mount: Mount, route: Route, person: Person, receive: Receive, stack: ExitStack, outgoing: Outgoing
    ) -> Receive:
        """The rule of each route. Returns what the app may read."""
        if route in ("join", "run", "cancel", "reset"):
            return await self._event(call, mount, route, person, receive, outgoing)
        if route in ("data", "heartbeat"):
            name = call.query("session_hash") if route == "data" else call.path.rsplit("/", 1)[-1]
            session = self._own_session(mount, name, person)
            self._read(session if route == "data" else "", person, stack)
        if route == "upload":
            return self._upload(call, person, receive, outgoing)
        if route == "upload_progress" and not self.upload_ids.claim(call.query("upload_id"), person.id):
            raise Refusal(403, "That upload belongs to somebody else.")
        return receive

    def _own_session(self, mount: Mount, name: Any, person: Person) -> str:
        """The session's key, when it is this person's. Raises Refusal."""
        if not isinstance(name, str) or not policy.HASH.fullmatch(name):
            raise Refusal(400, "The page lost its session. Reload it.")
        session = f"{mount.path} {name}"
        if not self.sessions.claim(session, person.id):
            raise Refusal(403, "That session belongs to somebody else. Reload the page.")
        return session

    async def _event(self, call: Call, mount: Mount, route: Route, person: Person, receive: Receive, outgoing: Outgoing) -> Receive:
        if self._too_long(call, self.rules.body_bytes):
            raise Refusal(413, f"That is larger than {self.rules.body_bytes >> 10} KB. Send less.")
        raw = bodies.parse(await bodies.read(receive, self.rules.body_bytes))
        body = {key: raw[key] for key in bodies.ALLOWED_KEYS if key in raw}
        if route != "reset":
            session = self._own_session(mount, body.get("session_hash"), person)
        event = body.get("event_id")
        if route in ("cancel", "reset"):
            if event is not None and not (isinstance(event, str) and self.events.holds(event, person.id)):
                raise Refusal(403, "That action belongs to somebody else.")
        else:
            body.pop("event_id", None)
            if type(body.get("fn_index")) is not int or not isinstance(body.get("data"), list):
                raise Refusal(400, "The request is incomplete. Reload the page and try again.")
        body = bodies.checked(body, lambda path: mount.uploads and self.uploads.holds(path, person.id))
        if route == "join":
            if not self.unread.add(session, self.rules.unread):
                raise Refusal(429, "Too much is waiting for this page already. Wait a moment, then try again.")
            outgoing.on_json(lambda reply: self._joined(reply, person), otherwise=lambda: self.unread.drop(session))
        return self._replaced(call, body, receive)

    def _joined(self, reply: Any, person: Person) -> None:
        if isinstance(reply, dict) and isinstance(reply.get("event_id"), str):
            self.events.claim(reply["event_id"], person.id)

    def _replaced(self, call: Call, body: Any, receive: Receive) -> Receive:
        sent = replies.compact(body)
        kept = [(n, v) for n, v in call.scope["headers"] if n.lower() not in (b"content-length", b"content-type", b"transfer-encoding")]
        call.scope["headers"] = [*kept, (b"content-type", b"application/json"), (b"content-length", str(len(sent)).encode())]
        return bodies.replayed(sent, receive)

    def _read(self, session: str, person: Person, stack: ExitStack) -> None:
        """Count an open stream for as long as it is open, and what it reads as read."""
        name = str(person.id)
        if not self.readers.add(name, self.rules.readers):
            raise Refusal(429, "Too many pages of yours are open at once. Close some, then reload this one.")
        stack.callback(self.readers.drop, name)
        if session:
            self.unread.clear(session)
            stack.callback(self.unread.clear, session)

    def _upload(self, call: Call, person: Person, receive: Receive, outgoing: Outgoing) -> Receive:
        length = call.length()
        if length is None:
            raise Refusal(411, "The size of the upload is missing. Send the file from the page.")
        if length > self.rules.upload_bytes:
            raise Refusal(413, f"That file is larger than {self.rules.upload_bytes >> 20} MB. Send a smaller one.")
        if length > self._room() - self.rules.reserve_bytes:
            raise Refusal(507, "The disk is too full for that file. Ask an admin to make room, then send it again.")
        if (upload_id := call.query("upload_id")) and not self.upload_ids.claim(upload_id, person.id):
            raise Refusal(403, "That upload belongs to somebody else.")
        outgoing.on_json(lambda reply: self._uploaded(reply, person))
        return bodies.metered(receive, self.rules.upload_bytes)

    def _uploaded(self, reply: Any, person: Person) -> None:
        for path in reply if isinstance(reply, list) else ():
            if isinstance(path, str):
                self.uploads.claim(path, person.id)

    @staticmethod
    def _too_long(call: Call, limit: int) -> bool:
        return call.method == "POST" and (call.length() or 0) > limit

    def _seen_from(self, call: Call) -> Scope:
        """The request as the app sees it: no cookie, no range, no claim of a proxy; the public address where one is set."""
        kept = [(n, v) for n, v in call.scope["headers"] if n.lower() not in UNSENT and not n.lower().startswith(b"x-forwarded-")]
        if not self.rules.public_url:
            return {**call.scope, "headers": kept}
        parts = urlsplit(self.rules.public_url)
        kept = [(n, parts.netloc.encode() if n.lower() == b"host" else v) for n, v in kept]
        return {**call.scope, "headers": kept, "scheme": parts.scheme}

    def _refused(self, call: Call, refusal: Refusal, person: Person | None) -> Response:
        if self.rules.is_keyed(call.path):
            more = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(refusal.status)
            return Response(replies.api_error(refusal.status, refusal.words), refusal.status, more, media_type="application/json")
        if refusal.status == 303:
            # a strict cookie stays at home when the click comes from another site (a chat, a mail): ask once more from here
            again = call.header(b"sec-fetch-site") == "cross-site" and not call.header(b"cookie")
            return Response(headers={"refresh": "0"}) if again else Response(status_code=303, headers={"location": "/login"})
        if call.wants_page:
            return self._page(refusal.status, refusal.words, person)
        return Response(replies.compact({"detail": refusal.words}), refusal.status, media_type="application/json")
