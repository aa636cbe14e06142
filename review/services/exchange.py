"""Studies taken elsewhere and brought in from elsewhere, as study files (docs/exchange.md).

What comes in is a closed study with arms, prompts, answers and reviewers of its own, stored in one transaction or not at all; nobody can
sign in as its reviewers. Must not know screens or models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from ft.errors import NotFound, Unavailable
from review.protocol.ranking import METHOD
from review.protocol.tally import tally
from review.services.faults import reading, writing
from review.services.storing import Stored, Storing
from review.services.studies import AGAINST
from review.services.study_files import StudyFile, read, records
from review.services.study_lines import FORMAT, VERSION, AnswerLine, AnyLine, ArmLine, Header, PromptLine, VoteLine, write_line
from review.services.study_views import ArmResult, StudyResult, StudyView
from storage.database import Database
from storage.queries import exchange as rows
from storage.queries import studies as declared
from storage.queries import votes as cast
from storage.tables import Study


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """What came in. `renamed`: names that were taken here, old -> new. `identical`: pairs of equal answers; the votes on them are kept,
    but stay out of the result (`identical_votes`)."""

    study: str
    set_name: str
    arms: int
    prompts: int
    answers: int
    reviewers: int
    votes: int
    identical: int
    identical_votes: int
    renamed: dict[str, str]


class Exchange:
    def __init__(self, db: Database) -> None:
        self._db = db

    def export(self, name: str) -> Iterator[str]:
        """The study's file, line by line, all of one moment. Raises NotFound."""
        with reading(self._db) as session:
            study = declared.named(session, name)
            if study is None:
                raise NotFound(f"There is no study “{name}”. See the list of studies.")
            lines = list(_lines(session, study))
        return map(write_line, lines)

    def write(self, name: str, path: Path) -> None:
        """The same into a file, readable by its owner only; a file that is there is replaced whole. Raises NotFound, Unavailable."""
        lines, part = self.export(name), path.with_name(f"{path.name}.part")
        try:
            part.touch(mode=0o600)
            with part.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
            part.replace(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written ({error.strerror}). Choose another place with --out.") from error

    def import_file(self, path: Path, name: str = "", by: int | None = None) -> ExchangeReport:
        """Bring a study file in; `name` replaces the study's own. Raises BadInput with the line, Conflict for a taken name."""
        study = read(path)
        with writing(self._db) as session:
            stored = Storing(session, study, name.strip() or study.header.name.strip(), path.name, by).all()
        return _report(study, stored)


def recount(path: Path) -> StudyResult:
    """The result of a study file by the rules that boards use, computed from the file alone. Raises BadInput, NotFound, Unavailable."""
    study = read(path)
    header, arms = study.header, tuple(arm.name for arm in study.arms)
    found = tally(records(study), arms, study.against, study.rule)
    about = {arm.name: arm for arm in study.arms}
    view = StudyView(
        id=0, name=header.name, state=header.state, set_name=header.set, split=header.split, arms=arms, against=study.against,
        votes_per_pair=study.votes_per_pair, criteria=header.criteria, reasons=header.reasons, rule=study.rule, reveal=header.reveal,
        created_at=header.created_at or 0.0, opened_at=header.opened_at, closed_at=header.closed_at,
    )  # fmt: skip
    return StudyResult(
        study=view,
        arms=tuple(
            ArmResult(a.arm, about[a.arm].kind, about[a.arm].title, a.votes, a.win_rate, a.strength, a.versus, a.verdict, a.e_value)
            for a in found.arms
        ),
        best=found.best,
        verdict=found.verdict,
        e_value=found.e_value,
        votes=found.votes,
        both_bad_share=found.both_bad_share,
        identical=len(study.identical),
        marked=found.marked,
        voided=found.voided,
        agreement=found.agreement,
        flips=tuple(study.reviewers[reviewer] for reviewer in found.flips),
        method=METHOD,
    )


def _report(study: StudyFile, stored: Stored) -> ExchangeReport:
    on_identical = {cast.place for cast in study.votes if study.is_identical(cast)}
    return ExchangeReport(
        study=stored.study,
        set_name=stored.set_name,
        arms=len(study.arms),
        prompts=len(study.prompts),
        answers=len(study.answers),
        reviewers=len(study.reviewers),
        votes=len({cast.place for cast in study.votes}),
        identical=len(study.identical),
        identical_votes=len(on_identical),
        renamed=stored.renamed,
    )


def _lines(session: Session, study: Study) -> Iterator[AnyLine]:
    study_id = study.id or 0
    votes = cast.votes(session, study_id)
    reviewers = declared.user_names(session, sorted({vote.reviewer_id for vote in votes}))
    arms = rows.arms(session, study_id)
    against = study.rule.get(AGAINST) or arms[0][0].name
    yield _header(session, study, against, tuple(name for _, name in sorted(reviewers.items())))
    for arm, title in sorted(arms, key=lambda found: found[0].name != against):
        yield ArmLine(arm.name, arm.kind, title, arm.system_prompt, dict(arm.decode))
    for prompt in rows.prompts(session, study):
        yield PromptLine(str(prompt.id), prompt.instruction, prompt.input, prompt.reference, prompt.category, tuple(prompt.tags))
    names = {arm.id: arm.name for arm, _ in arms}
    voided = set()
    for answer in rows.answers(session, study):
        gone = answer.voided_at is not None
        if gone:
            voided.add(answer.id)
        told = (str(answer.id), answer.void_reason or "voided") if gone else ("", "")
        yield AnswerLine(str(answer.prompt_id), names[answer.arm_id], answer.text, *told)
    corrections, last = rows.corrections(session, study_id), {vote.assignment_id: vote.vote_id for vote in votes}
    for vote in votes:
        yield VoteLine(
            reviewer=reviewers[vote.reviewer_id],
            prompt=str(vote.prompt_id),
            left=vote.left_arm,
            right=vote.right_arm,
            choice=vote.choice,
            revision=vote.revision,
            kind=vote.kind,
            marked=vote.marked,
            seconds=vote.seconds,
            at=vote.created_at,
            criteria=dict(vote.criteria),
            reasons=tuple(vote.reasons),
            comment=vote.comment,
            correction=corrections.get(vote.assignment_id, "") if last[vote.assignment_id] == vote.vote_id else "",
            left_answer=str(vote.left_answer_id) if vote.left_answer_id in voided else "",
            right_answer=str(vote.right_answer_id) if vote.right_answer_id in voided else "",
        )


def _header(session: Session, study: Study, against: str, reviewers: tuple[str, ...]) -> Header:
    return Header(
        name=study.name,
        format=FORMAT,
        version=VERSION,
        set=declared.set_name(session, study.set_id),
        split=study.split,
        against=against,
        votes_per_pair=study.votes_per_pair,
        criteria=tuple(study.criteria),
        reasons=tuple(study.reasons),
        rule={key: value for key, value in study.rule.items() if key != AGAINST},
        reveal=study.reveal,
        reviewers=reviewers,
        state=study.state,
        created_at=study.created_at,
        opened_at=study.opened_at,
        closed_at=study.closed_at,
    )
