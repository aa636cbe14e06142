"""The base and the adapters in memory, on the inference thread only: load, unload, forward, and proof that the base is untouched.

An adapter in memory is its tensors as they came; what a batch needs of them is put side by side when its arms change, and kept for a while.
Must not know rows, queues or requests.
"""

import hashlib
import logging
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ft.adapter_weights import read_adapter
from ft.adapters import AdapterFacts, vet
from ft.engine import BASE, Check, Message
from ft.errors import BadInput, Conflict, Unavailable
from ft.kernels import choose_kernel, typical_weights
from ft.keyvalues import KeyValues, cache_name
from ft.lean import lean_for
from ft.mixing import Adapter, Mixer, Plan
from ft.models import LoadedBase
from ft.parcels import WEIGHTS
from ft.template import encode

log = logging.getLogger(__name__)
PROBE = (Message("system", "You answer support questions."), Message("user", "How do I change the address on my invoice?"))
SAMPLE = 64  # values of each tensor
NO_EFFECT = 1e-6  # of the largest logit
DRIFT = {"float32": 1e-3}  # of the largest logit: more is another arm's
PLANS, SPARE = 4, 3  # kept at once; adapters in a plan for each one that is needed
DRIFT_HALF = 0.03  # half precision rounds differently in another batch


class BaseChanged(Exception):
    """The base is no longer what was loaded: nothing it says may be believed."""


@dataclass(frozen=True, slots=True)
class Resident:
    facts: AdapterFacts
    adapter: Adapter
    logits: torch.Tensor  # of the probe's last token, when it came: those of all its tokens would be larger than the adapter


