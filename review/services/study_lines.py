"""The lines of a study file (docs/exchange.md): their fields, read and written back. One JSON object a line.

Forgiving where nothing is lost: a number where a text belongs, null for a field that may be left out, usual other names of a field, fields
of the sender's own. A field that looks like a misspelt one of ours is refused.

Must not know the database, screens or models, nor how lines fit together.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, get_type_hints

from ft.errors import BadInput
from review.protocol.ballots import text_problem

FORMAT, VERSION = "tiebreak study", 1
DECIDED, DOUBTED = "decided", "doubted"  # whose votes stay out: those somebody decided against, or all in doubt too
MAX_TEXT = 1_000_000  # characters in one field
MAX_DEPTH = 20  # lists and objects within each other


@dataclass(frozen=True, slots=True)
class Header:
    """What the study declared. `reviewers` fixes their order, `invited` are those who alone might judge; times are UTC seconds since 1970.
    `tuned`: arms that are tuned models. `aside`: "doubted" keeps votes of doubted reviewers out until somebody decides, "decided" only
    those that somebody decided against. Empty: chosen when it is imported."""

    name: str = ""
    format: str = FORMAT
    version: int = VERSION
    set: str = ""
    split: str = "test"
    against: str = ""
    votes_per_pair: int = 0
    criteria: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    rule: dict[str, Any] = field(default_factory=dict)
    reveal: str = "after_close"
    reviewers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    invited: tuple[str, ...] = ()
    scale: str = "sides"
    checks: bool = False
    tuned: tuple[str, ...] = ()
    aside: str = DECIDED
    state: str = "closed"
    created_at: float | None = None
    opened_at: float | None = None
    closed_at: float | None = None
    line: int = 1


@dataclass(frozen=True, slots=True)
class ArmLine:
    """`compared`: whether the study is about it; an arm that is not only stands in plain pairs. Likewise for prompts."""

    name: str
    kind: str = "imported"
    title: str = ""
    system_prompt: str = ""
    decode: dict[str, Any] = field(default_factory=dict)
    compared: bool = True
    line: int = 0


@dataclass(frozen=True, slots=True)
class PromptLine:
    """`history`: earlier turns of a conversation, each with its `role` and `content`; the instruction is its last question."""

    id: str
    instruction: str
    input: str = ""
    reference: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    history: tuple[dict[str, str], ...] = ()
    compared: bool = True
    line: int = 0


@dataclass(frozen=True, slots=True)
class AnswerLine:
    """`id` is needed where votes must name it: an arm has several answers to one prompt (all but one of them `voided`, with the reason),
    or a plain pair shows an answer to another prompt."""

    prompt: str
    arm: str
    text: str
    id: str = ""
    voided: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class VoteLine:
    """`left_answer`, `right_answer`: ids of voided answers, or of those of a plain pair. `seconds`: from served to vote, 0 where nobody
    measured it. `guess`: which side was taken for the tuned model's, where that was asked."""

    prompt: str
    left: str
    right: str
    choice: str
    reviewer: str = ""
    revision: int = 1
    kind: str = "real"
    marked: str = ""
    seconds: float = 0.0
    at: float | None = None
    criteria: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    comment: str = ""
    correction: str = ""
    left_answer: str = ""
    right_answer: str = ""
    guess: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class SkipLine:
    """A pair that a reviewer would not judge, and why; the answers as in a vote."""

    prompt: str
    left: str
    right: str
    reason: str
    reviewer: str = ""
    kind: str = "real"
    at: float | None = None
    left_answer: str = ""
    right_answer: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """Whether a reviewer's votes count, as somebody decided; the last one holds."""

    reviewer: str
    counted: bool
    reason: str = ""
    at: float | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class AdjudicationLine:
    """What somebody decided on a disputed pair: `winner` is one of its two arms, tie or both_bad; the last one holds."""

    prompt: str
    first: str
    second: str
    winner: str
    reason: str = ""
    at: float | None = None
    first_answer: str = ""
    second_answer: str = ""
    line: int = 0


AnyLine = Header | ArmLine | PromptLine | AnswerLine | VoteLine | SkipLine | DecisionLine | AdjudicationLine
KINDS: dict[str, type[AnyLine]] = {
    "study": Header, "arm": ArmLine, "prompt": PromptLine, "answer": AnswerLine, "vote": VoteLine, "skip": SkipLine,
    "decision": DecisionLine, "adjudication": AdjudicationLine,
}  # fmt: skip
OTHER_NAMES = {
    "prompt": {"id": ("prompt", "prompt_id", "question_id"), "instruction": ("text", "question")},
    "answer": {"prompt": ("prompt_id", "question_id"), "arm": ("model",), "text": ("answer", "output", "response")},
    "vote": {"prompt": ("prompt_id", "question_id"), "left": ("model_a",), "right": ("model_b",), "choice": ("winner",),
             "reviewer": ("judge", "annotator", "rater", "worker")},
    "skip": {"prompt": ("prompt_id", "question_id"), "left": ("model_a",), "right": ("model_b",),
             "reviewer": ("judge", "annotator", "rater", "worker")},
}  # fmt: skip
TURNS = tuple[dict[str, str], ...]
ROLES = ("user", "assistant", "system")
HINTS = {kind: get_type_hints(kind) for kind in KINDS.values()}
NAMES = {kind: name for name, kind in KINDS.items()}
WORDS = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    float: "a number",
    float | None: "a number of UTC seconds since 1970, or a time such as 2026-03-01T12:00:00Z",
    tuple[str, ...]: "a list of texts",
    dict[str, Any]: "an object",
    TURNS: "a list of turns, each with its role (user, assistant or system) and its content",
}


