"""What stands against a run on this base and machine, from files alone: is the base there, has it those layers, is there room on the disk.

Light. Must not know torch, the database or the screens.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from ft.bases import EMBEDDED, BaseShape, describe_base, gguf_of, locate
from ft.errors import NotFound, UserError
from ft.rundir import BaseChoice
from ft.specs import ALL_LINEAR, TrainSpec

BYTES_A_WEIGHT = 20  # of an adapter in one checkpoint: itself, its best, the optimizer's two moments
LEAST_DISK = 50_000_000


def problems(spec: TrainSpec, base: BaseChoice, root: Path) -> list[str]:
    """Each a sentence with what to do; empty also for a base that is fetched at the start. `root`: where runs are kept."""
    try:
        shape = shape_of(base)
    except UserError as error:
        return [str(error)]
    return [*_layers(spec, shape), *_device(spec, base), *_disk(spec, shape, root)]


def shape_of(base: BaseChoice) -> BaseShape | None:
    """None where the base is fetched or converted at the start. Raises UserError where it cannot be."""
    folder, path = locate(base.model, Path(base.bases)), Path(base.model).expanduser()
    if folder:
        return describe_base(folder, base.model)
    if base.model == EMBEDDED or gguf_of(path) or not (path.is_absolute() or base.model.startswith(("./", "../", "~"))):
        return None
    raise NotFound(f"The base model {base.model} is not there, or has no config.json. Put it back, or name another in TIEBREAK_BASE.")


def _layers(spec: TrainSpec, shape: BaseShape | None) -> Iterator[str]:
    targets = spec.lora.targets
    if targets == ALL_LINEAR or not shape or not shape.linears:
        return
    unknown = [one for one in targets if not any(name == one or name.endswith(f".{one}") for name in shape.linears)]
    if unknown:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in shape.linears}))
        yield f"This base has no module {', '.join(unknown)} that can be trained. Choose all-linear, or from: {known}."


def _device(spec: TrainSpec, base: BaseChoice) -> Iterator[str]:
    if spec.optimizer != "adamw" and base.device == "cpu":
        yield f"The optimizer {spec.optimizer} needs a GPU, and training runs on cpu here. Choose adamw."


def _disk(spec: TrainSpec, shape: BaseShape | None, root: Path) -> Iterator[str]:
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free, needed = shutil.disk_usage(place).free, LEAST_DISK + BYTES_A_WEIGHT * weights(spec, shape)
    if free < needed:
        yield f"The run needs at least {needed >> 20} MB of disk for its checkpoints, and {free >> 20} MB are free: make room."


def weights(spec: TrainSpec, shape: BaseShape | None) -> int:
    """Numbers that the adapter has; 0 where the base's layers are not known yet."""
    targets, linears = spec.lora.targets, shape.linears if shape else {}
    chosen = linears if targets == ALL_LINEAR else {n: s for n, s in linears.items() if any(n == t or n.endswith(f".{t}") for t in targets)}
    return spec.lora.rank * sum(inputs + outputs for inputs, outputs in chosen.values())
