"""An adapter as people see it. Must not know engines, files or screens."""

from dataclasses import dataclass, field
from typing import Any

from storage.tables import Adapter


@dataclass(frozen=True, slots=True)
class AdapterView:
    """An adapter as shown. `bytes` on disk; `wanted` is asked for, `resident` is in the running app's memory; `pinned` stays there.

    `about`: what it was made from and what was left aside when it came. `by`: who registered it, "" for the command line.
    """

    id: int
    name: str
    title: str
    method: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    bytes: int
    status: str
    status_reason: str
    wanted: bool
    resident: bool
    in_use: bool
    run_id: str | None
    content_hash: str
    created_at: float
    pinned: bool = False
    base_hash: str = ""
    by: str = ""
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Memory for adapters, in bytes: taken by those wanted there, by the pinned ones, and the budget."""

    taken: int
    pinned: int
    budget: int


def view(row: Adapter, in_use: object, by: str = "") -> AdapterView:
    return AdapterView(
        id=row.id or 0, name=row.name, title=row.title, method=row.method, rank=row.rank, alpha=row.alpha, targets=tuple(row.targets),
        bytes=row.bytes, status=row.status, status_reason=row.status_reason, wanted=row.wanted, resident=row.resident,
        in_use=row.id is not None and row.id == in_use, run_id=row.run_id, content_hash=row.content_hash, created_at=row.created_at,
        pinned=row.pinned, base_hash=row.base_hash, by=by, about=dict(row.about),
    )  # fmt: skip


def of_earlier(base: str) -> str:
    """Said of an arm that belongs to a base before the one there is now."""
    return f"Of an earlier base, {base}"
