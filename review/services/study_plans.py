"""A study before it is declared: what is wished for, how much work it would be, and everything that stands in its way.

The words are for whoever fills in the form. Must not know screens or models.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from sqlmodel import Session

from ft.errors import BadInput
from review.protocol.criteria import DEFAULT_CRITERIA, DEFAULT_REASONS
from review.services.declaring import MAX_NAME
from review.services.faults import reading
from review.services.studies import Studies
from review.services.study_views import StudyView
from storage.database import Database
from storage.queries import plans as rows
from storage.queries import studies as declared

__all__ = ["Plan", "Wish", "declare", "free_name", "plan", "possible_reviewers", "replace"]

USUAL_SECONDS = 30.0  # for a vote, before there are any
REMEMBERED = 200  # votes that the house's pace is measured on
CHECK_SHARE = 0.1  # pairs that only check the reviewing, at least
MOST_VOTES_PER_PAIR = 20
MAX_WORDS = 60  # characters of a criterion or reason


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody would like to declare; any of it may still be missing or wrong. `rule` as `Rule` names its settings."""

    name: str = ""
    set_name: str = ""
    split: str = "test"
    tags: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    against: str = ""
    reviewers: tuple[str, ...] = ()
    votes_per_pair: int = 1
    criteria: tuple[str, ...] = DEFAULT_CRITERIA
    scale: str = "sides"
    reasons: tuple[str, ...] = DEFAULT_REASONS
    checks: bool = True
    reveal: str = "after_close"
    rule: dict[str, Any] = field(default_factory=dict)


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
        judged = [(prompt, turns) for prompt, tags, turns in found if not wish.tags or set(wish.tags) & set(tags)]
        answered = rows.answered(session, wish.set_name, wish.split, wish.arms)
        everybody = rows.reviewers(session)
        taken = declared.named(session, wish.name.strip()) is not None
    arms = len(set(wish.arms))
    pairs = len(judged) * (arms * (arms - 1) // 2)
    votes = pairs * wish.votes_per_pair
    checks = round(votes * CHECK_SHARE) if wish.checks else 0
    seconds = (votes + checks) * (median(pace) if len(pace) >= 10 else USUAL_SECONDS)
    problems = [
        *_about_the_name(wish, taken),
        *_about_prompts(wish, len(found), len(judged)),
        *_about_arms(wish, answered, {prompt for prompt, _ in judged}),
        *_about_people(wish, everybody),
        *_about_words(wish),
        *_about_the_rule(wish, votes, everybody),
    ]
    tags = Counter(tag for _, named, _ in found for tag in set(named))
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


def _about_the_name(wish: Wish, taken: bool) -> list[str]:
    name = wish.name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        return [f"Give the study a name of 1 to {MAX_NAME} characters."]
    return [f"There is a study “{name}” already: choose another name."] if taken else []


def _about_prompts(wish: Wish, prompts: int, judged: int) -> list[str]:
    if not wish.set_name:
        return ["Choose the prompts to judge."]
    if not prompts:
        return [f"“{wish.set_name}” has no {wish.split} prompts: choose another split."]
    return [] if judged else [f"No {wish.split} prompt has the tag {' or '.join(wish.tags)}: choose other tags, or none."]


def _about_arms(wish: Wish, answered: dict[str, set[int]], judged: set[int]) -> list[str]:
    problems = [] if len(set(wish.arms)) >= 2 else ["Choose at least two whose answers are compared."]
    if wish.against and wish.against not in wish.arms:
        problems.append(f"The one to beat, {wish.against}, is not among those compared: tick it too, or choose another.")
    for arm in dict.fromkeys(wish.arms):
        if arm not in answered:
            problems.append(f"There is no {arm} any more: leave it out.")
        elif lacking := len(judged - answered[arm]):
            problems.append(f"{arm} has no answer yet to {lacking} of {len(judged)} prompts: let it answer under Answers first.")
    return problems


def _about_people(wish: Wish, everybody: Sequence[str]) -> list[str]:
    unknown = [name for name in wish.reviewers if name not in everybody]
    problems = [f"{', '.join(unknown)} is no reviewer here: choose others."] if unknown else []
    if not 1 <= wish.votes_per_pair <= MOST_VOTES_PER_PAIR:
        problems.append(f"Each pair can be judged by 1 to {MOST_VOTES_PER_PAIR} reviewers.")
    elif wish.reviewers and wish.votes_per_pair > len(wish.reviewers):
        named = f"only {len(wish.reviewers)} {'is' if len(wish.reviewers) == 1 else 'are'} named"
        problems.append(f"Each pair needs {wish.votes_per_pair} reviewers, but {named}: name more, or nobody.")
    return problems


def _about_words(wish: Wish) -> list[str]:
    problems = []
    for what, words in (("criterion", wish.criteria), ("reason", wish.reasons)):
        if twice := [word for word, times in Counter(map(str.casefold, words)).items() if times > 1]:
            problems.append(f"The {what} “{twice[0]}” is there twice: keep one.")
        if long := [word for word in words if len(word) > MAX_WORDS or not word.isprintable()]:
            problems.append(f"The {what} “{long[0][:40]}” cannot be used: write a few plain words, {MAX_WORDS} characters at most.")
    return problems


def _about_the_rule(wish: Wish, votes: int, everybody: Sequence[str]) -> list[str]:
    rule, people = wish.rule, len(wish.reviewers or everybody)
    problems = []
    if not 0.5 <= rule.get("min_win_rate", 0.55) <= 0.99:
        problems.append("The win rate to ship from must lie between 50 and 99 %.")
    if not 0 <= rule.get("max_both_bad", 0.3) <= 1:
        problems.append("The share of “both bad” must lie between 0 and 100 %.")
    at_least = rule.get("min_votes", 1)
    if at_least < 1:
        problems.append("At least one vote is needed for a verdict.")
    elif votes and at_least > votes:
        problems.append(f"{at_least} votes are asked for, but this study collects {votes} at most: ask for fewer, or for more per pair.")
    asked = rule.get("min_reviewers", 1)
    if asked < 1:
        problems.append("At least one reviewer is needed for a verdict.")
    elif wish.reviewers and asked > people:
        problems.append(f"{asked} reviewers are asked for, but only {people} are named.")
    return problems
