"""Promotion: what speaks for and against an adapter, and the click that puts it in use or takes it back.

A run never ends in a promotion by itself: a person decides on what this page shows, or a rule that a person declared. Must not know
screens, torch or how runs work.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlmodel import Session

from ft.errors import BadInput, Conflict, NotFound, Refused
from ft.metrics import METRIC_TITLES
from review.protocol.verdict import Verdict
from review.services.adapters import Adapters, AdapterView
from review.services.answers import Answers
from review.services.boards import Boards, Difference
from review.services.faults import reading, writing
from review.services.keeping import Keeping, WhatGotWorse
from review.services.studies import Studies
from storage.database import Database
from storage.queries import arms as arm_rows
from storage.queries import promotions as rows
from storage.queries import training
from storage.queries.people import audit

BASE = "base"
RULE = "promotion_rule"
SHOWN = 45  # letters of an adapter's name in a study's, which may have 100


@dataclass(frozen=True, slots=True)
class PromotionRule:
    """When an adapter may go into use without a click: after a closed study says Ship and no more than `max_worse` answers got worse."""

    automatic: bool = False
    max_worse: int = 0


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """Paired differences on one test set, title of the metric -> new minus other."""

    set_name: str
    versus_base: dict[str, Difference]
    versus_used: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class StudyLine:
    """What a study that compares the two says. `arm_to_beat` is the other one."""

    study: str
    state: str
    verdict: Verdict
    votes: int


@dataclass(frozen=True, slots=True)
class IntegrityLine:
    ok: bool
    words: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that speaks for or against putting `adapter` in use in place of `used` (an adapter or the base).

    `against` lists, in words, what a careful person would want to see first; it warns, it does not forbid. `forbidden` forbids.
    """

    adapter: AdapterView
    used: str
    scores: tuple[ScoreLine, ...]
    studies: tuple[StudyLine, ...]
    got_worse: WhatGotWorse
    integrity: IntegrityLine
    against: tuple[str, ...] = ()
    forbidden: str = ""

    @property
    def ship(self) -> bool:
        """A closed study says so."""
        return any(line.state == "closed" and line.verdict.kind == "ship" for line in self.studies)


@dataclass(frozen=True, slots=True)
class PromotionView:
    """One change of what is in use; `adapter` "base" is none."""

    id: int
    adapter: str
    by: str
    reason: str
    at: float
    evidence: dict[str, Any] = field(default_factory=dict)


