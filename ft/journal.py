"""What a run writes about itself: the status (one small file, replaced whole) and the events (one JSON a line, appended).

Standard library only. Must not know torch, processes, the database or the screens.
"""

import contextlib
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATUS = "status.json"
EVENTS = "events.jsonl"
RESERVE = "reserve"  # given up when the disk is full, to have room for saying so
TERMINAL = ("finished", "failed", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of events.jsonl. `kind`: start, train, validation, samples, checkpoint, resumed, warning, saved, or how it ended.

    After a crash the steps since the last checkpoint are done again: of two events of one kind and step, the later counts.
    """

    seq: int
    at: float
    kind: str
    step: int
    data: dict[str, Any] = field(default_factory=dict)


def finite(value: Any) -> Any:
    """The same value with NaN and infinities as None, which JSON and the database can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_whole(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` by `value` as JSON: a reader sees the old file or the new one, never half of one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            json.dump(finite(value), file, indent=1)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def read_status(folder: Path) -> dict[str, Any]:
    """The status as last written; {} when there is none. Raises OSError or ValueError when it cannot be read."""
    try:
        return dict(json.loads((folder / STATUS).read_bytes()))
    except FileNotFoundError:
        return {}


def read_events(folder: Path, after: int = 0) -> list[Event]:
    """The complete lines after number `after`. A last line still being written, or cut by a crash, is left out."""
    try:
        raw = (folder / EVENTS).read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in raw.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
            event = Event(row.pop("seq"), row.pop("at"), row.pop("kind"), row.pop("step"), row)
        except (ValueError, KeyError, AttributeError):
            continue
        if event.seq > after:
            found.append(event)
    return found


def _ends_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return file.read() in (b"", b"\n")
    except FileNotFoundError:
        return True


class Journal:
    """The writing side, for the one process that holds the run's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._status = read_status(folder)
        self._seq = max((event.seq for event in read_events(folder)), default=0)
        self._whole = _ends_whole(folder / EVENTS)  # else the next line starts on a new one, not behind a half

    def event(self, kind: str, step: int = 0, **data: Any) -> None:
        self._seq += 1
        row = {"seq": self._seq, "at": time.time(), "kind": kind, "step": step, **finite(data)}
        line = (b"" if self._whole else b"\n") + json.dumps(row).encode() + b"\n"
        with open(os.open(self.folder / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            self._whole = False
            file.write(line)
            file.flush()
        self._whole = True

    def status(self, *, durable: bool = False, **changes: Any) -> None:
        self._status.update(changes, at=time.time())
        write_whole(self.folder / STATUS, self._status, durable=durable)

    def end(self, status: str, message: str, **data: Any) -> None:
        """The last word of a run, or of its part before a pause: its event, then its status on disk for good."""
        (self.folder / RESERVE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the status below says as much; better said once than not at all
            self.event(status, int(self._status.get("step", 0)), message=message, **data)
        self.status(durable=True, status=status, message=message, ended_at=time.time(), seconds_left=0)

    def reserve(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / RESERVE).write_bytes(b"\0" * 65_536)
            (self.folder / RESERVE).chmod(0o600)
