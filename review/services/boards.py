"""Boards: per arm the automatic scores, the difference from the base on the same prompts, and the blind win rate of the study.

A Board is complete plain data: a screen draws it, `--json` prints it, nothing more is asked of the database. Must not know screens
or models.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from ft import metrics
from ft.errors import BadInput
from ft.metrics import CAUTION_WORDS, INTERVAL_WORDS, Difference
from review.protocol.ranking import Strength
from review.services import scoring
from review.services.adapter_views import of_earlier
from review.services.faults import reading
from review.services.scoring import Progress, ScoreReport
from review.services.spreadsheets import csv_text
from review.services.studies import Studies
from review.services.study_views import StudyResult
from storage.database import Database
from storage.queries import boards as rows
from storage.queries.arms import retired_arms
from storage.queries.studies import ArmRow

__all__ = ["Board", "BoardLink", "BoardRow", "Boards", "Difference", "ScoreReport", "ScoreView", "WinRateView"]

ORDER = (*metrics.METRICS, metrics.STEM_METEOR)
LEADING = ("rougeL", "chrf", "bleu")  # what orders the arms that no reviewer has judged
_DIFFERENCE = ("versus_base", "versus_base_low", "versus_base_high")
COLUMNS = ("arm", "kind", "title", "measure", "value", "low", "high", "n", *_DIFFERENCE, "signature", "stale")


@dataclass(frozen=True, slots=True)
class ScoreView:
    """Value, 95 % interval and what exactly was computed, over `n` prompts."""

    value: float
    low: float
    high: float
    signature: str
    n: int


@dataclass(frozen=True, slots=True)
class WinRateView:
    """Share of the blind votes won (ties half) with its 95 % interval. `strength` ranks three arms or more (Bradley-Terry)."""

    value: float
    low: float
    high: float
    votes: int
    both_bad: int
    strength: Strength | None = None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """`answers`: live ones; `stale`: they changed since the scores were computed; `note` says in words what is missing, or is ""."""

    arm: str
    kind: str
    title: str
    scores: dict[str, ScoreView]
    versus_base: dict[str, Difference]
    human: WinRateView | None
    answers: int
    stale: bool
    scored_at: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Board:
    """`metrics` are the shown ones in reading order, `titles` and `words` explain them; `study` is the one whose votes are shown, `studies`
    all that were opened on these prompts; `base` is the arm that the others are compared with, or ""."""

    set_name: str
    split: str
    prompts: int
    references: int
    base: str
    metrics: tuple[str, ...]
    rows: tuple[BoardRow, ...]
    study: StudyResult | None
    studies: tuple[str, ...]
    titles: dict[str, str]
    words: dict[str, str]
    interval_words: str = INTERVAL_WORDS
    caution: str = CAUTION_WORDS

    def row(self, arm: str) -> BoardRow | None:
        return next((row for row in self.rows if row.arm == arm), None)


@dataclass(frozen=True, slots=True)
class BoardLink:
    """A board there is: `answered` arms have answers, `scored` arms have scores."""

    set_name: str
    split: str
    answered: int
    scored: int


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the database says about one board, read at one moment."""

    prompts: int
    references: int
    arms: Sequence[ArmRow]
    evaluations: Mapping[int, rows.EvaluationRow]
    answers: Mapping[int, int]
    marks: Mapping[int, Sequence[tuple[int, int]]]
    studies: Sequence[str]
    retired: Mapping[int, str]