def wrong(line: int, sentence: str) -> BadInput:
    return BadInput(f"Line {line}: {sentence} Nothing was imported.")


def read_line(number: int, raw: str, ignored: set[str]) -> AnyLine:
    """One line; the names of fields that are not ours go into `ignored`. Raises BadInput, naming the line, for any other line."""
    try:
        found = json.loads(raw, parse_constant=_no_such_number)
    except (ValueError, RecursionError) as error:
        raise wrong(number, f"this is not JSON ({str(error)[:80]}).") from error
    called = str(found.pop("type", "")).casefold() if isinstance(found, dict) else ""
    if called not in KINDS:
        raise wrong(number, f"its type must be one of {', '.join(KINDS)}.")
    kind = KINDS[called]
    known = {f.name: f for f in fields(kind) if f.name != "line"}
    for ours, others in OTHER_NAMES.get(called, {}).items():
        if ours not in found and (other := next((name for name in others if name in found and name not in known), None)):
            found[ours] = found.pop(other)
    for name in sorted(found.keys() - known.keys()):
        if meant := get_close_matches(name.casefold(), known, 1, 0.75):
            raise wrong(number, f"{NAMES[kind]} has no {name[:80]}; did you mean {meant[0]}? Known: {', '.join(known)}.")
        del found[name]
        ignored.add(f"{NAMES[kind]}.{name[:80]}")
    found = {name: value for name, value in found.items() if value is not None or _is_needed(known[name])}
    if lacking := [name for name, f in known.items() if name not in found and _is_needed(f)]:
        raise wrong(number, f"this {NAMES[kind]} lacks {', '.join(lacking)}.")
    try:
        return kind(**{name: _value(number, name, HINTS[kind][name], value) for name, value in found.items()}, line=number)
    except RecursionError as error:
        raise wrong(number, "its values are nested too deeply.") from error


def write_line(line: AnyLine) -> str:
    """The line as JSON, fields that say nothing left out."""
    told = {f.name: f for f in fields(line) if f.name != "line"}
    values = {
        name: value for name, value in asdict(line).items() if name in told and (_is_needed(told[name]) or value != _usual(told[name]))
    }
    return json.dumps({"type": NAMES[type(line)], **values}, ensure_ascii=False, allow_nan=False) + "\n"


def _is_needed(f: "Field[Any]") -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _usual(f: "Field[Any]") -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def _value(number: int, name: str, hint: Any, value: Any) -> Any:
    if hint == tuple[str, ...] and isinstance(value, list):
        value = tuple(_text(item) for item in value)
    elif hint == TURNS and isinstance(value, list):
        value = tuple(value)
    elif hint is str:
        value = _text(value)
    elif hint == float | None and isinstance(value, str):
        value = _moment(value)
    if not _fits(hint, value):
        raise wrong(number, f"{name} must be {WORDS[hint]}.")
    for text in _texts(value):
        if problem := text_problem(name, text, MAX_TEXT):
            raise wrong(number, problem)
    return value


def _text(value: Any) -> Any:
    """Ids are often numbers, and so are some answers; others are a bare true."""
    return json.dumps(value) if isinstance(value, int | float) else value


def _moment(value: str) -> Any:
    """A time as ISO 8601 writes it, as UTC seconds; without a zone it is UTC. What is none stays as it is, to be refused."""
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return value


def _fits(hint: Any, value: Any) -> bool:
    if hint == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if hint == TURNS:
        return isinstance(value, tuple) and all(map(_is_turn, value))
    if hint == dict[str, Any]:
        return isinstance(value, dict)
    if hint in (str, bool):
        return isinstance(value, hint)
    if value is None:
        return hint == float | None
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    return whole if hint is int else whole or (isinstance(value, float) and math.isfinite(value))


def _is_turn(item: Any) -> bool:
    return isinstance(item, dict) and item.keys() == {"role", "content"} and item["role"] in ROLES and isinstance(item["content"], str)


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in a value. Raises RecursionError below `MAX_DEPTH`."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, depth + 1)


def _no_such_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
