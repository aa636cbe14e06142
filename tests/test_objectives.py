"""What a run can learn from: answers, pairs, single judgements; in what order, packed or not, from nothing or from an adapter."""

from pathlib import Path
from typing import Any

import pytest

from ft import runs
from ft.adapters import vet
from ft.encoding import encode_row, length, pack, trained
from ft.errors import BadInput
from ft.journal import Event, Journal
from ft.models import describe_base
from ft.runs import BaseChoice
from ft.specs import LoraSpec, TrainSpec
from tests.test_trainer import ROWS, Wish, loaded, of
from tests.trainable import tiny_base

PAIRS = [
    {"instruction": f"Question {n} on {n * 7}?", "input": "", "output": f"Please open door {n}.", "rejected": f"Go away, {n}!"}
    for n in range(60)
]
SINGLES = [
    {"instruction": row["instruction"], "input": "", "output": row["output" if n % 2 else "rejected"], "label": "good" if n % 2 else "bad"}
    for n, row in enumerate(PAIRS)
]
SPEC = TrainSpec(
    name="t", lora=LoraSpec(8, 16), learning_rate=1e-3, epochs=2, batch_size=4, accumulation=1, evaluations=2, samples=0, patience=0
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseChoice:
    folder = tmp_path_factory.mktemp("tiny")
    return BaseChoice(str(tiny_base(folder / "base")), str(folder), "cpu", "float32")


def fitted(
    home: Path, spec: TrainSpec, base: BaseChoice, train: Any, validation: Any = (), start: Path | None = None, name: str = "r1"
) -> tuple[Path, list[Event]]:  # fmt: skip
    from ft.trainer import fit

    folder = runs.create(home, name, spec, train, validation, base, start)
    assert fit(runs.read(folder), Journal(folder), Wish())
    return folder, runs.events(folder)


@pytest.mark.parametrize(("objective", "rows"), [("dpo", PAIRS), ("kto", SINGLES)])
def test_sixty_votes_move_the_margin_the_right_way_on_votes_held_out(home: Path, tiny: BaseChoice, objective: str, rows: Any) -> None:
    folder, events = fitted(home, SPEC.with_(objective=objective), tiny, rows[:48], rows[48:])
    margins = [event.data["margin"] for event in of(events, "validation")]
    losses = [event.data["loss"] for event in of(events, "validation")]
    assert margins[0] == pytest.approx(0, abs=1e-6)
    assert margins[-1] > 0.1
    assert losses[-1] < losses[0]
    if objective == "dpo":
        assert of(events, "validation")[-1].data["accuracy"] > 0.9
    assert vet(folder / "adapter", describe_base(Path(tiny.model))).ok


def test_votes_turned_round_move_it_the_other_way(home: Path, tiny: BaseChoice) -> None:
    """Positive control: what is learnt comes from the votes, not from the texts."""
    turned = [{**row, "output": row["rejected"], "rejected": row["output"]} for row in PAIRS[:48]]
    _, events = fitted(home, SPEC.with_(objective="dpo"), tiny, turned, PAIRS[48:])
    assert of(events, "validation")[-1].data["margin"] < -0.1


@pytest.mark.parametrize(
    ("objective", "rows", "words"),
    [
        ("kto", [row for row in SINGLES if row["label"] == "good"], "only good ones"),
        ("dpo", [{**row, "rejected": row["output"]} for row in PAIRS], "no worse answer"),
        ("dpo", [], "0 judged answers"),
        ("kto", SINGLES, "batch_size is 1"),
    ],
)
def test_what_an_objective_cannot_learn_from_is_refused(home: Path, tiny: BaseChoice, objective: str, rows: Any, words: str) -> None:
    spec = SPEC.with_(objective=objective, batch_size=1 if "batch" in words else 4)
    with pytest.raises(BadInput, match=words):
        runs.create(home, "r1", spec, rows, [], tiny)
    assert list(home.iterdir()) == []


def test_the_loss_is_on_both_answers_of_a_pair_and_on_no_prompt() -> None:
    from tests.trainable import byte_tokenizer

    tokenizer = byte_tokenizer()
    pair = encode_row(tokenizer, PAIRS[3], "Be kind.", "dpo")
    assert tokenizer.decode(pair["chosen_ids"]) == "Please open door 3.<|im_end|>"
    assert tokenizer.decode(pair["rejected_ids"]) == "Go away, 3!<|im_end|>"
    assert tokenizer.decode(pair["prompt_ids"]).endswith("<|im_start|>assistant\n")
    assert trained(pair) == len(pair["chosen_ids"]) + len(pair["rejected_ids"])


def test_packed_rows_give_the_loss_and_gradients_of_single_ones(tiny: BaseChoice) -> None:
    """Positive control: without the positions that part them, the rows see each other and the loss is another."""
    import torch
    from peft import get_peft_model

    from ft.losses import answer_nll
    from ft.objectives import Objective, real_tokens
    from ft.trainer import lora_config

    base = loaded(tiny)
    model = get_peft_model(base.model, lora_config(SPEC.lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    rows = [encode_row(base.tokenizer, row, "") for row in ROWS[:6]]
    packed = pack(rows, 2 * max(map(length, rows)) + 20)
    assert len(packed) == 3
    batches = [Objective.collator("sft", base.pad_token, packed=True)(packed), Objective.collator("sft", base.pad_token)(rows)]
    assert real_tokens(batches[0]) == real_tokens(batches[1]) == sum(map(length, rows))
    found = []
    for batch in batches:
        total, tokens = answer_nll(model, batch, own_head=True)
        total.backward()
        found.append((float(total.detach()), int(tokens), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
        model.zero_grad()
    assert found[0][1] == found[1][1]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.nn.functional.cosine_similarity(found[0][2], found[1][2], dim=0) > 0.99999
    mixed = {**batches[0], "position_ids": torch.arange(batches[0]["input_ids"].shape[1])[None].expand(3, -1)}
    assert float(answer_nll(model, mixed, own_head=True)[0]) != pytest.approx(found[0][0], rel=1e-4)


def test_a_packed_run_learns(home: Path, tiny: BaseChoice) -> None:
    _, events = fitted(home, SPEC.with_(packing=True, max_length=400, learning_rate=5e-3), tiny, ROWS)
    losses = [event.data["loss"] for event in of(events, "validation")]
    assert losses[-1] < losses[0]


def order(rows: list[Any], grouped: bool, epoch: int = 0, seed: int = 1) -> list[int]:
    from ft.objectives import Order

    return list(Order(rows, 4, seed, grouped, lambda: epoch))


def test_the_order_is_by_seed_and_epoch_and_each_row_comes_once() -> None:
    rows = [{"input_ids": [0] * (10 + n * 37 % 90)} for n in range(103)]
    for grouped in (True, False):
        found = order(rows, grouped)
        assert sorted(found) == list(range(103))
        assert found == order(rows, grouped)
        assert found != order(rows, grouped, epoch=1)
        assert found != order(rows, grouped, seed=2)


def test_grouping_by_length_wastes_little_on_padding_and_begins_with_the_longest() -> None:
    rows = [{"input_ids": [0] * (10 + n * 37 % 90)} for n in range(104)]

    def waste(places: list[int]) -> float:
        sizes = [[length(rows[at]) for at in places[i : i + 4]] for i in range(0, 104, 4)]
        return sum(4 * max(size) for size in sizes) / sum(map(sum, sizes)) - 1

    grouped = order(rows, grouped=True)
    assert waste(grouped) < 0.05 < 0.3 < waste(order(rows, grouped=False))
    assert max(map(length, rows)) in [length(rows[at]) for at in grouped[:4]]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny: BaseChoice) -> Path:
    """The adapter of a short run."""
    return fitted(tmp_path_factory.mktemp("first"), SPEC.with_(max_steps=6, learning_rate=5e-3), tiny, ROWS)[0] / "adapter"


def test_going_on_from_an_adapter_begins_where_that_one_ended(home: Path, tiny: BaseChoice, first: Path) -> None:
    _, fresh = fitted(home, SPEC.with_(max_steps=2), tiny, ROWS, name="fresh")
    folder, events = fitted(home, SPEC.with_(max_steps=2), tiny, ROWS, start=first, name="on")
    began, ended = (of(found, "validation")[0].data["loss"] for found in (events, fresh))
    assert began < ended - 0.05
    assert vet(folder / "adapter", describe_base(Path(tiny.model))).ok


def test_votes_are_compared_with_the_adapter_the_run_goes_on_from(home: Path, tiny: BaseChoice, first: Path) -> None:
    """The margin over the adapter itself begins at nought; over the base it would not."""
    folder, events = fitted(home, SPEC.with_(objective="dpo"), tiny, PAIRS[:48], PAIRS[48:], start=first)
    margins = [event.data["margin"] for event in of(events, "validation")]
    assert margins[0] == pytest.approx(0, abs=1e-5)
    assert margins[-1] > 0.1
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size == (first / "adapter_model.safetensors").stat().st_size


def test_an_adapter_of_another_shape_is_not_gone_on_from(home: Path, tiny: BaseChoice, first: Path) -> None:
    with pytest.raises(BadInput, match="does not fit"):
        fitted(home, SPEC.with_(objective="dpo"), BaseChoice(str(tiny_other(home)), str(home), "cpu", "float32"), PAIRS, start=first)


def tiny_other(home: Path) -> Path:
    from tests.tiny import make_base

    return make_base(home / "other")


def test_written_answers_are_scored_at_each_evaluation_and_five_are_kept(home: Path, tiny: BaseChoice) -> None:
    validation = [{**row, "instruction": row["instruction"] + " Say it."} for row in ROWS[:7]]
    _, events = fitted(home, SPEC.with_(max_steps=10, samples=6, sample_tokens=5), tiny, ROWS, validation)
    written = of(events, "samples")
    assert [event.step for event in written] == [event.step for event in of(events, "validation")] == [0, 5, 10]
    for event in written:
        assert event.data["n"] == 6
        assert {"bleu", "rougeL"} < set(event.data["scores"])
        assert [text["prompt"] for text in event.data["texts"]] == [row["instruction"] for row in validation[:5]]


def test_stopping_on_a_score_keeps_the_step_where_it_was_best(home: Path, tiny: BaseChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft import watch

    values = iter([0.1, 0.2, 0.6, 0.3, 0.1, 0.0, 0.0])
    monkeypatch.setattr(watch, "scores", lambda written, asked: {"rougeL": next(values)})
    spec = SPEC.with_(max_steps=30, evaluations=6, samples=2, sample_tokens=2, stop_on="rougeL", patience=2)
    folder, _ = fitted(home, spec, tiny, ROWS)
    import json

    record = json.loads((folder / "record.json").read_text())
    assert (record["best_step"], record["steps"], record["stopped_early"]) == (10, 20, True)


def test_writing_answers_changes_nothing_in_what_is_learnt(home: Path, tiny: BaseChoice) -> None:
    spec = SPEC.with_(max_steps=6, lora=LoraSpec(4, 8, dropout=0.2))
    plain, watched = (fitted(home, spec.with_(samples=n, sample_tokens=4), tiny, ROWS, name=f"r{n}")[0] for n in (0, 4))
    name = "adapter/adapter_model.safetensors"
    assert (plain / name).read_bytes() == (watched / name).read_bytes()


def test_an_optimizer_for_gpus_is_refused_on_a_cpu_in_words(home: Path, tiny: BaseChoice) -> None:
    with pytest.raises(BadInput, match="needs a GPU"):
        fitted(home, SPEC.with_(optimizer="paged_adamw_8bit"), tiny, ROWS)


def test_the_script_for_a_gpu_runs_at_a_tiny_size_anywhere() -> None:
    from bench.gpu_training import TINY, measure

    found = measure(TINY, batch=2, steps=1, checkpointing=True)
    assert found["examples_per_second"] > 0
    assert found["tokens_per_second"] == pytest.approx(300 * found["examples_per_second"], rel=0.01)