class Boards:
    """`by` is the acting user's id; None is the command line."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._studies = Studies(db)
        self._compared: dict[tuple[int, int], dict[str, Difference]] = {}  # evaluations never change, so neither do their differences

    def score(self, set_name: str, split: str, arms: Sequence[str], by: int | None = None, progress: Progress | None = None) -> ScoreReport:
        """Score the arms' live answers to the prompts that have a reference; the same answers are not scored twice.

        `progress` gets (done, total). Raises NotFound for an unknown set or arm, BadInput where no arm can be scored.
        """
        return scoring.score(self._db, set_name, split, arms, by, progress)

    def start_score(self, set_name: str, split: str, arms: Sequence[str], by: int | None = None) -> int:
        """Queue a job that scores the arms, and return its id. Raises NotFound for an unknown set, BadInput for an unknown split."""
        return scoring.start(self._db, set_name, split, arms, by)

    def run(self, job_id: int, should_stop: Callable[[], bool] | None = None, progress: Progress | None = None) -> None:
        """Do a queued score job. How it ends is in its row; raises only NotFound, and what nobody foresaw (the row then says failed)."""
        scoring.run(self._db, job_id, should_stop, progress)

    def boards(self) -> list[BoardLink]:
        """Every board there is: the team's own sets first, the newest of them first, then what must not get worse."""
        with reading(self._db) as session:
            return [BoardLink(*found) for found in rows.boards(session)]

    def board(self, set_name: str, split: str = "test", study: str | None = None) -> Board:
        """The board of a set's split. `study`: whose votes to show; else the newest opened one with votes.

        Raises NotFound for an unknown set or study, BadInput for an unknown split or a study on other prompts.
        """
        with reading(self._db) as session:
            set_id = scoring.set_id_of(session, set_name, split)
            prompts, references = rows.prompt_counts(session, set_id, split)
            facts = _Facts(
                prompts, references, rows.arms(session), rows.newest_evaluations(session, set_id, split),
                rows.answer_counts(session, set_id, split), rows.answer_marks(session, set_id, split), rows.studies(session, set_id, split),
                retired_arms(session),
            )  # fmt: skip
        result = self._result(facts.studies, study)
        bases = [arm for arm in facts.arms if arm.kind == "base" and arm.id in facts.evaluations]
        base = min(bases, key=lambda arm: (arm.id in facts.retired, -arm.id), default=None)  # that of now, else the last one before
        found = [self._row(arm, base, facts, result) for arm in facts.arms if arm.id in facts.answers or arm.id in facts.evaluations]
        shown = tuple(name for name in ORDER if any(name in row.scores for row in found))
        return Board(
            set_name=set_name,
            split=split,
            prompts=prompts,
            references=references,
            base=base.name if base else "",
            metrics=shown,
            rows=tuple(sorted(found, key=_rank, reverse=True)),
            study=result,
            studies=tuple(facts.studies),
            titles={name: metrics.METRIC_TITLES[name] for name in shown},
            words={name: metrics.METRIC_WORDS[name] for name in shown},
        )

    def differences(self, set_name: str, split: str, arm: str, other: str) -> dict[str, Difference]:
        """Metric -> `arm` minus `other` on the prompts both were scored on, paired; empty where either has no scores. Raises NotFound."""
        with reading(self._db) as session:
            set_id = scoring.set_id_of(session, set_name, split)
            ids = {row.name: row.id for row in rows.arms(session)}
            found = rows.newest_evaluations(session, set_id, split)
        ours, theirs = (found.get(ids.get(name, 0)) for name in (arm, other))
        return self._differences(ours, theirs) if ours and theirs and arm != other else {}

    def _result(self, names: Sequence[str], wanted: str | None) -> StudyResult | None:
        if wanted is not None:
            if wanted not in names:
                raise BadInput(f"“{wanted}” is no opened study of these prompts. Choose {', '.join(names) or 'another board'}.")
            return self._studies.result(wanted)
        newest = None
        for name in names:
            result = self._studies.result(name)
            if result.votes:
                return result
            newest = newest or result
        return newest

    def _row(self, arm: ArmRow, base: ArmRow | None, facts: _Facts, result: StudyResult | None) -> BoardRow:
        found = facts.evaluations.get(arm.id)
        stale = found is not None and found.evaluation.answers_hash != scoring.answers_hash(facts.marks.get(arm.id, ()))
        compared = found is not None and base is not None and arm.id != base.id
        return BoardRow(
            arm=arm.name,
            kind=arm.kind,
            title=of_earlier(facts.retired[arm.id]) if arm.id in facts.retired else arm.title,
            scores={s.metric: ScoreView(s.value, s.low, s.high, s.signature, s.n) for s in found.scores} if found else {},
            versus_base=self._differences(found, facts.evaluations[base.id]) if compared and found and base else {},
            human=_human(result, arm.name),
            answers=facts.answers.get(arm.id, 0),
            stale=stale,
            scored_at=found.evaluation.created_at if found else None,
            note=_note(arm, found, stale, facts),
        )

    def _differences(self, ours: rows.EvaluationRow, base: rows.EvaluationRow) -> dict[str, Difference]:
        key = (ours.evaluation.id or 0, base.evaluation.id or 0)
        if key not in self._compared:
            self._compared[key] = dict(_paired(ours, base))
        return self._compared[key]


