"""Checkpoints of a run: written whole or not at all, each with a manifest of hashes, and trusted only when every hash fits.

A checkpoint is filled in a folder of a temporary name, synced, given its manifest, and renamed: a crash at any moment leaves the last one.
Standard library only. Must not know torch, nor what a checkpoint holds.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ft.journal import write_whole

MANIFEST = "manifest.json"
KEPT = 2  # the newest ones; the one before the last stays in case the last does not verify


def write(root: Path, step: int, fill: Callable[[Path], None]) -> Path:
    """Make the checkpoint of `step`; `fill` writes its files into the folder it is given. Raises what `fill` raises, and OSError."""
    root.mkdir(mode=0o700, exist_ok=True)
    new, place = root / f".new-{step}", root / f"step-{step:08d}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    try:
        fill(new)
        files = sorted(path for path in new.iterdir() if path.is_file())
        for path in files:
            path.chmod(0o600)
            sync(path)
        write_whole(new / MANIFEST, {"step": step, "files": {path.name: _facts(path) for path in files}})
        sync(new)
        if place.exists():
            place.rename(root / f".old-{step}")
        new.rename(place)
        sync(root)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    tidy(root)
    return place


def newest(root: Path) -> Path | None:
    """The newest checkpoint whose every file is there and unchanged."""
    return next((folder for folder in _folders(root) if verified(folder)), None)


def step_of(folder: Path | None) -> int:
    """The step a checkpoint was made at; 0 for none."""
    return int(folder.name.removeprefix("step-")) if folder else 0


def verified(folder: Path) -> bool:
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        return bool(files) and all(_facts(folder / name) == facts for name, facts in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def tidy(root: Path) -> None:
    """Remove what a crash left half written, and all but the newest checkpoints."""
    old = _folders(root)[KEPT:]
    for path in [*old, *root.glob(".new-*"), *root.glob(".old-*")]:
        shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(root: Path) -> list[Path]:
    """Newest first."""
    return sorted((path for path in root.glob("step-*") if path.name[5:].isdigit()), key=step_of, reverse=True)


def _facts(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
