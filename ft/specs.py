"""Frozen settings of decoding, LoRA and training. `problems(spec)` lists everything wrong at once, in words.

Light: standard library only. Must not know torch, the database or the screens.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from ft.errors import BadInput

ALL_LINEAR = "all-linear"
OBJECTIVES = ("sft", "dpo", "kto")
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit")
SCHEDULES = ("cosine", "linear", "constant")
STOP_ON = ("loss", "rougeL", "meteor", "bleu")


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of `value` as canonical JSON: the identity of any settings."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}


def _is(value: Any, kind: type) -> bool:
    """Whether a setting is of its kind. A whole number is a number; true and false are none, and neither are NaN and infinities."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


class _Spec:
    """Reading and writing shared by all specs: unknown names are refused, nothing is coerced silently."""

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(raw) - known)
        if unknown:
            raise BadInput(f"Unknown setting {', '.join(unknown)}. Known settings: {', '.join(sorted(known))}.")
        return cls(**raw)

    def misfits(self) -> dict[str, str]:
        """Settings that are of the wrong kind, each with a sentence."""
        usual = type(self)()
        found = {}
        for name in (each.name for each in fields(self)):  # type: ignore[arg-type]
            value, kind = getattr(self, name), type(getattr(usual, name))
            if kind in KINDS and not _is(value, kind):
                found[name] = f"{name} is {value!r}: write {KINDS[kind]}."
        return found

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def with_(self, **changes: Any) -> Self:
        return replace(self, **changes)  # type: ignore[type-var]

    @property
    def hash(self) -> str:
        return digest(self.to_dict())


@dataclass(frozen=True, slots=True)
class DecodeSpec(_Spec):
    """How an answer is decoded. `temperature` 0 is greedy; `seed` matters only above 0."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def problems(self) -> list[str]:
        checks = [
            (1 <= self.max_new_tokens <= 4096, f"max_new_tokens is {self.max_new_tokens}: choose 1 to 4096."),
            (0 <= self.temperature <= 2, f"temperature is {self.temperature}: choose 0 (greedy) to 2."),
            (0 < self.top_p <= 1, f"top_p is {self.top_p}: choose above 0, up to 1."),
            (0.5 <= self.repetition_penalty <= 2, f"repetition_penalty is {self.repetition_penalty}: choose 0.5 to 2."),
        ]
        return [message for good, message in checks if not good]


@dataclass(frozen=True, slots=True)
class LoraSpec(_Spec):
    """The adapter to train. `targets` is "all-linear" or a list of module names such as q_proj."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | tuple[str, ...] = ALL_LINEAR
    rslora: bool = False
    dora: bool = False

    def misfits(self) -> dict[str, str]:
        targets, found = self.targets, super(LoraSpec, self).misfits()
        found.pop("targets", None)
        if not isinstance(targets, str) and not (isinstance(targets, tuple) and all(isinstance(one, str) and one for one in targets)):
            found["targets"] = f'targets is {targets!r}: write "{ALL_LINEAR}", or a list of names such as ["q_proj", "v_proj"].'
        return found


