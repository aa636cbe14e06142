"""What follows a finished run: its adapter is registered, answers the test prompts, is scored beside base and adapter in use, and is
looked at for what got worse.

Its end is a question to people, never a promotion: a model card, and a draft study against what is in use. Each step looks at what is
there already, so it can be cut off anywhere and taken up again. Must not know torch, screens or run processes.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from ft.errors import Busy, UserError
from review.services.adapters import Adapters
from review.services.answers import Answers
from review.services.boards import Boards
from review.services.cards import Cards
from review.services.faults import reading, writing
from review.services.keeping import Keeping
from review.services.promotions import BASE, Promotions
from review.services.run_views import GAVE_UP, START_AGAIN
from storage.database import Database
from storage.queries import training as queries
from storage.queries.arms import base_arm, names_taken
from storage.queries.promotions import arm_named
from storage.queries.sweeps import kept_back
from storage.tables import Job, PromptSet, Run

MAX_NAME = 64  # letters of an adapter's name
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a scored adapter goes on to: what got worse, the case for its promotion, its card."""

    keeping: Keeping
    promotions: Promotions
    cards: Cards


class AfterTraining:
    """registered -> answered -> scored -> checked, kept in the run's `after`. Without `verdicts` it ends at scored."""

    def __init__(self, db: Database, adapters: Adapters, answers: Answers, boards: Boards, verdicts: Verdicts | None = None) -> None:
        self._db, self._adapters, self._answers, self._boards, self._verdicts = db, adapters, answers, boards, verdicts
        self._given_up: set[str] = set()

    def follow(self) -> None:
        """Take every finished run one step further where that is possible. A run whose adapter is refused is tried once per process."""
        with reading(self._db) as session:
            back = kept_back(session)
            waiting = [row for row in queries.unfollowed(session, "checked" if self._verdicts else "scored") if row.id not in back]
        for row in waiting:
            if row.id in self._given_up:
                continue
            try:
                self._step(row)
            except Busy:
                continue  # others hold the database for long: the next call takes it up
            except UserError as error:
                self._given_up.add(row.id)
                self._say(row.id, f"{GAVE_UP}: {error}")
            except Exception:
                self._given_up.add(row.id)
                log.exception("run %s could not be followed up", row.id)
                self._say(row.id, f"{GAVE_UP} on an unexpected error. The app's log has the details.")

    def _step(self, row: Run) -> None:
        if not row.after:
            self._register(row)
            self._mark(row.id, "registered")
            return
        if row.after == "scored":
            self._look(row)
            return
        kind, then = ("answer", "answered") if row.after == "registered" else ("score", "scored")
        with reading(self._db) as session:
            sets = list(queries.test_sets(session, row.snapshot_id))
        reached = [self._reached(row, kind, each) for each in sets]  # a list: every set gets its job now, not one after the other
        beside = [self._beside(row, kind, each) for each in sets]
        if all([*reached, *beside]):
            self._mark(row.id, then)

    def _look(self, row: Run) -> None:
        """Let the new arm and the one in use answer what must not get worse; then write the card and prepare the study."""
        if self._verdicts is None:
            return
        with reading(self._db) as session:
            adapter = queries.adapter_of(session, row.id)
        if adapter is None or adapter.status == "removed":
            self._mark(row.id, "checked")
            return
        wanted = [adapter.name, self._adapters.in_use() or BASE, BASE]
        asked = [(name, each) for each in self._verdicts.keeping.sets(row.created_by) for name in dict.fromkeys(wanted)]
        if not all([self._answered(row, name, each, must=name == adapter.name) for name, each in asked]):
            return
        try:
            self._verdicts.promotions.prepare_study(adapter.name, row.created_by)
        except UserError as error:
            self._go_on_without(row.id, "No study was prepared", error)
        self._verdicts.cards.write(adapter.name)
        self._mark(row.id, "checked")

    def _answered(self, row: Run, arm: str, set_name: str, *, must: bool) -> bool:
        """Whether nothing is left to wait for. An arm that cannot answer any more is waited for only where it `must`."""
        with reading(self._db) as session:
            missing = queries.unanswered_by(session, arm, set_name)
            job = queries.newest_job(session, "answer", set_name, arm)
        if not missing:
            return True
        if job is None or job.status == "finished":
            try:
                self._answers.start(set_name, "test", [arm], row.created_by)
            except UserError as error:
                if must:
                    raise
                self._go_on_without(row.id, f"What got worse was not looked at against {arm}", error)
                return True
        elif job.status in ("failed", "cancelled"):
            self._say(row.id, stuck("answer", set_name, job))
        return False

    def _register(self, row: Run) -> None:
        with reading(self._db) as session:
            known = queries.adapter_of(session, row.id)
            taken = names_taken(session)
        if known is None:
            name = free_name(str(row.spec.get("name", "adapter")), taken)
            self._adapters.register(Path(row.folder) / "adapter", name, row.created_by, title=f"Trained by run {row.id}", run_id=row.id)
        self._answers.ensure_arms()

    def _reached(self, row: Run, kind: str, prompt_set: PromptSet) -> bool:
        """Whether this set is answered (or scored); starts the job for it when none is there."""
        with reading(self._db) as session:
            adapter = queries.adapter_of(session, row.id)
            arm = queries.arm_of(session, adapter.id) if adapter and adapter.id else None
            if arm is None or arm.id is None or prompt_set.id is None:
                raise UserError("The run's adapter has no arm any more. Register its folder again under Adapters.")
            if kind == "answer" and not queries.unanswered(session, arm.id, prompt_set.id):
                return True
            if kind == "score" and queries.is_scored(session, arm.id, prompt_set.id):
                return True
            job = queries.newest_job(session, kind, prompt_set.name, arm.name)
        if job is None:
            begin = self._answers.start if kind == "answer" else self._boards.start_score
            begin(prompt_set.name, "test", [arm.name], row.created_by)
        elif job.status in ("failed", "cancelled"):
            self._say(row.id, stuck(kind, prompt_set.name, job))
        return False

    def _beside(self, row: Run, kind: str, prompt_set: PromptSet) -> bool:
        """Whether the base and the adapter in use are as far on this set as they will come: the new one is compared with them. One that
        cannot holds up nothing."""
        with reading(self._db) as session:
            base = base_arm(session) or BASE
        return all([self._as_far(row, name, kind, prompt_set) for name in dict.fromkeys([self._adapters.in_use() or base, base])])

    def _as_far(self, row: Run, arm: str, kind: str, prompt_set: PromptSet) -> bool:
        with reading(self._db) as session:
            found = arm_named(session, arm)
            missing = queries.unanswered_by(session, arm, prompt_set.name)
            job = queries.newest_job(session, kind, prompt_set.name, arm)
            scored = found is None or queries.is_scored(session, found.id or 0, prompt_set.id or 0)
        done = not missing if kind == "answer" else scored or bool(missing)
        given_up = job and (job.status in ("failed", "cancelled") or (kind, job.status) == ("score", "finished"))
        if done or given_up:
            return True
        if job is None or job.status == "finished":
            begin = self._answers.start if kind == "answer" else self._boards.start_score
            try:
                begin(prompt_set.name, "test", [arm], row.created_by)
            except UserError as error:
                self._go_on_without(row.id, f"It is not compared with {arm} on {prompt_set.name}", error)
                return True
        return False

    def _mark(self, run_id: str, after: str) -> None:
        with writing(self._db) as session:
            row = queries.get(session, run_id)
            if row:
                row.after = after
                session.add(row)

    def _go_on_without(self, run_id: str, words: str, error: UserError) -> None:
        """Say what is left out, and why. A busy database leaves nothing out: it is tried again."""
        if isinstance(error, Busy):
            raise error
        self._say(run_id, f"{words}: {error}")

    def _say(self, run_id: str, words: str) -> None:
        """Add `words` to the run's message, once."""
        with reading(self._db) as session:
            row = queries.get(session, run_id)
        if row is None or words in row.message:
            return
        with writing(self._db) as session:
            row = queries.get(session, run_id)
            if row and words not in row.message:
                row.message = f"{row.message} {words}".strip()
                session.add(row)


def stuck(kind: str, set_name: str, job: Job) -> str:
    doing = "Answering the test prompts" if kind == "answer" else "Scoring"
    return f"{doing} of {set_name} was {job.status}{': ' + job.message if job.message else '.'} {START_AGAIN}"


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with the next free version: connectpro, connectpro-v2, connectpro-v3. `taken` is in lower case."""
    wanted = wanted.strip()
    match = re.fullmatch(r"(.+)-v(\d{1,6})", wanted)
    stem, number = (match[1], int(match[2])) if match else (wanted, 1)
    name = wanted
    while name.casefold() in taken:
        number += 1
        suffix = f"-v{number}"
        name = stem[: MAX_NAME - len(suffix)] + suffix
    return name
