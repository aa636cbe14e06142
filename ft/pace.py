"""How much goes on at once, found by measurement: rows of background work, tokens read in one piece, threads; and when people go first.

Light: no torch. Must not know rows, models or queues; it is told how long things took.
"""

MOST = {"cpu": 64, "mps": 32, "cuda": 256}  # background rows
FIRST = 8
STEPS = 12  # measured at a size before the next is tried
WORTH = 1.1  # times as many tokens a second, or the smaller size is kept: it holds people up less
SHORTER = 0.8  # times as long as before, or half the rows were no help
LONGEST = 0.3  # seconds a background step may take, since a person who comes meanwhile waits for it
FAR_TOO_LONG = 3  # steps in a row of twice that: the machine has become busy, and no more are waited for
ROUND = 1.25  # times as many rows as meant still measure the size
WINDOW = 0.25  # seconds of computing looked at before fewer threads compute
WAITED = 2.0  # times its own processor time: so long waits a thread for the others, and half of them would be as quick
CALM = 1.15
PATIENCE, MOST_PATIENCE = 2.0, 60.0  # seconds of calm before more threads compute again; longer each time that it did not last
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
        if not self.rows <= rows <= ROUND * self.rows:
            return
        self._steps.append(seconds)
        last = self._steps[-FAR_TOO_LONG:]
        if len(self._steps) >= STEPS or (len(last) == FAR_TOO_LONG and min(last) > 2 * LONGEST):
            self._judge(sorted(self._steps)[len(self._steps) // 2])

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


class Crew:
    """How many threads compute on the processor.

    Each product ends when its slowest thread does. Where other programs use the machine, a thread that has to wait for its turn holds up
    all, hundreds of times a step: two threads on two busy cores were ten times as slow as one. So all compute while the machine is calm.
    """

    def __init__(self, most: int) -> None:
        self.threads = self._most = most
        self._wall = self._own = 0.0
        self._patience = PATIENCE
        self._calm_for = 0.0

    def worked(self, wall: float, own: float) -> bool:
        """Some computing took `wall` seconds, `own` of them on a processor; whether `threads` has changed."""
        self._wall, self._own = self._wall + wall, self._own + own
        if self._wall < WINDOW:
            return False
        waited = self._wall / max(self._own, 1e-6)
        wall, self._wall, self._own = self._wall, 0.0, 0.0
        self._calm_for = self._calm_for + wall if waited < CALM else 0.0
        if waited > WAITED and self.threads > 1:
            self.threads = max(self.threads // 2, 1)
            self._patience = min(2 * self._patience, MOST_PATIENCE)
            return True
        if self.threads < self._most and self._calm_for >= self._patience:
            self.threads, self._calm_for = min(2 * self.threads, self._most), 0.0
            return True
        if self.threads == self._most and self._calm_for > MOST_PATIENCE:
            self._patience = PATIENCE
        return False
