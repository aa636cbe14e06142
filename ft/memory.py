"""Memory for models, in bytes: what there is, what is free, what this process holds. On the GPU where this process uses one.

A container's limit counts as the machine's memory.

Light: torch is asked only where somebody has loaded it. Must not know engines, runs or the database.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
SPARE = 1.1  # memory is wanted this many times over, since batches and fragments differ


class Memory:
    """Of one device: "cpu", or "auto" for the GPU where there is one."""

    def __init__(self, device: str = "auto") -> None:
        self.device = device

    @property
    def on_gpu(self) -> bool:
        return self._cuda is not None

    def free(self) -> int:
        """What a further process could have now."""
        cuda = self._cuda
        return int(cuda.mem_get_info()[0]) if cuda else max(min([_meminfo("MemAvailable"), *(left for _, left in limits())]), 0)

    def total(self) -> int:
        cuda = self._cuda
        return int(cuda.mem_get_info()[1]) if cuda else min([_meminfo("MemTotal"), *(limit for limit, _ in limits())])

    def held(self) -> int:
        """What this process holds now."""
        cuda = self._cuda
        return int(cuda.memory_reserved()) if cuda else _resident()

    @property
    def _cuda(self) -> Any:
        """torch.cuda where this process can use a GPU, else None."""
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        available = getattr(cuda, "is_available", None)
        return cuda if self.device != "cpu" and available is not None and available() else None


def give_back() -> None:
    """Free memory that the C library keeps goes back to the machine; where it cannot be told to, nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def few_arenas() -> None:
    """Threads share two heaps of the C library (glibc; elsewhere nothing happens): with one for each, what a thread frees helps no other,
    and a web process of many threads grows for hours. Call it before threads are begun."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 2)


def limits(groups: Path = GROUPS, own: Path = OWN) -> list[tuple[int, int]]:
    """(limit, what is left of it) of each control group of this process that has one: its own and those around it (Linux, v2 and v1)."""
    found = []
    for folder, names in _groups(groups, own):
        try:
            limit, used = (int((folder / name).read_text()) for name in names[:2])  # "max" is no number: no limit
            kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(kept.get(names[2], 0))  # of files, and given back when memory is wanted
            found.append((limit, limit - used + cached))
        except (OSError, ValueError):
            continue
    return found


def _groups(groups: Path, own: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for number, controllers, path in (line for line in lines if len(line) == 3):
        if number == "0":
            top, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = Path(path.strip("/"))
        found += [(top / above, names) for above in dict.fromkeys([inner, *inner.parents])]
    return found


def _meminfo(name: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
