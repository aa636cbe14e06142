"""A study before it is declared: what is wished for, how much work it would be, and everything that stands in its way.

The words are for whoever fills in the form. Must not know screens or models.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from sqlmodel import Session

from ft.errors import BadInput
from review.protocol.blinding import is_talk
from review.services.declaring import MAX_NAME
from review.services.faults import reading
from review.services.studies import Studies
from review.services.study_views import StudyView
from review.services.study_wishes import Wish, problems_of
from storage.database import Database
from storage.queries import plans as rows
from storage.queries import studies as declared

__all__ = ["Plan", "Wish", "declare", "free_name", "plan", "possible_reviewers", "replace"]

USUAL_SECONDS = 30.0  # for a vote, before there are any
REMEMBERED = 200  # votes that the house's pace is measured on
CHECK_SHARE = 0.1  # pairs that only check the reviewing, at least


@dataclass(frozen=True, slots=True)
class Plan:
    """How much work it is. `checks`: further pairs that only check the reviewing. `turns` says whether the prompts are conversations.
    `tags`: how many of the split's prompts have each. `problems`: all of them, each a sentence; a study without any can be declared."""

    prompts: int
    pairs: int
    votes: int
    checks: int
    minutes: float
    turns: str
    tags: dict[str, int]
    problems: tuple[str, ...]


def plan(db: Database, wish: Wish) -> Plan:
    """Never raises for what is wished; what is wrong with it is in `problems`."""
    with reading(db) as session:
        found = rows.prompts(session, wish.set_name, wish.split)
        pace = rows.paces(session, REMEMBERED)
        judged = [
            (prompt, turns or is_talk(begins)) for prompt, tags, turns, begins in found if not wish.tags or set(wish.tags) & set(tags)
        ]
        answered = rows.answered(session, wish.set_name, wish.split, wish.arms)
        everybody = rows.reviewers(session)
        taken = declared.named(session, wish.name.strip()) is not None
    arms = len(set(wish.arms))
    pairs = len(judged) * (arms * (arms - 1) // 2)
    votes = pairs * wish.votes_per_pair
    checks = round(votes * CHECK_SHARE) if wish.checks else 0
    seconds = (votes + checks) * (median(pace) if len(pace) >= 10 else USUAL_SECONDS)
    problems = problems_of(wish, taken, len(found), {prompt for prompt, _ in judged}, answered, everybody, votes)
    tags = Counter(tag for _, named, _, _ in found for tag in set(named))
    told = _turns([turns for _, turns in judged])
    return Plan(len(judged), pairs, votes, checks, seconds / 60, told, dict(sorted(tags.items())), tuple(problems))


def declare(db: Database, studies: Studies, wish: Wish, by: int | None) -> StudyView:
    """Make the draft. Raises BadInput with every problem at once."""
    if problems := plan(db, wish).problems:
        raise BadInput(" ".join(problems))
    return studies.create(
        wish.name,
        wish.set_name,
        wish.arms,
        wish.split,
        tags=wish.tags,
        reviewers=wish.reviewers,
        votes_per_pair=wish.votes_per_pair,
        criteria=wish.criteria,
        scale=wish.scale,
        reasons=wish.reasons,
        checks=wish.checks,
        rule=wish.rule,
        reveal=wish.reveal,
        by=by,
        against=wish.against or None,
    )


def possible_reviewers(db: Database) -> list[str]:
    """Names of all who may be asked to judge."""
    with reading(db) as session:
        return rows.reviewers(session)


def free_name(db: Database, like: str) -> str:
    """`like`, or with the first free number behind it."""
    with reading(db) as session:
        return _free(session, like)


def _free(session: Session, like: str) -> str:
    like = like.strip()[: MAX_NAME - 5]
    names = (like, *(f"{like} {number}" for number in range(2, 10_000)))
    return next(name for name in names if declared.named(session, name) is None)


def _turns(turns: Sequence[int]) -> str:
    several = sum(count > 0 for count in turns)
    if not turns:
        return ""
    if not several:
        return "Each prompt is a single question."
    if several == len(turns):
        return "Each prompt is a conversation of several turns; its last question is the one that was answered."
    return f"{several} of the prompts are conversations of several turns; the others are single questions."
