"""Energy that a GPU used, by its own sensor: power is asked for now and then through `nvidia-smi`, and taken as steady in between.

Standard library only. Must not know torch, runs or the database.
"""

import os
import subprocess
import time

EVERY = 15.0  # seconds between two looks at the sensor
ASK = ("--query-gpu=power.draw", "--format=csv,noheader,nounits")


class Energy:
    """`joules` so far; 0 where no GPU reports its power. After a first failure it asks no more."""

    def __init__(self, joules: float = 0.0) -> None:
        self.joules = joules
        self._silent = False
        self._asked = time.monotonic()
        self._watts = 0.0

    def look(self, every: float = EVERY) -> None:
        """Call it as often as you like."""
        took = time.monotonic() - self._asked
        if self._silent or (self._watts and took < every):
            return
        self._asked += took
        self.joules += self._watts * took
        self._watts = watts()
        self._silent = not self._watts


def watts() -> float:
    """What the GPU that this process uses draws now; 0 where there is none, or none that tells."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    try:
        said = subprocess.run(["nvidia-smi", "-i", device, *ASK], capture_output=True, text=True, check=False, timeout=10).stdout
        return float(said.split()[0])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return 0.0
