"""The decode loop against transformers' own `generate`, family by family: rows of different lengths, joining late, leaving early."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft.engine import BASE, Request
from ft.specs import DecodeSpec
from ft.template import messages_for
from tests.tiny import make_tokenizer

SMALL = {
    "vocab_size": 440, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.25, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 16},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16},
    "Gemma3Text": {
        "head_dim": 16,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "GPT2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
}
LENGTHS = (5, 40, 23)
NEW = 24


def model_of(family: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(3)
    options = {key: value for key, value in SMALL.items() if family != "GPT2" or key.endswith(("_id", "_range", "size"))} | FAMILIES[family]
    options = {key: value for key, value in options.items() if family != "GPT2" or key not in ("hidden_size", "intermediate_size")}
    config = getattr(transformers, f"{family}Config")(**options)
    name = f"{family.removesuffix('Text')}LMHeadModel" if family == "GPT2" else f"{family.removesuffix('Text')}ForCausalLM"
    return getattr(transformers, name)(config).eval()


def wrapped(model: Any, stops: frozenset[int] = frozenset()) -> Any:
    from ft.bases import BaseShape
    from ft.models import LoadedBase, linear_layers

    shape = BaseShape("tiny", model.config.model_type, linear_layers(model), 256)
    return LoadedBase(model, make_tokenizer(), Path(), shape, "cpu", "float32", "none", 256, stops, 0)


def rows_of(lengths: tuple[int, ...], new: int = NEW) -> list[Any]:
    import torch

    from ft.writing import Row

    generator = torch.Generator().manual_seed(8)
    prompts = [torch.randint(3, 420, (length,), generator=generator).tolist() for length in lengths]
    asked = [Request(str(n), messages_for("x"), BASE, DecodeSpec(max_new_tokens=new)) for n in range(len(lengths))]
    return [Row(request, prompt, new, None) for request, prompt in zip(asked, prompts, strict=True)]


def generated(model: Any, prompt: list[int], new: int = NEW) -> list[int]:
    import torch

    out = model.generate(torch.tensor([prompt]), max_new_tokens=new, min_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0)
    return out[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


def finish(batch: Any, piece: int = 16) -> None:
    while batch.everyone():
        batch.read(piece)
        if batch.rows:
            batch.step()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_read_in_pieces_and_joining_late_get_the_tokens_transformers_generates(family: str, tmp_path: Path) -> None:
    import torch

    from ft.decoding import Batch
    from ft.residents import Residents

    model, rows = model_of(family), rows_of(LENGTHS)
    with torch.no_grad():
        wanted = [generated(model, row.prompt) for row in rows]
        batch = Batch(wrapped(model), Residents(wrapped(model), tmp_path).forward)
        batch.add(rows[:1])
        batch.read(1000)
        for _ in range(9):
            batch.step()
        batch.add(rows[1:])
        finish(batch)
    assert [row.tokens for row in rows] == wanted
    assert len({tuple(tokens) for tokens in wanted}) == len(wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lean_step_is_used_only_where_it_computes_the_same(family: str, tmp_path: Path) -> None:
    import torch

    from ft.residents import Residents

    with torch.no_grad():
        found = Residents(wrapped(model_of(family)), tmp_path)
    assert (found._lean is not None) == (family in ("Llama", "Qwen2"))


def test_a_model_built_otherwise_than_it_says_goes_through_the_library(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    from ft.decoding import Batch
    from ft.residents import Residents

    model, rows = model_of("Llama"), rows_of(LENGTHS)
    for layer in model.model.layers:
        layer.self_attn.scaling *= 1.5 if layer is model.model.layers[1] else 1.0
    with torch.no_grad():
        wanted = [generated(model, row.prompt) for row in rows]
        found = Residents(wrapped(model), tmp_path)
        batch = Batch(wrapped(model), found.forward)
        batch.add(rows)
        finish(batch)
    assert found._lean is None
    assert "lean step is off" in caplog.text
    assert [row.tokens for row in rows] == wanted


def test_rows_that_leave_give_their_place_to_the_last_and_change_nobody(tmp_path: Path) -> None:
    import torch

    from ft.decoding import Batch
    from ft.residents import Residents

    model = model_of("Llama")
    rows = rows_of((9, 12, 7, 30, 15))
    with torch.no_grad():
        wanted = [generated(model, row.prompt) for row in rows]
        batch = Batch(wrapped(model), Residents(wrapped(model), tmp_path).forward)
        batch.add(rows)
        batch.read(1000)
        for leaving in (1, 0):
            for _ in range(5):
                batch.step()
            batch.keep(lambda row, leaving=leaving: row is not rows[leaving])  # type: ignore[misc]
        late = rows_of((70,))[0]
        batch.add([late])
        finish(batch)
        assert late.tokens == generated(model, late.prompt)
    assert [row.tokens for row in rows[2:]] == wanted[2:]


def test_what_a_broken_row_left_behind_harms_nobody_who_takes_its_place() -> None:
    import torch

    from ft.keyvalues import KeyValues

    held = KeyValues("cpu", torch.float32)

    def read(length: int, value: float) -> Any:
        return SimpleNamespace(
            layers=[SimpleNamespace(keys=torch.full((1, 2, length, 4), value), values=torch.full((1, 2, length, 4), value))]
        )

    held.join(read(8, float("nan")), [8])
    held.keep_first(0)
    held.join(read(3, 1.0), [3])
    assert torch.isfinite(held.layers[0].keys[0]).all()
    assert torch.isfinite(held.layers[0].values[0]).all()


def test_short_prompts_are_read_before_long_ones(tmp_path: Path) -> None:
    import torch

    from ft.decoding import Batch
    from ft.residents import Residents

    model = model_of("Llama")
    with torch.no_grad():
        batch = Batch(wrapped(model), Residents(wrapped(model), tmp_path).forward)
        long, short = rows_of((200, 12))
        batch.add([long])
        batch.read(32)
        batch.add([short])
        batch.read(32)
    assert batch.rows == [short]


def test_short_prompts_that_keep_coming_do_not_keep_a_long_one_waiting(tmp_path: Path) -> None:
    import torch

    from ft.decoding import Batch
    from ft.residents import Residents

    model = model_of("Llama")
    with torch.no_grad():
        batch = Batch(wrapped(model), Residents(wrapped(model), tmp_path).forward)
        long, *short = rows_of((129, *[20] * 12))
        batch.add([long])
        for row in short:
            batch.add([row])
            batch.read(32)
    assert long in batch.rows
    assert short[0] in batch.rows
