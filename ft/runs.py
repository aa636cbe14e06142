"""The process that works in a run directory: start it, pause it, resume it, stop it, and see to it that it obeys.

`lease`, beside the run directories, is held together with a run's `lock`: one run trains at a time, whoever starts it.
Light: standard library only. Must not know torch, the database or the screens.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ft
from ft import checkpoints
from ft.errors import Busy, Conflict, Unavailable
from ft.journal import TERMINAL, Journal, read_status
from ft.locks import is_held, take
from ft.rundir import BaseChoice, Row, RunFiles, RunState, create, data_problems, events, hash_of, hold_out, log_tail, read, rows, state

__all__ = [
    "BaseChoice", "Row", "RunFiles", "RunState", "ask_stop", "cancel", "create", "data_problems", "enforce", "environment",
    "events", "finish", "hash_of", "hold_out", "is_held", "log_tail", "pause", "paused_words", "read", "resume", "rows", "start", "state",
    "take",
]  # fmt: skip
GRACE = 10.0  # seconds a trainer gets to stop by itself
STOPPED = "Stopped on request; no adapter was made. Start a new run when you are ready."


def start(folder: Path) -> None:
    """Start the trainer of a queued run in a process and session of its own; returns at once.

    The locks are taken here and inherited by the trainer, so there is no moment at which a started run looks dead, and
    none at which two starters both win. Raises Busy while another run trains, Conflict when this one is not queued.
    """
    with contextlib.ExitStack() as held:
        lock, lease = _take_for(held, folder / "lock"), _take_for(held, folder.parent / "lease")
        if lock is None:
            raise Conflict("This run is already training. Watch it, or cancel it first.")
        if read_status(folder).get("status") != "queued":
            raise Conflict("This run was started before. Resume it, or start a new run with the same settings.")
        if lease is None:
            raise Busy("Another run is training. This one starts when it is over.")
        journal = Journal(folder)
        began = read_status(folder).get("started_at") or time.time()
        journal.status(status="running", message="Starting.", started_at=began, ended_at=None, pid=0, cause="", durable=True)
        try:
            _spawn(folder, lock, lease)
        except OSError as error:
            journal.end("failed", f"The trainer could not be started ({error.strerror}). Free memory or disk, then start again.")


def _take_for(held: contextlib.ExitStack, path: Path, wait: float = 0.5) -> int | None:
    descriptor = take(path, wait)
    if descriptor is not None:
        held.callback(os.close, descriptor)
    return descriptor


def environment() -> dict[str, str]:
    """One GPU for a run: where several are visible, one process would spread the model over them in a way that TRL refuses."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    quiet = {"PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": first}


def _spawn(folder: Path, *locks: int) -> None:
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ft.train", str(folder.resolve()), *map(str, locks)],
            cwd=Path(ft.__file__).parent.parent,
            env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=locks,
        )  # fmt: skip
    finally:
        os.close(log)
    threading.Thread(target=process.wait, name=f"reap-{folder.name}", daemon=True).start()


def ask_stop(folder: Path) -> None:
    """Ask the trainer to stop for good; returns at once. `enforce` sees to it."""
    _mark(folder / "stop")
    _signal(folder, signal.SIGTERM, whole_group=False)


def pause(folder: Path) -> None:
    """Ask the trainer to save and go; returns at once. A run nobody works on is paused by `enforce`. Raises Conflict where it is over."""
    if read_status(folder).get("status") not in ("queued", "running"):
        raise Conflict(f"Run {folder.name} is not under way. There is nothing to pause.")
    _mark(folder / "pause")
    enforce(folder)


def finish(folder: Path) -> None:
    """Ask the trainer to end after the step it is at: the best step so far becomes the adapter. Raises Conflict where it does not train."""
    if state(folder).status != "running":
        raise Conflict(f"Run {folder.name} is not training, so there is nothing to end. Resume it first, or cancel it.")
    _mark(folder / "finish")


def resume(folder: Path, *, by_itself: bool = False) -> None:
    """Queue again a run that was paused, lost, or failed: it goes on from its newest checkpoint, or from its start where it has none.

    `by_itself`: only a lost run, and only where it got further since it was last resumed, so that a run that always dies is left lost.
    Raises Conflict where there is nothing to resume.
    """
    with contextlib.ExitStack() as held:
        leaving = read_status(folder).get("status") in ("paused", "failed")  # it has said its last word and is about to let go
        if _take_for(held, folder / "lock", wait=GRACE if leaving else 0.05) is None:
            raise Conflict(f"Run {folder.name} is training. There is nothing to resume.")
        raw = read_status(folder)
        status = raw.get("status")
        if status == "queued" and not by_itself:
            return
        step = checkpoints.step_of(checkpoints.newest(folder / "checkpoints"))
        if (folder / "stop").exists() or status not in (("running",) if by_itself else ("running", "paused", "failed")):
            raise Conflict(f"Run {folder.name} cannot go on: it is {status}. Start a new run with the same settings.")
        if by_itself and step <= int(raw.get("resumed_from", 0)):
            raise Conflict(f"Run {folder.name} got no further since it was last resumed. Look at its log before resuming it.")
        for asked in ("pause",) if by_itself else ("pause", "finish"):
            (folder / asked).unlink(missing_ok=True)
        words = f"Waiting to go on from step {step}." if step else "Waiting for its turn; it begins again from the start."
        resumed = {"resumed_from": step} if by_itself else {}
        Journal(folder).status(status="queued", message=words, ended_at=None, durable=True, **resumed)


def enforce(folder: Path, grace: float = GRACE) -> None:
    """Carry out what was asked for: a run nobody works on is cancelled or paused, a trainer that ignored a stop for `grace` seconds is
    killed. Returns at once and does nothing when nothing was asked for or the run is over; call it again until it is.
    """
    stop, wait = folder / "stop", folder / "pause"
    try:
        asked = (stop if stop.exists() else wait).stat().st_mtime
    except FileNotFoundError:
        return
    lock = take(folder / "lock", wait=0)
    if lock is None:
        if stop.exists() and time.time() - asked >= grace:
            _signal(folder, signal.SIGKILL, whole_group=True)
        return
    try:
        status = read_status(folder).get("status")
        if stop.exists() and status not in TERMINAL:
            Journal(folder).end("cancelled", STOPPED)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        elif status == "queued" and wait.exists():
            Journal(folder).end("paused", paused_words(0))
    finally:
        os.close(lock)


def paused_words(step: int) -> str:
    return f"Paused at step {step}. Resume it whenever you like." if step else "Paused before its first step. Resume it whenever you like."


def _mark(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # not touch(): asking twice does not renew the grace


def cancel(folder: Path, grace: float = GRACE) -> RunState:
    """Stop the run and wait until nothing of it is left, at most `grace` + 5 seconds."""
    ask_stop(folder)
    deadline = time.monotonic() + grace + 5
    while state(folder).status not in TERMINAL or is_held(folder / "lock"):
        enforce(folder, grace)
        if time.monotonic() > deadline:
            raise Unavailable("The trainer could not be stopped. End its process by hand, then cancel again.")
        time.sleep(0.05)
    enforce(folder, grace)
    return state(folder)


def _signal(folder: Path, number: int, *, whole_group: bool) -> None:
    """Signal the trainer. Its pid is trusted only while the lock is held: then the process that wrote it is alive."""
    pid = int(read_status(folder).get("pid", 0))
    if not pid or not is_held(folder / "lock"):
        return
    with contextlib.suppress(ProcessLookupError):
        if whole_group and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
