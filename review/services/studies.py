"""Studies: declare one, open, pause and close it, see how far it is and what it says, decide what is in doubt.

What a study declares is fixed when it opens; numbers are derived from its votes by `protocol.tally`. Must not know screens or models.
"""

import time
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session

from ft.errors import Conflict, Refused
from review.protocol.blinding import shown_text
from review.protocol.criteria import DEFAULT_CRITERIA, DEFAULT_REASONS
from review.protocol.verdict import Rule
from review.services import study_disputes as disputes
from review.services.adapter_views import of_earlier
from review.services.declaring import Checked, Declared, check, check_answers
from review.services.faults import reading, writing
from review.services.study_progress import study_progress
from review.services.study_reading import AGAINST, beside, identical_row, key, live_pairs, named, record, view
from review.services.study_results import Given, study_result
from review.services.study_views import ArmResult, Disagreement, ReviewerProgress, StudyProgress, StudyResult, StudyView
from storage.database import Database
from storage.queries import decisions as decided
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.queries.arms import retired_arms
from storage.tables import Audit, Study, StudyArm, StudyReviewer

__all__ = [
    "AGAINST", "ArmResult", "Disagreement", "ReviewerProgress", "Studies", "StudyProgress", "StudyResult", "StudyView", "identical_row",
    "live_pairs", "record",
]  # fmt: skip


class Studies:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._results: dict[int, tuple[object, StudyResult]] = {}
        self._progress: dict[int, tuple[object, StudyProgress]] = {}

    def create(
        self,
        name: str,
        set_name: str,
        arms: Sequence[str],
        split: str = "test",
        votes_per_pair: int = 1,
        criteria: Sequence[str] = DEFAULT_CRITERIA,
        reasons: Sequence[str] = DEFAULT_REASONS,
        rule: Rule | dict[str, Any] | None = None,
        reveal: str = "after_close",
        by: int | None = None,
        against: str | None = None,
        tags: Sequence[str] = (),
        reviewers: Sequence[str] = (),
        scale: str = "sides",
        checks: bool = True,
    ) -> StudyView:
        """Declare a draft. `against` is the arm to beat: the base where it takes part, else the first named. `tags`: only prompts with one
        of them; `reviewers`: only they may judge; both empty: all.

        Raises BadInput (everything wrong at once), NotFound, Conflict for a taken name, Refused where arms lack answers.
        """
        wanted = Declared(name.strip(), set_name, tuple(dict.fromkeys(arms)), split, tuple(tags), tuple(reviewers), votes_per_pair,
                          tuple(criteria), scale, tuple(reasons), checks, rule, reveal, against)  # fmt: skip
        with writing(self._db) as session:
            if rows.named(session, wanted.name):
                raise Conflict(f"A study named “{wanted.name}” exists already. Choose another name.")
            study = _store(session, wanted, check(session, wanted), by)
            _note(session, by, "study.created", wanted.name)
            session.flush()
            return view(session, study)

    def copy(self, name: str, new_name: str, by: int | None = None, **changes: Any) -> StudyView:
        """A new draft that declares what `name` does, but for `changes` (as `create` takes them). Raises what `create` does."""
        old = self.study(name)
        same: dict[str, Any] = {
            "set_name": old.set_name, "arms": old.arms, "split": old.split, "votes_per_pair": old.votes_per_pair, "criteria": old.criteria,
            "reasons": old.reasons, "rule": old.rule, "reveal": old.reveal, "against": old.against, "tags": old.tags,
            "reviewers": old.reviewers, "scale": old.scale, "checks": old.checks,
        }  # fmt: skip
        return self.create(new_name, by=by, **(same | changes))

    def open(self, name: str, by: int | None = None) -> StudyView:
        """Open a draft or paused study for votes. Raises Refused where arms lack answers or the study is closed."""
        with writing(self._db) as session:
            study = named(session, name)
            if study.state == "closed":
                raise Refused(f"“{name}” is closed for good. Create a new study to collect more votes.")
            if study.state != "open":
                study.last_prompt_id = study.last_prompt_id or rows.last_prompt(session, study.set_id, study.split)
                arms = rows.arms_of(session, key(study.id))
                check_answers(session, study.set_id, study.split, arms, study.last_prompt_id, study.tags)
                _record_identical(session, study)
                study.state, study.opened_at = "open", study.opened_at or time.time()
                _note(session, by, "study.opened", name)
            return view(session, study)

    def pause(self, name: str, by: int | None = None) -> StudyView:
        """Stop handing out pairs and taking votes for now."""
        with writing(self._db) as session:
            study = named(session, name)
            if study.state not in ("open", "paused"):
                raise Refused(f"“{name}” is {study.state}, so it cannot be paused. Only an open study can.")
            if study.state == "open":
                study.state = "paused"
                _note(session, by, "study.paused", name)
            return view(session, study)

    def close(self, name: str, by: int | None = None) -> StudyView:
        """Close a study for good; its votes can no longer change."""
        with writing(self._db) as session:
            study = named(session, name)
            if study.state == "draft":
                raise Refused(f"“{name}” was never opened, so there is nothing to close. Open it first.")
            if study.state != "closed":
                study.state, study.closed_at = "closed", time.time()
                _note(session, by, "study.closed", name)
            return view(session, study)

    def studies(self) -> list[StudyView]:
        """All studies, oldest first."""
        with reading(self._db) as session:
            return [view(session, study) for study in rows.every(session)]

    def study(self, name: str) -> StudyView:
        """Raises NotFound."""
        with reading(self._db) as session:
            return view(session, named(session, name))

    def progress(self, name: str) -> StudyProgress:
        """How far a study is and who works on it; counted again only when something came in. Raises NotFound."""
        with reading(self._db) as session:
            study = named(session, name)
            study_id = key(study.id)
            version = _version(session, study)
            held = self._progress.get(study_id)
            if held is None or held[0] != version:
                held = self._progress[study_id] = version, study_progress(session, study)
            return held[1]

    def result(self, name: str) -> StudyResult:
        """What the votes say so far; counted again only when something came in. Raises NotFound."""
        with reading(self._db) as session:
            study = named(session, name)
            study_id = key(study.id)
            version = _version(session, study)
            held = self._results.get(study_id)
            if held and held[0] == version:
                return held[1]
            given = _given(session, study)
        found = study_result(given)
        self._results[study_id] = (version, found)
        return found

    def decide_reviewer(self, study: str, reviewer: str, counted: bool, reason: str, by: int | None = None) -> None:
        """Let a reviewer's votes count, or set them aside, whatever was doubtful; the newest decision holds. Raises NotFound, BadInput."""
        with writing(self._db) as session:
            disputes.decide_reviewer(session, named(session, study), reviewer, counted, reason, by)

    def disagreements(self, study: str) -> tuple[Disagreement, ...]:
        """Pairs that reviewers judged differently, the undecided first. Raises NotFound."""
        with reading(self._db) as session:
            return disputes.disagreements(session, named(session, study))

    def adjudicate(
        self, study: str, prompt_id: int, first_answer: int, second_answer: int, choice: str, reason: str, by: int | None = None
    ) -> None:
        """Decide a disputed pair: first, second, tie or both_bad, in the order of the answers given here. Raises BadInput, NotFound."""
        with writing(self._db) as session:
            disputes.adjudicate(session, named(session, study), prompt_id, first_answer, second_answer, choice, reason, by)


