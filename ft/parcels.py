"""An adapter as somebody hands it over: a folder or a zip, opened without trusting a byte of it.

Only two members count, adapter_config.json and adapter_model.safetensors, at the top or one folder down; a model card beside them is
read for its licence. Sizes are capped before anything is unpacked. Light: no torch, no pickle. Must not know which base the adapter is
for, nor what its settings mean.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ft.errors import BadInput
from ft.headers import Header, Tensor, read_header, read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
ARCHIVES = (".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
MAX_CONFIG = 64 * 1024
MAX_MEMBERS = 1000
MAX_DIRECTORY = 1024 * 1024
CARD_FACTS = ("license", "base_model", "language", "datasets", "library_name")
CARD_LINE = re.compile(r"(license|base_model|language|datasets|library_name)\s*:\s*['\"]?([^'\"\n]{1,120}?)['\"]?\s*$", re.M)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a folder or zip holds. `weights()` opens the safetensors bytes for reading; `notes` say what was left aside."""

    config: dict[str, Any]
    header: Header
    weights: Callable[[], Any]  # a context manager giving a binary file
    notes: tuple[str, ...] = ()
    card: tuple[tuple[str, str], ...] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.header.tensors


def open_parcel(path: Path) -> Parcel:
    """Read config and header. Raises BadInput with the reason; writes nothing."""
    if path.is_symlink():
        raise BadInput(f"{path.name} is a link. Give the real folder or zip file.")
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_zip(path)
    raise BadInput(f"{path} is neither a folder nor a file. Give an adapter folder, or a zip of one.")