@dataclass(frozen=True, slots=True)
class TrainSpec(_Spec):
    """One training run, whole: the same JSON from the screen, from a file and in the run directory."""

    name: str = "adapter"
    objective: str = "sft"  # sft: right answers; dpo: better against worse; kto: good and bad answers one by one
    beta: float = 0.1  # dpo and kto: how closely it stays with the model it starts from
    start_from: str = ""  # an adapter to go on from; its LoRA settings are kept
    lora: LoraSpec = field(default_factory=LoraSpec)
    learning_rate: float = 2e-4
    epochs: float = 3.0
    max_steps: int = 0  # 0: by epochs
    batch_size: int = 4
    accumulation: int = 2
    max_length: int = 512
    warmup: float = 0.1  # share of the steps
    schedule: str = "cosine"
    optimizer: str = "adamw"
    packing: bool = False  # several short examples in one row
    group_by_length: bool = True  # examples of like length together, so that less is padding
    weight_decay: float = 0.0
    quantisation: str = "none"  # none | 8bit | 4bit
    evaluations: int = 6  # validation points over the run
    patience: int = 3  # evaluations without improvement before stopping; 0: never
    stop_on: str = "loss"  # what "improvement" means, and which step's weights are kept
    samples: int = 8  # validation answers written and scored at each evaluation
    sample_tokens: int = 96
    checkpoint_minutes: float = 10.0  # at least this often; at each evaluation too
    seed: int = 7
    system_prompt: str = ""

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        if not isinstance(raw, dict):
            raise BadInput('Settings are written as one JSON object, such as {"name": "helper", "epochs": 3}.')
        raw = dict(raw)
        if isinstance(raw.get("lora"), dict):
            lora = dict(raw["lora"])
            if isinstance(lora.get("targets"), list):
                lora["targets"] = tuple(lora["targets"])
            raw["lora"] = LoraSpec.from_dict(lora)
        return super(TrainSpec, cls).from_dict(raw)

    def sound(self) -> Self:
        """The same with the usual value wherever one is of the wrong kind, so that one can reckon with it."""
        usual = type(self)()
        lora = self.lora if isinstance(self.lora, LoraSpec) else usual.lora
        lora = lora.with_(**{name: getattr(usual.lora, name) for name in lora.misfits()})
        return self.with_(lora=lora, **{name: getattr(usual, name) for name in self.misfits()})

    def problems(self) -> list[str]:
        """Every problem at once, each a sentence naming the setting, its value and what would do."""
        if isinstance(self.lora, LoraSpec):
            wrong = [*self.misfits().values(), *self.lora.misfits().values()]
        else:
            wrong = [f'lora is {self.lora!r}: write its settings, such as {{"rank": 16, "alpha": 32}}.', *self.misfits().values()]
        return wrong + self.sound()._out_of_range()

    def _out_of_range(self) -> list[str]:
        lora = self.lora
        checks = [
            (bool(self.name.strip()), "name is empty: give the adapter a name."),
            (1 <= lora.rank <= 256, f"rank is {lora.rank}: choose 1 to 256 (8 to 32 is usual)."),
            (0 < lora.alpha <= 4 * max(lora.rank, 1), f"alpha is {lora.alpha}: choose above 0, at most 4 x rank (2 x rank is usual)."),
            (0 <= lora.dropout < 1, f"dropout is {lora.dropout}: choose 0 up to, not including, 1."),
            (lora.targets == ALL_LINEAR or bool(lora.targets), "targets is empty: choose all-linear or name modules."),
            (1e-6 <= self.learning_rate <= 5e-3, f"learning_rate is {self.learning_rate}: choose 1e-6 to 5e-3 (1e-4 to 2e-4 is usual)."),
            (0 < self.epochs <= 50, f"epochs is {self.epochs}: choose above 0, up to 50 (1 to 5 is usual)."),
            (self.max_steps >= 0, f"max_steps is {self.max_steps}: choose 0 (by epochs) or more."),
            (1 <= self.batch_size <= 256, f"batch_size is {self.batch_size}: choose 1 to 256."),
            (1 <= self.accumulation <= 256, f"accumulation is {self.accumulation}: choose 1 to 256."),
            (32 <= self.max_length <= 131072, f"max_length is {self.max_length}: choose 32 to 131072 tokens."),
            (0 <= self.warmup < 1, f"warmup is {self.warmup}: choose 0 up to, not including, 1 (a share of the steps)."),
            (self.schedule in SCHEDULES, f"schedule is {self.schedule!r}: choose cosine, linear or constant."),
            (self.objective in OBJECTIVES, f"objective is {self.objective!r}: choose sft, dpo or kto."),
            (0 < self.beta <= 5, f"beta is {self.beta}: choose above 0, up to 5 (0.1 is usual)."),
            (self.optimizer in OPTIMIZERS, f"optimizer is {self.optimizer!r}: choose adamw, or on a GPU adamw_8bit or paged_adamw_8bit."),
            (self.stop_on in STOP_ON, f"stop_on is {self.stop_on!r}: choose loss, rougeL, meteor or bleu."),
            (self.stop_on == "loss" or self.samples > 0, f"stop_on is {self.stop_on}, which needs written answers: set samples above 0."),
            (0 <= self.samples <= 256, f"samples is {self.samples}: choose 0 (none) to 256."),
            (1 <= self.sample_tokens <= 1024, f"sample_tokens is {self.sample_tokens}: choose 1 to 1024."),
            (0 <= self.weight_decay <= 1, f"weight_decay is {self.weight_decay}: choose 0 to 1 (0 is usual)."),
            (self.checkpoint_minutes > 0, f"checkpoint_minutes is {self.checkpoint_minutes}: choose above 0 (10 is usual)."),
            (self.objective == "sft" or not self.packing, f"packing is on, which {self.objective} cannot use: switch it off."),
            (
                self.objective != "kto" or self.batch_size > 1,
                f"batch_size is {self.batch_size}: kto compares within a batch, choose 2 or more.",
            ),
            (self.quantisation in ("none", "8bit", "4bit"), f"quantisation is {self.quantisation!r}: choose none, 8bit or 4bit."),
            (1 <= self.evaluations <= 100, f"evaluations is {self.evaluations}: choose 1 to 100."),
            (self.patience >= 0, f"patience is {self.patience}: choose 0 (never stop early) or more."),
        ]
        return [message for good, message in checks if not good]
