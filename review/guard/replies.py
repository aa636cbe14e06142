"""What goes back: security headers on everything, the content policy of a page, and messages without a clock in them.

Must not know who is asking.
"""

import base64
import hashlib
import json
import re
from typing import Any

INLINE = re.compile(rb"<script(?P<attributes>[^>]*)>(?P<code>.*?)</script>", re.S | re.I)
MANIFEST = re.compile(rb'<link rel="manifest"[^>]*>')
OURS_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
DROPPED = (b"server", b"set-cookie", b"x-powered-by")
CLOCKS = ("eta", "rank_eta", "rank", "queue_size", "avg_time", "cache_duration", "used_cache")


def inline_scripts(html: bytes) -> list[bytes]:
    """The code of every script element that has no src, in order."""
    return [m["code"] for m in INLINE.finditer(html) if not re.search(rb"\bsrc\s*=", m["attributes"])]


def source(code: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'"


def page_policy(html: bytes, more: tuple[str, ...]) -> str:
    """The content policy of one Gradio page: its own inline scripts by hash, and nothing from elsewhere.

    `unsafe-eval` stays because Gradio compiles its HTML component's template in the browser; styles are set inline throughout.
    """
    hashes = " ".join(dict.fromkeys([source(code) for code in inline_scripts(html)] + [source(s.encode()) for s in more]))
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-eval' {hashes}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; "
        "form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'"
    )


def headers(kind: str, policy: str, https: bool) -> list[tuple[bytes, bytes]]:
    """Security headers for a reply. `kind` asset may be kept by the browser, everything else is not stored anywhere."""
    keep = "private, max-age=86400" if kind == "asset" else "no-store"
    found = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        # same-origin rather than no-referrer: under no-referrer a browser sends `Origin: null` with our own forms
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=(), browsing-topics=()",
        "cache-control": keep,
    }
    if https:
        found["strict-transport-security"] = "max-age=31536000"
    return [(name.encode(), value.encode()) for name, value in found.items()]


def cleaned(raw: list[tuple[bytes, bytes]], added: list[tuple[bytes, bytes]], own_cookie: bool) -> list[tuple[bytes, bytes]]:
    """The reply's headers without what only the guard may say, then the guard's own."""
    names = {name for name, _ in added}
    dropped = tuple(d for d in DROPPED if not (own_cookie and d == b"set-cookie"))
    kept = [(n, v) for n, v in raw if n.lower() not in names and n.lower() not in dropped and not n.lower().startswith(b"access-control-")]
    return kept + added


def unclocked(message: Any) -> Any:
    """An event message or a direct reply without anything that tells how long the work took or who else is waiting."""
    if not isinstance(message, dict):
        return message
    steady = {key: None if key in CLOCKS else value for key, value in message.items()}
    if "queue_size" in steady:
        steady["queue_size"] = 1
    for part in (steady, steady.get("output")):
        if isinstance(part, dict) and "data" in part:
            for key in ("duration", "average_duration"):
                if key in part:
                    part[key] = 0.0
    return steady


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def api_error(status: int, words: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error as clients of the OpenAI protocol read it."""
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    told = {"error": {"message": words, "type": kind, "param": param, "code": code}}
    return json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")  # a bad field's name may hold half a character


def unclocked_json(body: bytes) -> bytes:
    try:
        return compact(unclocked(json.loads(body)))
    except ValueError:
        return body


class Unclock:
    """Takes the clock out of a stream of server-sent events, whatever the sizes of its pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes, more: bool) -> bytes:
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        out = [self._event(event) + b"\n\n" for event in whole]
        if not more and self._rest:
            out.append(self._event(self._rest))
            self._rest = b""
        return b"".join(out)

    @staticmethod
    def _event(event: bytes) -> bytes:
        return b"data: " + unclocked_json(event[6:]) if event.startswith(b"data: ") else event
