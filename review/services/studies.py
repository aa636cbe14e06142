"""Studies: declare one, open, pause and close it, see how far it is and what it says.

What a study declares is fixed when it opens; numbers are derived from its votes by `protocol.tally`. Must not know screens or models.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from sqlmodel import Session

from ft.errors import BadInput, Conflict, NotFound, Refused
from review.protocol.blinding import shown_text
from review.protocol.ranking import METHOD, Strength, WinRate
from review.protocol.tally import ArmTally, VoteRecord, current, reviewer_doubts, tally
from review.protocol.verdict import Rule, Verdict
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import studies as rows
from storage.tables import SPLITS, Audit, IdenticalPair, PromptSet, Study, StudyArm

REVEALS = ("after_close", "after_vote")
AGAINST = "against"  # the arm to beat, stored beside the rule
MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class StudyView:
    id: int
    name: str
    state: str
    set_name: str
    split: str
    arms: tuple[str, ...]
    against: str
    votes_per_pair: int
    criteria: tuple[str, ...]
    reasons: tuple[str, ...]
    rule: Rule
    reveal: str
    created_at: float
    opened_at: float | None
    closed_at: float | None


@dataclass(frozen=True, slots=True)
class ReviewerProgress:
    """`seconds` is the median from served to vote; `doubts` are reasons in words to look at these votes again."""

    name: str
    votes: int
    seconds: float
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """`votes` of `needed` pairs-times-reviewers have been given; `identical` pairs are not voted on."""

    name: str
    state: str
    votes: int
    needed: int
    pairs: int
    identical: int
    reviewers: tuple[ReviewerProgress, ...]


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm against all others (`win_rate`) and against the arm to beat (`versus`, `verdict`; the arm to beat has none)."""

    arm: str
    kind: str
    title: str
    votes: int
    win_rate: WinRate
    strength: Strength | None
    versus: WinRate | None
    verdict: Verdict | None
    e_value: float


@dataclass(frozen=True, slots=True)
class StudyResult:
    """`best` is the arm the verdict speaks of. `marked` and `voided` votes are kept out of every number; `flips` names reviewers
    without whom the verdict would be another; `agreement` is Krippendorff's alpha, None without pairs that several reviewers judged."""

    study: StudyView
    arms: tuple[ArmResult, ...]
    best: str
    verdict: Verdict
    e_value: float
    votes: int
    both_bad_share: float
    identical: int
    marked: int
    voided: int
    agreement: float | None
    flips: tuple[str, ...]
    method: str

    def arm(self, name: str) -> ArmResult | None:
        return next((arm for arm in self.arms if arm.arm == name), None)


