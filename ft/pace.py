"""How much goes on at once, found by measurement: rows of background work, tokens read in one piece; and when people go first.

Light: no torch. Must not know rows, models or queues; it is told how long things took.
"""

MOST = {"cpu": 64, "mps": 32, "cuda": 256}  # background rows
FIRST = 8
STEPS = 12  # measured at a size before the next is tried
WORTH = 1.1  # times as many tokens a second, or the smaller size is kept: it holds people up less
SHORTER = 0.8  # times as long as before, or half the rows were no help
LONGEST = 0.3  # seconds a background step may take, since a person who comes meanwhile waits for it
READ_FIRST, READ_LEAST = 500.0, 16  # tokens a second, until it is known; tokens in a piece, which also has a fixed cost


class Pace:
    """`rows` is how many background rows to have under way now."""

    def __init__(self, most: int) -> None:
        self.rows = min(FIRST, most)
        self._read_rate = READ_FIRST
        self._most = most
        self._best = 0.0  # tokens a second at the size before
        self._steps: list[float] = []
        self._settled = self.rows == most
        self._found = self.rows  # the size that pays while the machine is calm
        self._least = 1  # a smaller size does not shorten a step
        self._before: float | None = None  # seconds of a step, before the size was halved to shorten it
        self._owed = 0.0  # seconds that background work may use while people are being answered
        self._last = 0.0

    def tokens(self, seconds: float) -> int:
        """About how many prompt tokens are read in this time."""
        return max(int(seconds * self._read_rate), READ_LEAST)

    def read_took(self, seconds: float, tokens: int) -> None:
        self._read_rate += (tokens / max(seconds, 1e-6) - self._read_rate) / 2

    def too_much(self) -> None:
        """So many rows do not fit the memory."""
        self.rows = self._found = max(self.rows // 2, 1)
        self._steps, self._settled, self._before = [], True, None

    def people_took(self, seconds: float) -> None:
        self._owed = min(self._owed + seconds, max(self._last, seconds))

    def work_may(self, people: bool) -> bool:
        """Always when nobody else is there, else for as long as people had."""
        return not people or self._owed >= self._last

    def work_took(self, seconds: float, rows: int) -> None:
        """One turn of background work; `rows` 0 where it was not a mere step, which measures nothing."""
        self._owed = max(self._owed - seconds, 0.0)
        self._last = seconds
        if rows < self.rows:
            return
        self._steps.append(seconds)
        if len(self._steps) >= STEPS:
            self._judge(sorted(self._steps)[STEPS // 2])

    def _judge(self, step: float) -> None:
        self._steps = []
        if self._before is not None and step > SHORTER * self._before:  # fewer rows hold people up as long, and do less
            self.rows = self._least = 2 * self.rows
            self._before = None
            return
        self._before = None
        rate = self.rows / step
        if step > LONGEST:
            self._settled = True
            self._halve(step)
        elif self._settled:
            if self.rows < self._found and 3 * step < LONGEST:  # the machine is calmer again
                self.rows = min(2 * self.rows, self._found)
        elif rate < WORTH * self._best:
            self.rows = self._found = max(self.rows // 2, 1)
            self._settled = True
        elif self.rows >= self._most or 2 * step > LONGEST:
            self._settled, self._found = True, self.rows
        else:
            self._best, self.rows = rate, min(2 * self.rows, self._most)
            self._found = self.rows

    def _halve(self, step: float) -> None:
        if self.rows > self._least:
            self._before = step
            self.rows //= 2
