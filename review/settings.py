"""The settings of one installation, read once from TIEBREAK_ variables into a frozen value.

Every unknown name and every bad value is reported at once. Must not know services, screens or models.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import platformdirs

from ft.errors import BadInput, Unavailable

PREFIX = "TIEBREAK_"
TEST_ONLY = ("TIEBREAK_FULL", "TIEBREAK_WHEEL", "TIEBREAK_VLLM")  # read by the test suite and by the setup script, never by the app


def _choice(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"choose {', '.join(values)}")
        return text

    return read


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"choose a whole number from {low} to {high}")
        return int(text)

    return read


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("choose 1 (on) or 0 (off)")
    return text == "1"


def _text(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("leave it out or give a value")
    return text.strip()


def _folder(text: str) -> Path:
    return Path(_text(text)).expanduser().absolute()


def _database(text: str) -> str:
    if not re.match(r"(sqlite|postgresql)(\+\w+)?://", text):
        raise ValueError("give an address such as sqlite:////data/tiebreak.db or postgresql+psycopg://user@host/tiebreak")
    return text


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError("give scheme, host and port only, such as https://tiebreak.example.com")
    return f"{parts.scheme}://{parts.netloc}".lower()


def is_variable(text: str) -> bool:
    """Whether a text can be the name of an environment variable."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", text))


def _variable(text: str) -> str:
    if not is_variable(text):
        raise ValueError("give the name of the environment variable that holds the key, never the key itself")
    return text


def _pattern(text: str) -> str:
    if set(re.findall(r"\{[^}]*\}?|\}", text)) - {"{path}", "{folder}", "{name}"}:
        raise ValueError("give a path for the server, with {path}, {folder} or {name} in it")
    return _text(text)


def default_home() -> Path:
    return platformdirs.user_data_path("tiebreak").absolute()


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are and which model answers. Build it with `from_env`, or directly in tests."""

    home: Path
    database_url: str = ""
    base: str = "embedded"
    quantisation: str = "none"
    device: str = "auto"
    dtype: str = "auto"
    engine: str = "local"
    host: str = "127.0.0.1"
    port: int = 7860
    demo: bool = True
    adapter_memory_mb: int = 2048
    max_upload_mb: int = 1024
    public_url: str = ""
    remote_url: str = ""
    remote_model: str = ""
    remote_key_env: str = ""
    remote_adapters: str = "{path}"
    gguf_converter: str = ""

    def __post_init__(self) -> None:
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.home / 'tiebreak.db'}")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Settings from TIEBREAK_ variables. Raises BadInput naming every unknown variable and every bad value."""
        env = os.environ if env is None else env
        given = {name: value for name, value in env.items() if name.startswith(PREFIX) and name not in TEST_ONLY}
        values: dict[str, Any] = {}
        problems = []
        for name, text in sorted(given.items()):
            if name not in VARIABLES:
                problems.append(f"{name} is not a setting")
                continue
            field, read = VARIABLES[name]
            try:
                values[field] = read(text)
            except ValueError as error:
                problems.append(f"{name} is {text!r}: {error}")
        if problems:
            raise BadInput(f"The settings cannot be used: {'; '.join(problems)}. Known settings: {', '.join(sorted(VARIABLES))}.")
        values.setdefault("home", default_home())
        return cls(**values)

    @property
    def address(self) -> str:
        """Where a browser finds the app, without a trailing slash."""
        if self.public_url:
            return self.public_url
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def folder(self, *parts: str) -> Path:
        """A folder of the data folder, made (mode 0700) when missing. Raises Unavailable when it cannot be made or written."""
        path = self.home.joinpath(*parts)
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path == self.home and path.stat().st_uid == os.getuid() and stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o700)
        except OSError as error:
            raise Unavailable(
                f"The data folder {path} cannot be made ({error.strerror}). Set TIEBREAK_HOME to a folder you may write to."
            ) from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise Unavailable(f"The data folder {path} cannot be written. Set TIEBREAK_HOME to a folder you may write to.")
        return path

    def shown(self) -> dict[str, str]:
        """Name and value of every setting, without passwords: for the health page and the command line."""
        names = {field: name for name, (field, _) in VARIABLES.items()}
        raw = {names[f.name]: str(getattr(self, f.name)) for f in fields(self)}
        return {name: re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", value) for name, value in raw.items()}


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "TIEBREAK_HOME": ("home", _folder),
    "TIEBREAK_DATABASE": ("database_url", _database),
    "TIEBREAK_BASE": ("base", _text),
    "TIEBREAK_QUANTISATION": ("quantisation", _choice("none", "8bit", "4bit")),
    "TIEBREAK_DEVICE": ("device", _choice("auto", "cpu", "cuda", "mps")),
    "TIEBREAK_DTYPE": ("dtype", _choice("auto", "float32", "bfloat16", "float16")),
    "TIEBREAK_ENGINE": ("engine", _choice("local", "scripted", "remote")),
    "TIEBREAK_HOST": ("host", _text),
    "TIEBREAK_PORT": ("port", _number(1, 65535)),
    "TIEBREAK_DEMO": ("demo", _switch),
    "TIEBREAK_ADAPTER_MEMORY_MB": ("adapter_memory_mb", _number(16, 1_000_000)),
    "TIEBREAK_MAX_UPLOAD_MB": ("max_upload_mb", _number(1, 100_000)),
    "TIEBREAK_PUBLIC_URL": ("public_url", _address),
    "TIEBREAK_REMOTE_URL": ("remote_url", _text),
    "TIEBREAK_REMOTE_MODEL": ("remote_model", _text),
    "TIEBREAK_REMOTE_KEY_ENV": ("remote_key_env", _variable),
    "TIEBREAK_REMOTE_ADAPTERS": ("remote_adapters", _pattern),
    "TIEBREAK_GGUF_CONVERTER": ("gguf_converter", _text),
}