def _paired(ours: rows.EvaluationRow, base: rows.EvaluationRow) -> Iterator[tuple[str, Difference]]:
    """Metric -> our value minus the base's on the prompts that both were scored on; only like is compared with like."""
    places = {prompt: at for at, prompt in enumerate(base.evaluation.statistics["prompts"])}
    common = [(at, places[prompt]) for at, prompt in enumerate(ours.evaluation.statistics["prompts"]) if prompt in places]
    theirs = {score.metric: _comparable(score.signature) for score in base.scores}
    for score in ours.scores:
        if common and theirs.get(score.metric) == _comparable(score.signature):
            mine, other = ours.evaluation.statistics["rows"][score.metric], base.evaluation.statistics["rows"][score.metric]
            yield score.metric, metrics.paired(score.metric, [mine[a] for a, _ in common], [other[b] for _, b in common])


def _comparable(signature: str) -> str:
    """The signature without the part that says that a long text was cut, which is the same rule for every arm."""
    return "|".join(part for part in signature.split("|") if not part.startswith("cut:"))


def _human(result: StudyResult | None, arm: str) -> WinRateView | None:
    found = result.arm(arm) if result else None
    if found is None or not found.votes:
        return None
    rate = found.win_rate
    return WinRateView(rate.value, rate.low, rate.high, rate.votes, rate.both_bad, found.strength)


def _note(arm: ArmRow, found: rows.EvaluationRow | None, stale: bool, facts: _Facts) -> str:
    """What is missing, and whether it can be compared with the others without more ado."""
    earlier = facts.retired.get(arm.id)
    words = f"{of_earlier(earlier)}: it gives no more answers, so compare it with care." if earlier else ""
    return f"{words} {_missing(arm, found, stale, facts)}".strip()


def _missing(arm: ArmRow, found: rows.EvaluationRow | None, stale: bool, facts: _Facts) -> str:
    if arm.kind == "human":
        return scoring.IS_REFERENCE
    answered = len(facts.marks.get(arm.id, ()))
    if found is None:
        return "Not scored yet." if answered else "No prompt that it answered has a reference to score against."
    if stale:
        return "Its answers changed since these scores were computed. Score it again."
    return f"Scored on {answered} of {facts.references} prompts: the others have no answer yet." if answered < facts.references else ""


def _rank(row: BoardRow) -> tuple[float, float, float]:
    """Judged arms first, by strength or win rate; then by the automatic scores."""
    human = row.human
    judged = -1.0 if human is None else human.strength.as_win_rate if human.strength else human.value
    scored = next((row.scores[name].value for name in LEADING if name in row.scores), -1.0)
    return judged, scored, float(row.kind == "base")


def board_csv(board: Board) -> str:
    """One line an arm and measure, for a spreadsheet: nothing in it runs as a formula."""
    return csv_text(COLUMNS, _lines(board))


def _lines(board: Board) -> Iterator[dict[str, object]]:
    for row in board.rows:
        about = {"arm": row.arm, "kind": row.kind, "title": row.title, "stale": row.stale}
        if row.human:
            rate = row.human
            signature = board.study.method if board.study else ""
            yield about | {"measure": "blind win rate", "value": rate.value, "low": rate.low, "high": rate.high, "n": rate.votes,
                           "signature": signature}  # fmt: skip
        for name, score in row.scores.items():
            less = row.versus_base.get(name)
            difference = dict(zip(_DIFFERENCE, (less.value, less.low, less.high), strict=True)) if less else {}
            yield about | {"measure": name, **asdict(score), **difference}


def board_json(board: Board) -> str:
    """The whole board, exactly."""
    return json.dumps(asdict(board), ensure_ascii=False, indent=2)
