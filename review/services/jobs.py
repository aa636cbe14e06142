"""Background jobs: who runs one, whether that process still lives, who paused it. A job of a dead process is queued again.

Must not know what the jobs do.
"""

import functools
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft.errors import Conflict, NotFound
from review.services.faults import reading, writing
from storage.database import Database
from storage.queries import arms as queries
from storage.tables import Job

OVER = ("finished", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as shown. `status`: queued, running, paused, finished, failed or cancelled; times in seconds since 1970."""

    id: int
    kind: str
    status: str
    title: str
    done: int
    total: int
    message: str
    created_at: float
    ended_at: float | None


@functools.cache
def me() -> str:
    """This process, told apart from a later one with the same number."""
    return _owner(os.getpid())


def _owner(pid: int) -> str:
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        started = " ".join(found.stdout.split())
    return f"{pid}@{started}" if started else ""


def _lives(owner: str) -> bool:
    pid = owner.partition("@")[0]
    return pid.isdigit() and _owner(int(pid)) == owner


def view(job: Job) -> JobView:
    return JobView(job.id or 0, job.kind, job.status, job.title, job.done, job.total, job.message, job.created_at, job.ended_at)


def one(db: Database, job_id: int) -> Job:
    with reading(db) as session:
        job = session.get(Job, job_id)
    return _existing(job, job_id)


def _existing(job: Job | None, job_id: int) -> Job:
    if job is None:
        raise NotFound(f"There is no job {job_id}. Look at the list of jobs.")
    return job


def claim(db: Database, job_id: int) -> bool:
    """Make a queued job this process's; True also where it is already. One process wins."""
    with writing(db) as session:
        job = session.get(Job, job_id)
        if job is None or job.status not in ("queued", "running") or (job.status == "running" and job.owner not in ("", me())):
            return False
        job.status, job.owner = "running", me()
        session.add(job)
        return True


def goes_on(db: Database, job_id: int) -> bool:
    """Whether this process should go on with a job that it claimed: nobody cancelled, paused or took it meanwhile."""
    job = one(db, job_id)
    return job.status == "running" and job.owner == me()


def pause(db: Database, job_id: int) -> Job:
    """Keep a job from running until it is resumed; one at work stops within a second. Raises Conflict where it cannot be paused."""
    with writing(db) as session:
        job = _existing(session.get(Job, job_id), job_id)
        if job.kind == "score":
            raise Conflict("Scoring takes only a moment and cannot be paused. Wait for it, or cancel it.")
        if job.status not in ("queued", "running"):
            raise Conflict(f"That job is {job.status}, so it cannot be paused. Nothing was changed.")
        job.status, job.message = "paused", "Paused. What is answered is kept; resume it when you like."
        session.add(job)
        return job


def resume(db: Database, job_id: int) -> Job:
    """Queue a paused job again: it goes on with what is missing. Raises Conflict where it is not paused."""
    with writing(db) as session:
        job = _existing(session.get(Job, job_id), job_id)
        if job.status != "paused":
            raise Conflict(f"That job is {job.status}, not paused. Nothing was changed.")
        job.status, job.owner, job.message = "queued", "", ""
        session.add(job)
        return job


def end(db: Database, job_id: int, status: str, message: str = "") -> None:
    """Unless it is over already: a cancelled job stays cancelled. `queued` puts it back, but never one that was paused."""
    with writing(db) as session:
        job = session.get(Job, job_id)
        if job is None or job.status in OVER or (job.status == "paused" and status == "queued"):
            return
        job.status, job.message, job.owner = status, message, ""
        job.ended_at = None if status == "queued" else time.time()
        session.add(job)


def put_back_orphans(db: Database) -> None:
    """Queue again what dead processes left running."""
    with reading(db) as session:
        orphans = [job.id for job in queries.running_jobs(session) if job.owner != me() and not _lives(job.owner)]
    for job_id in orphans:
        with writing(db) as session:
            job = session.get(Job, job_id)
            if job and job.status == "running" and not _lives(job.owner):
                job.status, job.owner = "queued", ""
                session.add(job)


def change(db: Database, job_id: int, **values: Any) -> None:
    with writing(db) as session:
        job = session.get(Job, job_id)
        if job:
            for key, value in values.items():
                setattr(job, key, value)
            session.add(job)
