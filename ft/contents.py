"""What the numbers of an adapter say before anything is loaded: are they finite, do they do anything.

Read in a process of its own with little memory and time, straight from the bytes: no torch, no base. `python -m ft.contents PATH` is that
process. Must not know the base, nor what the settings mean.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ft.errors import BadInput
from ft.parcels import Parcel, open_parcel

SECONDS = 60
MEMORY = 2 * 2**30
BLOCK = 1 << 22
EXPONENT = {"F32": ("<u4", 0x7F800000, 0x7FFFFFFF), "F16": ("<u2", 0x7C00, 0x7FFF), "BF16": ("<u2", 0x7F80, 0x7FFF)}


def content_problems(path: Path) -> list[str]:
    """Why the numbers of a vetted folder or zip cannot be used; none where they can."""
    root = str(Path(__file__).resolve().parents[1])
    env = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ} | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ft.contents", str(path.absolute())]
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=env, cwd="/", timeout=SECONDS + 10, check=False)
        found = json.loads(child.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return [f"Its weights could not be read through within {SECONDS} seconds and {MEMORY >> 30} GB of memory. Save it again."]
    return [str(one) for one in found]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def look_through(parcel: Parcel) -> list[str]:
    """In this process: read every number once."""
    empty: dict[str, set[str]] = {}
    for name, finite, zero in _tensors(parcel):
        if not finite:
            return [f"The adapter's weights are not all finite numbers ({name[:100]}). Train it again with a lower learning rate."]
        layer, _, part = name.rpartition(".lora_")
        if zero and part[:1] in ("A", "B"):
            empty.setdefault(layer, set()).add(part[:1])
    layers = {name.rpartition(".lora_")[0] for name in parcel.tensors}
    if layers == set(empty):
        return ["This adapter changes nothing: its weights are all zero, and its answers the base model's. Save the trained ones."]
    return []


def _tensors(parcel: Parcel) -> Iterator[tuple[str, bool, bool]]:
    """(name, whether finite, whether all zero) of each tensor, in the order of the file."""
    with parcel.weights() as file:
        file.read(parcel.header.data_start)
        for name, tensor in sorted(parcel.tensors.items(), key=lambda item: item[1].start):
            finite, zero = True, True
            for block in _blocks(file, tensor.end - tensor.start):
                good, nothing = _look(block, tensor.dtype)
                finite, zero = finite and good, zero and nothing
            yield name, finite, zero


def _blocks(file: Any, count: int) -> Iterator[bytes]:
    while count > 0:
        block = file.read(min(BLOCK, count))
        while len(block) % 4 and len(block) < count and (more := file.read(4 - len(block) % 4)):
            block += more
        if not block or (len(block) % 4 and len(block) < count):
            raise BadInput("The weights end before their header says. Copy the adapter again.")
        count -= len(block)
        yield block


def _look(block: bytes, dtype: str) -> tuple[bool, bool]:
    import numpy as np

    kind, exponent, magnitude = EXPONENT[dtype]
    bits = np.frombuffer(block, dtype=kind)
    return not bool(((bits & exponent) == exponent).any()), not bool((bits & magnitude).any())


def main(path: str) -> None:
    _limit()
    try:
        found = look_through(open_parcel(Path(path)))
    except BadInput as error:
        found = [str(error)]
    except MemoryError:
        found = ["Its weights need more memory to read than an adapter may. Train it with a lower rank."]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
