"""Whether a study may be declared: its words, its prompts, its arms and their answers, its reviewers, its rule.

Must not know screens, models or votes.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from sqlmodel import Session

from ft.errors import BadInput, NotFound, Refused
from review.protocol.criteria import SCALES
from review.protocol.verdict import Rule
from storage.queries import studies as rows
from storage.tables import SPLITS, PromptSet

REVEALS = ("after_close", "after_vote")
MAX_NAME, MAX_WORDS = 100, 50
JOINERS = "\u200c\u200d"  # between letters of Persian and Hindi words, and within many emoji


@dataclass(frozen=True, slots=True)
class Declared:
    """What somebody wants to fix before the first vote, as given."""

    name: str
    set_name: str
    arms: tuple[str, ...]
    split: str
    tags: tuple[str, ...]
    reviewers: tuple[str, ...]
    votes_per_pair: int
    criteria: tuple[str, ...]
    scale: str
    reasons: tuple[str, ...]
    checks: bool
    rule: Rule | dict[str, Any] | None
    reveal: str
    against: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """The same, found good and looked up. `rule` is complete."""

    prompt_set: PromptSet
    arms: dict[str, rows.ArmRow]
    reviewers: tuple[int, ...]
    rule: Rule
    against: str


def check(session: Session, wanted: Declared) -> Checked:
    """Raises BadInput with everything wrong at once; NotFound where only the prompt set or an arm is; Refused where answers are missing."""
    problems = word_problems(wanted.name, wanted.arms, wanted.split, wanted.votes_per_pair, wanted.reveal, wanted.scale,
                             wanted.criteria, wanted.reasons, wanted.tags)  # fmt: skip
    reviewers, more = _reviewers(session, wanted)
    problems += more
    missing = _missing(session, wanted)
    if problems:
        raise BadInput(" ".join([*problems, *missing, *_rule_problems(wanted.rule)]))
    if missing:
        raise NotFound(" ".join(missing))
    prompt_set = rows.prompt_set(session, wanted.set_name)
    assert prompt_set is not None, "looked up above"
    found = rows.arms_named(session, wanted.arms)
    arms = {arm: found[arm] for arm in wanted.arms}
    against = arm_to_beat(wanted.against, wanted.arms, arms)
    prompts = check_answers(session, prompt_set.id or 0, wanted.split, arms.values(), tags=wanted.tags)
    most = prompts * wanted.votes_per_pair * (len(arms) * (len(arms) - 1) // 2)
    return Checked(prompt_set, arms, reviewers, complete_rule(wanted.rule, most, len(reviewers)), against)


def is_printable(text: str) -> bool:
    """Letters and signs of any script, and every kind of space; no line ends, no marks that turn the order of what is read."""
    return all(c.isprintable() or c in JOINERS or unicodedata.category(c) == "Zs" for c in text)


def word_problems(
    name: str, arms: Sequence[str], split: str, votes_per_pair: int, reveal: str, scale: str, *lists: Sequence[str]
) -> list[str]:
    """What is wrong with a declaration's own words, each a sentence."""
    checks = [
        (0 < len(name) <= MAX_NAME and is_printable(name), f"The name must have 1 to {MAX_NAME} printable characters."),
        (len(set(arms)) >= 2, "Name at least two different arms."),
        (split in SPLITS, f"The split is {split!r}: choose {', '.join(SPLITS)}."),
        (isinstance(votes_per_pair, int) and 1 <= votes_per_pair <= 100, f"votes_per_pair is {votes_per_pair}: choose 1 to 100."),
        (reveal in REVEALS, f"reveal is {reveal!r}: choose {' or '.join(REVEALS)}."),
        (scale in SCALES, f"scale is {scale!r}: choose {' or '.join(SCALES)}."),
        (
            all(isinstance(w, str) and w.strip() and is_printable(w) for words in lists for w in words),
            "Criteria, reasons and tags must be words, none of them empty.",
        ),
        (
            all(len(set(words)) == len(words) <= MAX_WORDS for words in lists),
            f"Name each criterion, reason and tag once, {MAX_WORDS} at most.",
        ),
    ]
    return [message for good, message in checks if not good]


def _missing(session: Session, wanted: Declared) -> list[str]:
    problems = []
    prompt_set = rows.prompt_set(session, wanted.set_name)
    if prompt_set is None:
        problems.append(f"There is no prompt set “{wanted.set_name}”. Import it first: tiebreak import FILE --set {quote(wanted.set_name)}")
    known = rows.arms_named(session, wanted.arms)
    if unknown := [arm for arm in wanted.arms if arm not in known]:
        problems.append(f"There is no arm {', '.join(unknown)}. Choose from: {', '.join(rows.arm_names(session)) or 'none yet'}.")
    return problems


