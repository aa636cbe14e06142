"""Studies: declare one, open, pause and close it, see how far it is and what it says.

What a study declares is fixed when it opens; numbers are derived from its votes by `protocol.tally`. Must not know screens or models.
"""

import time
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Any

from sqlmodel import Session

from ft.errors import Conflict, NotFound, Refused
from review.protocol.blinding import shown_text
from review.protocol.ranking import METHOD
from review.protocol.tally import ArmTally, VoteRecord, current, reviewer_doubts, tally
from review.protocol.verdict import Rule
from review.services.declaring import arm_to_beat, check_answers, check_declaration, set_and_arms, stored_rule
from review.services.faults import reading, writing
from review.services.study_views import ArmResult, ReviewerProgress, StudyProgress, StudyResult, StudyView
from storage.database import Database
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.tables import Audit, IdenticalPair, Study, StudyArm

AGAINST = "against"  # the arm to beat, stored beside the rule


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
        check_declaration(name, arms, split, votes_per_pair, reveal, criteria, reasons)
        with writing(self._db) as session:
            if rows.named(session, name):
                raise Conflict(f"A study named “{name}” exists already. Choose another name.")
            prompt_set, found = set_and_arms(session, set_name, arms)
            prompts = check_answers(session, _id(prompt_set.id), split, found.values())
            most = prompts * votes_per_pair * (len(arms) * (len(arms) - 1) // 2)
            study = Study(name=name, set_id=_id(prompt_set.id), split=split, votes_per_pair=votes_per_pair, reveal=reveal, created_by=by,
                          criteria=list(criteria), reasons=list(reasons),
                          rule=stored_rule(rule, most) | {AGAINST: arm_to_beat(against, arms, found)})  # fmt: skip
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
                study.last_prompt_id = study.last_prompt_id or rows.last_prompt(session, study.set_id, study.split)
                check_answers(session, study.set_id, study.split, rows.arms_of(session, _id(study.id)), study.last_prompt_id)
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
        """All studies, oldest first."""
        with reading(self._db) as session:
            return [_view(session, study) for study in rows.every(session)]

    def study(self, name: str) -> StudyView:
        """Raises NotFound."""
        with reading(self._db) as session:
            return _view(session, _named(session, name))

    def progress(self, name: str) -> StudyProgress:
        """How far a study is and who works on it. Raises NotFound."""
        with reading(self._db) as session:
            study = _named(session, name)
            pairs, identical = len(live_pairs(session, study)), len(rows.identical_keys(session, _id(study.id)))
            records = [record(row) for row in cast.votes(session, _id(study.id))]
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
            records = [record(row) for row in cast.votes(session, view.id)]
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


def record(row: cast.VoteRow) -> VoteRecord:
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
    texts = {answer: shown_text(text) for answer, text in rows.live_texts(session, study).items()}
    for prompt, (first, second), _ in live_pairs(session, study):
        if texts[first] == texts[second]:
            session.add(identical_row(_id(study.id), prompt, (first, second)))


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
