"""Which field of somebody's row is the instruction, which the answer: documented names, an explicit mapping, and chat messages.

Pure. Must not know files, the database or the screens.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ft.errors import BadInput
from ft.rows import RowError, kind

FIELDS = ("instruction", "input", "output", "category", "tags", "split")
ALIASES: dict[str, tuple[str, ...]] = {
    "instruction": (
        "instruction", "prompt", "question", "query", "input_text", "original_text", "utterance", "message", "text", "request", "ticket",
        "user", "input",
    ),
    "output": (
        "output", "response", "answer", "completion", "output_text", "reference_summary", "reference", "ideal", "ideal_answer",
        "resolution", "reply", "target", "expected", "summary",
    ),
    "input": ("input", "context", "background"),
    "category": ("category", "intent", "topic", "label", "scenario", "metadata"),
    "tags": ("tags", "labels"),
    "split": ("split",),
}  # fmt: skip
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
CHAT = ("messages", "conversations")
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
MAX_LABEL = 200


@dataclass(frozen=True, slots=True)
class Record:
    """One usable row. `output` is "" where the row has no answer; `split` is None where the row names none."""

    line: int
    instruction: str
    input: str = ""
    output: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    split: str | None = None


def check_header(columns: tuple[str, ...], mapping: Mapping[str, str], name: str) -> None:
    """Raises BadInput where a table has no column for the instruction, or lacks a mapped one."""
    absent = [key for key in mapping.values() if key and not key.startswith("=") and key not in columns]
    if absent or not source_of(columns, mapping).get("instruction"):
        what = f"no column {absent[0]!r}" if absent else "no column that is known to hold the instruction"
        raise BadInput(f"{name} has {what}; it has {', '.join(columns[:12])}. Say which column is the instruction.")


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())


@lru_cache(maxsize=512)
def resolve(keys: tuple[str, ...]) -> dict[str, str]:
    """Field -> key of the row, by the documented names. "input" is the instruction where nothing better is there."""
    known = {_plain(key): key for key in reversed(keys)}
    found: dict[str, str] = {}
    for field, names in ALIASES.items():
        match = next((known[name] for name in names if name in known and known[name] not in found.values()), None)
        if match is not None:
            found[field] = match
    return found


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises BadInput for a mapping to a field that does not exist."""
    unknown = sorted(set(mapping) - set(FIELDS))
    if unknown:
        raise BadInput(f"Unknown field {', '.join(unknown)}. Map the columns to {', '.join(FIELDS)}.")


def source_of(keys: tuple[str, ...], mapping: Mapping[str, str]) -> dict[str, str]:
    """Field -> key of a row with these keys: the explicit mapping first, the documented names for the rest."""
    free = tuple(key for key in keys if key not in mapping.values())
    return {**{f: k for f, k in resolve(free).items() if f not in mapping}, **mapping}


def text(value: Any, name: str) -> str:
    """A text that every database stores. Raises RowError."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"has {kind(value)} in {name!r} where text is needed")
    if "\0" in value:
        raise RowError(f"has a NUL character in {name!r}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(f"has half a character (a lone surrogate) in {name!r}") from None
    return value


def _visible(value: str) -> bool:
    return any(unicodedata.category(character)[0] not in "ZC" for character in value)


def _category(value: Any, key: str) -> str:
    if _plain(key) == "metadata":
        if not isinstance(value, str):
            return ""
        value = value.split("|")[0].partition(":")[2] or value
    label = text(str(value) if type(value) is int else value, key).strip()
    if len(label) > MAX_LABEL:
        raise RowError(f"has more than {MAX_LABEL} characters in {key!r}")
    return label


def _tags(value: Any, key: str) -> tuple[str, ...]:
    parts = re.split(r"[,;|]", value) if isinstance(value, str) else value or []
    if not isinstance(parts, list):
        raise RowError(f"has no list of texts in {key!r}")
    tags = tuple(tag for part in parts if (tag := text(part, key).strip()))
    if any(len(tag) > MAX_LABEL for tag in tags) or len(tags) > 50:
        raise RowError(f"has more than 50 tags, or one of more than {MAX_LABEL} characters, in {key!r}")
    return tags


def _split(value: Any, key: str) -> str | None:
    word = text(value, key).strip().casefold()
    if word and word not in SPLITS:
        raise RowError(f"has {word[:40]!r} in {key!r}: use train, validation or test")
    return SPLITS.get(word)


def record(line: int, value: Mapping[str, Any], mapping: Mapping[str, str]) -> Record:
    """The record in a row. Raises RowError saying which field is missing or wrong."""
    keys = tuple(value)
    source = source_of(keys, mapping)
    missing = next((key for key in mapping.values() if key and not key.startswith("=") and key not in value), None)
    if missing is not None:
        raise RowError(f"has no {missing!r}")

    def at(field: str) -> tuple[Any, str]:
        key = source.get(field, "")
        return (key[1:], field) if key.startswith("=") and field in mapping else (value.get(key), key or field)

    chat = next((key for key in CHAT if key in value), None)
    if chat is not None and "instruction" not in mapping:
        instruction, context, output = conversation(value[chat], chat)
    else:
        if not source.get("instruction"):
            raise RowError(f"has no instruction among {', '.join(map(repr, keys[:8])) or 'its fields'}")
        instruction, context, output = (text(*at(field)) for field in ("instruction", "input", "output"))
    if not _visible(instruction):
        raise RowError("has an empty instruction")
    return Record(
        line, instruction, context, output if _visible(output) else "", _category(*at("category")), _tags(*at("tags")), _split(*at("split"))
    )


def _turns(messages: Any, key: str) -> Iterator[tuple[str, str]]:
    if not isinstance(messages, list):
        raise RowError(f"has no list of messages in {key!r}")
    for message in messages:
        if not isinstance(message, dict):
            raise RowError(f"has a message in {key!r} that is not an object")
        role = text(message.get("role", message.get("from")), "role")
        if role not in ROLES:
            raise RowError(f"has the unknown role {role[:40]!r}: use system, user or assistant")
        yield ROLES[role], text(message.get("content", message.get("value")), "content")


def conversation(messages: Any, key: str = "messages") -> tuple[str, str, str]:
    """(instruction, input, output) of a chat: the last user turn, the turns before it, the answer to it. System messages are
    left out, since an arm's own system prompt is used. Raises RowError."""
    turns = [turn for turn in _turns(messages, key) if turn[0] != "system"]
    output = turns.pop()[1] if turns and turns[-1][0] == "assistant" else ""
    if not turns or turns[-1][0] != "user":
        raise RowError("has no user message to answer")
    earlier = "\n".join(f"{'Customer' if role == 'user' else 'Agent'}: {content}" for role, content in turns[:-1])
    return turns[-1][1], earlier, output
