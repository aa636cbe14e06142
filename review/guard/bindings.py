"""Which person a name made by a client belongs to: session hashes, event ids, uploaded files. First come, first served.

Bounded: each person keeps so many names, the oldest goes first. Lives in the event loop, so it needs no lock.
Pure. Must not know ASGI.
"""

from collections import OrderedDict
from collections.abc import Callable


class Bindings:
    """Names and their owners. A name belongs to whoever brought it first, until that person's own newer names push it out."""

    def __init__(self, per_owner: int, forget: Callable[[str], None] = lambda name: None) -> None:
        """`forget` is called with each name that is pushed out."""
        self._per_owner = per_owner
        self._forget = forget
        self._owner: dict[str, int] = {}
        self._names: dict[int, OrderedDict[str, None]] = {}

    def claim(self, name: str, owner: int) -> bool:
        """Take a free name, or use one's own again. False: it is somebody else's."""
        current = self._owner.get(name)
        if current is not None and current != owner:
            return False
        names = self._names.setdefault(owner, OrderedDict())
        names[name] = None
        names.move_to_end(name)
        self._owner[name] = owner
        if len(names) > self._per_owner:
            oldest, _ = names.popitem(last=False)
            del self._owner[oldest]
            self._forget(oldest)
        return True

    def holds(self, name: str, owner: int) -> bool:
        """Whether this very person brought this very name."""
        return self._owner.get(name) == owner

    def names_of(self, owner: int) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(self._names.get(owner, ()))

    def __len__(self) -> int:
        return len(self._owner)


class Tally:
    """Counts per name that fall back to zero, such as open streams; a name at zero is forgotten."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, name: str, limit: int) -> bool:
        """Count one more. False, and nothing counted, at the limit."""
        count = self._counts.get(name, 0)
        if count >= limit:
            return False
        self._counts[name] = count + 1
        return True

    def drop(self, name: str) -> None:
        count = self._counts.get(name, 0) - 1
        if count > 0:
            self._counts[name] = count
        else:
            self._counts.pop(name, None)

    def clear(self, name: str) -> None:
        self._counts.pop(name, None)

    def __len__(self) -> int:
        return len(self._counts)
