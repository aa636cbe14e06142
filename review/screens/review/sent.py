"""What the page sends, read strictly: a value of the wrong shape is refused in words, never guessed at.

Pure. Whether a vote may be cast is for the services to say.
"""

from typing import Any, cast

from ft.errors import BadInput
from review.protocol.ballots import Ballot, Choice

INCOMPLETE = "The request is incomplete. Load the page again."


def text(sent: dict[str, Any], name: str) -> str:
    return cast(str, _of(sent, name, str))


def number(sent: dict[str, Any], name: str) -> int:
    return cast(int, _of(sent, name, int))


def seconds(sent: dict[str, Any], name: str, longest: float) -> float:
    """A span the page measured, within reason."""
    value = sent.get(name) if isinstance(sent, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(INCOMPLETE)
    return min(max(0.0, float(value)), longest)


def ballot(sent: dict[str, Any]) -> Ballot:
    reasons = _of(sent, "reasons", list)
    return Ballot(
        assignment=text(sent, "assignment"),
        choice=cast(Choice, text(sent, "choice")),
        key=text(sent, "key"),
        comment=text(sent, "comment"),
        reasons=tuple(reasons),
        criteria=_of(sent, "criteria", dict),
        revises=number(sent, "revises"),
    )


def _of(sent: dict[str, Any], name: str, shape: type) -> Any:
    value = sent.get(name) if isinstance(sent, dict) else None
    if not isinstance(value, shape) or isinstance(value, bool):
        raise BadInput(INCOMPLETE)
    return value
