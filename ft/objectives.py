"""TRL's three trainers as our runs use them: rows come as tokens, in an order that a resumed run repeats.

SFT, DPO (better against worse) and KTO (good and bad one by one). The model that DPO and KTO compare with is the one that the run started
from. Torch side. Must not know events, the database or the screens.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ft.encoding import IGNORED, Encoded, length
from ft.journal import write_whole
from ft.losses import answer_nll, can_use_own_head

WINDOW = 50  # batches whose rows are sorted by length together: less padding, and still a random order
WEIGHTS = "adapter.safetensors"


class Order(Sampler[int]):
    """The order of an epoch's rows: by seed and epoch alone, so that a resumed run takes up the same one. The longest batch comes first,
    so that what does not fit fails at once."""

    def __init__(self, rows: Sequence[Encoded], batch: int, seed: int, grouped: bool, epoch: Callable[[], int]) -> None:
        self.lengths = [length(row) for row in rows]
        self.batch, self.seed, self.grouped, self.epoch = batch, seed, grouped, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        draw = random.Random(f"{self.seed}/{epoch}")
        places = list(range(len(self.lengths)))
        draw.shuffle(places)
        if not self.grouped:
            return iter(places)
        batches = []
        for start in range(0, len(places), self.batch * WINDOW):
            window = sorted(places[start : start + self.batch * WINDOW], key=lambda at: -self.lengths[at])
            batches += [window[at : at + self.batch] for at in range(0, len(window), self.batch)]
        last = [batches.pop()] if len(batches[-1]) < self.batch else []
        draw.shuffle(batches)
        if epoch == 0 and batches:
            first = max(range(len(batches)), key=lambda at: self.lengths[batches[at][0]])
            batches.insert(0, batches.pop(first))
        return iter([at for rows in [*batches, *last] for at in rows])


class Lasting:
    """What our trainers share. Set `encoded` and `save_into` (writes a checkpoint by the function it is given) before training."""

    encoded: Sequence[Encoded] = ()
    grouped: bool = True
    save_into: Callable[[Callable[[Path], None]], None]
    tokens_seen = 0  # real tokens, padding left out
    loss_sum = 0.0  # of the steps since the last log
    micro_steps = 0

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Sampler[int]:
        return Order(self.encoded, self.args.per_device_train_batch_size, self.args.seed, self.grouped, lambda: int(self.state.epoch or 0))

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # rows are tokens already

    def training_step(self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        self.tokens_seen += real_tokens(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        self.loss_sum += float(loss)
        return loss

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        self.save_into(self.write_state)

    def write_state(self: Any, folder: Path) -> None:
        """Everything that the next step depends on."""
        save_file(trainable(self.model), folder / WEIGHTS)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))
        write_whole(folder / "counts.json", {"tokens_seen": self.tokens_seen, "loss_sum": self.loss_sum}, durable=False)

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        put_back(self.model, load_file(folder / WEIGHTS))
        counts = json.loads((folder / "counts.json").read_bytes())
        self.tokens_seen, self.loss_sum = counts["tokens_seen"], counts["loss_sum"]


def real_tokens(inputs: dict[str, Any]) -> int:
    """Tokens that are not padding. In packed rows padding is the documents of one token."""
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    places = inputs["position_ids"]
    return int((places > 0).sum() + (places == 1).sum())


def trainable(model: Any) -> dict[str, torch.Tensor]:
    """The adapter's weights, copied to the CPU as they are."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in get_peft_model_state_dict(model).items()}


def put_back(model: Any, weights: dict[str, torch.Tensor]) -> None:
    found: Any = set_peft_model_state_dict(model, weights, adapter_name="default")
    if found.unexpected_keys:
        raise RuntimeError(f"weights that are not the model's: {found.unexpected_keys[:3]}")


class AnswerTrainer(Lasting, SFTTrainer):
    """SFT with the loss of `ft.losses`."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # fmt: skip
        if return_outputs or not can_use_own_head(model, self.accelerator.num_processes):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total, tokens = answer_nll(model, inputs, own_head=True)
        return total / (tokens.clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


class PairTrainer(Lasting, DPOTrainer):
    """DPO on rows of prompt_ids, chosen_ids and rejected_ids."""


class SingleTrainer(Lasting, KTOTrainer):
    """KTO on rows of prompt_ids, completion_ids, KL_completion_ids and label."""


class PackedCollator:
    """Packed rows as a batch. Padding is made of one-token documents of its own, which no label is on: no mask is needed."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        width = max(map(length, rows))
        fill = {"input_ids": self.pad, "labels": IGNORED, "position_ids": 0}
        return {key: torch.tensor([[*row[key], *[value] * (width - length(row))] for row in rows]) for key, value in fill.items()}


class Objective:
    """How one objective trains: its trainer, its settings class and what is special in them, its batches."""

    trainers: ClassVar[dict[str, Any]] = {"sft": AnswerTrainer, "dpo": PairTrainer, "kto": SingleTrainer}
    configs: ClassVar[dict[str, Any]] = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig}

    @staticmethod
    def options(objective: str, beta: float) -> dict[str, Any]:
        if objective == "sft":
            return {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None}
        strategy = {"train_sampling_strategy": "sequential"} if objective == "kto" else {}  # TRL insists; our order comes from Order
        return {"beta": beta, "max_length": None, **strategy}

    @staticmethod
    def collator(objective: str, pad: int, packed: bool = False) -> Any:
        if packed:
            return PackedCollator(pad)
        kinds = {"sft": DataCollatorForLanguageModeling, "dpo": DataCollatorForPreference, "kto": DataCollatorForUnpairedPreference}
        return kinds[objective](pad_token_id=pad)


def steps_of(rows: int, batch: int, accumulation: int, epochs: float, max_steps: int) -> int:
    """Optimizer steps of a run, as the trainer counts them."""
    return max_steps or max(1, math.ceil(epochs * max(1, math.ceil(math.ceil(rows / batch) / accumulation))))
