"""What may pass: the mounts and their roles, the few Gradio routes a browser needs, the hosts, the limits.

The route table was found by driving the real pages in Chromium; everything else a Gradio app answers to is refused.
Pure. Must not know ASGI.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Route = Literal["page", "asset", "join", "data", "run", "cancel", "reset", "heartbeat", "upload", "upload_progress"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HASH = re.compile(r"[0-9a-z]{6,40}")

ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", r"/?", "page"),
    ("GET", r"/assets/[\w.-]+", "asset"),
    ("GET", r"/static/(fonts|img|js|css)/[\w./-]+", "asset"),
    ("GET", r"/theme\.css", "asset"),
    ("POST", r"/gradio_api/queue/join", "join"),
    ("GET", r"/gradio_api/queue/data", "data"),
    ("POST", r"/gradio_api/run/predict", "run"),
    ("POST", r"/gradio_api/cancel", "cancel"),
    ("POST", r"/gradio_api/reset", "reset"),
    ("GET", r"/gradio_api/heartbeat/[0-9a-z]{6,40}", "heartbeat"),
    ("POST", r"/gradio_api/upload", "upload"),
    ("GET", r"/gradio_api/upload_progress", "upload_progress"),
)
PATTERNS = tuple((method, re.compile(pattern), route) for method, pattern, route in ROUTES)


MAY_ASK = ("engineer", "admin")
KEYED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("POST", r"/v1/chat/completions", MAY_ASK),
    ("GET", r"/v1/models", MAY_ASK),
    ("GET", r"/v1/models/[^/]{1,100}", MAY_ASK),
    ("POST", r"/v1/load_lora_adapter", MAY_ASK),
    ("POST", r"/v1/unload_lora_adapter", MAY_ASK),
    ("GET", r"/metrics", ("viewer", *MAY_ASK)),
)
"""What a key opens, and for which roles. A cookie opens none of it, so no page of another site can use a browser's session here."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One part of the app. `uploads` is true where a screen has a file input; `steady` hides every duration from its reader."""

    path: str
    roles: tuple[str, ...]
    uploads: bool = False
    steady: bool = False
    scripts: tuple[str, ...] = ()  # inline scripts the page adds by itself, allowed by their hash


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the guard needs to know about this installation. Sizes in bytes, counts per person."""

    mounts: tuple[Mount, ...]
    hosts: tuple[str, ...]  # host[:port] a browser may use; empty: any well-formed one
    origins: tuple[str, ...] = ()  # beside the request's own
    public_url: str = ""
    cookie: str = "tiebreak"
    open_paths: tuple[str, ...] = ("/health", "/ready", "/login", "/favicon.ico")
    open_folders: tuple[str, ...] = ("/login/", "/static/")
    form_bytes: int = 16 << 10
    body_bytes: int = 2 << 20
    upload_bytes: int = 1 << 30
    reserve_bytes: int = 256 << 20  # kept free for votes while uploads come in
    keyed_paths: tuple[str, ...] = ("/metrics",)
    keyed_folders: tuple[str, ...] = ("/v1/",)
    keyed_bytes: int = 2 << 20
    keyed_open: int = 64  # requests of one key at once, those that wait for the model too
    sessions: int = 256
    readers: int = 24
    unread: int = 64
    page_scripts: int | None = None  # inline scripts of the page template; a page with more or fewer is not sent

    @property
    def https(self) -> bool:
        return self.public_url.startswith("https://")

    def mount_of(self, path: str) -> Mount | None:
        return next((m for m in self.mounts if path == m.path or path.startswith(m.path + "/")), None)

    def is_open(self, path: str) -> bool:
        return path in self.open_paths or path.startswith(self.open_folders)

    def is_keyed(self, path: str) -> bool:
        """Opened by a key in the Authorization header and by nothing else."""
        return path in self.keyed_paths or path.startswith(self.keyed_folders)

    def host_is_known(self, host: str) -> bool:
        if not re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", host):
            return False
        return not self.hosts or host in self.hosts

    def origin_is_ours(self, origin: str, host: str) -> bool:
        if self.public_url:
            return origin == self.public_url or origin in self.origins
        return origin == f"http://{host}" or origin in self.origins


def route_of(mount: Mount, method: str, path: str) -> Route | None:
    """Which known route a request inside a mount is for; None: refuse it."""
    rest = path[len(mount.path) :]
    method = "GET" if method == "HEAD" else method
    found = next((route for verb, pattern, route in PATTERNS if verb == method and pattern.fullmatch(rest)), None)
    return None if found in ("upload", "upload_progress") and not mount.uploads else found


def roles_for_key(method: str, path: str) -> tuple[str, ...] | None:
    """The roles a key needs here; None: there is nothing here for any key."""
    return next((roles for verb, pattern, roles in KEYED if verb == method and re.fullmatch(pattern, path)), None)


def path_is_sane(path: str, raw: bytes) -> bool:
    """False for dots, backslashes, double slashes, control characters and anything still encoded after decoding once."""
    if re.search(r"[\x00-\x1f\x7f\\%;]|//|/\.", path) or re.search(rb"%(2f|5c|00|2e)", raw.lower()):
        return False
    return len(path) <= 512


def known_hosts(host: str, port: int, public_url: str) -> tuple[str, ...]:
    """The Host headers to accept. A server open to the network without a public address accepts any name."""
    if public_url:
        parts = urlsplit(public_url)
        return (parts.netloc, f"127.0.0.1:{port}", f"localhost:{port}")
    if host in LOOPBACK:
        return tuple(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in LOOPBACK)
    return ()
