"""What must not get worse: general canaries and a keep-list of good answers; and what did, arm against arm.

The keep-list holds test prompts whose answers reviewers found good: no run ever trains on them. Must not know screens, torch or runs.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from ft.canaries import canaries, failures
from ft.curate import content_hash
from ft.errors import NotFound
from ft.metrics.texts import statistics
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as arm_rows
from storage.queries import keeping as rows
from storage.queries import library
from storage.queries import votes as cast
from storage.queries.people import audit
from storage.tables import Arm, Prompt, PromptSet

CANARY, KEEP = "canary", "keep"
NAMES = {CANARY: "General abilities", KEEP: "Keep list"}
BASE = "base"
FELL = 0.2  # of ROUGE-L against the kept answer: less is another wording


@dataclass(frozen=True, slots=True)
class Regression:
    """One answer that got worse. `kind` canary or keep; `group`: what is looked at, or the prompt's tag; `why` in words."""

    kind: str
    group: str
    prompt: str
    kept: str
    old: str
    new: str
    why: str
    drop: float


@dataclass(frozen=True, slots=True)
class Group:
    """Of `total` prompts of a group, how many each arm does well, and how many got worse."""

    name: str
    total: int
    old_good: int
    new_good: int
    worse: int


@dataclass(frozen=True, slots=True)
class WhatGotWorse:
    """`compared` of `total` prompts have an answer of both arms. Worst first."""

    old: str
    new: str
    compared: int
    total: int
    worse: tuple[Regression, ...]
    better: int
    groups: tuple[Group, ...]

    @property
    def complete(self) -> bool:
        return self.total > 0 and self.compared == self.total


class Keeping:
    def __init__(self, db: Database) -> None:
        self._db = db

    def sets(self, by: int | None = None) -> list[str]:
        """Names of the canary set, made when first asked for, and of the keep-list, where there is one."""
        with reading(self._db) as session:
            found = [row.name for purpose in (CANARY, KEEP) if (row := rows.set_for(session, purpose)) and _filled(session, row)]
            missing = rows.set_for(session, CANARY) is None
        if not missing:
            return found
        with writing(self._db) as session:
            if rows.set_for(session, CANARY) is None:
                made = _make(session, CANARY, by)
                session.add_all(_canary_prompts(made))
        return self.sets(by)

    def gather(self, by: int | None) -> int:
        """Put the answers that reviewers found good on test prompts on the keep-list, corrections first; returns how many are new."""
        with reading(self._db) as session:
            good = dict(_good_answers(session))
            held = rows.set_for(session, KEEP)
            known = {prompt.content_hash for prompt in rows.prompts_of(session, held.id or 0)} if held else set()
        new = {identity: found for identity, found in good.items() if identity not in known}
        if not new:
            return 0
        with writing(self._db) as session:
            held = rows.set_for(session, KEEP) or _make(session, KEEP, by)
            known = {prompt.content_hash for prompt in rows.prompts_of(session, held.id or 0)}
            added = [
                Prompt(
                    set_id=held.id or 0, split="test", instruction=source.instruction, input=source.input, history=source.history,
                    reference=text, category=source.category, tags=source.tags, cluster=source.cluster, content_hash=identity,
                )
                for identity, (source, text) in new.items()
                if identity not in known
            ]  # fmt: skip
            session.add_all(added)
            audit(session, time.time(), by, "answers kept", count=len(added))
        return len(added)

    def compare(self, new: str, old: str) -> WhatGotWorse:
        """What the arm `new` does worse than the arm `old`; "base" is the base there is now. Raises NotFound for an unknown arm."""
        old, pairs = self._answered(new, old)
        judged = [_judge(pair.prompt, pair.kind, pair.old, pair.new) for pair in pairs if pair.old is not None and pair.new is not None]
        worse = [each.regression for each in judged if each.regression]
        most = Counter(regression.group for regression in worse)
        groups = [
            Group(name, len(of), sum(j.old_good for j in of), sum(j.new_good for j in of), most[name])
            for name in dict.fromkeys(j.group for j in judged)
            if (of := [j for j in judged if j.group == name])
        ]
        return WhatGotWorse(
            old, new, len(judged), len(pairs),
            worse=tuple(sorted(worse, key=lambda r: (-most[r.group], r.group, -r.drop))),
            better=sum(j.better for j in judged),
            groups=tuple(sorted(groups, key=lambda g: (-g.worse, g.name))),
        )  # fmt: skip

    def answered(self, new: str, old: str) -> tuple[int, int]:
        """How many prompts both arms have answered, and of how many. Raises NotFound for an unknown arm."""
        pairs = self._answered(new, old)[1]
        return sum(pair.old is not None and pair.new is not None for pair in pairs), len(pairs)

    def _answered(self, new: str, old: str) -> tuple[str, list["_Pair"]]:
        with reading(self._db) as session:
            old = arm_rows.base_arm(session) or old if old == BASE else old
            pairs = [pair for purpose in (CANARY, KEEP) for pair in _pairs(session, purpose, _arm(session, new), _arm(session, old))]
        return old, pairs


