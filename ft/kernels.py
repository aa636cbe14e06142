"""Which kernel multiplies by the base's weights here, and what half precision would gain: measured once a machine, kept in a small file.

Torch side. On a CPU torch's own choice (MKL) can be three times as slow as oneDNN, or the other way round, and oneDNN reads weights that
it has rearranged up to twice as fast as weights as they are; so nothing is assumed. Must not know adapters, rows or requests.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from ft.memory import Memory
from ft.models import LoadedBase

log = logging.getLogger(__name__)
Product = Callable[[torch.Tensor], torch.Tensor]  # (..., inputs) -> (..., outputs)
THREADS = torch.get_num_threads()  # of this process, before anybody changes it
FILE = "measured.json"
ROWS = (1, 2, 8)
SECONDS = 0.08  # for each candidate and number of rows
FEW, ENOUGH = 1_000_000, 30_000_000  # numbers: a model too small to care about; weights to measure with
CLEARLY = 1.15  # below this gain the usual kernel stays, and weights as they are
LEAST = 4  # rows that rearranged weights are read for, one row being no quicker than four
SHARE = 4  # rearranged weights are a second copy of all, which must fit the free memory so many times
KINDS = (torch.float32, torch.bfloat16)  # of weights that are measured
Times = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A way to multiply by weights. `name` is for the record of what computed an answer, since each rounds in its own way."""

    name: str
    bind: Callable[[torch.Tensor, torch.Tensor | None], Product]  # (weight, bias) -> the product with them
    least_rows: int = 1  # fewer are no quicker
    copies: bool = False  # it reads a copy of the weights, and not themselves


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds through the layers tried, by candidate: for one row, and for two and eight rows together. Zeros: not there."""

    usual: Times
    onednn: Times
    packed: Times
    bfloat16: Times

    @property
    def gain_of_half(self) -> float:
        best = sum(min(found for found in times if found) for times in zip(self.usual, self.onednn, self.packed, strict=True))
        return best / sum(self.bfloat16) if sum(self.bfloat16) else 1.0


def _usual(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    return lambda given: functional.linear(given, weight, bias)


def _onednn(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    return lambda given: torch.ops.mkldnn._linear_pointwise.default(given, weight, bias, "none", [], "")


def _by_rows(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    one, many = USUAL.bind(weight, bias), ONEDNN.bind(weight, bias)
    return lambda given: (one if given.numel() == given.shape[-1] else many)(given)


def _packed(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    held, outputs = torch.ops.mkldnn._reorder_linear_weight.default(weight), weight.shape[0]

    def product(given: torch.Tensor) -> torch.Tensor:
        rows = given.numel() // given.shape[-1]
        if rows >= LEAST:
            return torch.ops.mkldnn._linear_pointwise.default(given, held, bias, "none", [], "")  # type: ignore[no-any-return]
        wide = given.new_zeros(LEAST, given.shape[-1])
        wide[:rows] = given.reshape(rows, -1)
        found = torch.ops.mkldnn._linear_pointwise.default(wide, held, bias, "none", [], "")
        return found[:rows].view(*given.shape[:-1], outputs)  # type: ignore[no-any-return]

    return product


USUAL = Kernel("torch", _usual)
ONEDNN = Kernel("oneDNN", _onednn)
BY_ROWS = Kernel("oneDNN from two rows on", _by_rows)  # a single row waits for memory alone, and torch's own is good at that
PACKED = Kernel("oneDNN, rearranged", _packed, LEAST, copies=True)  # weights in the order in which oneDNN reads them


def typical_weights(base: LoadedBase) -> list[torch.Tensor]:
    """Weights of the first few layers, many enough that a processor's cache cannot hold them all."""
    modules, found = dict(base.model.named_modules()), []
    for name in base.shape.linears:
        weight = getattr(modules[name], "weight", None)
        if weight is not None and type(modules[name]) is torch.nn.Linear:
            found.append(weight.data)
        if sum(weight.numel() for weight in found) > ENOUGH:
            break
    return found


