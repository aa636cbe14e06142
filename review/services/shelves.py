"""One reviewer's part of a study in memory: what they were given and said, their pace, their ten minutes.

Must not know the database, screens or models.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

from review.protocol.assignment import Mine

USUAL_SECONDS = 30.0  # a reviewer's pace before the first votes tell
REMEMBERED = 20  # votes that the pace is measured on
SESSION = 10 * 60.0  # seconds that a reviewer's session is to last
BREAK = 20 * 60.0  # seconds without a vote after which the next one begins a session
FEWEST, MOST = 5, 60  # pairs of a session, however slow or quick the reviewer


@dataclass(slots=True)
class Entry:
    """One assignment and its newest vote."""

    id: str
    reviewer: int
    pair: str
    prompt: int
    left: int
    right: int
    kind: str
    marked: bool
    served: float
    choice: str = ""
    revision: int = 0
    cast: float = 0.0
    skipped: bool = False
    counted: bool = False  # among those that have taken the pair

    @property
    def open(self) -> bool:
        return not self.choice and not self.skipped

    @property
    def better(self) -> str:
        """The answer voted better, else the choice: the same word whichever side it stood on."""
        return str({"left": self.left, "right": self.right}.get(self.choice, self.choice))


class Shelf(Mine):
    """One reviewer's part of a study."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.open: dict[str, Entry] = {}
        self.kinds: list[str] = []
        self.repeated: set[str] = set()  # pairs given a second time, and plain ones
        self.paces: deque[float] = deque(maxlen=REMEMBERED)
        self.done = 0
        self.last_cast = 0.0
        self.session_done = 0
        self.session_total = 0

    def given(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.open[entry.id] = entry
        self.kinds.append(entry.kind)
        if entry.kind != "real":
            self.repeated.add(entry.pair)

    @property
    def real(self) -> int:
        return self.kinds.count("real")

    @property
    def pace(self) -> float:
        return median(self.paces) if self.paces else USUAL_SECONDS

    def voted(self, seconds: float, at: float) -> None:
        if self.session_done >= self.session_total or at - self.last_cast > BREAK:
            self.session_done, self.session_total = 0, self.fitting()
        self.paces.append(seconds)
        self.done += 1
        self.session_done += 1
        self.last_cast = max(at, self.last_cast)

    def session(self, now: float) -> tuple[int, int]:
        """(judged, of how many) in these ten minutes."""
        if not self.session_total or now - self.last_cast > BREAK:
            return 0, self.fitting()
        return self.session_done, self.session_total

    def fitting(self) -> int:
        return max(FEWEST, min(MOST, round(SESSION / max(self.pace, 1.0))))
