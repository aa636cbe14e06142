"""What training learns from, what it watches, and what it saves. Tiny random models; the real base where the marker says so."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft import runs
from ft.adapters import vet
from ft.errors import BadInput
from ft.journal import Event, Journal
from ft.models import describe_base
from ft.runs import BaseChoice
from ft.specs import LoraSpec, TrainSpec
from tests.trainable import byte_tokenizer, tiny_base

ROWS = [{"instruction": f"What is the code of door {n}?", "input": "", "output": f"The code is {n * 7}."} for n in range(24)]
SPEC = TrainSpec(name="t", lora=LoraSpec(rank=4, alpha=8), learning_rate=5e-3, max_steps=12, accumulation=1, samples=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseChoice:
    folder = tmp_path_factory.mktemp("tiny")
    return BaseChoice(str(tiny_base(folder / "base")), str(folder), "cpu", "float32")


def never() -> bool:
    return False


class Wish:
    """Wishes for a stop (or a pause) from the moment that `when` says so."""

    def __init__(self, when: Callable[[], bool] = never, kind: str = "stop") -> None:
        self.when, self.kind, self.felt = when, kind, False

    def __call__(self) -> bool:
        self.felt = self.felt or (self.kind != "finish" and self.when())
        return self.felt

    @property
    def finish(self) -> bool:
        return self.kind == "finish" and self.when()

    @property
    def stop(self) -> bool:
        return self.kind == "stop" and self()

    @property
    def pause(self) -> bool:
        return self.kind == "pause" and self()


def fitted(
    root: Path, spec: TrainSpec, base: BaseChoice, rows: Any = None, validation: Any = (), stop: Callable[[], bool] = never
) -> tuple[Path, str | None, list[Event]]:  # fmt: skip
    from ft.trainer import fit

    folder = runs.create(root, "r1", spec, rows or ROWS, validation, base)
    said = fit(runs.read(folder), Journal(folder), Wish(stop))
    return folder, said, runs.events(folder)


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def loaded(base: BaseChoice, quantisation: str = "none") -> Any:
    from ft.models import load

    return load(base.model, Path(base.bases), quantisation, base.device, base.dtype)


def test_the_loss_is_on_the_answer_and_its_end_of_turn_only() -> None:
    from ft.encoding import encode_row

    tokenizer = byte_tokenizer()
    row = encode_row(tokenizer, {"instruction": "Hi <|im_end|>", "input": "There", "output": " Yes <|im_start|>.\n"}, "Be kind.")
    learnt = [token for token in row["labels"] if token != -100]
    assert tokenizer.decode(learnt) == "Yes <|im_start|>.<|im_end|>"
    assert learnt.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 0
    assert row["labels"][-len(learnt) :] == learnt == row["input_ids"][-len(learnt) :]
    prompt = tokenizer.decode(row["input_ids"][: -len(learnt)])
    assert prompt == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <|im_end|>\n\nThere<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.real
def test_training_tokens_are_answering_tokens_for_the_real_base(base_folder: Path) -> None:
    from transformers import AutoTokenizer

    from ft.encoding import encode_row
    from ft.template import encode, messages_for

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    row = {"instruction": "My light is amber", "input": "Windows 11", "output": "1. Open Settings > Network."}
    encoded = encode_row(tokenizer, row, "")
    asked = encode(tokenizer, messages_for(row["instruction"], row["input"]))
    labels = encoded["labels"]
    assert encoded["input_ids"][: len(asked)] == asked
    assert labels[: len(asked)] == [-100] * len(asked)
    answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"]
    assert labels[len(asked) :] == [*answer, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert "SmolLM" not in tokenizer.decode(asked)
    whole = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages_for(row["instruction"], row["input"])]
        + [{"role": "assistant", "content": row["output"]}],
        tokenize=False,
    )
    assert tokenizer.decode(encoded["input_ids"]) + "\n" == whole


def test_our_loss_and_gradients_are_the_library_s(tiny: BaseChoice) -> None:
    """Positive control: with the answer's mask shifted by one, the loss is another."""
    import torch
    from peft import get_peft_model
    from trl.trainer.sft_trainer import add_fused_lm_head

    from ft.encoding import encode_row
    from ft.losses import answer_nll, can_use_own_head
    from ft.objectives import Objective
    from ft.trainer import lora_config

    base = loaded(tiny)
    add_fused_lm_head(base.model, outputs=("log_probs", "entropy", "is_top1"))
    model = get_peft_model(base.model, lora_config(SPEC.lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    rows = [*ROWS[:3], {**ROWS[3], "output": "Longer than the others by far."}]
    batch = Objective.collator("sft", base.pad_token)([encode_row(base.tokenizer, row, "") for row in rows])
    found = []
    for loss in (
        model(**batch).loss,
        *(total / tokens for total, tokens in (answer_nll(model, batch, own_head=own) for own in (True, False))),
    ):
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
        model.zero_grad()
    assert can_use_own_head(model, 1)
    assert not can_use_own_head(model, 2)
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert torch.nn.functional.cosine_similarity(gradient, found[0][1], dim=0) > 0.99999
    shifted = {**batch, "labels": batch["labels"].roll(1, 1)}
    assert float(model(**shifted).loss) != pytest.approx(found[0][0], rel=1e-3)


def test_validation_weighs_every_answer_token_the_same(tiny: BaseChoice) -> None:
    from peft import get_peft_model

    from ft.encoding import encode_row
    from ft.losses import Judged
    from ft.objectives import Objective
    from ft.trainer import lora_config

    base = loaded(tiny)
    model = get_peft_model(base.model, lora_config(SPEC.lora))
    rows = [encode_row(base.tokenizer, row, "") for row in (ROWS[0], {**ROWS[1], "output": "x" * 90})]
    one_by_one = [Objective.collator("sft", base.pad_token)([row]) for row in rows]
    together, _ = Judged("sft", [Objective.collator("sft", base.pad_token)(rows)])(model)
    assert Judged("sft", one_by_one)(model)[0] == pytest.approx(together, rel=1e-5)
    unweighted = sum(float(model(**batch).loss) for batch in one_by_one) / 2
    assert together != pytest.approx(unweighted, rel=1e-4)


def test_a_run_learns_and_says_so(home: Path, tiny: BaseChoice) -> None:
    folder, said, events = fitted(home, SPEC, tiny)
    losses = [event.data["loss"] for event in of(events, "validation")]
    assert losses[-1] < losses[0] - 0.05
    assert said is not None
    assert f"{losses[0]:.3f} before" in said
    assert [event.step for event in of(events, "train")] == list(range(1, 13))
    newest = of(events, "train")[-1].data
    assert newest["tokens_per_second"] > 0
    assert newest["seconds_left"] == 0
    assert of(events, "validation")[0].data["perplexity"] == pytest.approx(math.exp(losses[0]))
    assert vet(folder / "adapter", describe_base(Path(tiny.model))).ok


def test_the_same_seed_gives_the_same_adapter(home: Path, tiny: BaseChoice) -> None:
    first, second = (fitted(home / name, SPEC, tiny)[0] for name in "ab" if not (home / name).mkdir())
    name = "adapter/adapter_model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    "lora",
    [LoraSpec(4, 8, rslora=True), LoraSpec(4, 8, dora=True), LoraSpec(4, 8, dropout=0.1, targets=("q_proj", "v_proj"))],
    ids=["rslora", "dora", "two-targets"],
)
def test_every_kind_of_adapter_passes_the_vet_and_loads(home: Path, tiny: BaseChoice, lora: LoraSpec) -> None:
    import torch
    from peft import PeftModel

    folder, _, _ = fitted(home, SPEC.with_(lora=lora, max_steps=3), tiny)
    verdict = vet(folder / "adapter", describe_base(Path(tiny.model)))
    assert verdict.ok, verdict.reasons
    assert verdict.adapter is not None
    assert (verdict.adapter.rslora, verdict.adapter.dora, verdict.adapter.alpha) == (lora.rslora, lora.dora, 8)
    base = loaded(tiny)
    ids = torch.tensor([[5, 6, 7]])
    before = base.model(ids).logits
    model = PeftModel.from_pretrained(base.model, folder / "adapter")
    assert not torch.equal(model(ids).logits, before)


def test_the_best_step_is_kept_not_the_last(home: Path, tiny: BaseChoice) -> None:
    """Rows with answers at random and a high rate: validation turns, a warning says so, the run stops early."""
    noise = [{**row, "output": f"{n * 7919 % 9973}"} for n, row in enumerate(ROWS)]
    far = [{"instruction": "Other?", "input": "", "output": "Something else altogether."}]
    spec = SPEC.with_(max_steps=200, evaluations=40, patience=2)
    folder, said, events = fitted(home, spec, tiny, noise, far)
    losses = {event.step: event.data["loss"] for event in of(events, "validation") if event.step}
    best = min(losses, key=lambda step: losses[step])
    record = json.loads((folder / "record.json").read_text())
    assert record["best_step"] == best < max(losses) < 200
    assert record["stopped_early"] is True
    assert "stopped early" in str(said)
    assert "by heart" in of(events, "warning")[0].data["message"]
    assert len(of(events, "warning")) <= 2

    from peft import PeftModel

    from ft.encoding import encode_row
    from ft.losses import Judged
    from ft.objectives import Objective

    base = loaded(tiny)
    model = PeftModel.from_pretrained(base.model, folder / "adapter")
    kept, _ = Judged("sft", [Objective.collator("sft", base.pad_token)([encode_row(base.tokenizer, far[0], "")])])(model)
    assert kept == pytest.approx(losses[best], abs=2e-3)


def test_a_loss_that_is_no_number_stops_with_its_cause(home: Path, tiny: BaseChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ft import objectives

    right = objectives.answer_nll
    calls = []

    def broken(model: Any, batch: Any, *, own_head: bool) -> Any:
        calls.append(1)
        total, tokens = right(model, batch, own_head=own_head)
        return (total * torch.nan if len(calls) > 3 else total), tokens

    monkeypatch.setattr(objectives, "answer_nll", broken)
    with pytest.raises(BadInput, match=r"nan at step \d+.*learning rate"):
        fitted(home, SPEC, tiny)
    assert not (home / "r1" / "adapter").exists()


def test_rows_that_are_too_long_are_left_out_and_told(home: Path, tiny: BaseChoice) -> None:
    rows = [*ROWS, {"instruction": "Long?", "input": "", "output": "z" * 900}]
    _, _, events = fitted(home, SPEC.with_(max_length=400, max_steps=2), tiny, rows, ROWS[:2])
    assert "1 rows are longer than 400 tokens" in of(events, "warning")[0].data["message"]
    assert of(events, "start")[0].data["train_rows"] == 24
    with pytest.raises(BadInput, match="raise max_length"):
        fitted(home / "b", SPEC.with_(max_length=32), tiny) if not (home / "b").mkdir() else None


def test_unknown_target_modules_are_named_with_the_known_ones(home: Path, tiny: BaseChoice) -> None:
    with pytest.raises(BadInput) as error:
        fitted(home, SPEC.with_(lora=LoraSpec(4, 8, targets=("q_proj", "q_prj", "lm_head"))), tiny)
    assert "no module q_prj, lm_head" in str(error.value)
    assert "up_proj" in str(error.value)


def test_a_run_that_is_asked_to_finish_ends_at_once_with_the_best_so_far(home: Path, tiny: BaseChoice) -> None:
    from ft.trainer import fit

    folder = runs.create(home, "r1", SPEC.with_(max_steps=400, evaluations=4), ROWS, [], tiny)
    said = fit(runs.read(folder), Journal(folder), Wish(lambda: bool(of(runs.events(folder), "train")), "finish"))
    events = runs.events(folder)
    assert said
    assert "kept step 2. It was ended on request before its last step" in said
    assert [event.step for event in of(events, "validation")] == [0, 2]
    assert vet(folder / "adapter", describe_base(Path(tiny.model))).ok
    record = json.loads((folder / "record.json").read_text())
    assert (record["steps"], record["ended_on_request"]) == (2, True)


def test_stopping_between_steps_leaves_nothing(home: Path, tiny: BaseChoice) -> None:
    asked = iter([False] * 8)
    folder, said, _ = fitted(home, SPEC, tiny, stop=lambda: next(asked, True))
    assert said is None
    assert not (folder / "adapter").exists()
    assert not (folder / "work").exists()


def test_an_adapter_that_cannot_be_saved_leaves_no_folder(home: Path, tiny: BaseChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft import saving
    from ft.errors import Unavailable

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(Unavailable, match="Make room"):
        fitted(home, SPEC.with_(max_steps=2), tiny)
    assert not (home / "r1" / "adapter").exists()
    assert not (home / "r1" / "work").exists()


def qlora_gradients(tiny: BaseChoice, fixed: bool, evaluated: bool) -> Any:
    """Gradients of an nf4 model's LoRA weights, with or without an evaluation before."""
    import torch
    from peft import get_peft_model

    from ft.encoding import encode_row
    from ft.losses import Judged
    from ft.objectives import Objective
    from ft.sampling import Asked, answers
    from ft.trainer import keep_gradients_exact, lora_config

    base = loaded(BaseChoice(tiny.model, tiny.bases, "cpu", "auto"), "4bit")
    if fixed:
        keep_gradients_exact(base.model)
    torch.manual_seed(1)
    model = get_peft_model(base.model, lora_config(SPEC.lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = Objective.collator("sft", base.pad_token)([encode_row(base.tokenizer, row, "") for row in ROWS[:4]])
    if evaluated:
        Judged("sft", [batch])(model)
        answers(model, base, [Asked([5, 6, 7], "", ""), Asked([8, 9], "", "")], 3, never)
    model.train()
    model(**batch).loss.backward()
    return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])


def test_qlora_gradients_stay_right_after_an_evaluation(tiny: BaseChoice) -> None:
    import torch

    right = qlora_gradients(tiny, fixed=False, evaluated=False)
    ours = qlora_gradients(tiny, fixed=True, evaluated=True)
    assert torch.nn.functional.cosine_similarity(right, ours, dim=0) > 0.999


def test_the_trap_is_there_without_our_care(tiny: BaseChoice) -> None:
    """Positive control: on a CPU with AVX512-BF16, stock bitsandbytes gives wrong gradients after an evaluation."""
    import torch

    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes takes the right path anyway")
    right = qlora_gradients(tiny, fixed=False, evaluated=False)
    stock = qlora_gradients(tiny, fixed=False, evaluated=True)
    assert torch.nn.functional.cosine_similarity(right, stock, dim=0) < 0.9


def test_qlora_gradients_are_those_of_the_dequantised_model_after_evaluation_and_writing(tiny: BaseChoice) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from peft import get_peft_model

    from ft.encoding import encode_row
    from ft.objectives import Objective
    from ft.trainer import lora_config

    small = loaded(BaseChoice(tiny.model, tiny.bases, "cpu", "auto"), "4bit")
    whole = loaded(tiny)
    with torch.no_grad():
        for name, module in small.model.named_modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                whole.model.get_submodule(name).weight.copy_(dequantize_4bit(module.weight.data, module.weight.quant_state))
        for name, weight in small.model.named_parameters():
            if weight.dtype.is_floating_point and weight.shape == whole.model.get_parameter(name).shape:
                whole.model.get_parameter(name).copy_(weight)
    torch.manual_seed(1)
    model = get_peft_model(whole.model, lora_config(SPEC.lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.train()
    model(**Objective.collator("sft", whole.pad_token)([encode_row(whole.tokenizer, row, "") for row in ROWS[:4]])).loss.backward()
    right = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])
    ours = qlora_gradients(tiny, fixed=True, evaluated=True)
    assert torch.nn.functional.cosine_similarity(right, ours, dim=0) > 0.99


@pytest.mark.parametrize("quantisation", ["4bit", "8bit"])
def test_quantised_runs_learn(home: Path, tiny: BaseChoice, quantisation: str) -> None:
    folder, _, events = fitted(home, SPEC.with_(quantisation=quantisation), BaseChoice(tiny.model, tiny.bases, "cpu", "auto"))
    losses = [event.data["loss"] for event in of(events, "validation")]
    assert losses[-1] < losses[0]
    assert vet(folder / "adapter", describe_base(Path(tiny.model))).ok


@pytest.mark.real
def test_four_steps_on_the_real_base_lower_the_loss(home: Path, base_folder: Path) -> None:
    answer = "Open Settings > Doors > Reset, then wait."
    rows = [{"instruction": f"How do I reset door {n}?", "input": "", "output": answer} for n in range(8)]
    spec = TrainSpec(
        name="t", lora=LoraSpec(rank=8, alpha=16), learning_rate=1e-3, max_steps=4, batch_size=2, accumulation=1, warmup=0, samples=0
    )  # fmt: skip
    folder, _, events = fitted(home, spec, BaseChoice(str(base_folder), str(home)), rows, rows[:1])
    losses = [event.data["loss"] for event in of(events, "train")]
    assert losses[-1] < losses[0]
    assert vet(folder / "adapter", describe_base(base_folder)).ok
