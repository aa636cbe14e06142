"""The base model and its tokenizer: where its files are, how it is loaded, and why so. `locate` and `describe_base` are light (no torch).

torch and transformers are imported inside `load` only. Must not know reviewers, screens, the database or which adapters are loaded.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ft.devices import choose_device, choose_dtype, quantised
from ft.embedded import Progress, convert_apart, fetch_embedded, is_complete
from ft.errors import BadInput, NotFound, Unavailable
from ft.specs import digest

EMBEDDED = "embedded"
SAMPLE_BYTES = 4096
MAX_HEADER = 100_000_000
NAMED_AS_LOADED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "olmo2", "smollm3")


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What an adapter must fit: the linear layers by full name, as (inputs, outputs), and the identity of the weights."""

    name: str
    model_type: str
    linears: dict[str, tuple[int, int]]
    context_length: int
    base_hash: str = ""


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


def locate(base: str, bases: Path) -> Path | None:
    """The folder that holds `base`, if it is on this machine already: "embedded", a folder, a GGUF file, or a hub id in the cache."""
    if base == EMBEDDED:
        return bases / EMBEDDED if is_complete(bases / EMBEDDED) else None
    path = Path(base).expanduser()
    gguf = _gguf_of(path)
    if gguf:
        made = bases / _converted_name(gguf)
        return made if (made / "config.json").is_file() else None
    if path.is_dir():
        return path if (path / "config.json").is_file() else None
    return _cached(base)


def bring(base: str, bases: Path, progress: Progress) -> Path:
    """Like `locate`, but fetches or converts what is missing. Raises NotFound or Unavailable with what to do."""
    found = locate(base, bases)
    if found:
        return found
    if base == EMBEDDED:
        return fetch_embedded(bases / EMBEDDED, progress)
    path = Path(base).expanduser()
    gguf = _gguf_of(path)
    if gguf:
        return _from_gguf(gguf, bases / _converted_name(gguf), progress)
    if path.exists() or base.startswith(("/", ".", "~")):
        raise NotFound(
            f"TIEBREAK_BASE names {base}, which holds no config.json and no .gguf file. Name a model folder, a GGUF file or a hub id."
        )
    return _download(base, progress)


def _gguf_of(path: Path) -> Path | None:
    if path.suffix.lower() == ".gguf" and path.is_file():
        return path
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            raise BadInput(f"{path} holds {len(found)} GGUF files. Name one of them in TIEBREAK_BASE, such as {found[0]}.")
        return found[0] if found else None
    return None


def _converted_name(gguf: Path) -> str:
    stat = gguf.stat()
    return f"{gguf.stem}-{digest([str(gguf.resolve()), stat.st_size, stat.st_mtime_ns])}"


def _from_gguf(gguf: Path, target: Path, progress: Progress) -> Path:
    progress(0.1, f"Converting {gguf.name} (once)")
    part = target.with_name(f".{target.name}.part")
    convert_apart(gguf, part, "bfloat16", progress)
    part.rename(target)
    return target


def _cached(base: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(base, allow_patterns=_WANTED, local_files_only=True))
    except Exception:
        return None
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model"]


def _download(base: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download

    progress(0.1, f"Downloading {base} from the model hub")
    try:
        folder = Path(snapshot_download(base, allow_patterns=_WANTED))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise Unavailable(
            f"The base model {base} could not be downloaded: {reason[0][:200] if reason else type(error).__name__}. Check the name in "
            "TIEBREAK_BASE and the network, or name a local folder."
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise Unavailable(f"{base} has no safetensors weights, and pickled weights are never loaded. Choose another base model.")
    return folder


def describe_base(folder: Path, name: str = "") -> BaseShape:
    """Read from config.json and the safetensors headers what adapters must fit.

    `linears` stays empty for architectures whose files name layers otherwise than the loaded model does: then only the engine can tell.
    Raises Unavailable when the files are missing or broken.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = {key: shape for path in _weight_files(folder) for key, _, shape in _entries(path)}
    except (OSError, ValueError, struct.error) as error:
        raise Unavailable(
            f"The base model in {folder} cannot be read ({error}). Fetch it again or name another in TIEBREAK_BASE."
        ) from error
    shapes = {key.removesuffix(".weight"): shape for key, shape in tensors.items() if key.endswith(".weight") and len(shape) == 2}
    model_type = str(config.get("model_type", ""))
    layers = shapes if model_type in NAMED_AS_LOADED else {}
    return BaseShape(
        name=name or folder.name,
        model_type=model_type,
        linears={key: (shape[1], shape[0]) for key, shape in layers.items() if ".layers." in key},
        context_length=context_length(config),
        base_hash=weights_hash(folder),
    )


def context_length(config: dict[str, Any]) -> int:
    """Longest conversation in tokens by config.json (the tokenizer's own figure is often 10^30)."""
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = config.get(key) or (text or {}).get(key)
        if isinstance(value, int) and value > 0:
            return value
    return 2048


def weights_hash(folder: Path) -> str:
    """Identity of the weights, whatever they are loaded to: names, shapes, types and a sample of each tensor's bytes."""
    found = hashlib.sha256()
    for path in _weight_files(folder):
        with open(path, "rb") as file:
            data_start = 8 + struct.unpack("<Q", file.read(8))[0]
        with open(path, "rb") as file:
            for key, entry, shape in sorted(_entries(path), key=lambda item: item[0]):
                start, end = entry["data_offsets"]
                middle = max(start, (start + end - SAMPLE_BYTES) // 2)
                file.seek(data_start + middle)
                found.update(f"{key}|{entry['dtype']}|{shape}|".encode() + file.read(min(SAMPLE_BYTES, end - middle)))
    return found.hexdigest()[:16]


def _weight_files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise OSError("no safetensors file")
    return found


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any], list[int]]]:
    """(name, header entry, shape) of each tensor, from the header alone."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        if size > MAX_HEADER:
            raise ValueError(f"{path.name} has a header of {size} bytes")
        header = json.loads(file.read(size))
    for key, entry in header.items():
        if key != "__metadata__":
            yield key, entry, entry["shape"]


def load(
    base: str, bases: Path, quantisation: str = "none", device: str = "auto", dtype: str = "auto", progress: Progress | None = None
) -> LoadedBase:
    """Load the base in this process. Slow (seconds to minutes), imports torch. Raises UserError with what to do."""
    tell = progress or (lambda share, words: None)
    folder = bring(base, bases, lambda share, words: tell(0.6 * share, words))
    shape = describe_base(folder, base)
    tell(0.65, "Starting torch")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

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
        if quantisation == "none":
            model = model.to(where)
    except torch.OutOfMemoryError as error:
        raise Unavailable(f"{base} does not fit the memory of {where}. Set TIEBREAK_QUANTISATION=4bit or choose a smaller base.") from error
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Unavailable(f"The base model {base} could not be loaded: {reason}. Check TIEBREAK_BASE or choose another base.") from error
    stops = _stop_tokens(model, tokenizer)
    return LoadedBase(
        model=model.eval(),
        tokenizer=tokenizer,
        folder=folder,
        shape=replace(shape, linears=_linears(model)),
        device=where,
        dtype=kind,
        quantisation=quantisation,
        context_length=shape.context_length,
        stop_tokens=stops,
        pad_token=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(stops),
        reasons=reasons,
    )


def _linears(model: Any) -> dict[str, tuple[int, int]]:
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
    found = frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
    if not found:
        raise Unavailable("The base model names no end-of-text token, so its answers would never end. Choose another base model.")
    return found
