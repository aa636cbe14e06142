"""Lock files: held by a process while it lives, let go by the kernel when it dies, however it dies.

Standard library only. Must not know what they protect.
"""

import fcntl
import os
import time
from pathlib import Path


def take(path: Path, wait: float = 0.5) -> int | None:
    """Take a lock file and return its descriptor; None when somebody holds it. Closing the descriptor lets go.

    Retries for `wait` seconds, since `is_held` holds a lock for a moment to look at it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)


def is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