def choose_kernel(weights: Sequence[torch.Tensor], whole: int, folder: Path, reasons: dict[str, str]) -> Kernel:
    """The fastest kernel for weights like these, which have `whole` bytes in all; where nothing can be measured, the usual one.

    Says in `reasons` why, and what half precision would gain.
    """
    kind = weights[0].dtype if weights else None
    if sum(weight.numel() for weight in weights) < FEW or weights[0].device.type != "cpu" or kind not in KINDS:
        return USUAL
    speed = measured(weights, folder)
    if kind == torch.float32 and speed.gain_of_half >= CLEARLY:
        gain = (
            f"bfloat16 would be {speed.gain_of_half:.1f} times as fast for one to eight rows (measured), and rounds differently in a batch"
        )
        reasons["dtype"] = f"{reasons.get('dtype', kind)}; {gain}"
    kernel, times = _best_as_they_are(speed)
    words = f"{kernel.name}: {_gain(times, speed)}"
    if sum(speed.packed) and sum(speed.packed) * CLEARLY < sum(times):
        if Memory("cpu").free() >= SHARE * whole:
            kernel = PACKED
            words = f"oneDNN with rearranged weights, a second copy of {whole / 2**20:.0f} MiB: {_gain(speed.packed, speed)}"
        else:
            words += "; rearranged weights would be faster, but for a second copy of the base there is too little free memory"
    reasons["kernel"] = words
    return kernel


def _best_as_they_are(speed: Speed) -> tuple[Kernel, Times]:
    one, many = (0 < quick * CLEARLY < slow for quick, slow in zip(speed.onednn, speed.usual, strict=True))
    if not many:
        return USUAL, speed.usual
    if one:
        return ONEDNN, speed.onednn
    return BY_ROWS, (speed.usual[0], speed.onednn[1])


def _gain(times: Times, speed: Speed) -> str:
    if times == speed.usual:
        return "its usual one, the fastest measured here"
    return f"{sum(speed.usual) / sum(times):.1f} times as fast as torch's usual kernel here (measured)"


def measured(weights: Sequence[torch.Tensor], folder: Path) -> Speed:
    """From the file, or measured now (about two seconds) and put there."""
    key, path = _key(weights), folder / FILE
    try:
        return Speed(**{name: (float(one), float(many)) for name, (one, many) in json.loads(path.read_text())[key].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        speed = _measure(weights)
    try:
        known = json.loads(path.read_text()) if path.is_file() else {}
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({**known, key: asdict(speed)}, indent=1))
        part.replace(path)
    except (OSError, ValueError, TypeError) as error:
        log.info("the measured speed was not stored: %s", error)
    return speed


def _measure(weights: Sequence[torch.Tensor]) -> Speed:
    found = {"usual": _milliseconds(USUAL, weights)}
    for name, kernel in (("onednn", ONEDNN), ("packed", PACKED)):
        try:
            found[name] = _milliseconds(kernel, weights)
        except (RuntimeError, AttributeError, NotImplementedError):
            log.info("this torch has no %s kernel", name)
            found[name] = (0.0, 0.0)
    if weights[0].dtype == torch.bfloat16:
        return Speed(**found, bfloat16=(0.0, 0.0))
    best = PACKED if sum(found["packed"]) else USUAL
    return Speed(**found, bfloat16=_milliseconds(best, [weight.to(torch.bfloat16) for weight in weights]))


@torch.no_grad()
def _milliseconds(kernel: Kernel, weights: Sequence[torch.Tensor]) -> Times:
    """Best round through all weights, so that none stays in the cache: for one row, for several."""
    found, products = [], [kernel.bind(weight, None) for weight in weights]
    for rows in ROWS:
        inputs = [torch.ones(rows, weight.shape[1], dtype=weight.dtype) for weight in weights]
        best, until = float("inf"), time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            begun = time.perf_counter()
            for given, product in zip(inputs, products, strict=True):
                product(given)
            best = min(best, time.perf_counter() - begun)
        found.append(round(best * 1000, 4))
    return found[0], round(sum(found[1:]), 4)


def _key(weights: Sequence[torch.Tensor]) -> str:
    shapes = "+".join(f"{tuple(weight.shape)}" for weight in weights[:4])
    kind = str(weights[0].dtype).removeprefix("torch.")
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {kind}, {len(weights)} of {shapes}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named: Any = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
        return f"{named.get('model name', '')} family {named.get('cpu family', '')} model {named.get('model', '')}"
    except OSError:
        return platform.processor() or platform.machine()
