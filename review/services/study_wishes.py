"""What somebody would like to declare, and everything that is wrong with it, in the words of the form. Must not know the database."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from review.protocol.criteria import DEFAULT_CRITERIA, DEFAULT_REASONS
from review.services.declaring import MAX_NAME, is_printable

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


def problems_of(
    wish: Wish,
    taken: bool,
    prompts: int,
    judged: set[int],
    answered: Mapping[str, set[int]],
    everybody: Sequence[str],
    votes: int,
) -> list[str]:
    """All at once, each a sentence. `prompts`: how many the split has; `judged`: those with the tags; `votes`: what it would collect."""
    return [
        *_about_the_name(wish, taken),
        *_about_prompts(wish, prompts, len(judged)),
        *_about_arms(wish, answered, judged),
        *_about_people(wish, everybody),
        *_about_words(wish),
        *_about_the_rule(wish, votes),
    ]


def _about_the_name(wish: Wish, taken: bool) -> list[str]:
    name = wish.name.strip()
    if not 0 < len(name) <= MAX_NAME or not is_printable(name):
        return [f"Give the study a name of 1 to {MAX_NAME} characters."]
    return [f"There is a study “{name}” already: choose another name."] if taken else []


def _about_prompts(wish: Wish, prompts: int, judged: int) -> list[str]:
    if not wish.set_name:
        return ["Choose the prompts to judge."]
    if not prompts:
        return [f"“{wish.set_name}” has no {wish.split} prompts: choose another split."]
    return [] if judged else [f"No {wish.split} prompt has the tag {' or '.join(wish.tags)}: choose other tags, or none."]


def _about_arms(wish: Wish, answered: Mapping[str, set[int]], judged: set[int]) -> list[str]:
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
        if long := [word for word in words if len(word) > MAX_WORDS or not is_printable(word)]:
            problems.append(f"The {what} “{long[0][:40]}” cannot be used: write a few plain words, {MAX_WORDS} characters at most.")
    return problems


def _about_the_rule(wish: Wish, votes: int) -> list[str]:
    rule = wish.rule
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
    elif wish.reviewers and asked > len(wish.reviewers):
        problems.append(f"{asked} reviewers are asked for, but only {len(wish.reviewers)} are named.")
    return problems