@dataclass(frozen=True, slots=True)
class _Pair:
    """A prompt and what the two arms answered; None where one has not."""

    prompt: Prompt
    kind: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class _Judged:
    group: str
    old_good: bool
    new_good: bool
    better: bool
    regression: Regression | None


def _judge(prompt: Prompt, kind: str, old: str, new: str) -> _Judged:
    if kind == CANARY:
        before, after = failures(prompt.expects, old), failures(prompt.expects, new)
        fell, drop, why = bool(after) and not before, float(len(after)), f"The answer {' and '.join(after)}."
        good = (not before, not after)
    else:
        values = [row[0] for row in statistics("rougeL", [old, new], [prompt.reference] * 2)[0]]
        drop = values[0] - values[1]
        fell, why = drop >= FELL, f"Further from the good answer: ROUGE-L {values[0]:.2f} before, {values[1]:.2f} now."
        good = (values[0] >= values[1] - FELL, values[1] >= values[0] - FELL)
    group = prompt.category or next(iter(prompt.tags), "") or "Untagged"
    asked = f"{prompt.instruction}\n\n{prompt.input}".strip()
    found = Regression(kind, group, asked, prompt.reference, old, new, why, drop) if fell else None
    return _Judged(group, *good, better=good[1] and not good[0], regression=found)


def _pairs(session: Session, purpose: str, new: Arm, old: Arm) -> list[_Pair]:
    held = rows.set_for(session, purpose)
    if held is None or held.id is None:
        return []
    before, after = (rows.texts_of(session, arm.id or 0, held.id) for arm in (old, new))
    return [_Pair(prompt, purpose, before.get(prompt.id or 0), after.get(prompt.id or 0)) for prompt in rows.prompts_of(session, held.id)]


def _good_answers(session: Session) -> Iterator[tuple[str, tuple[Prompt, str]]]:
    """(identity of the prompt, (prompt, the text)): what won or was good beside another, then what reviewers wrote instead."""
    for study_id in rows.judged_studies(session, "test"):
        newest = {vote.assignment_id: vote for vote in cast.votes(session, study_id) if vote.kind == "real"}
        points: Counter[int] = Counter()
        for vote in newest.values():
            if vote.marked or vote.voided:
                continue
            sides = {"left": (1, -1), "right": (-1, 1), "tie": (1, 1), "both_bad": (-1, -1)}[vote.choice]
            points[vote.left_answer_id] += sides[0]
            points[vote.right_answer_id] += sides[1]
        best = [answer for answer, count in sorted(points.items(), key=lambda item: item[1]) if count > 0]
        for answer, prompt in library.answers_with_prompts(session, best):
            yield content_hash(prompt.instruction, prompt.input), (prompt, answer.text)
        for correction, prompt in library.corrections(session, study_id):
            if prompt.split == "test":
                yield content_hash(prompt.instruction, prompt.input), (prompt, correction.text)


def _make(session: Session, purpose: str, by: int | None) -> PromptSet:
    made = PromptSet(name=rows.free_set_name(session, NAMES[purpose]), purpose=purpose, source="", created_by=by)
    session.add(made)
    session.flush()
    return made


def _canary_prompts(made: PromptSet) -> Sequence[Prompt]:
    return [
        Prompt(
            set_id=made.id or 0, split="test", instruction=each.instruction, input=each.input, category=each.category,
            expects=each.expects, content_hash=content_hash(each.instruction, each.input),
        )
        for each in canaries()
    ]  # fmt: skip


def _filled(session: Session, row: PromptSet) -> bool:
    return bool(rows.prompts_of(session, row.id or 0))


def _arm(session: Session, name: str) -> Arm:
    found = next((arm for arm, _ in arm_rows.arms(session) if arm.name == name), None)
    if found is None:
        raise NotFound(f"There is no arm {name}. Choose one from the list of arms.")
    return found