def _reviewers(session: Session, wanted: Declared) -> tuple[tuple[int, ...], list[str]]:
    if not wanted.reviewers:
        return (), []
    found = rows.users_named(session, wanted.reviewers)
    good = {name: user.id or 0 for name, user in found.items() if user.role == "reviewer" and user.disabled_at is None}
    problems = []
    if wrong := [name for name in wanted.reviewers if name not in good]:
        problems.append(f"{', '.join(wrong)} cannot review: name people who have the role reviewer and can sign in.")
    if isinstance(wanted.votes_per_pair, int) and wanted.votes_per_pair > len(set(wanted.reviewers)):
        problems.append(
            f"Each pair needs {wanted.votes_per_pair} reviewers, but only {len(set(wanted.reviewers))} are named: "
            "name more, or ask for fewer votes."
        )
    return tuple(dict.fromkeys(good.values())), problems


def check_answers(
    session: Session, set_id: int, split: str, arms: Iterable[rows.ArmRow], upto: int | None = None, tags: Sequence[str] = ()
) -> int:
    """How many prompts there are. Refused, saying which arm lacks how many answers and what to run, unless every arm answered all."""
    set_name, arms = rows.set_name(session, set_id), list(arms)
    total, have = _answered(session, set_id, split, arms, upto, tags)
    if not total:
        among = f" tagged {' or '.join(tags)}" if tags else ""
        raise BadInput(
            f"“{set_name}” has no {split} prompts{among}. Choose another split{' or tag' if tags else ''}, or import more prompts."
        )
    gaps = {arm.name: total - have.get(arm.id, 0) for arm in arms if have.get(arm.id, 0) < total}
    if gaps:
        lacking = ", ".join(f"{name} lacks {count} of {total} answers" for name, count in gaps.items())
        raise Refused(f"This study cannot start: {lacking}. {_cure(set_name, split, [arm for arm in arms if arm.name in gaps])}")
    return total


def _answered(
    session: Session, set_id: int, split: str, arms: Sequence[rows.ArmRow], upto: int | None, tags: Sequence[str]
) -> tuple[int, dict[int, int]]:
    """(prompts, answers by arm)."""
    ids = [arm.id for arm in arms]
    if not tags:
        return rows.prompt_count(session, set_id, split, upto), rows.answered(session, set_id, split, ids, upto)
    tagged = rows.prompt_tags(session, set_id, split, upto)
    wanted = {prompt for prompt, found in tagged.items() if not set(tags).isdisjoint(found)}
    have = Counter(arm for arm, prompt in rows.answered_prompts(session, set_id, split, ids, upto) if prompt in wanted)
    return len(wanted), dict(have)


def _cure(set_name: str, split: str, lacking: Sequence[rows.ArmRow]) -> str:
    asked = [arm for arm in lacking if arm.kind != "imported" or arm.name == "human"]
    cures = []
    if asked:
        options = " ".join(f"--arm {quote(arm.name)}" for arm in asked)
        cures.append(f"Run: tiebreak answer {quote(set_name)} --split {split} {options}")
    if any(arm.kind == "human" for arm in lacking):
        cures.append("What people wrote is there only where a prompt has a reference.")
    if told := [arm.name for arm in lacking if arm.kind == "imported"]:
        cures.append(
            f"{', '.join(told)} came in with its answers and cannot be asked for more: import them, or choose prompts it answered."
        )
    return " ".join(cures)


def complete_rule(rule: Rule | dict[str, Any] | None, most: int, reviewers: int = 0) -> Rule:
    """Raises BadInput. `most`: votes this study can collect at all; where `min_votes` is left out, it is no more than that.
    `reviewers`: how many are named, 0 where everybody may judge."""
    usual = {"min_votes": min(Rule().min_votes, most)}
    try:
        rule = rule if isinstance(rule, Rule) else Rule.from_dict(usual | (rule or {}))
    except ValueError as error:
        raise BadInput(str(error)) from error
    problems = rule.problems()
    if not problems and rule.min_votes > most:
        problems.append(
            f"min_votes is {rule.min_votes}, but this study can collect {most} votes at most: lower it, or raise votes_per_pair."
        )
    if not problems and reviewers and rule.min_reviewers > reviewers:
        problems.append(f"min_reviewers is {rule.min_reviewers}, but only {reviewers} are named: lower it, or name more.")
    if problems:
        raise BadInput(" ".join(problems))
    return rule


def _rule_problems(rule: Rule | dict[str, Any] | None) -> list[str]:
    try:
        return (rule if isinstance(rule, Rule) else Rule.from_dict(rule or {})).problems()
    except ValueError as error:
        return [str(error)]


def arm_to_beat(against: str | None, arms: Sequence[str], found: dict[str, rows.ArmRow]) -> str:
    if against is not None and against not in found:
        raise BadInput(f"The arm to beat, {against}, is not in the study. Choose from: {', '.join(arms)}.")
    return against or next((name for name in arms if found[name].kind == "base"), arms[0])
