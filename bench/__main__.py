"""`python -m bench [NAME...]`: run the benches and print one table of ratios.

Must not be imported by the app. Each bench returns rows of (what, ours, peer, ratio, better).
"""

import sys
from collections.abc import Callable

from bench import engine, load, startup, training, votes
from bench.row import Row
from review.commands.terminal import table

BENCHES: dict[str, Callable[[], list[Row]]] = {
    "startup": startup.rows,
    "engine": engine.rows,
    "votes": votes.rows,
    "load": load.rows,
    "training": training.rows,
}


def main(names: list[str]) -> None:
    unknown = [n for n in names if n not in BENCHES]
    if unknown:
        sys.exit(f"No bench called {', '.join(unknown)}. There are: {', '.join(BENCHES)}.")
    rows = [row for name in (names or BENCHES) for row in BENCHES[name]()]
    shown = [(r.what, f"{r.ours:.3g} {r.unit}", f"{r.peer:.3g} {r.unit} ({r.peer_name})", f"{r.ratio:.2f}", r.better) for r in rows]
    table(("what", "ours", "peer", "ratio", "better is"), shown, "Nothing was measured.")


if __name__ == "__main__":
    main(sys.argv[1:])
