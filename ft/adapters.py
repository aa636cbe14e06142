"""Adapter folders: vet, describe, fingerprint, install. Headers only, no torch; a doubtful adapter is refused with every reason at once.

What is installed is a config of ours, rebuilt from the checked settings, and the weights as they came. Whether the logits stay finite is
checked by the engine at load. Must not know the database or people.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ft.bases import BaseShape
from ft.contents import content_problems
from ft.errors import BadInput, Unavailable
from ft.parcels import CONFIG, WEIGHTS, Parcel, open_parcel
from ft.specs import digest
from ft.vetting import KEY, problems, used_targets

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
RESERVE_BYTES = 200 * 2**20  # disk space never used for adapters


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter is, by its own files. `bytes` is the size of its weights; `base_name` is what it says it was trained on."""

    content_hash: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    layers: int
    bytes: int
    base_name: str
    rslora: bool = False
    dora: bool = False
    fan_in_fan_out: bool = False
    base_hash: str = ""  # of the base it was trained on, as our trainer records it
    dtype: str = ""

    @property
    def method(self) -> str:
        return ("rs" if self.rslora else "") + ("DoRA" if self.dora else "LoRA")

    def config(self) -> dict[str, Any]:
        """The adapter_config.json we stand for: nothing in it that we did not check."""
        return {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank, "lora_alpha": self.alpha, "lora_dropout": 0.0, "bias": "none",
            "target_modules": list(self.targets), "use_rslora": self.rslora, "use_dora": self.dora, "fan_in_fan_out": self.fan_in_fan_out,
            "base_model_name_or_path": self.base_name, "inference_mode": True,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vetted:
    """`ok` with the adapter, or the reasons against it, each a sentence. `notes`: what was left aside; `card`: its model card."""

    ok: bool
    reasons: tuple[str, ...]
    adapter: AdapterFacts | None = None
    notes: tuple[str, ...] = ()
    card: tuple[tuple[str, str], ...] = ()


def vet(path: Path, base: BaseShape | None = None) -> Vetted:
    """Judge a folder or zip without loading or unpacking it. `base` None leaves out whether it fits: the engine asks again at load."""
    try:
        parcel = open_parcel(path)
        reasons = tuple(problems(parcel.config, parcel.tensors, base))
        return Vetted(not reasons, _printable(reasons), None if reasons else _facts(parcel), _printable(parcel.notes), parcel.card)
    except BadInput as error:
        return Vetted(False, _printable([str(error)]))
    except OSError as error:
        return Vetted(False, _printable([f"{path.name} cannot be read ({error.strerror or error}). Check the file and its permissions."]))


def _printable(sentences: Sequence[str]) -> tuple[str, ...]:
    """Names that others gave are quoted in them, and must not steer a terminal or turn the writing direction."""
    return tuple("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in words) for words in sentences)


def judge(path: Path, base: BaseShape | None = None) -> Vetted:
    """`vet`, and its numbers read through in a process of its own: finite, and not without effect."""
    verdict = vet(path, base)
    reasons = _printable(content_problems(path)) if verdict.ok else verdict.reasons
    return replace(verdict, ok=not reasons, reasons=reasons, adapter=None if reasons else verdict.adapter)


def fingerprint(folder: Path) -> str:
    """Content hash of an adapter: its weights and the settings that change what they do, whatever else lies beside. Raises BadInput."""
    verdict = vet(folder)
    if verdict.adapter is None:
        raise BadInput(" ".join(verdict.reasons))
    return verdict.adapter.content_hash


def install(path: Path, root: Path, facts: AdapterFacts) -> Path:
    """Put the two files, config rebuilt, into `root/<content hash>`, read-only; at once when it is there already.

    Raises Unavailable (no space) or BadInput (it changed meanwhile).
    """
    target = root / facts.content_hash
    if target.is_dir() and vet(target).adapter == facts:
        return target
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if shutil.disk_usage(root).free < facts.bytes + RESERVE_BYTES:
        size = facts.bytes // 2**20 + 1
        raise Unavailable(f"The disk of {root} has no room for this adapter ({size} MB). Free some space and try again.")
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=root))
    try:
        _copy(open_parcel(path), part, facts)
        if target.exists():
            discard(target)
        os.rename(part, target)
        target.chmod(0o500)
    except OSError as error:
        raise Unavailable(f"The adapter could not be stored in {root}: {error.strerror or error}. Check the disk and try again.") from error
    finally:
        if part.exists():
            discard(part)
    return target


def discard(folder: Path) -> None:
    """Delete an installed adapter folder, read-only though it is."""
    folder.chmod(0o700)
    shutil.rmtree(folder)


def _copy(parcel: Parcel, part: Path, facts: AdapterFacts) -> None:
    found = hashlib.sha256()
    with parcel.weights() as source, open(part / WEIGHTS, "wb") as out:
        left = parcel.header.size + 1
        while left > 0 and (block := source.read(min(1 << 20, left))):
            found.update(block)
            out.write(block)
            left -= len(block)
        out.flush()
        os.fsync(out.fileno())
    if _content_hash(facts.config(), found.hexdigest()) != facts.content_hash:
        raise BadInput("The adapter changed while it was being stored. Try again.")
    (part / CONFIG).write_text(json.dumps(facts.config(), indent=1))
    for name in (CONFIG, WEIGHTS):
        (part / name).chmod(0o400)


def _content_hash(config: dict[str, Any], weights_sha256: str) -> str:
    meaning = {key: value for key, value in config.items() if key not in ("base_model_name_or_path", "inference_mode", "lora_dropout")}
    return hashlib.sha256(f"{digest(meaning)} {weights_sha256}".encode()).hexdigest()[:32]


def _facts(parcel: Parcel) -> AdapterFacts:
    found = hashlib.sha256()
    left = parcel.header.size
    with parcel.weights() as file:
        while left > 0 and (block := file.read(min(1 << 20, left))):
            found.update(block)
            left -= len(block)
    config = parcel.config
    alpha = config["lora_alpha"]
    facts = AdapterFacts(
        content_hash="",
        rank=config["r"],
        alpha=int(alpha) if alpha == int(alpha) else alpha,
        targets=used_targets(config, parcel.tensors),
        layers=len({KEY.fullmatch(name)[1] for name in parcel.tensors}),  # type: ignore[index]
        bytes=parcel.header.size,
        base_name=_printable([str(config.get("base_model_name_or_path") or "")[:200]])[0],
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        base_hash=parcel.header.notes.get("base_hash", "")[:64],
        dtype=", ".join(sorted({DTYPES[tensor.dtype] for tensor in parcel.tensors.values()})),
    )
    return replace(facts, content_hash=_content_hash(facts.config(), found.hexdigest()))
