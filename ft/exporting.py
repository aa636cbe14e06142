"""Exports that prove themselves: the adapter's folder, a merged model, or a GGUF, replayed against base + adapter before it is given out.

The reference is the base with the adapter as PEFT applies it. The exported files are loaded anew, as a stranger would load them, and must
choose the same tokens on the same held-out prompts. Torch side. Must not know the database or the screens.
"""

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ft.cards import public_name
from ft.engine import Message
from ft.errors import Unavailable
from ft.models import LoadedBase, load
from ft.template import encode, with_system

Progress = Callable[[float, str], None]
PROMPTS, NEW_TOKENS, LONGEST = 50, 32, 512
AGREEMENT, DIVERGENCE = 0.98, 0.02
KINDS = ("adapter", "merged", "gguf")


@dataclass(frozen=True, slots=True)
class Proof:
    """Over `prompts` greedy answers of the reference, `tokens` in all: the share of tokens the export chooses alike, and the mean
    Kullback-Leibler divergence of its next-token distribution from the reference's, in nats."""

    prompts: int
    tokens: int
    agreement: float
    divergence: float

    @property
    def holds(self) -> bool:
        return self.agreement >= AGREEMENT and self.divergence <= DIVERGENCE


@dataclass(frozen=True, slots=True)
class _Replay:
    """One prompt, the reference's greedy answer, and the reference's log-probabilities at each of its tokens (tokens x vocabulary)."""

    prompt: list[int]
    answer: list[int]
    logs: torch.Tensor


def export(asked: dict[str, Any], folder: Path, tell: Progress) -> dict[str, Any]:
    """Make what `asked` says under `folder`/files and prove it. What cannot be made or does not hold is deleted: Unavailable.

    `asked`: kind, name, base, bases, adapter (its folder), device, dtype, system, prompts (list of texts), card, converter.
    """
    files = folder / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(mode=0o700)
    try:
        told = _export(asked, files, tell)
    except BaseException:
        shutil.rmtree(files, ignore_errors=True)
        raise
    return {"kind": asked["kind"], "bytes": sum(path.stat().st_size for path in files.rglob("*") if path.is_file()), **told}


def _export(asked: dict[str, Any], files: Path, tell: Progress) -> dict[str, Any]:
    tell(0.02, "Loading the base model")
    base = load(asked["base"], Path(asked["bases"]), "none", asked["device"], asked["dtype"])
    model = _with_adapter(base.model, Path(asked["adapter"]))
    _must_fit(asked["kind"], model, files)
    tell(0.15, "Answering the held-out prompts with base and adapter")
    replays = [_reference(model, base, prompt) for prompt in _encoded(base, asked)]
    tell(0.45, "Writing the files")
    again = _WRITERS[asked["kind"]](asked, base, model, files)
    if asked.get("card"):
        (files / "README.md").write_text(asked["card"], encoding="utf-8")
    del model, base
    gc.collect()
    tell(0.6, "Loading what was written, as anybody would")
    exported = again()
    tell(0.75, "Comparing it token by token")
    proof = prove(exported, replays)
    if not proof.holds:
        raise Unavailable(
            f"The export does not answer as base and adapter do: {proof.agreement:.1%} of {proof.tokens} tokens alike (at least "
            f"{AGREEMENT:.0%} needed), divergence {proof.divergence:.3g} (at most {DIVERGENCE}). It was deleted. Try another precision."
        )
    return {"proof": asdict(proof), "message": f"{proof.agreement:.1%} of {proof.tokens} tokens alike on {proof.prompts} held-out prompts."}


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False).eval()


def _must_fit(kind: str, model: Any, files: Path) -> None:
    """Raises Unavailable where the disk has no room; a GGUF lies beside the merged model for a while."""
    copies = {"adapter": 0, "merged": 1, "gguf": 2}[kind]
    needed = copies * sum(weight.numel() * max(weight.element_size(), 2) for weight in model.parameters())
    if shutil.disk_usage(files).free < needed:
        raise Unavailable(f"The disk has no room for the export: it needs {needed / 2**30:.1f} GB. Make room and try again.")


def _encoded(base: LoadedBase, asked: dict[str, Any]) -> list[list[int]]:
    """The first prompts that fit, at most PROMPTS."""
    found = []
    for text in asked["prompts"]:
        tokens = encode(base.tokenizer, with_system([Message("user", text)], asked["system"]))
        if len(tokens) <= min(LONGEST, base.context_length - NEW_TOKENS):
            found.append(tokens)
    if not found:
        raise Unavailable("There is no held-out prompt to prove the export with. Import test prompts first.")
    return found[:PROMPTS]