class Residents:
    """`measures` is the folder where measured speeds are kept."""

    def __init__(self, base: LoadedBase, measures: Path) -> None:
        self._base = base
        self._model: Any = base.model
        self._reader: Any = getattr(base.model, base.model.base_model_prefix, base.model)  # all but the output layer
        self._dtype = getattr(torch, base.dtype)
        whole = sum(parameter.nbytes for parameter in base.model.parameters())
        kernel = choose_kernel(typical_weights(base), whole, measures, base.reasons)
        self.kernel = kernel.name
        self._mixer = Mixer(base.model, list(base.shape.linears), kernel)
        self._resident: dict[str, Resident] = {}
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._drift = DRIFT.get(base.dtype, DRIFT_HALF) if base.quantisation == "none" else DRIFT_HALF
        self._probe = torch.tensor([encode(base.tokenizer, PROBE)], device=base.device)
        self._cache_name = cache_name(base.model)
        self._lean = lean_for(base.model, self._mixer, self._probe, self._cache_name, self._dtype)
        self._logits = self._probe_logits(BASE)
        self._sample = self._sample_hash()  # after the first forward pass, at which 4-bit layers rearrange their weights

    def hashes(self) -> dict[str, str]:
        return {name: resident.facts.content_hash for name, resident in self._resident.items()}

    def forward(self, adapters: Sequence[str], reads_only: bool = False, **inputs: Any) -> Any:
        """One forward pass, each row through its own adapter. `reads_only` leaves out the output layer."""
        names = {name for name in adapters if name != BASE}
        lean = self._lean if isinstance(inputs.get(self._cache_name), KeyValues) else None
        plan = None
        if names:
            known, plan = self._plan(names)
            rows = [known.index(name) if name != BASE else plan.size for name in adapters]
            plan.seat(rows + rows[-1:] * (lean.rows(len(rows)) - len(rows)) if lean else rows, self._base.device)
        self._mixer.plan = plan
        try:
            if lean:
                return lean.step(inputs["input_ids"], inputs["position_ids"], inputs["attention_mask"], inputs[self._cache_name])
            return (self._reader if reads_only else self._model)(**inputs)
        finally:
            self._mixer.plan = None

    def _plan(self, names: set[str]) -> tuple[tuple[str, ...], Plan]:
        """One that holds these adapters and few others: rows come and go, and a plan is worth keeping a while."""
        found = next((key for key in self._plans if names.issubset(key) and len(key) <= SPARE * len(names)), None)
        if found is None:
            found = tuple(sorted(names))
            while len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[found] = self._mixer.prepare([self._resident[name].adapter for name in found], self._dtype)
        else:
            self._plans[found] = self._plans.pop(found)  # the one used last goes last
        return found, self._plans[found]

    def read(self, folder: Path) -> tuple[AdapterFacts, Adapter]:
        """Vet an adapter against this base and read it; may be called on any thread. Raises BadInput with the reason."""
        verdict = vet(folder, self._base.shape)
        if verdict.adapter is None:
            raise BadInput(" ".join(verdict.reasons))
        return verdict.adapter, self._mixer.settle(*read_adapter(folder / WEIGHTS, verdict.adapter, self._model, self._base.device))

    def load(self, name: str, facts: AdapterFacts, adapter: Adapter) -> None:
        """As `loading`, at one go."""
        for _ in self.loading(name, facts, adapter):
            pass

    def loading(self, name: str, facts: AdapterFacts, adapter: Adapter) -> Generator[None, None, None]:
        """In small steps, between which rows may be answered; nobody must use the adapter before the last.

        Raises BadInput with the reason, Conflict for a name in use, Unavailable for lack of memory, BaseChanged.
        """
        if name in self._resident:
            if self._resident[name].facts.content_hash != facts.content_hash:
                raise Conflict(f"Another adapter named {name} is in memory. Unload it first, or give this one another name.")
            return
        try:
            self._resident[name] = Resident(facts, adapter, torch.empty(0))
            self._resident[name] = Resident(facts, adapter, self._must_work(name))
            yield
            yield from self._checking_base()
        except (BaseChanged, GeneratorExit):
            self._forget(name)
            raise
        except BaseException as error:
            self._forget(name)
            with suppress(torch.OutOfMemoryError):
                self.check_base()
            if isinstance(error, torch.OutOfMemoryError):
                raise Unavailable("There is no memory left for this adapter. Unload another and try again.") from error
            if isinstance(error, RuntimeError | ValueError | KeyError | TypeError):
                log.exception("loading an adapter failed")
                raise BadInput(f"The adapter could not be loaded ({' '.join(str(error).split())[:200]}). Save it again.") from error
            raise

    def unloading(self, name: str) -> Generator[None, None, None]:
        """In small steps. Raises BaseChanged."""
        if name in self._resident:
            self._forget(name)
            yield from self._checking_base()

    def _forget(self, name: str) -> None:
        self._resident.pop(name, None)
        self._plans = {key: plan for key, plan in self._plans.items() if name not in key}

    def check_base(self) -> None:
        """Raises BaseChanged unless tensors and logits of the base are as they were loaded."""
        for _ in self._checking_base():
            pass

    def _checking_base(self) -> Generator[None, None, None]:
        if self._sample_hash() != self._sample:
            raise BaseChanged
        yield
        if not torch.allclose(self._probe_logits(BASE), self._logits, rtol=1e-3, atol=1e-3):
            raise BaseChanged

    def check(self, name: str) -> Check:
        """The base, or an adapter in one batch with it: each row must compute what it did alone when it was loaded. Raises BaseChanged."""
        if name == BASE:
            self.check_base()
            return Check("base", True, "The base is what was loaded.", {"tensors": self._sample[:16]})
        if name not in self._resident:
            raise Unavailable("That adapter is not in memory. Load it and try again.")
        first = self._resident[name].logits
        base, own = self._logits_of([BASE, name])
        return _compared("pair", {"base": (self._logits, base), "adapter": (first, own)}, self._drift)

    def _must_work(self, name: str) -> torch.Tensor:
        logits = self._probe_logits(name)
        if not bool(torch.isfinite(logits).all()):
            raise BadInput("With this adapter the model computes no numbers any more. Train it again with a lower learning rate.")
        if float((logits - self._logits).abs().max()) <= NO_EFFECT * float(self._logits.abs().max()):
            raise BadInput("This adapter changes nothing: its answers would be the base model's. Train it, or save the trained weights.")
        return logits

    @torch.no_grad()
    def _probe_logits(self, name: str) -> torch.Tensor:
        return self._logits_of([name])[0]

    @torch.no_grad()
    def _logits_of(self, names: Sequence[str]) -> torch.Tensor:
        rows = self._probe.expand(len(names), -1)
        found = self.forward(names, input_ids=rows, attention_mask=torch.ones_like(rows), logits_to_keep=1).logits[:, -1]
        return found.float().cpu().clone()  # type: ignore[no-any-return]  # of what may be the head of something larger

    @torch.no_grad()
    def _sample_hash(self) -> str:
        found = hashlib.sha256()
        for key, tensor in self._base.model.named_parameters():
            flat = tensor.detach().reshape(-1)
            count = min(SAMPLE, flat.numel())
            chosen = torch.arange(count, device=flat.device) * (flat.numel() // count)
            found.update(f"{key}|{tuple(tensor.shape)}|".encode())
            found.update(flat[chosen].double().cpu().numpy().tobytes())
        return found.hexdigest()


def _compared(kind: Literal["adapter", "pair"], rows: dict[str, tuple[torch.Tensor, torch.Tensor]], limit: float) -> Check:
    """Each row against what it gave alone at its loading; `drift` is the largest difference, as a share of the largest logit."""
    drift = {who: float((now - then).abs().max() / then.abs().max()) for who, (then, now) in rows.items()}
    wrong = [who for who, share in drift.items() if not share <= limit]
    words = f"In one batch with the other, the {wrong[0]} no longer computes what it did alone." if wrong else "Each row is its own arm's."
    return Check(kind, not wrong, words, {f"{who} drift": share for who, share in drift.items()})
