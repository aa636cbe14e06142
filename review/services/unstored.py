"""Answers that have come and are not stored yet: written in small groups, each in one transaction with the job's progress.

A process that is killed loses these few and no other. Must not know engines or where the answers come from.
"""

import time
from collections.abc import Callable

from review.services.faults import writing
from storage.database import Database
from storage.queries import arms as queries
from storage.queries import integrity
from storage.tables import Answer, Job

GROUP = 8
SECONDS = 2.0


class Unstored:
    """Of one job, which has `done` answers so far; `told` hears of each change of that."""

    def __init__(self, db: Database, job_id: int, done: int, told: Callable[[int], None]) -> None:
        self._db, self._job_id, self._done, self._told = db, job_id, done, told
        self._answers: list[Answer] = []
        self._first = 0.0  # when the first of them came
        self._begun = time.time()

    def begin(self) -> None:
        """What comes from now on was asked for after now."""
        self._begun = time.time()

    def add(self, answer: Answer) -> None:
        self._first = self._first if self._answers else time.monotonic()
        self._answers.append(answer)

    @property
    def due(self) -> bool:
        return len(self._answers) >= GROUP or (bool(self._answers) and time.monotonic() - self._first >= SECONDS)

    def store(self) -> tuple[list[str], bool]:
        """Write them down: which are stored, as prompt:arm, and whether what was asked for still counts.

        It does not once a look has found an arm not to be what it says: what our model was asked before is to be asked again.
        """
        answers, self._answers = self._answers, []
        if not answers:
            return [], True
        with writing(self._db) as session:
            bad = integrity.bad_since(session, self._begun)
            good = [answer for answer in answers if not (bad and answer.base_hash)]
            for answer in good:
                if queries.live_answer(session, answer.arm_id, answer.prompt_id) is None:
                    session.add(answer)
            self._done += len(good)
            job = session.get(Job, self._job_id)
            if job is not None:
                job.done = self._done
                session.add(job)
            keys = [f"{answer.prompt_id}:{answer.arm_id}" for answer in good]
        self._told(self._done)
        return keys, len(good) == len(answers)
