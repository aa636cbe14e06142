"""The base model and its tokenizer: brought onto this machine and loaded, each choice with its reason.

torch and transformers are imported inside `load` only. Must not know reviewers, screens, the database or which adapters are loaded.
"""

import logging
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ft.bases import EMBEDDED, WANTED, BaseShape, converted_name, describe_base, gguf_of, locate
from ft.devices import choose_device, choose_dtype, quantised
from ft.embedded import Progress, convert_apart, fetch_embedded
from ft.errors import NotFound, Unavailable
from ft.template import end_of_turn


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A model ready to answer or to be trained. `reasons` says why each choice was made."""

    model: Any
    tokenizer: Any
    folder: Path
    shape: BaseShape
    device: str
    dtype: str
    quantisation: str
    context_length: int
    stop_tokens: frozenset[int]
    pad_token: int
    reasons: dict[str, str] = field(default_factory=dict)


def bring(base: str, bases: Path, progress: Progress) -> Path:
    """Like `locate`, but fetches or converts what is missing. Raises NotFound or Unavailable with what to do."""
    found = locate(base, bases)
    if found:
        return found
    if base == EMBEDDED:
        return fetch_embedded(bases / EMBEDDED, progress)
    path = Path(base).expanduser()
    gguf = gguf_of(path)
    if gguf:
        return _from_gguf(gguf, bases / converted_name(gguf), progress)
    if path.exists() or base.startswith(("/", ".", "~")):
        raise NotFound(
            f"TIEBREAK_BASE names {base}, which holds no config.json and no .gguf file. Name a model folder, a GGUF file or a hub id."
        )
    return _download(base, progress)


def _from_gguf(gguf: Path, target: Path, progress: Progress) -> Path:
    progress(0.1, f"Converting {gguf.name} (once)")
    part = target.with_name(f".{target.name}.part")
    convert_apart(gguf, part, "bfloat16", progress)
    part.rename(target)
    return target


def _download(base: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download

    progress(0.1, f"Downloading {base} from the model hub")
    try:
        folder = Path(snapshot_download(base, allow_patterns=WANTED, ignore_patterns=["consolidated*", "original/*"]))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise Unavailable(
            f"The base model {base} could not be downloaded: {reason[0][:200] if reason else type(error).__name__}. Check the name in "
            "TIEBREAK_BASE and the network, or name a local folder."
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise Unavailable(f"{base} has no safetensors weights, and pickled weights are never loaded. Choose another base model.")
    return folder


def load(
    base: str, bases: Path, quantisation: str = "none", device: str = "auto", dtype: str = "auto", progress: Progress | None = None
) -> LoadedBase:
    """Load the base in this process. Slow (seconds to minutes), imports torch. Raises UserError with what to do."""
    tell = progress or (lambda share, words: None)
    folder = bring(base, bases, lambda share, words: tell(0.6 * share, words))
    shape = describe_base(folder, base)
    tell(0.65, "Starting torch")
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quieten()
    reasons: dict[str, str] = {}
    where = choose_device(device, reasons)
    kind = choose_dtype(dtype, where, quantisation, reasons)
    options = quantised(quantisation, where, kind, reasons)
    tell(0.8, "Loading the base model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, kind), local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )
        if "device_map" not in options:
            model = model.to(where)
    except torch.OutOfMemoryError as error:
        raise Unavailable(f"{base} does not fit the memory of {where}. Set TIEBREAK_QUANTISATION=4bit or choose a smaller base.") from error
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Unavailable(f"The base model {base} could not be loaded: {reason}. Check TIEBREAK_BASE or choose another base.") from error
    stops = _stop_tokens(model, tokenizer)
    return LoadedBase(
        model=model.eval(),
        tokenizer=tokenizer,
        folder=folder,
        shape=replace(shape, linears=linear_layers(model)),
        device=where,
        dtype=kind,
        quantisation=quantisation,
        context_length=shape.context_length,
        stop_tokens=stops,
        pad_token=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(stops),
        reasons=reasons,
    )


def _quieten() -> None:
    """Progress bars and advice to developers, which the libraries print on the console of whoever runs the app."""
    from transformers.utils import logging as spoken

    spoken.set_verbosity_error()
    spoken.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|torch|peft)\b")


def linear_layers(model: Any) -> dict[str, tuple[int, int]]:
    """Every linear layer but the output head, as (inputs, outputs), from the loaded model itself."""
    found = {}
    for name, module in model.named_modules():
        if module is model.get_output_embeddings():
            continue
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            found[name] = (int(module.in_features), int(module.out_features))
        elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
            found[name] = (int(module.nx), int(module.nf))
    return found


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    named = getattr(model.generation_config, "eos_token_id", None)
    listed = named if isinstance(named, list) else [named]
    found = frozenset(token for token in [*listed, tokenizer.eos_token_id, end_of_turn(tokenizer)] if token is not None)
    if not found:
        raise Unavailable("The base model names no end-of-text token, so its answers would never end. Choose another base model.")
    return found
