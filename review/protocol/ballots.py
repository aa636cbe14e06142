"""What crosses the wire in a blind comparison, and nothing else: these types have no field for an arm, an adapter or a name.

Pure. Must not know the database, the models or the screens.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
MAX_COMMENT = 4_000
MAX_CORRECTION = 20_000
MAX_KEY = 200


@dataclass(frozen=True, slots=True)
class BlindPair:
    """Two complete answers, sides already drawn. `assignment` is a random id that says nothing."""

    assignment: str
    prompt: str
    left: str
    right: str
    done: int
    total: int
    seconds_left: int


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to judge now. `message` says why and what happens next."""

    message: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote as sent. `key` is made by the client for each intended vote: the same key twice is one vote.

    `revises` is the revision this vote replaces: 0 for a first vote, else the last receipt's revision.
    """

    assignment: str
    choice: Choice
    key: str
    comment: str = ""
    reasons: tuple[str, ...] = ()
    criteria: dict[str, str] = field(default_factory=dict)
    revises: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a vote or correction is on disk. Sending the same again gives the same receipt."""

    id: str
    assignment: str
    revision: int


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
    if (
        not isinstance(ballot.criteria, dict)
        or not isinstance(ballot.reasons, tuple)
        or not all(map(_word, (*ballot.criteria, *ballot.reasons)))
    ):
        return "The criteria or reasons cannot be read. Load the page again."
    if ballot.choice not in CHOICES or any(word not in CHOICES for word in ballot.criteria.values()):
        return f"A vote is one of {', '.join(CHOICES)}. Choose one of them."
    if len(set(ballot.reasons)) != len(ballot.reasons):
        return "A reason was given twice. Give each once."
    if isinstance(ballot.revises, bool) or not isinstance(ballot.revises, int) or ballot.revises < 0:
        return "The revision to replace is not a number. Load the page again."
    return ""


def _word(value: object) -> bool:
    return isinstance(value, str)


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