def _from_folder(given: Path) -> Parcel:
    folder = _inner_folder(given)
    names = sorted(entry.name for entry in os.scandir(folder))
    _need(names, folder.name)
    for name in (CONFIG, WEIGHTS):
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise BadInput(f"{name} is a link or not a plain file. Copy the file itself into the folder (cp -L).")

    @contextmanager
    def weights() -> Iterator[IO[bytes]]:
        with open(os.open(folder / WEIGHTS, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            yield file

    config = _config(_start_of(folder / CONFIG, MAX_CONFIG + 1))
    card = _start_of(folder / CARD, MAX_CONFIG) if CARD in names and stat.S_ISREG((folder / CARD).lstat().st_mode) else b""
    size = (folder / WEIGHTS).lstat().st_size
    notes = [] if folder == given else [f"It was found in the folder {folder.name[:60]} inside."]
    with weights() as file:
        return Parcel(config, read_header(file, size, WEIGHTS), weights, (*notes, *_left_aside(names)), read_card(card))


def _start_of(path: Path, count: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read(count)


def _inner_folder(folder: Path) -> Path:
    """The folder itself, or the only one right below it that holds an adapter."""
    inside = {entry.name: entry for entry in os.scandir(folder)}
    if CONFIG in inside or WEIGHTS in inside:
        return folder
    below = [Path(entry.path) for entry in inside.values() if entry.is_dir(follow_symlinks=False)]
    found = sorted(path for path in below if (path / CONFIG).is_file() and (path / WEIGHTS).is_file())
    if len(found) > 1:
        names = ", ".join(path.name[:40] for path in found[:5])
        raise BadInput(f"{folder.name} holds {len(found)} adapters ({names}). Give one of these folders.")
    return found[0] if found else folder


def _from_zip(path: Path) -> Parcel:
    """Every name is looked at before any member is read; declared sizes are never believed beyond the cap."""
    _refuse_huge_directory(path)
    with _readable(path), zipfile.ZipFile(path) as archive:
        config_info, weights_info, notes = _members(archive)
        with archive.open(config_info) as file:
            config = _config(file.read(MAX_CONFIG + 1))
        card = b""
        card_name = str(PurePosixPath(config_info.filename).parent / CARD)
        if card_name in archive.namelist():
            with archive.open(card_name) as file:
                card = file.read(MAX_CONFIG)

    @contextmanager
    def weights() -> Iterator[Any]:
        with _readable(path), zipfile.ZipFile(path) as again, again.open(weights_info.filename) as inside:
            yield inside

    with weights() as inside:
        return Parcel(config, read_header(inside, weights_info.file_size, WEIGHTS), weights, notes, read_card(card))


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
        raise BadInput(f"{path.name} is {_kind(path, start)}. Give an adapter folder with {WEIGHTS}, or a zip of one.")
    members, size = struct.unpack("<HI", tail[at + 10 : at + 16])
    is_zip64 = at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07"  # its own, larger numbers would be believed instead
    if members > MAX_MEMBERS or size > MAX_DIRECTORY or is_zip64:
        raise BadInput(f"{path.name} is too large a zip: at most {MAX_MEMBERS} members are read. Zip only the adapter folder.")


def _kind(path: Path, start: bytes) -> str:
    """What a file that is no zip is."""
    if start[:1] == b"\x80" or path.suffix.lower() in PICKLES:
        return "a pickled file, which can run programs and is never opened"
    if path.suffix.lower() == ".safetensors":
        return f"the weights alone, without the settings ({CONFIG}) that belong to them"
    if path.suffix.lower() == ".gguf":
        return "a GGUF file, which is not supported for adapters"
    return f"not a zip file; a {path.suffix[1:]} archive is not opened" if path.suffix.lower() in ARCHIVES else "not a zip file"


def _members(archive: zipfile.ZipFile) -> tuple[zipfile.ZipInfo, zipfile.ZipInfo, tuple[str, ...]]:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(infos) > MAX_MEMBERS or len(set(names)) != len(names):
        raise BadInput("The zip has too many members, or two of the same name. Zip only the adapter folder.")
    for info in infos:
        _refuse_way_out(info)
    folder, others = _inner_place(names)
    beside = [PurePosixPath(name).name for name in names if PurePosixPath(name).parent == folder and not name.endswith("/")]
    _need(beside, "The zip")
    found = {PurePosixPath(info.filename).name: info for info in infos if PurePosixPath(info.filename).parent == folder}
    config, weights = found[CONFIG], found[WEIGHTS]
    if config.flag_bits & 1 or weights.flag_bits & 1:
        raise BadInput("The zip is encrypted. Zip the adapter folder without a password.")
    notes = [f"The zip also holds {', '.join(str(one)[:60] for one in others[:3])}; only the outermost adapter was read."] if others else []
    return config, weights, (*notes, *_left_aside(beside))


def _refuse_way_out(info: zipfile.ZipInfo) -> None:
    original = info.orig_filename
    parts = PurePosixPath(original).parts
    if original.startswith("/") or ".." in parts:
        raise BadInput(f"The zip holds a path that leads outside of it ({original[:80]!r}). Zip only the adapter folder.")
    if any(odd in original for odd in "\\\0:"):
        raise BadInput(f"The zip holds a name with a backslash, colon or NUL in it ({original[:80]!r}). Zip it with another program.")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise BadInput(f"The zip holds a link ({original[:80]!r}). Zip the files themselves.")


def _inner_place(names: Sequence[str]) -> tuple[PurePosixPath, list[PurePosixPath]]:
    """The outermost folder with an adapter in it, and the others with one. Raises BadInput where two are equally far out."""
    held: dict[PurePosixPath, set[str]] = {}
    for name in names:
        held.setdefault(PurePosixPath(name).parent, set()).add(PurePosixPath(name).name)
    whole = sorted((place for place, inside in held.items() if {CONFIG, WEIGHTS} <= inside), key=lambda place: len(place.parts))
    if not whole:
        part = sorted((p for p, inside in held.items() if {CONFIG, WEIGHTS} & inside), key=lambda place: len(place.parts))
        return (part[0] if part else PurePosixPath(".")), []
    if len(whole) > 1 and len(whole[0].parts) == len(whole[1].parts):
        raise BadInput(f"The zip holds more than one adapter. Zip one folder with {CONFIG} and {WEIGHTS}.")
    return whole[0], whole[1:]


def _need(names: Sequence[str], where: str) -> None:
    for wanted in (WEIGHTS, CONFIG):
        if wanted in names:
            continue
        if alike := next((name for name in names if name.lower() == wanted), ""):
            raise BadInput(f"{where} holds {alike}, which must be named {wanted}, in lower case. Rename it and try again.")
        pickled = [name for name in names if name.lower().endswith(PICKLES)]
        if wanted == WEIGHTS and pickled:
            raise BadInput(
                f"{where} holds pickled weights ({pickled[0][:60]}), which can run programs when opened and are never loaded. "
                f"Save the adapter as safetensors ({WEIGHTS})."
            )
        raise BadInput(f"{where} has no {wanted}{_instead(names)}. Give the folder that PEFT's save_pretrained wrote.")


def _instead(names: Sequence[str]) -> str:
    """What is there in its place."""
    lower = {name.lower(): name for name in names}
    whole = next((lower[name] for name in lower if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", name)), "")
    part = next((lower[name] for name in lower if re.fullmatch(r"adapter_model-\d+-of-\d+\.safetensors", name)), "")
    if whole:
        return f"; {whole} holds a whole model, not an adapter"
    if part:
        return f"; {part} is a part of a file in several, which is not supported"
    packed = next((lower[name] for name in lower if PurePosixPath(name).suffix in (".zip", *ARCHIVES)), "")
    return f"; {packed[:60]} within is not unpacked" if packed else ""


def _left_aside(names: Sequence[str]) -> list[str]:
    pickled = sorted(name[:60] for name in names if name.lower().endswith(PICKLES))
    if not pickled:
        return []
    more = f" and {len(pickled) - 4} more" if len(pickled) > 4 else ""
    return [f"Pickled files beside it were left unopened, since they can run programs: {', '.join(pickled[:4])}{more}."]


def read_card(raw: bytes) -> tuple[tuple[str, str], ...]:
    """Facts of a model card's front matter, as it states them."""
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return ()
    found = dict(CARD_LINE.findall(text[4:].partition("\n---")[0]))
    return tuple((key, found[key].strip()) for key in CARD_FACTS if found.get(key, "").strip())


def _config(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_CONFIG:
        raise BadInput(f"{CONFIG} is larger than {MAX_CONFIG // 1024} KB, so it is not an adapter's settings. Save the adapter again.")
    return read_json(raw, CONFIG)
