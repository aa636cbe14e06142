"""Where a base model's files are and what they say: location, shape, identity. Files and headers only, no torch, nothing fetched.

Must not know how a base is fetched, loaded or used.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft.errors import BadInput, Unavailable
from ft.specs import digest

EMBEDDED = "embedded"
SAMPLE_BYTES = 4096
MANIFEST = "tiebreak.json"
MAX_HEADER = 100_000_000
NAMED_AS_LOADED = (
    "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "olmo", "olmo2", "smollm3",
    "phi", "phi3", "stablelm", "starcoder2", "cohere", "gpt_neo", "gpt_neox", "opt", "gpt2",
)  # fmt: skip
TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc", "q_attn")}  # layers that keep their weights as (inputs, outputs)
BLOCK = re.compile(r"(.+\.)?(layers|h)\.\d+\..+")
WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model"]


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What an adapter must fit: the linear layers by full name, as (inputs, outputs), and the identity of the weights."""

    name: str
    model_type: str
    linears: dict[str, tuple[int, int]]
    context_length: int
    base_hash: str = ""
    others: frozenset[str] = frozenset()  # weights outside the model's blocks, such as the output head


def locate(base: str, bases: Path) -> Path | None:
    """The folder that holds `base`, if it is on this machine already: "embedded", a folder, a GGUF file, or a hub id in the cache."""
    if base == EMBEDDED:
        return bases / EMBEDDED if is_complete(bases / EMBEDDED) else None
    path = Path(base).expanduser()
    gguf = gguf_of(path)
    if gguf:
        made = bases / converted_name(gguf)
        return made if (made / "config.json").is_file() else None
    if path.is_dir():
        return path if (path / "config.json").is_file() else None
    return _cached(base)


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a finished conversion: every file of the manifest at its size."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text())["files"]
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def gguf_of(path: Path) -> Path | None:
    if path.suffix.lower() == ".gguf" and path.is_file():
        return path
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            raise BadInput(f"{path} holds {len(found)} GGUF files. Name one of them in TIEBREAK_BASE, such as {found[0]}.")
        return found[0] if found else None
    return None


def converted_name(gguf: Path) -> str:
    stat = gguf.stat()
    return f"{gguf.stem}-{digest([str(gguf.resolve()), stat.st_size, stat.st_mtime_ns])}"


def _cached(base: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(base, allow_patterns=WANTED, local_files_only=True))
    except Exception:
        return None
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


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
    layers = {_as_loaded(key, model_type): shape for key, shape in shapes.items()} if model_type in NAMED_AS_LOADED else {}
    turned = TRANSPOSED.get(model_type, ())
    return BaseShape(
        name=name or folder.name,
        model_type=model_type,
        linears={
            key: (shape[0], shape[1]) if key.rpartition(".")[2] in turned else (shape[1], shape[0])
            for key, shape in layers.items()
            if BLOCK.fullmatch(key)
        },
        context_length=context_length(config),
        base_hash=weights_hash(folder),
        others=frozenset({*(key for key in layers if not BLOCK.fullmatch(key)), *(("lm_head",) if layers else ())}),
    )


def _as_loaded(key: str, model_type: str) -> str:
    """A layer's name in the loaded model: older GPT-2 files leave out the first part."""
    return f"transformer.{key}" if model_type == "gpt2" and not key.startswith(("transformer.", "lm_head")) else key


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


def weight_entries(folder: Path) -> Iterator[tuple[str, dict[str, Any], list[int]]]:
    """(name, header entry, shape) of each tensor of a model folder. Raises OSError, ValueError."""
    for path in _weight_files(folder):
        yield from _entries(path)


def _weight_files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("consolidated"))
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
