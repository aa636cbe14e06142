"""The base and the adapters in memory, on the inference thread only: load, unload, forward, and proof that the base is untouched.

PEFT's own loading takes extra keys, missing keys, NaN and a reused name without a word; nothing of it is trusted here. Must not know rows,
queues or requests.
"""

import hashlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ft.adapters import AdapterFacts, vet
from ft.engine import BASE, Check, Message
from ft.errors import BadInput, Conflict, Unavailable
from ft.models import LoadedBase
from ft.parcels import WEIGHTS
from ft.template import encode

log = logging.getLogger(__name__)
PROBE = (Message("system", "You answer support questions."), Message("user", "How do I change the address on my invoice?"))
SAMPLE = 64  # values of each tensor
NO_EFFECT = 1e-6  # of the largest logit
DRIFT = {"float32": 1e-3}  # of the largest logit: more is another arm's
DRIFT_HALF = 0.03  # half precision rounds differently in another batch


class BaseChanged(Exception):
    """The base is no longer what was loaded: nothing it says may be believed."""


@dataclass(frozen=True, slots=True)
class Resident:
    peft_name: str
    facts: AdapterFacts
    logits: torch.Tensor  # of the probe, when it came


class Residents:
    def __init__(self, base: LoadedBase) -> None:
        self._base = base
        self._model: Any = base.model
        self._peft: Any = None
        self._resident: dict[str, Resident] = {}
        self._drift = DRIFT.get(base.dtype, DRIFT_HALF) if base.quantisation == "none" else DRIFT_HALF
        self._numbers = itertools.count(1)  # a PEFT name is never used twice
        self._probe = torch.tensor([encode(base.tokenizer, PROBE)], device=base.device)
        self._logits = self._probe_logits(BASE)
        self._sample = self._sample_hash()  # after the first forward pass, at which 4-bit layers rearrange their weights

    def hashes(self) -> dict[str, str]:
        return {name: resident.facts.content_hash for name, resident in self._resident.items()}

    def runs_alone(self, name: str) -> bool:
        """PEFT cannot mix DoRA with other rows."""
        return name != BASE and self._resident[name].facts.dora

    def forward(self, adapters: Sequence[str], **inputs: Any) -> Any:
        """One forward pass, each row through its own adapter. Rows of a DoRA adapter must come by themselves."""
        if self._peft is None:
            return self._model(**inputs)
        if self.runs_alone(adapters[0]):
            self._peft.set_adapter(self._resident[adapters[0]].peft_name)
            return self._peft(**inputs)
        names = [BASE if name == BASE else self._resident[name].peft_name for name in adapters]
        return self._peft(**inputs, adapter_names=names)

    def read(self, folder: Path) -> tuple[AdapterFacts, dict[str, torch.Tensor]]:
        """Vet an adapter against this base and read it; may be called on any thread. Raises BadInput with the reason."""
        verdict = vet(folder, self._base.shape)
        if verdict.adapter is None:
            raise BadInput(" ".join(verdict.reasons))
        return verdict.adapter, _finite_weights(folder)

    def load(self, name: str, facts: AdapterFacts, weights: dict[str, torch.Tensor]) -> None:
        """Raises BadInput with the reason, Conflict for a name in use, Unavailable for lack of memory, BaseChanged."""
        if name in self._resident:
            if self._resident[name].facts.content_hash != facts.content_hash:
                raise Conflict(f"Another adapter named {name} is in memory. Unload it first, or give this one another name.")
            return
        peft_name = f"a{next(self._numbers)}"
        try:
            self._add(peft_name, facts, weights)
            self._resident[name] = Resident(peft_name, facts, torch.empty(0))
            self._resident[name] = Resident(peft_name, facts, self._must_work(name))
        except BaseException as error:
            self._resident.pop(name, None)
            self._forget(peft_name)
            self.check_base()
            if isinstance(error, torch.OutOfMemoryError):
                raise Unavailable("There is no memory left for this adapter. Unload another and try again.") from error
            if isinstance(error, RuntimeError | ValueError | KeyError | TypeError):
                log.exception("loading an adapter failed")
                raise BadInput(f"The adapter could not be loaded ({' '.join(str(error).split())[:200]}). Save it again.") from error
            raise
        self.check_base()

    def unload(self, name: str) -> None:
        resident = self._resident.pop(name, None)
        if resident:
            self._forget(resident.peft_name)
            self.check_base()

    def check_base(self) -> None:
        """Raises BaseChanged unless tensors and logits of the base are as they were loaded."""
        if self._sample_hash() != self._sample or not torch.allclose(self._probe_logits(BASE), self._logits, rtol=1e-3, atol=1e-3):
            raise BaseChanged

    def check(self, name: str) -> Check:
        """The base, or an adapter in one batch with it: each row must compute what it did alone when it was loaded. Raises BaseChanged."""
        if name == BASE:
            self.check_base()
            return Check("base", True, "The base is what was loaded.", {"tensors": self._sample[:16]})
        if name not in self._resident:
            raise Unavailable("That adapter is not in memory. Load it and try again.")
        first = self._resident[name].logits
        if self.runs_alone(name):
            return _compared("adapter", {"adapter": (first, self._probe_logits(name))}, self._drift)
        base, own = self._logits_of([BASE, name])
        return _compared("pair", {"base": (self._logits, base), "adapter": (first, own)}, self._drift)

    def _add(self, peft_name: str, facts: AdapterFacts, weights: dict[str, torch.Tensor]) -> None:
        from peft import LoraConfig, PeftModel, set_peft_model_state_dict

        half = self._base.dtype != "float32"
        alpha: Any = facts.alpha
        config = LoraConfig(
            task_type="CAUSAL_LM", r=facts.rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=list(facts.targets),
            use_rslora=facts.rslora, use_dora=facts.dora, fan_in_fan_out=facts.fan_in_fan_out, inference_mode=True,
        )  # fmt: skip
        if self._peft is None:
            self._peft = PeftModel(self._model, config, adapter_name=peft_name, autocast_adapter_dtype=not half, low_cpu_mem_usage=True)
        else:
            self._peft.add_adapter(peft_name, config, autocast_adapter_dtype=not half, low_cpu_mem_usage=True)
        found: Any = set_peft_model_state_dict(self._peft, weights, adapter_name=peft_name, low_cpu_mem_usage=True)
        lost = [key for key in found.missing_keys if f".{peft_name}." in key]
        if lost or found.unexpected_keys:
            raise BadInput(f"Its weights do not match its settings ({(lost + found.unexpected_keys)[0][:120]}). Save the adapter again.")
        if half:  # PEFT would compute these layers in float32, converting twice a layer; the base's own type is precise enough
            for key, parameter in self._peft.named_parameters():
                if f".{peft_name}." in key or key.endswith(f".{peft_name}"):
                    parameter.data = parameter.data.to(getattr(torch, self._base.dtype))
        self._peft.requires_grad_(False)
        self._peft.eval()

    def _must_work(self, name: str) -> torch.Tensor:
        logits = self._probe_logits(name)
        if not bool(torch.isfinite(logits).all()):
            raise BadInput("With this adapter the model computes no numbers any more. Train it again with a lower learning rate.")
        if float((logits - self._logits).abs().max()) <= NO_EFFECT * float(self._logits.abs().max()):
            raise BadInput("This adapter changes nothing: its answers would be the base model's. Train it, or save the trained weights.")
        return logits

    def _forget(self, peft_name: str) -> None:
        """Never the active one: PEFT would go on naming it. With the last one PEFT goes too, and the base runs as it was loaded."""
        if self._peft is None or peft_name not in self._peft.peft_config:
            return
        others = [name for name in self._peft.peft_config if name != peft_name]
        if others:
            self._peft.set_adapter(others[0])
            self._peft.delete_adapter(peft_name)
        else:
            self._model, self._peft = self._peft.unload(), None

    @torch.no_grad()
    def _probe_logits(self, name: str) -> torch.Tensor:
        return self._logits_of([name])[0]

    @torch.no_grad()
    def _logits_of(self, names: Sequence[str]) -> torch.Tensor:
        rows = self._probe.expand(len(names), -1)
        return self.forward(names, input_ids=rows, attention_mask=torch.ones_like(rows)).logits.float().cpu()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _sample_hash(self) -> str:
        found = hashlib.sha256()
        for key, tensor in self._base.model.named_parameters():
            if "lora_" in key:
                continue
            flat = tensor.detach().reshape(-1)
            count = min(SAMPLE, flat.numel())
            chosen = torch.arange(count, device=flat.device) * (flat.numel() // count)
            found.update(f"{key.replace('.base_layer', '')}|{tuple(tensor.shape)}|".encode())
            found.update(flat[chosen].double().cpu().numpy().tobytes())
        return found.hexdigest()


def _compared(kind: Literal["adapter", "pair"], rows: dict[str, tuple[torch.Tensor, torch.Tensor]], limit: float) -> Check:
    """Each row against what it gave alone at its loading; `drift` is the largest difference, as a share of the largest logit."""
    drift = {who: float((now - then).abs().max() / then.abs().max()) for who, (then, now) in rows.items()}
    wrong = [who for who, share in drift.items() if not share <= limit]
    words = f"In one batch with the other, the {wrong[0]} no longer computes what it did alone." if wrong else "Each row is its own arm's."
    return Check(kind, not wrong, words, {f"{who} drift": share for who, share in drift.items()})


def _finite_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    broken = next((key for key, tensor in weights.items() if not bool(torch.isfinite(tensor).all())), "")
    if broken:
        raise BadInput(f"The adapter's weights are not all finite numbers ({broken[:100]}). Train it again with a lower learning rate.")
    return weights
