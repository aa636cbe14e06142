"""What crosses the wire in a blind comparison, and nothing else: these types have no field for an arm, an adapter or a name.

Pure. Must not know the database, the models or the screens.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
MAX_COMMENT = 4_000
MAX_CORRECTION = 20_000


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
