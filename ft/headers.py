"""What a safetensors file says of itself: its header read by hand, every byte accounted for. Also JSON read strictly.

Light: no torch, no pickle. Must not know what the tensors are for, nor where the bytes come from.
"""

import json
import re
import struct
from dataclasses import dataclass
from typing import Any

from ft.errors import BadInput

MAX_HEADER = 4 * 1024 * 1024
MAX_WEIGHTS = 2 * 1024**3
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # perhaps of a pair, perhaps alone, which nothing could store
LFS = b"version https://git-lfs"
PULL = "Run `git lfs pull` in the repository it came from and take the file again."


@dataclass(frozen=True, slots=True)
class Tensor:
    """`start` and `end`: where its bytes lie behind the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """Tensors by name, the notes of whoever wrote it, the size of the whole file, and where the tensors' bytes begin."""

    tensors: dict[str, Tensor]
    notes: dict[str, str]
    size: int
    data_start: int


def read_json(raw: bytes, what: str) -> dict[str, Any]:
    """An object; a key twice, NaN or bad Unicode is refused. Raises BadInput naming `what`."""
    if raw.startswith(LFS):
        raise BadInput(f"{what} is a Git LFS pointer, not the file itself. {PULL}")
    try:
        read = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        if ESCAPED_HALF.search(raw):
            json.dumps(read, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        why = "a number of thousands of digits" if "integer string conversion" in str(error) else str(error)[:120]
        raise BadInput(f"{what} is not valid JSON ({why}). Save the adapter again.") from error
    if not isinstance(read, dict):
        raise BadInput(f"{what} is not a JSON object. Save the adapter again.")
    return read


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def read_header(file: Any, size: int, name: str) -> Header:
    """Checks that types, shapes and offsets account for every byte of the file of `size` bytes. Raises BadInput naming the file."""
    if size > MAX_WEIGHTS:
        raise BadInput(f"{name} has {size // 2**20} MB; at most {MAX_WEIGHTS // 2**20} MB are read. Train an adapter of lower rank.")
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise BadInput(_what_it_is(start, size, name))
    entries = read_json(file.read(length), f"The header of {name}")
    metadata = entries.pop("__metadata__", None)
    tensors = {key: _entry(key, entry) for key, entry in entries.items()}
    end = 0
    for tensor in sorted(tensors.values(), key=lambda one: (one.start, one.end)):
        if tensor.start != end:
            raise BadInput(f"The tensors of {name} overlap or leave gaps. Save the adapter again.")
        end = tensor.end
    if end != size - 8 - length:
        held = size - 8 - length
        raise BadInput(f"{name} holds {held} bytes of weights where its header names {end}: cut off or padded. Copy it again.")
    notes = {key: value for key, value in metadata.items() if isinstance(value, str)} if isinstance(metadata, dict) else {}
    return Header(tensors, notes, size, 8 + length)


def _what_it_is(start: bytes, size: int, name: str) -> str:
    if start == LFS[:8]:
        return f"{name} is a Git LFS pointer, not the weights ({size} bytes). {PULL}"
    if start.lstrip().lower().startswith((b"<!doc", b"<html", b"<?xml")):
        return f"{name} is a web page, not the weights: perhaps the download asked for a sign-in. Download the file itself again."
    if start[:1] == b"\x80" or start[:2] == b"PK":
        return f"{name} is a pickled file under another name, and pickles are never loaded. Save the adapter as safetensors."
    return f"{name} is not a safetensors file, or is cut off. Copy or save the adapter again."


def _entry(name: str, entry: Any) -> Tensor:
    shown = name[:80]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadInput(f"The header entry of tensor {shown} cannot be read. Save the adapter again.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise BadInput(f"Tensor {shown} is of type {str(dtype)[:20]}; adapters are float32, float16 or bfloat16. Save it as one of these.")
    whole = [isinstance(v, list) and all(type(n) is int and 0 <= n < 2**40 for n in v) for v in (shape, offsets)]
    if not all(whole) or len(offsets) != 2 or not 1 <= len(shape) <= 4:
        raise BadInput(f"Tensor {shown} has a broken shape or place. Save the adapter again.")
    count = 1
    for length in shape:
        count *= length
    if count == 0 or offsets[1] - offsets[0] != count * ITEM_BYTES[dtype]:
        raise BadInput(f"Tensor {shown} has shape {shape} but {offsets[1] - offsets[0]} bytes. Save the adapter again.")
    return Tensor(dtype, tuple(shape), offsets[0], offsets[1])
