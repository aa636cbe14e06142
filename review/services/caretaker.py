"""The app's background work: adapters follow what is wanted, queued jobs are done, training runs are copied and followed up.

One process of a data folder does it at a time (a held lock); another takes over when it ends. Nothing here dies of an exception.
Must not know torch, screens or HTTP.
"""

import fcntl
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from ft.errors import UserError
from review.services import jobs
from review.services.faults import reading
from storage.queries import arms as queries

if TYPE_CHECKING:
    from review.services.house import House

log = logging.getLogger(__name__)
TICK = 1.0  # seconds
SELDOM = 30  # ticks
STOP_SECONDS = 10.0


class Caretaker:
    """`start` and `stop` may each be called from any thread; a stopped one stays stopped."""

    def __init__(self, house: "House") -> None:
        self._house = house
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock: IO[str] | None = None
        self._said: dict[str, str] = {}

    def start(self) -> None:
        if self._threads or self._stopping.is_set():
            return
        self._threads = [
            threading.Thread(target=self._look_after, name="caretaker", daemon=True),
            threading.Thread(target=self._work, name="jobs", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask both threads to end and wait for them a few seconds. A job at work is put back for the next start."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        if self._lock:
            self._lock.close()
            self._lock = None

    def _look_after(self) -> None:
        for tick in itertools.count():
            if self._stopping.is_set():
                return
            self._safely("sharing", self._house.training.share)
            if self._is_ours():
                self._safely("adapters", self._house.adapters.reconcile)
                self._safely("integrity", self._house.integrity.look)
                self._safely("training", self._house.training.sync)
                if tick % SELDOM == 0:
                    self._safely("promotion", self._house.promotions.consider)
            self._stopping.wait(TICK)

    def _work(self) -> None:
        while not self._stopping.is_set():
            worked = self._lock is not None and self._safely("jobs", self._next_job)
            if not worked:
                self._stopping.wait(TICK)

    def _next_job(self) -> bool:
        """Do one queued job; whether there was one."""
        db = self._house.db
        jobs.put_back_orphans(db)
        with reading(db) as session:
            job = queries.next_queued(session)
        away = job is not None and job.kind == "answer" and self._house.engine.away  # training has the machine: it waits
        if job is None or job.id is None or away or not jobs.claim(db, job.id):
            return False
        stopped = False

        def should_stop() -> bool:
            nonlocal stopped
            stopped = self._stopping.is_set() or (job.kind == "answer" and bool(self._house.engine.away))
            return stopped or not jobs.goes_on(db, job.id or 0)

        run = self._house.answers.run if job.kind == "answer" else self._house.boards.run
        try:
            run(job.id, should_stop)
        except Exception:
            jobs.end(db, job.id, "failed", "It stopped on an unexpected error. The app's log has the details.")
            raise
        if stopped and jobs.one(db, job.id).status == "cancelled":
            jobs.change(db, job.id, status="queued", owner="", ended_at=None)  # the app ends; nobody cancelled it
        return True

    def _is_ours(self) -> bool:
        """Whether this process holds, or now gets, the caretaker's lock of the data folder."""
        if self._lock is None:
            lock = open(self._house.settings.home / "caretaker.lock", "w")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                return False
            self._lock = lock
        return True

    def _safely(self, what: str, act: Callable[[], object]) -> bool:
        """Run it; log a failure, once for as long as it stays the same."""
        try:
            result = act()
            self._said.pop(what, None)
            return bool(result)
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if self._said.get(what) != words:
                self._said[what] = words
                log.error("caretaker, %s: %s", what, error, exc_info=not isinstance(error, UserError))
            return False


@contextmanager
def caretaking(house: "House") -> Iterator[Caretaker]:
    """Do the background work of the house while the block runs."""
    caretaker = Caretaker(house)
    caretaker.start()
    try:
        yield caretaker
    finally:
        caretaker.stop()
