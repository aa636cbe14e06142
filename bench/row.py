"""One line of the table. Knows no bench."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Row:
    """`ours` and `peer` in `unit`, measured in the same run; the ratio is ours / peer."""

    what: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    better: Literal["lower", "higher"]

    @property
    def ratio(self) -> float:
        return self.ours / self.peer
