"""`python -m ft.train RUN_DIR`: train one run in this process, and say in the run directory how it ended.

Started by `ft.runs.start`, which passes on the locks it took; by hand it takes them itself. Must not know the database or the screens.
"""

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path

from ft import runs
from ft.errors import UserError
from ft.journal import TERMINAL, Journal


def main(folder: Path, inherited: tuple[int, ...]) -> int:
    os.umask(0o077)
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    if not inherited and None in (runs.take(folder / "lock"), runs.take(folder.parent / "lease")):
        print("This run, or another one beside it, is already training. Wait for it or cancel it first.", file=sys.stderr)
        return 1
    if runs.state(folder).status in TERMINAL and not inherited:
        print("This run is over. Start a new run with the same settings.", file=sys.stderr)
        return 1
    journal = Journal(folder)
    journal.status(status="running", message="Loading the base model.", pid=os.getpid())
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    give_way()
    try:
        from ft.trainer import fit

        done = fit(runs.read(folder), journal, lambda: bool(asked) or (folder / "stop").exists())
        journal.end("finished" if done else "cancelled", done or runs.STOPPED)
    except BaseException as error:
        traceback.print_exc()
        journal.end("failed", words(error))
        return 1
    return 0


def give_way() -> None:
    """Let the web process on the same machine answer people first. Linux may group processes by session: then the group's value counts."""
    os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("5")


def words(error: BaseException) -> str:
    """Why it failed, fit to show."""
    if isinstance(error, UserError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "The machine ran out of memory. Lower batch size or maximum length, or choose 4bit quantisation, then start again."
    if isinstance(error, OSError) and error.errno == 28:
        return "The disk is full, so the adapter could not be saved. Make room, then start the run again."
    return f"Training stopped on an unexpected error ({type(error).__name__}). The run's log has the details; start again after looking."


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), tuple(map(int, sys.argv[2:]))))
