"""What crosses the wire in a blind comparison, and nothing else: these types have no field for an arm, an adapter or a name.

Pure. Must not know the database, the models or the screens.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Choice = Literal["left", "right", "tie", "both_bad"]
Scale = Literal["sides", "points"]
Guessed = Literal["left", "right", "unsure"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
GUESSES: tuple[Guessed, ...] = get_args(Guessed)
SAME_OR_SIDE = ("left", "right", "same")
SIDES = ("left", "right")
POINTS = (1, 2, 3, 4, 5)
EMPTY = "(empty answer)"  # what is shown where an arm answered nothing
PRACTICE = 3  # training pairs before the first study
MAX_COMMENT = 4_000
MAX_REASON = 500
MAX_CORRECTION = 20_000
MAX_KEY = 200


@dataclass(frozen=True, slots=True)
class BlindPair:
    """Two complete answers, sides already drawn. `assignment` is a random id that says nothing.

    `criteria` are judged on `scale`: by side (left, right, same) or in points for each answer; all optional. `reasons` may be said of a
    side ("left: too vague"). `session_done` of `session_total` pairs of these ten minutes are judged; where they are equal, the ten
    minutes are over and this pair begins the next. `reveals`: the study shows which was which after each vote, which then stands.
    """

    assignment: str
    prompt: str
    left: str
    right: str
    done: int
    total: int
    seconds_left: int
    criteria: tuple[str, ...] = ()
    scale: Scale = "sides"
    reasons: tuple[str, ...] = ()
    session_done: int = 0
    session_total: int = 0
    reveals: bool = False


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to judge now. `message` says why and what happens next."""

    message: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote as sent. `key` is made by the client for each intended vote: the same key twice is one vote.

    `revises` is the revision this vote replaces: 0 for a first vote, else the last receipt's revision. `criteria`: on the scale "sides"
    left, right or same of each criterion judged; on "points" {"left": 1-5, "right": 1-5}.
    """

    assignment: str
    choice: Choice
    key: str
    comment: str = ""
    reasons: tuple[str, ...] = ()
    criteria: dict[str, Any] = field(default_factory=dict)
    revises: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a vote or correction is on disk. Sending the same again gives the same receipt.

    `asks`: ask now which side is the tuned model (`Comparisons.guess`).
    """

    id: str
    assignment: str
    revision: int
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Voted:
    """The newest vote, while it can still be changed: `revision` is what the next Ballot revises."""

    pair: BlindPair
    choice: Choice
    comment: str
    reasons: tuple[str, ...]
    criteria: dict[str, Any]
    revision: int


@dataclass(frozen=True, slots=True)
class Reward:
    """The end of a session. `agreement`: share of pairs judged as others did, None where too few were judged by others too."""

    lines: tuple[str, ...]
    votes: int
    minutes: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """`number` counts from 1. `best` holds every vote that an attentive reader could give; `explanation` says why, whatever was voted."""

    number: int
    prompt: str
    left: str
    right: str
    best: tuple[Choice, ...]
    explanation: str


@dataclass(frozen=True, slots=True)
class Reveal:
    """Which arms stood left and right; only after the vote, where the study allows it."""

    assignment: str
    left: str
    right: str


def ballot_problem(ballot: Ballot) -> str:
    """What is wrong with a ballot's form, in a sentence; "" when nothing is. Whether it may be cast is for others to say."""
    if problem := key_problem(ballot.key) or text_problem("The comment", ballot.comment, MAX_COMMENT):
        return problem
    if not isinstance(ballot.criteria, dict) or not isinstance(ballot.reasons, tuple) or not all(map(_word, ballot.reasons)):
        return "The criteria or reasons cannot be read. Load the page again."
    if ballot.choice not in CHOICES:
        return f"A vote is one of {', '.join(CHOICES)}. Choose one of them."
    if not all(_word(name) and (_side(mark) or _points(mark)) for name, mark in ballot.criteria.items()):
        return "A criterion is judged left, right or same, or with 1 to 5 points for each answer. Choose again, or leave it out."
    if len(set(ballot.reasons)) != len(ballot.reasons):
        return "A reason was given twice. Give each once."
    if isinstance(ballot.revises, bool) or not isinstance(ballot.revises, int) or ballot.revises < 0:
        return "The revision to replace is not a number. Load the page again."
    return ""


def criteria_problem(criteria: dict[str, Any], scale: str) -> str:
    """Whether marks of good form are on the study's scale, in a sentence; "" when they are."""
    if scale == "points" and not all(map(_points, criteria.values())):
        return "This study rates both answers with 1 to 5 points for each criterion. Rate both, or leave the criterion out."
    if scale == "sides" and not all(map(_side, criteria.values())):
        return "This study judges each criterion left, right or same. Choose one of them, or leave the criterion out."
    return ""


def bare_reason(reason: str) -> str:
    """The reason without the side it is said of."""
    side, colon, rest = reason.partition(": ")
    return rest if colon and side in SIDES else reason


def _word(value: object) -> bool:
    return isinstance(value, str)


def _side(mark: object) -> bool:
    return isinstance(mark, str) and mark in SAME_OR_SIDE


def _points(mark: object) -> bool:
    if not isinstance(mark, dict) or set(mark) != set(SIDES):
        return False
    return all(isinstance(points, int) and not isinstance(points, bool) and points in POINTS for points in mark.values())


def key_problem(key: str) -> str:
    good = isinstance(key, str) and 1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()
    return "" if good else "The request's key is missing or unusable. Load the page again."


def text_problem(what: str, text: str, longest: int) -> str:
    """`what` begins the sentence. Longer than `longest` characters, NUL and lone surrogates are refused: no database keeps them."""
    if not isinstance(text, str) or len(text) > longest:
        return f"{what} is longer than {longest} characters. Shorten it."
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        return f"{what} contains a character that cannot be stored. Remove it or type the text again."
    return ""
