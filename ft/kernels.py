"""Which kernel multiplies by the base's weights here, and what half precision would gain: measured once a machine, kept in a small file.

Torch side. On a CPU torch's own choice (MKL) can be three times as slow as oneDNN, or the other way round, so neither is assumed.
Must not know adapters, rows or requests.
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

from ft.models import LoadedBase

log = logging.getLogger(__name__)
Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]  # (inputs, weight, bias) -> outputs
THREADS = torch.get_num_threads()  # of this process, before anybody changes it
FILE = "measured.json"
ROWS = (1, 2, 8)
SECONDS = 0.08  # for each candidate
FEW, ENOUGH = 1_000_000, 30_000_000  # numbers: a model too small to care about; weights to measure with
CLEARLY = 1.15  # below this gain the usual kernel stays


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds through the layers tried, by candidate: for one row, and for two and eight rows together."""

    usual: tuple[float, float]
    onednn: tuple[float, float]  # zeros where torch has none
    bfloat16: tuple[float, float]

    def prefers_onednn(self, many: bool) -> bool:
        return 0 < self.onednn[many] * CLEARLY < self.usual[many]

    @property
    def gain_of_half(self) -> float:
        best = sum(min(usual, other or usual) for usual, other in zip(self.usual, self.onednn, strict=True))
        return best / sum(self.bfloat16) if sum(self.bfloat16) else 1.0


def usual(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return functional.linear(inputs, weight, bias)


def onednn(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(inputs, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def by_rows(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A single row waits for memory alone, and torch's own kernel is good at that."""
    return usual(inputs, weight, bias) if inputs.numel() == inputs.shape[-1] else onednn(inputs, weight, bias)


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


def choose_product(weights: Sequence[torch.Tensor], folder: Path, reasons: dict[str, str]) -> Product:
    """The faster kernel for weights like these; where nothing can be measured, the usual one. Says what half precision would gain."""
    if sum(weight.numel() for weight in weights) < FEW or weights[0].device.type != "cpu" or weights[0].dtype != torch.float32:
        return usual
    speed = measured(weights, folder)
    if speed.gain_of_half >= CLEARLY:
        gain = (
            f"bfloat16 would be {speed.gain_of_half:.1f} times as fast for one to eight rows (measured), and rounds differently in a batch"
        )
        reasons["dtype"] = f"{reasons.get('dtype', 'float32')}; {gain}"
    one, many = speed.prefers_onednn(many=False), speed.prefers_onednn(many=True)
    if not many:
        reasons["kernel"] = "torch's usual kernel: the fastest measured here"
        return usual
    which = "oneDNN" if one else "oneDNN from two rows on"
    reasons["kernel"] = f"{which}: {speed.usual[1] / speed.onednn[1]:.1f} times as fast as torch's usual kernel here (measured)"
    return onednn if one else by_rows


def measured(weights: Sequence[torch.Tensor], folder: Path) -> Speed:
    """From the file, or measured now (about a second) and put there."""
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
    halves = [weight.to(torch.bfloat16) for weight in weights]
    found = {"usual": _milliseconds(usual, weights), "onednn": (0.0, 0.0), "bfloat16": _milliseconds(usual, halves)}
    try:
        found["onednn"] = _milliseconds(onednn, weights)
    except (RuntimeError, AttributeError, NotImplementedError):
        log.info("this torch has no oneDNN")
    return Speed(**found)


@torch.no_grad()
def _milliseconds(product: Product, weights: Sequence[torch.Tensor]) -> tuple[float, float]:
    """Best round through all weights, so that none stays in the cache: for one row, for several."""
    found = []
    for rows in ROWS:
        inputs = [torch.ones(rows, weight.shape[1], dtype=weight.dtype) for weight in weights]
        best, until = float("inf"), time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            begun = time.perf_counter()
            for given, weight in zip(inputs, weights, strict=True):
                product(given, weight, None)
            best = min(best, time.perf_counter() - begun)
        found.append(round(best * 1000, 4))
    return found[0], round(sum(found[1:]), 4)


def _key(weights: Sequence[torch.Tensor]) -> str:
    shapes = "+".join(f"{tuple(weight.shape)}" for weight in weights[:4])
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {len(weights)} of {shapes}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named: Any = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
        return f"{named.get('model name', '')} family {named.get('cpu family', '')} model {named.get('model', '')}"
    except OSError:
        return platform.processor() or platform.machine()
