"""A request as the guard reads it, what it leaves on it for the app behind, and what every request must satisfy.

Must not know routes, bodies or the database.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from starlette.datastructures import QueryParams
from starlette.types import Scope

from review.guard.bodies import Refusal
from review.guard.policy import Policy, path_is_sane

KEY = "tiebreak.person"
API_KEY = "tiebreak.key"
SESSION = "tiebreak.session"


class Person(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...


def person_of(scope: Any) -> Any:
    """The signed-in person of a request that came through the guard; None for an open page."""
    return scope.get(KEY)


def key_of(scope: Any) -> Any:
    """The key of a request to a keyed path."""
    return scope.get(API_KEY)


def token_of(scope: Any) -> str | None:
    """The live session token a request came with."""
    return scope.get(SESSION)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Call:
    """The parts of a request the guard decides by."""

    scope: Scope
    headers: dict[bytes, bytes]
    method: str
    path: str
    host: str

    @classmethod
    def of(cls, scope: Scope) -> "Call":
        headers = {name.lower(): value for name, value in scope["headers"]}
        return cls(scope, headers, scope["method"], scope["path"], headers.get(b"host", b"").decode("latin-1").lower())

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def wants_page(self) -> bool:
        return self.method in ("GET", "HEAD") and "text/html" in self.header(b"accept")

    def query(self, name: str) -> str:
        """As the app behind will read it: by the same parser."""
        return QueryParams(self.scope["query_string"]).get(name, "")

    @property
    def bearer(self) -> str:
        """The key of the Authorization header; "" where there is none."""
        scheme, _, key = self.header(b"authorization").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def length(self) -> int | None:
        text = self.header(b"content-length")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def check_arrival(call: Call, rules: Policy) -> None:
    """What every request must satisfy, signed in or not. Raises Refusal."""
    if not rules.host_is_known(call.host):
        raise Refusal(403, "This address is not one this server answers to. Set TIEBREAK_PUBLIC_URL to the address you use.")
    if not path_is_sane(call.path, call.scope.get("raw_path") or b""):
        raise Refusal(404, "There is no such page. Start from the front page.")
    origin, site = call.header(b"origin"), call.header(b"sec-fetch-site")
    if origin and not rules.origin_is_ours(origin, call.host):
        raise Refusal(403, "This request comes from another site. Open Tiebreak in its own tab.")
    if call.method not in ("GET", "HEAD", "POST"):
        raise Refusal(405, "Tiebreak does not do that. Start from the front page.")
    if call.method == "POST" and not origin and not rules.is_keyed(call.path):  # a key is no cookie: no browser sends it by itself
        raise Refusal(403, "A request that changes something must come from a page of this site.")
    elsewhere = site in ("cross-site", "same-site")  # another port of this host is the same site, and not us
    if elsewhere and call.header(b"sec-fetch-mode") != "navigate":
        raise Refusal(403, "This request comes from another site. Open Tiebreak in its own tab.")
    if elsewhere and call.header(b"sec-fetch-dest") not in ("document", ""):
        raise Refusal(403, "Tiebreak does not show inside another page. Open it in its own tab.")
