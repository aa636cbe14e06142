"""An adapter as somebody hands it over: a folder or a zip, opened without trusting a byte of it.

Only two members count, adapter_config.json and adapter_model.safetensors; sizes are capped before anything is unpacked, and the
safetensors header is read by hand. Light: no torch, no pickle. Must not know which base the adapter is for, nor what its settings mean.
"""

import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ft.errors import BadInput

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MAX_CONFIG = 64 * 1024
MAX_HEADER = 4 * 1024 * 1024
MAX_WEIGHTS = 2 * 1024**3
MAX_MEMBERS = 1000
MAX_DIRECTORY = 1024 * 1024
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a folder or zip holds. `weights()` opens the safetensors bytes for reading."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    weights_bytes: int
    weights: Callable[[], Any]  # a context manager giving a binary file


def open_parcel(path: Path) -> Parcel:
    """Read config and header. Raises BadInput with the reason; writes nothing."""
    if path.is_symlink():
        raise BadInput(f"{path.name} is a link. Give the real folder or zip file.")
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_zip(path)
    raise BadInput(f"{path} is neither a folder nor a file. Give an adapter folder, or a zip of one.")


def _from_folder(folder: Path) -> Parcel:
    names = sorted(entry.name for entry in os.scandir(folder))
    _need(names, folder.name)
    for name in (CONFIG, WEIGHTS):
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise BadInput(f"{name} is a link or not a plain file. Copy the file itself into the folder (cp -L).")

    @contextmanager
    def weights() -> Iterator[IO[bytes]]:
        with open(os.open(folder / WEIGHTS, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            yield file

    with open(os.open(folder / CONFIG, os.O_RDONLY | os.O_NOFOLLOW), "rb") as settings:
        config = _config(settings.read(MAX_CONFIG + 1))
    size = (folder / WEIGHTS).lstat().st_size
    with weights() as file:
        return Parcel(config, *_header(file, size), weights)


def _from_zip(path: Path) -> Parcel:
    """Every name is looked at before any member is read; declared sizes are never believed beyond the cap."""
    _refuse_huge_directory(path)
    with _readable(path), zipfile.ZipFile(path) as archive:
        config_info, weights_info = _members(archive)
        with archive.open(config_info) as file:
            config = _config(file.read(MAX_CONFIG + 1))

    @contextmanager
    def weights() -> Iterator[Any]:
        with _readable(path), zipfile.ZipFile(path) as again, again.open(weights_info.filename) as inside:
            yield inside

    with weights() as inside:
        return Parcel(config, *_header(inside, weights_info.file_size), weights)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what zipfile raises on damaged or strange archives into one sentence."""
    try:
        yield
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, struct.error) as error:
        raise BadInput(f"{path.name} is not a zip file that can be read ({error}). Zip the adapter folder again.") from error


def _refuse_huge_directory(path: Path) -> None:
    """zipfile reads the whole directory at once: bound it first, by the end record in the last 64 KB."""
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(max(0, path.stat().st_size - 65_557))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        pickled = start[:1] == b"\x80" or path.suffix.lower() in PICKLES
        kind = "a pickled file, which can run programs and is never opened" if pickled else "not a zip file"
        raise BadInput(f"{path.name} is {kind}. Give an adapter folder with {WEIGHTS}, or a zip of one.")
    members, size = struct.unpack("<HI", tail[at + 10 : at + 16])
    is_zip64 = at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07"  # its own, larger numbers would be believed instead
    if members > MAX_MEMBERS or size > MAX_DIRECTORY or is_zip64:
        raise BadInput(f"{path.name} is too large a zip: at most {MAX_MEMBERS} members are read. Zip only the adapter folder.")


def _members(archive: zipfile.ZipFile) -> tuple[zipfile.ZipInfo, zipfile.ZipInfo]:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(infos) > MAX_MEMBERS or len(set(names)) != len(names):
        raise BadInput("The zip has too many members, or two of the same name. Zip only the adapter folder.")
    for info in infos:
        original = info.orig_filename
        parts = PurePosixPath(original).parts
        if original.startswith("/") or ".." in parts or "\\" in original or "\0" in original or ":" in original:
            raise BadInput(f"The zip holds a path that leads outside of it ({original[:80]!r}). Zip only the adapter folder.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadInput(f"The zip holds a link ({original[:80]!r}). Zip the files themselves.")
    _need([PurePosixPath(name).name for name in names], "The zip")
    found = {wanted: [info for info in infos if PurePosixPath(info.filename).name == wanted] for wanted in (CONFIG, WEIGHTS)}
    config, weights = found[CONFIG], found[WEIGHTS]
    if len(config) != 1 or len(weights) != 1 or PurePosixPath(config[0].filename).parent != PurePosixPath(weights[0].filename).parent:
        raise BadInput(f"The zip holds more than one adapter. Zip one folder with {CONFIG} and {WEIGHTS}.")
    if config[0].flag_bits & 1 or weights[0].flag_bits & 1:
        raise BadInput("The zip is encrypted. Zip the adapter folder without a password.")
    return config[0], weights[0]


def _need(names: list[str], where: str) -> None:
    if WEIGHTS not in names:
        pickled = [name for name in names if name.lower().endswith(PICKLES)]
        if pickled:
            raise BadInput(
                f"{where} holds pickled weights ({pickled[0][:60]}), which can run programs when opened and are never loaded. "
                f"Save the adapter as safetensors ({WEIGHTS})."
            )
        raise BadInput(f"{where} has no {WEIGHTS}. Give the folder that PEFT's save_pretrained wrote.")
    if CONFIG not in names:
        raise BadInput(f"{where} has no {CONFIG}. Give the folder that PEFT's save_pretrained wrote.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _json(raw: bytes, what: str) -> dict[str, Any]:
    try:
        read = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what} is not valid JSON ({str(error)[:120]}). Save the adapter again.") from error
    if not isinstance(read, dict):
        raise BadInput(f"{what} is not a JSON object. Save the adapter again.")
    return read


def _config(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_CONFIG:
        raise BadInput(f"{CONFIG} is larger than {MAX_CONFIG // 1024} KB, so it is not an adapter's settings. Save the adapter again.")
    return _json(raw, CONFIG)


def _header(file: Any, size: int) -> tuple[dict[str, Tensor], dict[str, str], int]:
    """Tensors by name, metadata, size; after checking that types, shapes and offsets account for every byte of the file."""
    if size > MAX_WEIGHTS:
        raise BadInput(f"{WEIGHTS} has {size // 2**20} MB; at most {MAX_WEIGHTS // 2**20} MB are read. Train an adapter of lower rank.")
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise BadInput(_what_it_is(start, size))
    raw = file.read(length)
    entries = _json(raw, f"The header of {WEIGHTS}")
    metadata = entries.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        tensors[name], span = _entry(name, entry)
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise BadInput(f"The tensors of {WEIGHTS} overlap or leave gaps. Save the adapter again.")
        end = last
    if end != size - 8 - length:
        held = size - 8 - length
        raise BadInput(f"{WEIGHTS} holds {held} bytes of weights where its header names {end}: cut off or padded. Copy it again.")
    notes = {key: value for key, value in metadata.items() if isinstance(value, str)} if isinstance(metadata, dict) else {}
    return tensors, notes, size


def _what_it_is(start: bytes, size: int) -> str:
    if start == b"version ":
        return (
            f"{WEIGHTS} is a Git LFS pointer, not the weights ({size} bytes). Run `git lfs pull` in the repository it came from "
            "and take the file again."
        )
    if start[:1] == b"\x80" or start[:2] == b"PK":
        return f"{WEIGHTS} is a pickled file under another name, and pickles are never loaded. Save the adapter as safetensors."
    return f"{WEIGHTS} is not a safetensors file, or is cut off. Copy or save the adapter again."


def _entry(name: str, entry: Any) -> tuple[Tensor, tuple[int, int]]:
    shown = name[:80]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadInput(f"The header entry of tensor {shown} cannot be read. Save the adapter again.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise BadInput(f"Tensor {shown} is of type {str(dtype)[:20]}; adapters are float32, float16 or bfloat16. Save it as one of these.")
    whole = [isinstance(v, list) and all(type(n) is int and 0 <= n < 2**40 for n in v) for v in (shape, offsets)]
    if not all(whole) or len(offsets) != 2 or not 1 <= len(shape) <= 2:
        raise BadInput(f"Tensor {shown} has a broken shape or place. Save the adapter again.")
    count = 1
    for length in shape:
        count *= length
    if count == 0 or offsets[1] - offsets[0] != count * ITEM_BYTES[dtype]:
        raise BadInput(f"Tensor {shown} has shape {shape} but {offsets[1] - offsets[0]} bytes. Save the adapter again.")
    return Tensor(dtype, tuple(shape)), (offsets[0], offsets[1])
