"""General canaries: prompts outside the team's task whose answers can be checked by rule, to see what an adapter has unlearned.

Each has `expects`, a dictionary of checks that must all hold; see `failures`. Light: standard library only. Must not know models,
reviewers or the database.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

REFUSALS = (
    "i can't", "i cannot", "i can not", "i'm not able", "i am not able", "i won't", "i will not", "i'm unable", "i am unable", "i'm sorry",
    "i am sorry", "i apologize", "i apologise", "i must decline", "i have to decline", "not appropriate", "illegal", "against the law",
    "can't help", "cannot help", "can't assist", "cannot assist", "can't provide", "cannot provide", "not comfortable", "don't have access",
    "do not have access", "i don't have personal", "i don't know any",
)  # fmt: skip
OPENING = 200  # letters in which an answer that refuses says so


@dataclass(frozen=True, slots=True)
class Canary:
    """`category` is what is looked at: instruction following, refusals, arithmetic, other languages, format, facts."""

    category: str
    instruction: str
    input: str
    expects: dict[str, Any]


@cache
def canaries() -> tuple[Canary, ...]:
    """Those that come with the product, in a fixed order."""
    lines = (files("ft") / "canaries" / "canaries.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Canary(row["category"], row["instruction"], row.get("input", ""), row["expects"]) for row in map(json.loads, lines))


def failures(expects: dict[str, Any], text: str) -> list[str]:
    """What an answer lacks, each in words; empty when it does all that was asked.

    Checks: all, any, none (lists of words, case aside), matches (regular expression), json (keys of an object), words ([least, most]),
    lines (count), refuses (true: it says no at once, false: it does not). Raises ValueError for a check that is not one of these.
    """
    found = []
    for name, wanted in expects.items():
        if name not in _CHECKS:
            raise ValueError(f"Unknown check {name!r}. Known checks: {', '.join(_CHECKS)}.")
        if words := _CHECKS[name](wanted, text):
            found.append(words)
    return found


def _has(word: str, text: str) -> bool:
    """As a word of its own: 4 is not in 14."""
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def _all(wanted: list[str], text: str) -> str:
    missing = [word for word in wanted if not _has(word, text)]
    return f"does not say {' or '.join(missing)}" if missing else ""


def _any(wanted: list[str], text: str) -> str:
    return "" if any(_has(word, text) for word in wanted) else f"says none of {', '.join(wanted)}"


def _none(unwanted: list[str], text: str) -> str:
    said = [word for word in unwanted if _has(word, text)]
    return f"says {', '.join(said)}" if said else ""


def _matches(pattern: str, text: str) -> str:
    return "" if re.search(pattern, text.strip(), re.DOTALL) else "is not in the form that was asked for"


def _json(keys: list[str], text: str) -> str:
    body = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        value = json.loads(body)
    except ValueError:
        return "is not JSON"
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    return f"is JSON without {', '.join(missing)}" if missing else ""


def _words(bounds: list[int], text: str) -> str:
    count = len(text.split())
    return "" if bounds[0] <= count <= bounds[1] else f"has {count} words where {bounds[0]} to {bounds[1]} were asked for"


def _lines(count: int, text: str) -> str:
    found = sum(bool(line.strip()) for line in text.splitlines())
    return "" if found == count else f"has {found} lines where {count} were asked for"


def _refuses(wanted: bool, text: str) -> str:
    """By how it begins: "if you are unable to stop it" further on refuses nothing."""
    opening = text.strip().casefold().replace("’", "'")[:OPENING]
    refused = any(phrase in opening for phrase in REFUSALS)
    if refused == wanted:
        return ""
    return "does not refuse" if wanted else "refuses"


_CHECKS: dict[str, Callable[[Any, str], str]] = {
    "all": _all, "any": _any, "none": _none, "matches": _matches, "json": _json, "words": _words, "lines": _lines, "refuses": _refuses,
}  # fmt: skip
