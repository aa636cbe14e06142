"""Device, dtype and quantisation of the base model: what "auto" becomes, and why, in words.

Each function adds its reason to `reasons`. torch is imported inside functions only. Must not know which model is loaded, nor who uses it.
"""

from typing import Any

from ft.errors import Unavailable


def choose_device(asked: str, reasons: dict[str, str]) -> str:
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked != "auto":
        if not there[asked]:
            raise Unavailable(f"TIEBREAK_DEVICE is {asked}, and torch finds no such device. Set it to auto or cpu.")
        reasons["device"] = f"{asked}, as set"
        return asked
    chosen = next(name for name in ("cuda", "mps", "cpu") if there[name])
    words = {"cuda": torch.cuda.get_device_name() if there["cuda"] else "", "mps": "Apple GPU found", "cpu": "no GPU found"}
    reasons["device"] = f"{chosen}: {words[chosen]}"
    return chosen


def choose_dtype(asked: str, device: str, quantisation: str, reasons: dict[str, str]) -> str:
    import torch

    if asked != "auto":
        reasons["dtype"] = f"{asked}, as set"
        return asked
    if device == "cpu" and quantisation == "none":
        reasons["dtype"] = "float32: on a CPU, auto takes what gives the same answers alone and in a mixed batch"
        return "float32"
    if device == "cpu" or (device == "cuda" and torch.cuda.is_bf16_supported()):
        reasons["dtype"] = "bfloat16: half the memory, and the range of float32"
        return "bfloat16"
    reasons["dtype"] = "float16: half the memory; this device has no fast bfloat16"
    return "float16"


def quantised(quantisation: str, device: str, dtype: str, reasons: dict[str, str]) -> dict[str, Any]:
    """Options for from_pretrained."""
    if quantisation == "none":
        reasons["quantisation"] = "none: full precision"
        return {"device_map": {"": 0}} if device == "cuda" else {}  # straight to the GPU, not through main memory first
    if device == "mps":
        raise Unavailable("bitsandbytes does not run on Apple GPUs. Set TIEBREAK_QUANTISATION=none.")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise Unavailable("Quantisation needs bitsandbytes. Install it with: pip install bitsandbytes") from error
    import torch
    from transformers import BitsAndBytesConfig

    reasons["quantisation"] = f"{quantisation} by bitsandbytes, as set; answers differ a little from full precision"
    if quantisation == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
    return {"quantization_config": config, "device_map": {"": 0 if device == "cuda" else device}}
