"""What a client of the OpenAI protocol sends, read strictly: the conversation, the settings, and one clear sentence for what is wrong.

Pure. Must not know who asks, arms or engines.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ft.engine import Message
from ft.errors import BadInput, UserError
from ft.template import ROLES
from review.guard.bodies import strict

IGNORED = ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
ONLY: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default", "flex"),
}
"""Settings taken only at these values: all but the service tier "flex" change nothing."""
MAX_STOPS = 4
MAX_STOP_LENGTH = 200
MAX_MESSAGES = 2000


class WrongField(BadInput):
    """Names the field, as the protocol's error does."""

    def __init__(self, words: str, param: str | None = None) -> None:
        super().__init__(words)
        self.param = param


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for an answer. `changes` are the decoding settings given; the arm's own hold for the others.

    `background` (the protocol's service tier "flex"): it yields to people who wait.
    """

    model: str
    messages: tuple[Message, ...]
    changes: Mapping[str, Any]
    stops: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False
    background: bool = False


def body_of(raw: bytes) -> dict[str, Any]:
    """A JSON object whose texts can be stored and sent on. Fields given as null are left out. Raises WrongField."""
    try:
        value = strict(raw)
    except ValueError as error:
        raise WrongField(f"The body is not JSON ({str(error)[:80]}). Send one JSON object, each field once.") from error
    if not isinstance(value, dict):
        raise WrongField("The body is not a JSON object. Send fields in { }.")
    return {name: item for name, item in value.items() if item is not None}


def ask_of(raw: bytes) -> Ask:
    """The body of a chat completion. Raises WrongField for the first thing that cannot be used."""
    body = body_of(raw)
    settings = {name: read(body, name) for name, read in SETTINGS.items() if name in body}
    stream, usage = _flag(body, "stream"), _wants_usage(body)
    _refuse_the_rest(body)
    limits = [settings.pop(name) for name in ("max_completion_tokens", "max_tokens") if name in settings]
    if limits:
        settings["max_new_tokens"] = limits[0]
    return Ask(
        model=text_of(body, "model"), messages=_messages(body.get("messages")), changes=settings, stops=_stops(body.get("stop")),
        stream=stream, usage=stream and usage, background=body.get("service_tier") == "flex",
    )  # fmt: skip


def _refuse_the_rest(body: Mapping[str, Any]) -> None:
    """Settings that are not here, or not at that value."""
    known = {"model", "messages", "stop", "stream", "stream_options", *SETTINGS, *ONLY, *IGNORED}
    if unknown := sorted(set(body) - known):
        raise WrongField(f"There is no setting {unknown[0][:60]!r} here. Leave it out.", unknown[0][:60])
    for name, values in ONLY.items():
        if name in body and not any(body[name] == v and isinstance(body[name], bool) == isinstance(v, bool) for v in values):
            raise WrongField(f"{name} is not supported at that value. Leave it out, or send {values[0]!r}.", name)


def text_of(body: Mapping[str, Any], name: str, longest: int = 200) -> str:
    """A short text that must be there."""
    text = body.get(name)
    if not isinstance(text, str) or not text.strip() or len(text) > longest:
        raise WrongField(f"{name} is missing. Send a text of up to {longest} characters.", name)
    return _clean(text, name)


def _clean(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongField(f"{name} holds half of a character (a lone surrogate). Remove it and try again.", name) from error
    if "\0" in text:
        raise WrongField(f"{name} holds a NUL character. Remove it and try again.", name)
    return text


def _messages(raw: Any) -> tuple[Message, ...]:
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_MESSAGES:
        raise WrongField(f"messages must be a list of 1 to {MAX_MESSAGES} messages. Send at least a user's.", "messages")
    found = tuple(_message(item, f"messages[{index}]") for index, item in enumerate(raw))
    if any(message.role == "system" for message in found[1:]):
        raise WrongField("A system text may only open the conversation. Leave it out further down.", "messages")
    if found[-1].role != "user" or not found[-1].content.strip():
        raise WrongField("The prompt is empty. End with a user's message that asks something.", "messages")
    return found


def _message(raw: Any, where: str) -> Message:
    if not isinstance(raw, dict):
        raise WrongField(f'{where} is not an object. Send {{"role": …, "content": …}}.', where)
    role = raw.get("role")
    if role not in ROLES:
        raise WrongField(f"{where} has the role {str(role)[:40]!r}. Use {', '.join(ROLES)}.", f"{where}.role")
    content = raw.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise WrongField(f"{where} has no text. Send content as a text.", f"{where}.content")
    return Message(role, _clean(content, where))


def _part(part: Any, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise WrongField(f"{where} holds a part that is not text. Only text is read here.", f"{where}.content")


def _stops(raw: Any) -> tuple[str, ...]:
    stops = [] if raw is None else [raw] if isinstance(raw, str) else raw
    good = isinstance(stops, list) and len(stops) <= MAX_STOPS and all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_LENGTH for s in stops)
    if not good:
        raise WrongField(f"stop must be a text or up to {MAX_STOPS} texts of 1 to {MAX_STOP_LENGTH} characters. Send those.", "stop")
    return tuple(_clean(stop, "stop") for stop in stops)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise WrongField(f"{name} must be true or false.", name)
    return value


def _wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the stream is to end with its usage."""
    options = body.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise WrongField('stream_options must be {"include_usage": true or false}.', "stream_options")
    return _flag({name: value for name, value in options.items() if value is not None}, "include_usage")


def _whole(low: int, high: int) -> Callable[[Mapping[str, Any], str], int]:
    def read(body: Mapping[str, Any], name: str) -> int:
        value = body[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise WrongField(f"{name} is {repr(value)[:40]}. Send a whole number from {low} to {high}.", name)
        return value

    return read


def _number(low: float, high: float) -> Callable[[Mapping[str, Any], str], float]:
    def read(body: Mapping[str, Any], name: str) -> float:
        value = body[name]
        good = not isinstance(value, bool) and isinstance(value, int | float) and low <= value <= high and math.isfinite(value)
        if not good:
            raise WrongField(f"{name} is {repr(value)[:40]}. Send a number from {low:g} to {high:g}.", name)
        return float(value)

    return read


SETTINGS: Mapping[str, Callable[[Mapping[str, Any], str], Any]] = {
    "max_tokens": _whole(1, 4096),
    "max_completion_tokens": _whole(1, 4096),
    "temperature": _number(0, 2),
    "top_p": _number(0.001, 1),
    "seed": _whole(-(2**63), 2**63 - 1),
    "repetition_penalty": _number(0.5, 2),
}


def param_of(error: UserError) -> str | None:
    return error.param if isinstance(error, WrongField) else None
