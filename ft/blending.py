"""A weighted sum of adapters as one adapter, exactly: their ranks side by side, each part times its weight and scaling.

What it adds to a layer is w1*d1 + w2*d2 of what its parts add, at rank r1 + r2. Light: numpy only. Must not know the base, names people
gave, or the database.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft.adapters import AdapterFacts, vet
from ft.errors import BadInput
from ft.parcels import CONFIG, WEIGHTS, open_parcel
from ft.vetting import MAX_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_WEIGHT = 4.0
Arrays = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, slots=True)
class Part:
    """An adapter's folder and how much of it goes in. `name` is only for messages."""

    name: str
    folder: Path
    weight: float


def blend(parts: Sequence[Part], target: Path) -> None:
    """Write the blend into the new folder `target`. Raises BadInput with every reason against it."""
    known = [_known(part) for part in parts]
    if reasons := _problems(parts, known):
        raise BadInput(" ".join(reasons))
    rank = sum(facts.rank for facts in known)
    layers: dict[str, list[tuple[int, Arrays]]] = {}
    at = 0
    for part, facts in zip(parts, known, strict=True):
        for layer, arrays in _scaled(part, facts).items():
            layers.setdefault(layer, []).append((at, arrays))
        at += facts.rank
    tensors: Arrays = {}
    for layer, found in layers.items():
        tensors |= _side_by_side(layer, rank, found)
    _write(target, tensors, known, rank)


def _known(part: Part) -> AdapterFacts:
    verdict = vet(part.folder)
    if verdict.adapter is None:
        raise BadInput(f"{part.name}: {' '.join(verdict.reasons)}")
    return verdict.adapter


def _problems(parts: Sequence[Part], known: Sequence[AdapterFacts]) -> list[str]:
    rank = sum(facts.rank for facts in known)
    hashes = {facts.base_hash for facts in known if facts.base_hash}
    dora = [part.name for part, facts in zip(parts, known, strict=True) if facts.dora]
    odd = [part.name for part in parts if not math.isfinite(part.weight) or not 0 < abs(part.weight) <= MAX_WEIGHT]
    checks = [
        (len({facts.content_hash for facts in known}) >= 2, "A blend needs two different adapters. Choose another second one."),
        (not odd, f"The weight of {', '.join(odd)} must be a number other than 0, from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}. Change it."),
        (not dora, f"{', '.join(dora)} is DoRA, whose parts do not add up; only LoRA can be blended. Choose another."),
        (rank <= MAX_RANK, f"Together they have rank {rank}; at most {MAX_RANK} is possible. Choose adapters of lower rank."),
        (len(hashes) <= 1, "They were trained on different base models. Choose two of the same base."),
    ]
    return [reason for good, reason in checks if not good]


def _scaled(part: Part, facts: AdapterFacts) -> dict[str, Arrays]:
    """By layer: A as it is, B times weight and scaling."""
    factor = part.weight * facts.alpha / (math.sqrt(facts.rank) if facts.rslora else facts.rank)
    found: dict[str, Arrays] = {}
    for key, array in read_arrays(part.folder).items():
        layer, _, which = key.removesuffix(".weight").rpartition(".lora_")
        found.setdefault(layer, {})[which] = array * factor if which == "B" else array
    return found


def _side_by_side(layer: str, rank: int, found: Sequence[tuple[int, Arrays]]) -> Arrays:
    """A's stacked, B's in a row; a part that leaves this layer out leaves its ranks at zero."""
    import numpy as np

    first = found[0][1]
    a, b = np.zeros((rank, first["A"].shape[1]), np.float32), np.zeros((first["B"].shape[0], rank), np.float32)
    for at, arrays in found:
        own = arrays["A"].shape[0]
        if arrays["A"].shape[1] != a.shape[1] or arrays["B"].shape[0] != b.shape[0]:
            raise BadInput(f"They are for bases of different size: layer {layer[-80:]} does not match. Choose two of the same base.")
        a[at : at + own], b[:, at : at + own] = arrays["A"], arrays["B"]
    return {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}


def read_arrays(folder: Path) -> "Mapping[str, NDArray[Any]]":
    """Every tensor of a vetted adapter as float32."""
    import numpy as np

    parcel = open_parcel(folder)
    with parcel.weights() as file:
        file.read(parcel.header.data_start)
        raw = file.read()
    made = {}
    for name, tensor in parcel.tensors.items():
        piece = raw[tensor.start : tensor.end]
        if tensor.dtype == "BF16":
            array = (np.frombuffer(piece, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            array = np.frombuffer(piece, "<f4" if tensor.dtype == "F32" else "<f2").astype(np.float32)
        made[name] = array.reshape(tensor.shape)
    return made


def _write(target: Path, tensors: Arrays, known: Sequence[AdapterFacts], rank: int) -> None:
    from safetensors.numpy import save_file

    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted({name for facts in known for name in facts.targets}), "inference_mode": True,
        "fan_in_fan_out": any(facts.fan_in_fan_out for facts in known), "base_model_name_or_path": known[0].base_name,
    }  # fmt: skip
    base_hash = next((facts.base_hash for facts in known if facts.base_hash), "")
    target.mkdir(parents=True)
    (target / CONFIG).write_text(json.dumps(config))
    save_file(tensors, str(target / WEIGHTS), metadata={"base_hash": base_hash} if base_hash else None)
