"""The result of a run on disk: the adapter's two files and the record of everything resolved. Torch side. Must not know the database."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from ft.checkpoints import sync
from ft.errors import BadInput, Unavailable
from ft.journal import write_whole
from ft.models import LoadedBase
from ft.rundir import RunFiles
from ft.template import template_hash

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "safetensors")


def base_name(base: LoadedBase) -> str:
    """The base's name as an adapter may carry it: a hub id or a folder's name, never a path of this machine."""
    return Path(base.shape.name).name if Path(base.shape.name).is_absolute() or base.shape.name.startswith((".", "~")) else base.shape.name


def save_adapter(model: Any, folder: Path, name: str, base_hash: str) -> dict[str, Any]:
    """Write adapter_config.json and adapter_model.safetensors, synced to disk. Returns their facts.

    Only what an adapter needs is written: no bias, no other modules, no path. Half precision is exact to 1 in 2,000 and half the size.
    The metadata has one key, since the library writes several in random order and equal runs would differ.
    """
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in get_peft_model_state_dict(model).items()}
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise BadInput("The adapter's weights are not finite numbers. Lower the learning rate and start again.")
    dtype = torch.float16 if all(float(value.abs().max()) < 6e4 for value in tensors.values()) else torch.float32
    config = model.peft_config["default"]
    folder.mkdir(mode=0o700)
    weights = folder / "adapter_model.safetensors"
    try:
        write_whole(folder / "adapter_config.json", {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": name, "r": config.r, "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout, "bias": "none", "target_modules": sorted(config.target_modules),
            "use_rslora": config.use_rslora, "use_dora": config.use_dora, "inference_mode": True, "fan_in_fan_out": False,
        })  # fmt: skip
        save_file({key: value.to(dtype) for key, value in tensors.items()}, weights, metadata={"base_hash": base_hash})
        sync(weights)
        sync(folder)
    except Exception as error:
        raise Unavailable(f"The adapter could not be saved ({error}). Make room on the disk, then resume the run.") from error
    kept = str(dtype).removeprefix("torch.")
    return {"adapter_bytes": weights.stat().st_size, "adapter_dtype": kept, "targets": sorted(config.target_modules)}


def write_record(folder: Path, given: RunFiles, base: LoadedBase, facts: Mapping[str, Any]) -> None:
    """record.json: everything resolved, enough to tell this result from any other."""
    write_whole(folder / "record.json", {
        "run_id": given.run_id, "spec": given.spec.to_dict(), "spec_hash": given.spec.hash, "data_hash": given.data_hash,
        "base": base_name(base), "base_revision": revision(base.folder),
        "base_hash": base.shape.base_hash, "template_hash": template_hash(base.tokenizer),
        "versions": versions(), **facts,
    })  # fmt: skip


def revision(folder: Path) -> str:
    """The commit of a base from the model hub, whose cache names the folder by it; "" for others, which the fingerprint tells apart."""
    return folder.name if folder.parent.name == "snapshots" else ""


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
