"""Memory for models, in bytes: what there is, what is free, what this process holds. On the GPU where this process uses one.

Light: torch is asked only where somebody has loaded it. Must not know engines, runs or the database.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        return int(cuda.mem_get_info()[0]) if cuda else _meminfo("MemAvailable")

    def total(self) -> int:
        cuda = self._cuda
        return int(cuda.mem_get_info()[1]) if cuda else _meminfo("MemTotal")

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