@torch.inference_mode()
def _reference(model: Any, base: LoadedBase, prompt: list[int]) -> _Replay:
    given = torch.tensor([prompt], device=base.device)
    stops = sorted(base.stop_tokens)
    made = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1,
        eos_token_id=stops, pad_token_id=base.pad_token, repetition_penalty=1.0,
    )  # fmt: skip
    answer = made[0, len(prompt) :].tolist()
    return _Replay(prompt, answer, _logs(model, prompt, answer))


@torch.inference_mode()
def _logs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Log-probabilities for each token of the answer, given what stands before it; (tokens, vocabulary), float32 on the CPU."""
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([[*prompt, *answer]], device=device)).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : -1].float(), dim=-1).cpu()


def prove(exported: Any, replays: Sequence[_Replay]) -> Proof:
    """Teacher-forced comparison of an exported model with the reference's answers."""
    alike, divergence, tokens = 0, 0.0, 0
    for replay in replays:
        ours, theirs = replay.logs, _logs(exported, replay.prompt, replay.answer)
        size = min(ours.shape[1], theirs.shape[1])  # an exported vocabulary may be padded
        ours, theirs = ours[:, :size], theirs[:, :size]
        alike += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        divergence += float((ours.exp() * (ours - theirs)).sum())
        tokens += len(replay.answer)
    return Proof(len(replays), tokens, alike / max(tokens, 1), max(divergence / max(tokens, 1), 0.0))


def _write_adapter(asked: dict[str, Any], base: LoadedBase, model: Any, files: Path) -> Callable[[], Any]:
    """PEFT's two files, and the tokenizer with its chat template beside them, as vLLM and peft read a folder."""
    config = json.loads((Path(asked["adapter"]) / "adapter_config.json").read_bytes())
    config["base_model_name_or_path"] = public_name(str(config.get("base_model_name_or_path") or asked["base"]))
    (files / "adapter_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    shutil.copyfile(Path(asked["adapter"]) / "adapter_model.safetensors", files / "adapter_model.safetensors")
    base.tokenizer.save_pretrained(files)
    return lambda: _with_adapter(load(asked["base"], Path(asked["bases"]), "none", asked["device"], asked["dtype"]).model, files)


def _write_merged(asked: dict[str, Any], base: LoadedBase, model: Any, files: Path) -> Callable[[], Any]:
    """The base with the adapter added to its weights, as safetensors, and the tokenizer with its chat template."""
    merged = model.merge_and_unload(safe_merge=True)
    if hasattr(merged.config, "quantization_config"):
        del merged.config.quantization_config
    merged.save_pretrained(files, safe_serialization=True, max_shard_size="4GB")
    base.tokenizer.save_pretrained(files)
    return lambda: _stranger(files, asked)


def _stranger(folder: Path, asked: dict[str, Any], **more: Any) -> Any:
    from transformers import AutoModelForCausalLM

    device = "cpu" if asked["device"] == "auto" and not torch.cuda.is_available() else asked["device"].replace("auto", "cuda")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, trust_remote_code=False, **more)
    return model.to(device).eval()


def _write_gguf(asked: dict[str, Any], base: LoadedBase, model: Any, files: Path) -> Callable[[], Any]:
    """The merged model through llama.cpp's own converter; its template goes along in the file."""
    converter = asked.get("converter")
    if not converter:
        raise Unavailable(
            "llama.cpp's converter is not installed, so there is no GGUF. Install it and name convert_hf_to_gguf.py in "
            "TIEBREAK_GGUF_CONVERTER, or export the merged model."
        )
    whole, target = files / "merged", files / f"{asked['name']}.gguf"
    _write_merged(asked, base, model, whole)
    done = subprocess.run(
        [sys.executable, converter, str(whole), "--outfile", str(target), "--outtype", "f16"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not target.exists():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"llama.cpp's converter refused this model: {last[:300]}. Export the merged model instead.")
    shutil.rmtree(whole)
    return lambda: _stranger(files, asked, gguf_file=target.name)


_WRITERS: dict[str, Callable[[dict[str, Any], LoadedBase, Any, Path], Callable[[], Any]]] = {
    "adapter": _write_adapter, "merged": _write_merged, "gguf": _write_gguf,
}  # fmt: skip
