"""Automatic scores of stored answers: computed once for the same answers, kept with what is needed to compare arms later.

Nothing is locked while metrics are computed. Must not know screens or models.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from ft import metrics
from ft.errors import BadInput, NotFound, UserError
from review.services import jobs
from review.services.faults import reading, writing
from review.services.library import set_named
from storage.database import Database
from storage.queries import boards as rows
from storage.queries.people import audit
from storage.queries.studies import ArmRow
from storage.tables import SPLITS, Evaluation, Job

Progress = Callable[[int, int], None]
IS_REFERENCE = "Its answers are the references themselves, so they cannot be scored against them."


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """`scored` arms have new scores, `unchanged` ones the same answers as last time; `skipped`: arm -> why it has none.
    `stopped`: the rest was left undone because somebody asked to stop."""

    set_name: str
    split: str
    scored: tuple[str, ...]
    unchanged: tuple[str, ...]
    skipped: dict[str, str]
    stopped: bool = False


def answers_hash(marks: Sequence[tuple[int, int]]) -> str:
    """Identity of the (prompt id, answer id) pairs that were scored."""
    return hashlib.sha256(json.dumps([list(mark) for mark in marks]).encode()).hexdigest()[:32]


def set_id_of(session: Session, set_name: str, split: str) -> int:
    """Raises NotFound for an unknown set, BadInput for an unknown split."""
    if split not in SPLITS:
        raise BadInput(f"There is no split {split!r}. Choose {', '.join(SPLITS)}.")
    return set_named(session, set_name).id or 0


@dataclass(frozen=True, slots=True)
class _Work:
    arm: ArmRow
    pairs: Sequence[rows.PairRow]

    @property
    def hash(self) -> str:
        return answers_hash([(pair.prompt_id, pair.answer_id) for pair in self.pairs])


def score(
    db: Database,
    set_name: str,
    split: str,
    arms: Sequence[str],
    by: int | None,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None = None,
) -> ScoreReport:
    """See `Boards.score`."""
    names = metrics.available()
    set_id, work, unchanged, skipped = _plan(db, set_name, split, arms, names)
    if not work and not unchanged:
        why = " ".join(f"{arm}: {reason}" for arm, reason in skipped.items())
        raise BadInput(f"No arm could be scored on the {split} prompts of “{set_name}”. {why}")
    done, total = 0, max(len(work) * len(names), 1)
    scored: list[str] = []
    for item in work:
        found: dict[str, metrics.Scored] = {}
        for name in names:
            if should_stop and should_stop():
                return ScoreReport(set_name, split, tuple(scored), tuple(unchanged), skipped, stopped=True)
            found[name] = metrics.score(name, [p.answer for p in item.pairs], [p.reference for p in item.pairs])
            done += 1
            if progress:
                progress(done, total)
        _store(db, set_id, split, item, found, by)
        scored.append(item.arm.name)
    if progress:
        progress(total, total)
    return ScoreReport(set_name, split, tuple(scored), tuple(unchanged), skipped)


def _plan(
    db: Database, set_name: str, split: str, arms: Sequence[str], names: Sequence[str]
) -> tuple[int, list[_Work], list[str], dict[str, str]]:
    """What is to be scored, which arms have these very scores already, and which cannot be scored."""
    work, unchanged, skipped = [], [], {}
    with reading(db) as session:
        set_id = set_id_of(session, set_name, split)
        known = {arm.name: arm for arm in rows.arms(session)}
        if unknown := [arm for arm in arms if arm not in known]:
            raise NotFound(f"There is no arm {', '.join(unknown)}. Choose from: {', '.join(known) or 'none yet'}.")
        newest = rows.newest_evaluations(session, set_id, split)
        for name in dict.fromkeys(arms):
            arm = known[name]
            item = _Work(arm, () if arm.kind == "human" else rows.pairs(session, set_id, split, arm.id))
            last = newest.get(arm.id)
            if arm.kind == "human":
                skipped[name] = IS_REFERENCE
            elif not item.pairs:
                skipped[name] = "It has no answers to prompts that have a reference. Let it answer them first."
            elif last and last.evaluation.answers_hash == item.hash and {s.metric for s in last.scores} == set(names):
                unchanged.append(name)
            else:
                work.append(item)
    return set_id, work, unchanged, skipped


def _store(db: Database, set_id: int, split: str, item: _Work, found: Mapping[str, metrics.Scored], by: int | None) -> None:
    statistics = {
        "prompts": [pair.prompt_id for pair in item.pairs],
        "rows": {name: scored.statistics for name, scored in found.items()},
    }
    evaluation = Evaluation(arm_id=item.arm.id, set_id=set_id, split=split, answers_hash=item.hash, statistics=statistics)
    values = {name: {"value": s.value, "low": s.low, "high": s.high, "n": s.n, "signature": s.signature} for name, s in found.items()}
    with writing(db) as session:
        rows.add_evaluation(session, evaluation, values)
        audit(session, time.time(), by, "answers scored", arm=item.arm.name, set=set_id, split=split, prompts=len(item.pairs))


def start(db: Database, set_name: str, split: str, arms: Sequence[str], by: int | None) -> int:
    """See `Boards.start_score`."""
    chosen = list(dict.fromkeys(arms))
    with writing(db) as session:
        set_id_of(session, set_name, split)
        title = f"Score {', '.join(chosen)} on {set_name} ({split})"
        spec = {"set": set_name, "split": split, "arms": chosen}
        job = Job(kind="score", title=title, total=len(chosen), created_by=by, spec=spec)
        session.add(job)
        session.flush()
        audit(session, time.time(), by, "scoring queued", job=job.id, set=set_name, split=split, arms=chosen)
        assert job.id is not None
        return job.id


def run(db: Database, job_id: int, should_stop: Callable[[], bool] | None, progress: Progress | None) -> None:
    """See `Boards.run`."""
    job = jobs.one(db, job_id)
    if job.kind != "score":
        raise NotFound(f"Job {job_id} is no scoring. Look at the list of jobs.")
    if not jobs.claim(db, job_id):
        return

    def advance(done: int, total: int) -> None:
        jobs.change(db, job_id, done=done, total=total)
        if progress:
            progress(done, total)

    spec = job.spec
    try:
        report = score(db, spec["set"], spec["split"], spec["arms"], job.created_by, advance, should_stop)
    except UserError as error:
        jobs.end(db, job_id, "failed", str(error))
    except BaseException:
        jobs.end(db, job_id, "failed", "Scoring stopped on an unexpected error. The app's log has the details.")
        raise
    else:
        words = " ".join(f"{arm}: {why}" for arm, why in report.skipped.items())
        jobs.end(db, job_id, "cancelled" if report.stopped else "finished", words)