class Studies:
    def __init__(self, db: Database) -> None:
        self._db = db

    def create(
        self,
        name: str,
        set_name: str,
        arms: Sequence[str],
        split: str = "test",
        votes_per_pair: int = 1,
        criteria: Sequence[str] = (),
        reasons: Sequence[str] = (),
        rule: Rule | dict[str, Any] | None = None,
        reveal: str = "after_close",
        by: int | None = None,
        against: str | None = None,
    ) -> StudyView:
        """Declare a draft. `against` is the arm to beat: the base where it takes part, else the first named.

        Raises BadInput (everything wrong at once), NotFound, Conflict for a taken name, Refused where arms lack answers.
        """
        name, arms = name.strip(), list(dict.fromkeys(arms))
        _check_declaration(name, arms, split, votes_per_pair, reveal, criteria, reasons)
        with writing(self._db) as session:
            if rows.named(session, name):
                raise Conflict(f"A study named “{name}” exists already. Choose another name.")
            prompt_set, found = _set_and_arms(session, set_name, arms)
            prompts = _check_answers(session, prompt_set, split, found)
            most = prompts * votes_per_pair * (len(arms) * (len(arms) - 1) // 2)
            study = Study(name=name, set_id=_id(prompt_set.id), split=split, votes_per_pair=votes_per_pair, reveal=reveal, created_by=by,
                          criteria=list(criteria), reasons=list(reasons),
                          rule=_rule(rule, most, votes_per_pair) | {AGAINST: _against(against, arms, found)})  # fmt: skip
            session.add(study)
            session.flush()
            session.add_all(StudyArm(study_id=_id(study.id), arm_id=arm.id) for arm in found.values())
            _note(session, by, "study.created", name)
            session.flush()
            return _view(session, study)

    def open(self, name: str, by: int | None = None) -> StudyView:
        """Open a draft or paused study for votes. Raises Refused where arms lack answers or the study is closed."""
        with writing(self._db) as session:
            study = _named(session, name)
            if study.state == "closed":
                raise Refused(f"“{name}” is closed for good. Create a new study to collect more votes.")
            if study.state != "open":
                arms = {arm.name: arm for arm in rows.arms_of(session, _id(study.id))}
                _check_answers(session, None, study.split, arms, study.set_id)
                _record_identical(session, study)
                study.state, study.opened_at = "open", study.opened_at or time.time()
                _note(session, by, "study.opened", name)
            return _view(session, study)

    def pause(self, name: str, by: int | None = None) -> StudyView:
        """Stop handing out pairs and taking votes for now."""
        with writing(self._db) as session:
            study = _named(session, name)
            if study.state not in ("open", "paused"):
                raise Refused(f"“{name}” is {study.state}, so it cannot be paused. Only an open study can.")
            if study.state == "open":
                study.state = "paused"
                _note(session, by, "study.paused", name)
            return _view(session, study)

    def close(self, name: str, by: int | None = None) -> StudyView:
        """Close a study for good; its votes can no longer change."""
        with writing(self._db) as session:
            study = _named(session, name)
            if study.state == "draft":
                raise Refused(f"“{name}” was never opened, so there is nothing to close. Open it first.")
            if study.state != "closed":
                study.state, study.closed_at = "closed", time.time()
                _note(session, by, "study.closed", name)
            return _view(session, study)

    def studies(self) -> list[StudyView]:
        """All studies, newest first."""
        with reading(self._db) as session:
            return [_view(session, study) for study in reversed(rows.every(session))]

    def study(self, name: str) -> StudyView:
        """Raises NotFound."""
        with reading(self._db) as session:
            return _view(session, _named(session, name))

    def progress(self, name: str) -> StudyProgress:
        """How far a study is and who works on it. Raises NotFound."""
        with reading(self._db) as session:
            study = _named(session, name)
            pairs, identical = len(live_pairs(session, study)), len(rows.identical_keys(session, _id(study.id)))
            records = [record(row) for row in rows.votes(session, _id(study.id))]
            names = rows.user_names(session, sorted({r.reviewer for r in records}))
        voted = [r for r in current(records) if r.kind == "real" and not r.voided]
        return StudyProgress(name, study.state, len(voted), pairs * study.votes_per_pair, pairs, identical, _reviewers(records, names))

    def result(self, name: str) -> StudyResult:
        """What the votes say so far. Raises NotFound."""
        with reading(self._db) as session:
            study = _named(session, name)
            view = _view(session, study)
            arms = rows.arms_of(session, view.id)
            identical = len(rows.identical_keys(session, view.id))
            records = [record(row) for row in rows.votes(session, view.id)]
            names = rows.user_names(session, sorted({r.reviewer for r in records}))
        found = tally(records, view.arms, view.against, view.rule)
        about = {arm.name: arm for arm in arms}
        return StudyResult(
            study=view,
            arms=tuple(_arm_result(arm, about[arm.arm]) for arm in found.arms),
            best=found.best,
            verdict=found.verdict,
            e_value=found.e_value,
            votes=found.votes,
            both_bad_share=found.both_bad_share,
            identical=identical,
            marked=found.marked,
            voided=found.voided,
            agreement=found.agreement,
            flips=tuple(names[reviewer] for reviewer in found.flips),
            method=METHOD,
        )


def live_pairs(session: Session, study: Study) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """(prompt, answer ids, arm ids) of every pair that can be shown: both answers live, not recorded as identical."""
    by_prompt: dict[int, list[tuple[int, int]]] = {}
    for prompt, answer, arm in rows.live_answers(session, study):
        by_prompt.setdefault(prompt, []).append((answer, arm))
    identical = rows.identical_keys(session, _id(study.id))
    return [
        (prompt, (first, second), (first_arm, second_arm))
        for prompt, answers in by_prompt.items()
        for (first, first_arm), (second, second_arm) in combinations(answers, 2)
        if (min(first, second), max(first, second)) not in identical
    ]


def identical_row(study_id: int, prompt_id: int, answers: tuple[int, int]) -> IdenticalPair:
    return IdenticalPair(study_id=study_id, prompt_id=prompt_id, first_answer_id=min(answers), second_answer_id=max(answers))


def record(row: rows.VoteRow) -> VoteRecord:
    """A stored vote as the pure rules count it."""
    return VoteRecord(
        assignment=row.assignment_id,
        revision=row.revision,
        pair=row.pair_key,
        prompt=row.prompt_id,
        reviewer=row.reviewer_id,
        left_arm=row.left_arm,
        right_arm=row.right_arm,
        choice=row.choice,
        kind=row.kind,
        marked=bool(row.marked),
        voided=row.voided,
        seconds=row.seconds,
        characters=sum(map(len, (row.instruction, row.input, row.left, row.right))),
    )


def _arm_result(arm: ArmTally, about: rows.ArmRow) -> ArmResult:
    return ArmResult(arm.arm, about.kind, about.title, arm.votes, arm.win_rate, arm.strength, arm.versus, arm.verdict, arm.e_value)


def _reviewers(records: list[VoteRecord], names: dict[int, str]) -> tuple[ReviewerProgress, ...]:
    doubted = reviewer_doubts(records)
    found = []
    for reviewer, name in sorted(names.items(), key=lambda item: item[1]):
        seconds = [r.seconds for r in records if r.reviewer == reviewer and r.revision == 1]
        votes = len({r.assignment for r in records if r.reviewer == reviewer})
        found.append(ReviewerProgress(name, votes, median(seconds) if seconds else 0.0, doubted.get(reviewer, ())))
    return tuple(found)


def _record_identical(session: Session, study: Study) -> None:
    pairs = live_pairs(session, study)
    texts = {i: shown_text(t) for i, t in rows.answer_texts(session, sorted({a for _, both, _ in pairs for a in both})).items()}
    for prompt, (first, second), _ in pairs:
        if texts[first] == texts[second]:
            session.add(identical_row(_id(study.id), prompt, (first, second)))


def _check_declaration(name: str, arms: Sequence[str], split: str, votes_per_pair: int, reveal: str, *lists: Sequence[str]) -> None:
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


def _set_and_arms(session: Session, set_name: str, arms: Sequence[str]) -> tuple[PromptSet, dict[str, rows.ArmRow]]:
    prompt_set = rows.prompt_set(session, set_name)
    if prompt_set is None:
        raise NotFound(f"There is no prompt set “{set_name}”. Import it first: tiebreak import FILE --name {set_name}")
    found = rows.arms_named(session, arms)
    if unknown := [arm for arm in arms if arm not in found]:
        raise NotFound(f"There is no arm {', '.join(unknown)}. Choose from: {', '.join(rows.arm_names(session)) or 'none yet'}.")
    return prompt_set, {arm: found[arm] for arm in arms}


def _check_answers(session: Session, prompt_set: PromptSet | None, split: str, arms: dict[str, rows.ArmRow], set_id: int = 0) -> int:
    """How many prompts there are; Refused, saying which arm lacks how many answers and what to run, unless every arm has answered all."""
    set_id = _id(prompt_set.id) if prompt_set else set_id
    set_name, total = rows.set_name(session, set_id), rows.prompt_count(session, set_id, split)
    if not total:
        raise BadInput(f"“{set_name}” has no {split} prompts. Choose another split, or import more prompts.")
    have = rows.answered(session, set_id, split, [arm.id for arm in arms.values()])
    gaps = {name: total - have.get(arm.id, 0) for name, arm in arms.items() if have.get(arm.id, 0) < total}
    if gaps:
        lacking = ", ".join(f"{name} lacks {count} of {total} answers" for name, count in gaps.items())
        options = " ".join(f"--arm {name}" for name in gaps)
        raise Refused(f"This study cannot start: {lacking}. Run: tiebreak answer {set_name} --split {split} {options}")
    return total


def _rule(rule: Rule | dict[str, Any] | None, most: int, votes_per_pair: int) -> dict[str, Any]:
    """The rule as stored. `most`: votes this study can collect at all."""
    if rule is None:
        return Rule(min_votes=min(Rule().min_votes, most)).to_dict()
    try:
        rule = rule if isinstance(rule, Rule) else Rule.from_dict(rule)
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


def _against(against: str | None, arms: Sequence[str], found: dict[str, rows.ArmRow]) -> str:
    if against is not None and against not in found:
        raise BadInput(f"The arm to beat, {against}, is not in the study. Choose from: {', '.join(arms)}.")
    return against or next((name for name in arms if found[name].kind == "base"), arms[0])


def _named(session: Session, name: str) -> Study:
    study = rows.named(session, name)
    if study is None:
        raise NotFound(f"There is no study “{name}”. See the list of studies, or create one.")
    return study


def _view(session: Session, study: Study) -> StudyView:
    arms = tuple(arm.name for arm in rows.arms_of(session, _id(study.id)))
    rule = {key: value for key, value in study.rule.items() if key != AGAINST}
    against = study.rule.get(AGAINST, arms[0] if arms else "")
    return StudyView(
        id=_id(study.id),
        name=study.name,
        state=study.state,
        set_name=rows.set_name(session, study.set_id),
        split=study.split,
        arms=(against, *(arm for arm in arms if arm != against)),
        against=against,
        votes_per_pair=study.votes_per_pair,
        criteria=tuple(study.criteria),
        reasons=tuple(study.reasons),
        rule=Rule.from_dict(rule),
        reveal=study.reveal,
        created_at=study.created_at,
        opened_at=study.opened_at,
        closed_at=study.closed_at,
    )


def _note(session: Session, by: int | None, action: str, name: str) -> None:
    session.add(Audit(user_id=by, action=action, detail={"study": name}))


def _id(value: int | None) -> int:
    assert value is not None, "the row has not been stored yet"
    return value