class Promotions:
    """`answers` lets the arms answer what must not get worse; without it that is left to others."""

    def __init__(
        self, db: Database, adapters: Adapters, studies: Studies, boards: Boards, keeping: Keeping, answers: Answers | None = None
    ) -> None:
        self._db, self._adapters, self._studies, self._boards, self._keeping = db, adapters, studies, boards, keeping
        self._answers = answers

    def case(self, name: str) -> Case:
        """Raises NotFound for an adapter that is not registered."""
        adapter = self._adapters.adapter(name)
        used = self._adapters.in_use() or BASE
        with reading(self._db) as session:
            if rows.arm_named(session, name) is None:
                raise NotFound(f"{name} has no arm yet, so nothing is known about its answers. Let it answer a prompt set first.")
            sets = rows.scored_sets(session, name)
            integrity = _integrity(session, adapter)
        against = _beside(name, used)
        case = Case(
            adapter=adapter,
            used=used,
            scores=tuple(self._scores(sets, name, against)),
            studies=tuple(self._verdicts(name, against)),
            got_worse=self._keeping.compare(name, against),
            integrity=integrity,
            forbidden=f"{name} is set aside: {adapter.status_reason}" if adapter.status != "registered" else "",
        )
        return Case(**{each: getattr(case, each) for each in case.__slots__} | {"against": tuple(_doubts(case))})

    def looked_at(self, name: str) -> str:
        """Another text whenever `case` has another answer to look at: cheap, where `case` is not. Raises NotFound."""
        used = self._adapters.in_use() or BASE
        return f"{name} for {used}: {self._keeping.answered(name, _beside(name, used))}"

    def ask(self, name: str, by: int | None, against: str = "") -> int:
        """Let the adapter and `against` ("": what it would replace) answer the general questions and the keep-list, which is filled first.

        Returns how many answering jobs were queued: none where nothing is missing or its job waits already. Raises NotFound, BadInput.
        """
        self._adapters.adapter(name)
        used = against or self._adapters.in_use() or BASE
        self._keeping.gather(by)
        queued = 0
        for set_name in self._keeping.sets(by):
            with reading(self._db) as session:
                missing = [arm for arm in (name, _beside(name, used)) if _must_answer(session, arm, set_name)]
            if missing and self._answers:
                self._answers.start(set_name, "test", missing, by)
                queued += 1
        return queued

    def promote(self, name: str, by: int | None, reason: str = "") -> PromotionView:
        """Put an adapter in use, keeping what the page showed. Raises Conflict where it is in use, Refused for one in quarantine."""
        case = self.case(name)
        if case.used == name:
            raise Conflict(f"{name} is in use already. Nothing was changed.")
        if case.forbidden:
            raise Refused(f"{case.forbidden} It cannot go into use.")
        return self._put(name, by, reason, _evidence(case))

    def demote(self, by: int | None, reason: str = "") -> PromotionView:
        """The base alone again."""
        if self._adapters.in_use() is None:
            raise Conflict("The base alone is in use already. Nothing was changed.")
        return self._put(None, by, reason, {})

    def previous(self) -> str | None:
        """What was in use before and can be again: an adapter's name or "base"; None where there is nothing to go back to."""
        with reading(self._db) as session:
            history = rows.promotions(session)
        if not history:
            return None
        current = history[0].adapter
        before = next((row.adapter or BASE for row in history[1:] if row.adapter != current and row.usable), None)
        return before or (BASE if current else None)

    def roll_back(self, by: int | None, reason: str = "") -> PromotionView:
        """One click back to what was in use before."""
        name = self.previous()
        if name is None:
            raise Conflict("There is nothing to go back to: no other adapter was in use before.")
        return self._put(None if name == BASE else name, by, reason or "Taken back.", {"rolled_back": self._adapters.in_use() or BASE})

    def history(self) -> list[PromotionView]:
        """Newest first."""
        with reading(self._db) as session:
            found = rows.promotions(session)
        unnamed = {True: "the declared rule", False: "the command line"}
        return [PromotionView(r.id, r.adapter or BASE, r.by or unnamed["rule" in r.evidence], r.reason, r.at, r.evidence) for r in found]

    def rule(self) -> PromotionRule:
        with reading(self._db) as session:
            return PromotionRule(**(arm_rows.setting(session, RULE) or {}))

    def declare(self, rule: PromotionRule, by: int | None) -> None:
        """Raises BadInput."""
        if isinstance(rule.max_worse, bool) or not isinstance(rule.max_worse, int) or not 0 <= rule.max_worse <= 1000:
            raise BadInput(f"max_worse is {rule.max_worse}: choose a whole number from 0 to 1000.")
        with writing(self._db) as session:
            arm_rows.put_setting(session, RULE, asdict(rule))
            audit(session, time.time(), by, "promotion rule declared", **asdict(rule))

    def consider(self) -> str | None:
        """By the declared rule: put the adapter of a study just closed in use. Returns its name, or None. Called now and then."""
        rule = self.rule()
        if not rule.automatic:
            return None
        used = self._adapters.in_use()
        with reading(self._db) as session:
            since = rows.last_at(session)
            names = rows.shipped_candidates(session, since)
        for name in names:
            if name == used:
                continue
            case = self.case(name)
            shipped = any(line.state == "closed" and line.verdict.kind == "ship" for line in case.studies)
            enough = case.got_worse.complete and len(case.got_worse.worse) <= rule.max_worse
            if shipped and enough and case.integrity.ok and not case.forbidden:
                self._put(name, None, "By the declared rule.", _evidence(case) | {"rule": True})
                return name
        return None

    def prepare_study(self, name: str, by: int | None) -> str | None:
        """A draft study, new against in use, that waits for a lead; its name. None where there is one, or no test set."""
        used = self._adapters.in_use() or BASE
        title = f"{name[:SHOWN]} against {used[:SHOWN]}"
        with reading(self._db) as session:
            sets = [each for each in rows.scored_sets(session, name) if used in rows.answering_arms(session, each)]
            if rows.study_named(session, title) or used == name or not sets:
                return None
        return self._studies.create(title, sets[0], [used, name], by=by).name

    def _scores(self, sets: Sequence[str], name: str, used: str) -> Iterator[ScoreLine]:
        for each in sets:
            to_base, to_used = (_titled(self._boards.differences(each, "test", name, other)) for other in (BASE, used))
            yield ScoreLine(each, to_base, to_used if used != BASE else {})

    def _verdicts(self, name: str, used: str) -> Iterator[StudyLine]:
        for study in self._studies.studies():
            if study.state == "draft" or not {name, used} <= set(study.arms) or study.against == name:
                continue
            result = self._studies.result(study.name)
            arm = result.arm(name)
            if arm and arm.verdict:
                yield StudyLine(study.name, study.state, arm.verdict, arm.votes)

    def _put(self, name: str | None, by: int | None, reason: str, evidence: dict[str, Any]) -> PromotionView:
        self._adapters.use(name, by, reason, evidence)
        return self.history()[0]


