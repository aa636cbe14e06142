"""What answers: Request in, events out. The protocol that the local, the scripted and the remote engine share.

Light: importing this file imports no torch. Must not know reviewers, studies or the database.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ft.specs import DecodeSpec

BASE = "__base__"
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One row to answer. `adapter` is the internal name of a loaded adapter, or BASE. `background` rows yield to people who wait."""

    id: str
    messages: tuple[Message, ...]
    adapter: str = BASE
    decode: DecodeSpec = field(default_factory=DecodeSpec)
    background: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of one row, with its new text, which may be empty. All rows of one `generate` call advance in step, one token a step.

    `prompt_tokens`, where the engine counts them, is there for who stops before the end and never sees Done.
    """

    request_id: str
    text: str
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """A row is complete. `text` is the whole answer; `adapter` is the arm that really ran."""

    request_id: str
    text: str
    adapter: str
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length"]
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A row ended without an answer. `error` is a sentence fit to show; `fault` says whether asking again could help."""

    request_id: str
    error: str
    fault: Literal["request", "engine"] = "engine"


Event = Delta | Done | Failed


@dataclass(frozen=True, slots=True)
class Status:
    """`state` loading | ready | failed | away (it left the memory to training), with words and a share 0..1 for the progress bar."""

    state: Literal["loading", "ready", "failed", "away"]
    message: str
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Activity:
    """Rows at this moment: waiting to join, and under way."""

    waiting: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Enough to say which model answered. `reasons` says why each resolved choice was made; `kernel`: what multiplies, if it was chosen."""

    base: str
    base_hash: str
    template_hash: str
    device: str
    dtype: str
    quantisation: str
    context_length: int
    reasons: dict[str, str] = field(default_factory=dict)
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One look at whether an arm computes what it did when it was loaded. `kind`: base | adapter | pair (beside the base, in one batch)."""

    kind: Literal["base", "adapter", "pair"]
    ok: bool
    words: str
    detail: dict[str, str | float] = field(default_factory=dict)


class Engine(Protocol):
    """Thread-safe: any thread may call any method; one inference thread of the engine's own touches the model."""

    def status(self) -> Status: ...

    def wait_ready(self, timeout: float | None = None) -> None:
        """Block until ready. Raises Unavailable when loading failed or the time is over."""

    def activity(self) -> Activity:
        """For the figures of a running app; never waits."""

    def identity(self) -> Identity:
        """Raises Unavailable until ready."""

    def adapters(self) -> dict[str, str]:
        """Loaded adapters: internal name -> content hash."""

    def load(self, name: str, folder: Path) -> None:
        """Bring an adapter in beside the others. Raises UserError; on failure nothing stays registered."""

    def unload(self, name: str) -> None:
        """Forget an adapter once no row uses it. Unknown names are ignored."""

    def check(self, name: str = BASE) -> Check:
        """Look, between two steps, whether the base, or an adapter in one batch with it, is what was loaded. A base that is not stops all.

        Raises Unavailable where nothing can be looked at.
        """

    def generate(self, requests: Sequence[Request]) -> Generator[Event, None, None]:
        """Answer all requests as one mixed batch; closing the iterator cancels its rows. Order of rows is kept by id, not by position.

        Each request ends in exactly one Done or Failed. Unknown adapters, too long prompts and empty prompts end in Failed.
        """

    def close(self) -> None: ...
