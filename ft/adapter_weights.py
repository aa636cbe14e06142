"""An adapter's tensors, read after it was vetted: finite, by layer, in the type of the file, with the magnitudes of DoRA worked out.

Torch side. Must not know which adapters are in memory, nor who asks.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from ft.adapters import AdapterFacts
from ft.errors import BadInput
from ft.mixing import LowRank

PREFIX, MAGNITUDE = "base_model.model.", "lora_magnitude_vector"


def read_adapter(path: Path, facts: AdapterFacts, model: Any, device: str) -> tuple[dict[str, LowRank], float]:
    """Its part of each layer, by the layer's full name, and the scale of them all.

    Raises BadInput for weights that are not finite or do not fit the settings.
    """
    tensors = load(path.read_bytes())  # a copy: the file may change under a mapping of it
    broken = next((key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), "")
    if broken:
        raise BadInput(f"The adapter's weights are not all finite numbers ({broken[:100]}). Train it again with a lower learning rate.")
    scale = float(facts.alpha) / (facts.rank**0.5 if facts.rslora else facts.rank)
    modules, found = dict(model.named_modules()), {}
    for key in sorted(tensors):
        layer, mark, _ = key.partition(".lora_A.")
        if not mark:
            continue
        name = layer.removeprefix(PREFIX)
        down, up = tensors[key], tensors.get(f"{layer}.lora_B.weight")
        if up is None or name not in modules:
            raise BadInput(f"Its weights do not match its settings ({key[:120]}). Save the adapter again.")
        part = LowRank(down.to(device), up.to(device))
        if facts.dora:
            magnitude = next(tensors[end] for end in (f"{layer}.{MAGNITUDE}", f"{layer}.{MAGNITUDE}.weight") if end in tensors)
            part = LowRank(part.down, part.up, _gain(modules[name], part, scale, magnitude.to(device)))
        found[name] = part
    return found, scale


@torch.no_grad()
def _gain(module: Any, part: LowRank, scale: float, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA's magnitude over the norm of the changed weight, for each output."""
    weight = _weight(module).float()
    if not hasattr(module, "out_features"):  # GPT-2 keeps its weights the other way round
        weight = weight.t()
    changed = weight + scale * (part.up.float() @ part.down.float())
    return magnitude.float().flatten() / changed.norm(dim=1)


def _weight(module: Any) -> torch.Tensor:
    if torch.is_floating_point(module.weight):
        return module.weight  # type: ignore[no-any-return]
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(module)  # type: ignore[no-any-return, no-untyped-call]