def _must_answer(session: Session, arm: str, set_name: str) -> bool:
    """Whether answers are missing that no waiting job will give."""
    job = training.newest_job(session, "answer", set_name, arm)
    return bool(training.unanswered_by(session, arm, set_name)) and (job is None or job.status not in ("queued", "running", "paused"))


def _titled(found: dict[str, Difference]) -> dict[str, Difference]:
    return {METRIC_TITLES[metric]: difference for metric, difference in found.items()}


def _doubts(case: Case) -> Iterator[str]:
    """What is missing or speaks against, in words."""
    worse, of = len(case.got_worse.worse), case.got_worse.compared
    if not case.studies:
        yield "No reviewer has compared it with what is in use."
    elif not case.ship:
        yield "No closed study says Ship."
    if not of:
        yield "Nobody has looked at what got worse: the general questions are not answered yet."
    elif worse:
        yield f"{worse} of {of} answers that were good got worse."
    if not case.integrity.ok:
        yield f"Integrity: {case.integrity.words}"
    for line in case.scores:
        lower = [name for name, difference in (line.versus_used or line.versus_base).items() if difference.high < 0]
        if lower:
            yield f"Clearly lower on {line.set_name}: {', '.join(lower)}."


def _evidence(case: Case) -> dict[str, Any]:
    return {
        "instead_of": case.used,
        "studies": [{"study": s.study, "state": s.state, "verdict": s.verdict.kind, "words": s.verdict.words} for s in case.studies],
        "worse": len(case.got_worse.worse),
        "compared": case.got_worse.compared,
        "integrity": case.integrity.words,
        "against": list(case.against),
    }


def _integrity(session: Session, adapter: AdapterView) -> IntegrityLine:
    if adapter.status != "registered":
        return IntegrityLine(False, adapter.status_reason, None)
    last = rows.last_check(session, adapter.id)
    if last is None:
        return IntegrityLine(True, "It has not been checked since it was registered; it is checked when it is loaded.", None)
    return IntegrityLine(last.ok, last.words, last.at)


def _beside(name: str, used: str) -> str:
    """What an adapter is compared with: what it would replace; the base, for the one in use."""
    return used if used != name else BASE