def _store(session: Session, wanted: Declared, found: Checked, by: int | None) -> Study:
    study = Study(
        name=wanted.name, set_id=key(found.prompt_set.id), split=wanted.split, tags=list(wanted.tags), votes_per_pair=wanted.votes_per_pair,
        reveal=wanted.reveal, scale=wanted.scale, checks=bool(wanted.checks), criteria=list(wanted.criteria), reasons=list(wanted.reasons),
        rule=found.rule.to_dict() | {AGAINST: found.against}, created_by=by,
    )  # fmt: skip
    session.add(study)
    session.flush()
    session.add_all(StudyArm(study_id=key(study.id), arm_id=arm.id) for arm in found.arms.values())
    session.add_all(StudyReviewer(study_id=key(study.id), user_id=user) for user in found.reviewers)
    session.flush()
    return study


def _version(session: Session, study: Study) -> object:
    """Changes whenever what is told of a study may."""
    study_id = key(study.id)
    arms = rows.arms_of(session, study_id)
    return view(session, study), arms, decided.version(session, study_id), rows.live_state(session, study)


def _given(session: Session, study: Study) -> Given:
    votes = cast.votes(session, key(study.id))
    retired = retired_arms(session)
    about = {
        arm.name: (arm.kind, of_earlier(retired[arm.id]) if arm.id in retired else arm.title)
        for arm in rows.arms_of(session, key(study.id))
    }
    identical = len(rows.identical_keys(session, key(study.id)))
    names = rows.user_names(session, sorted({row.reviewer_id for row in votes}))
    return Given(view(session, study), about, [record(row) for row in votes], beside(session, study, votes), names, identical)


def _record_identical(session: Session, study: Study) -> None:
    texts = {answer: shown_text(text) for answer, text in rows.live_texts(session, study).items()}
    for prompt, (first, second), _ in live_pairs(session, study):
        if texts[first] == texts[second]:
            session.add(identical_row(key(study.id), prompt, (first, second)))


def _note(session: Session, by: int | None, action: str, name: str) -> None:
    session.add(Audit(user_id=by, action=action, detail={"study": name}))
