"""What a base model is, by its files alone, before anything is loaded: architecture, size, context, template, licence.

Folders, GGUF files, the embedded base and hub ids that are on this machine; nothing is fetched. Must not know adapters or the database.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft.bases import EMBEDDED, MANIFEST, BaseShape, context_length, describe_base, gguf_of, locate, weight_entries
from ft.errors import UserError
from ft.parcels import read_card

CAUSAL = ("ForCausalLM", "LMHeadModel")
TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class BaseCard:
    """`ok` with no `reasons` against it. `here` False: fetched or converted at its first start. `parameters`, `bytes` 0: not known."""

    name: str
    ok: bool
    here: bool
    kind: str  # embedded | folder | gguf | hub
    architecture: str = ""
    parameters: int = 0
    bytes: int = 0
    dtype: str = ""
    context_length: int = 0
    template: str = ""
    licence: str = ""
    quantised: str = ""
    base_hash: str = ""
    shape: BaseShape | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def base_card(base: str, bases: Path) -> BaseCard:
    """Look at a base as TIEBREAK_BASE would name it."""
    base = base.strip()
    try:
        folder = locate(base, bases)
        gguf = gguf_of(Path(base).expanduser()) if base != EMBEDDED else None
    except UserError as error:
        return BaseCard(base, False, False, "folder", reasons=(str(error),))
    if folder:
        kind = "embedded" if base == EMBEDDED else "gguf" if gguf else "folder" if Path(base).expanduser().exists() else "hub"
        return _from_folder(base, folder, kind)
    if base == EMBEDDED:
        words = "It is brought from its wheel at the next start (93 MB to download)."
        return BaseCard(base, True, False, "embedded", "LlamaForCausalLM", 134_515_008, licence="Apache-2.0", notes=(words,))
    if gguf:
        return _from_gguf(base, gguf)
    if Path(base).expanduser().exists() or base.startswith(("/", ".", "~")) or base.count("/") != 1:
        words = f"{base} is no model folder, no GGUF file and no hub id such as owner/name. Check how it is written."
        return BaseCard(base, False, False, "folder", reasons=(words,))
    note = "It is not on this machine: it is downloaded from the model hub at the next start, and looked at then."
    return BaseCard(base, True, False, "hub", notes=(note,))


def _from_folder(base: str, folder: Path, kind: str) -> BaseCard:
    try:
        config = json.loads((folder / "config.json").read_text())
        entries = list(weight_entries(folder))
        shape = describe_base(folder, base)
    except (OSError, ValueError, UserError) as error:
        words = str(error) if isinstance(error, UserError) else f"Its files cannot be read ({error}). Fetch it again."
        if not any(folder.glob("*.safetensors")):
            words = "It has no safetensors weights, and pickled weights are never loaded. Choose another base model."
        return BaseCard(base, False, True, kind, reasons=(words,))
    architecture = str((config.get("architectures") or [shape.model_type])[0])
    quantised = str((config.get("quantization_config") or {}).get("quant_method", ""))
    reasons = _against(architecture, config, folder)
    notes = ("Its weights are quantised already, so a setting for 8 or 4 bits is not needed.",) if quantised else ()
    return BaseCard(
        base, not reasons, True, kind, architecture, sum(math.prod(shape) for _, _, shape in entries),
        sum(entry["data_offsets"][1] - entry["data_offsets"][0] for _, entry, _ in entries),
        ", ".join(sorted({str(entry["dtype"]) for _, entry, _ in entries})), shape.context_length, _template(folder), _licence(folder),
        quantised, shape.base_hash, shape, tuple(reasons), notes,
    )  # fmt: skip


def _against(architecture: str, config: dict[str, Any], folder: Path) -> list[str]:
    code = config.get("auto_map")
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"))
    checks = [
        (architecture.endswith(CAUSAL), f"It is {architecture}, which does not write text. Choose a causal language model."),
        (not code, "It needs program code of its own, which is never run. Choose a base that transformers knows."),
        (tokenizer, "It has no tokenizer beside it. Put the tokenizer's files into its folder."),
    ]
    return [reason for good, reason in checks if not good]


def _template(folder: Path) -> str:
    try:
        own = (folder / TEMPLATES[0]).is_file() or bool(json.loads((folder / TEMPLATES[1]).read_text()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        own = False
    return "its own" if own else "none: it gets plain headings (### User: … ### Assistant:)"


def _licence(folder: Path) -> str:
    try:
        if (folder / MANIFEST).is_file():
            return str(json.loads((folder / MANIFEST).read_text()).get("licence", ""))
        return dict(read_card((folder / "README.md").read_bytes()[: 1 << 16])).get("license", "")
    except (OSError, ValueError, AttributeError):
        return ""


def _from_gguf(base: str, gguf: Path) -> BaseCard:
    """By the file's own metadata; it is converted to safetensors at its first start."""
    try:
        from gguf import GGUFReader

        reader = GGUFReader(gguf)
        fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.ggml.")}
        count = int(sum(int(tensor.n_elements) for tensor in reader.tensors))
    except Exception as error:
        reason = f"{gguf.name} is no GGUF file that can be read ({' '.join(str(error).split())[:120]}). Fetch it again."
        return BaseCard(base, False, False, "gguf", reasons=(reason,))
    kind = str(fields.get("general.architecture", ""))
    template = "its own" if fields.get("tokenizer.chat_template") else "none: it gets plain headings (### User: … ### Assistant:)"
    context = fields.get(f"{kind}.context_length")
    notes = ("It is converted to bfloat16 once, at the next start; that needs about twice its parameters in bytes on the disk.",)
    return BaseCard(
        base, True, False, "gguf", kind, count, gguf.stat().st_size, "quantised GGUF",
        context_length({"max_position_embeddings": int(context)} if context else {}), template, str(fields.get("general.license", "")),
        notes=notes,
    )  # fmt: skip
