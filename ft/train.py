"""`python -m ft.train RUN_DIR`: train one run in this process, and say in the run directory how it ended.

Started by `ft.runs.start`, which passes on the locks it took; by hand it takes them itself. Must not know the database or the screens.
"""

import contextlib
import os
import shutil
import signal
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from ft import checkpoints, runs
from ft.errors import UserError
from ft.journal import TERMINAL, Journal, read_status


@dataclass(slots=True)
class Wishes:
    """What people ask of a run under way: to stop for good, to save and go, or to end now with what is best so far. A signal from the
    system means to save and go."""

    folder: Path
    signals: list[int] = field(default_factory=list)

    @property
    def stop(self) -> bool:
        return (self.folder / "stop").exists()

    @property
    def pause(self) -> bool:
        return bool(self.signals) or (self.folder / "pause").exists()

    @property
    def finish(self) -> bool:
        return (self.folder / "finish").exists()

    def __call__(self) -> bool:
        """Whether to leave what is being done."""
        return self.pause or self.stop


def main(folder: Path, inherited: tuple[int, ...]) -> int:
    os.umask(0o077)
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    if not inherited and None in (runs.take(folder / "lock"), runs.take(folder.parent / "lease")):
        print("This run, or another one beside it, is already training. Wait for it or cancel it first.", file=sys.stderr)
        return 1
    if read_status(folder).get("status") in TERMINAL and not inherited:
        print("This run is over. Start a new run with the same settings.", file=sys.stderr)
        return 1
    journal = Journal(folder)
    journal.reserve()
    journal.status(status="running", message="Loading the base model.", pid=os.getpid())
    wishes = Wishes(folder)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: wishes.signals.append(number))
    give_way()
    try:
        from ft.trainer import fit

        done = fit(runs.read(folder), journal, wishes)
    except BaseException as error:
        traceback.print_exc()
        journal.status(cause="memory" if out_of_memory(error) else "")
        journal.end("failed", words(error))
        return 1
    say_how_it_ended(journal, wishes, done)
    return 0


def say_how_it_ended(journal: Journal, wishes: Wishes, done: str | None) -> None:
    saved = journal.folder / "checkpoints"
    if done is None and not wishes.stop:
        journal.end("paused", runs.paused_words(checkpoints.step_of(checkpoints.newest(saved))))
        return
    journal.end("finished" if done else "cancelled", done or runs.STOPPED)
    shutil.rmtree(saved, ignore_errors=True)


def give_way() -> None:
    """Let the web process on the same machine answer people first. Linux may group processes by session: then the group's value counts."""
    os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("5")


def words(error: BaseException) -> str:
    """Why it failed, fit to show."""
    if isinstance(error, UserError):
        return str(error)
    if out_of_memory(error):
        return "The machine ran out of memory. Lower batch size or maximum length, or choose 4bit quantisation, then start again."
    if isinstance(error, OSError) and error.errno in (27, 28, 122):
        return "The disk is full, so the run's files could not be written. Make room, then resume the run."
    return f"Training stopped on an unexpected error ({type(error).__name__}). The run's log has the details; start again after looking."


def out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "can't allocate memory" in str(error).lower()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), tuple(map(int, sys.argv[2:]))))
