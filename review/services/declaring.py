"""Whether a study may be declared: its words, its prompt set, its arms and their answers, its rule.

Must not know screens, models or votes.
"""

from collections.abc import Iterable, Sequence
from shlex import quote
from typing import Any

from sqlmodel import Session

from ft.errors import BadInput, NotFound, Refused
from review.protocol.verdict import Rule
from storage.queries import studies as rows
from storage.tables import SPLITS, PromptSet

REVEALS = ("after_close", "after_vote")
MAX_NAME = 100


def check_declaration(name: str, arms: Sequence[str], split: str, votes_per_pair: int, reveal: str, *lists: Sequence[str]) -> None:
    checks = [
        (0 < len(name) <= MAX_NAME and name.isprintable(), f"The name must have 1 to {MAX_NAME} printable characters."),
        (len(arms) >= 2, "Name at least two different arms."),
        (split in SPLITS, f"The split is {split!r}: choose {', '.join(SPLITS)}."),
        (isinstance(votes_per_pair, int) and 1 <= votes_per_pair <= 100, f"votes_per_pair is {votes_per_pair}: choose 1 to 100."),
        (reveal in REVEALS, f"reveal is {reveal!r}: choose {' or '.join(REVEALS)}."),
        (
            all(isinstance(w, str) and w.strip() for words in lists for w in words),
            "Criteria and reasons must be words, none of them empty.",
        ),
    ]
    if wrong := [message for good, message in checks if not good]:
        raise BadInput(" ".join(wrong))


def set_and_arms(session: Session, set_name: str, arms: Sequence[str]) -> tuple[PromptSet, dict[str, rows.ArmRow]]:
    prompt_set = rows.prompt_set(session, set_name)
    if prompt_set is None:
        raise NotFound(f"There is no prompt set “{set_name}”. Import it first: tiebreak import FILE --set {quote(set_name)}")
    found = rows.arms_named(session, arms)
    if unknown := [arm for arm in arms if arm not in found]:
        raise NotFound(f"There is no arm {', '.join(unknown)}. Choose from: {', '.join(rows.arm_names(session)) or 'none yet'}.")
    return prompt_set, {arm: found[arm] for arm in arms}


def check_answers(session: Session, set_id: int, split: str, arms: Iterable[rows.ArmRow], upto: int | None = None) -> int:
    """How many prompts there are. Refused, saying which arm lacks how many answers and what to run, unless every arm answered all."""
    set_name, total = rows.set_name(session, set_id), rows.prompt_count(session, set_id, split, upto)
    if not total:
        raise BadInput(f"“{set_name}” has no {split} prompts. Choose another split, or import more prompts.")
    arms = list(arms)
    have = rows.answered(session, set_id, split, [arm.id for arm in arms], upto)
    gaps = {arm.name: total - have.get(arm.id, 0) for arm in arms if have.get(arm.id, 0) < total}
    if gaps:
        lacking = ", ".join(f"{name} lacks {count} of {total} answers" for name, count in gaps.items())
        options = " ".join(f"--arm {quote(name)}" for name in gaps)
        raise Refused(f"This study cannot start: {lacking}. Run: tiebreak answer {quote(set_name)} --split {split} {options}")
    return total


def stored_rule(rule: Rule | dict[str, Any] | None, most: int) -> dict[str, Any]:
    """The rule as stored. `most`: votes this study can collect at all; where `min_votes` is left out, it is no more than that."""
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
    if problems:
        raise BadInput(" ".join(problems))
    return rule.to_dict()


def arm_to_beat(against: str | None, arms: Sequence[str], found: dict[str, rows.ArmRow]) -> str:
    if against is not None and against not in found:
        raise BadInput(f"The arm to beat, {against}, is not in the study. Choose from: {', '.join(arms)}.")
    return against or next((name for name in arms if found[name].kind == "base"), arms[0])
