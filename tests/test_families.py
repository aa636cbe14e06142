"""Llama 3, Mistral, Qwen, Gemma and GPT-2 bases in the local engine: templates, LoRA layers, mixed batches, streaming, stops, context."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ft.adapters import judge
from ft.bases import BaseShape, describe_base
from ft.engine import BASE, Delta, Done, Engine, Failed, Message, Request
from ft.specs import DecodeSpec
from ft.template import encode, encode_answer, messages_for
from tests.families import FAMILIES, Family, family_base, family_tokenizer
from tests.tiny import config_for, write_adapter

QUESTIONS = ("How do I reset my password?", "The invoice of March is wrong, please check the plan.", "Hi")
SHORT = DecodeSpec(max_new_tokens=12)


@dataclass
class Loaded:
    name: str
    family: Family
    base: Path
    engine: Any
    room: Path


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    from ft.engine_local import LocalEngine

    room = tmp_path_factory.mktemp(request.param)
    base = family_base(request.param, room / "base")
    engine = LocalEngine(str(base), room / "bases", device="cpu", dtype="float32")
    engine.wait_ready(240)
    for number, name in enumerate(("one", "two"), 1):
        engine.load(name, family_adapter(base, room / name, FAMILIES[request.param], number))
    yield Loaded(request.param, FAMILIES[request.param], base, engine, room)
    engine.close()


def family_adapter(base: Path, folder: Path, family: Family, seed: int) -> Path:
    import torch

    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, (inputs, outputs) in describe_base(base).linears.items():
        if layer.rpartition(".")[2] in family.targets:
            tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(4, inputs, generator=random) * 0.3
            tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(outputs, 4, generator=random) * 0.3
    return write_adapter(folder, tensors, config_for(targets=family.targets, fan_in_fan_out=family.model == "GPT2"))


def ask(text: str, adapter: str = BASE, decode: DecodeSpec = SHORT) -> Request:
    return Request(f"{adapter}|{text}", messages_for(text), adapter, decode)


def answers(engine: Engine, requests: list[Request]) -> dict[str, str]:
    return {event.request_id: event.text for event in engine.generate(requests) if isinstance(event, Done)}


def test_the_files_name_the_layers_that_the_loaded_model_has(loaded: Loaded) -> None:
    assert describe_base(loaded.base).linears == loaded.engine._residents._base.shape.linears


def test_an_adapter_for_the_family_passes_and_one_of_another_does_not(loaded: Loaded, tmp_path: Path) -> None:
    shape = describe_base(loaded.base)
    assert judge(loaded.room / "one", shape).ok
    other = FAMILIES["llama3" if loaded.name == "gpt2" else "gpt2"]
    foreign = family_base("llama3" if loaded.name == "gpt2" else "gpt2", tmp_path / "foreign")
    assert "does not fit" in judge(family_adapter(foreign, tmp_path / "x", other, 1), shape).reasons[0]


def test_a_mixed_batch_answers_as_each_row_alone(loaded: Loaded) -> None:
    requests = [ask(text, adapter) for text in QUESTIONS for adapter in (BASE, "one", "two")]
    alone = {key: text for request in requests for key, text in answers(loaded.engine, [request]).items()}
    assert answers(loaded.engine, requests) == alone
    assert len({alone[f"{adapter}|{QUESTIONS[0]}"] for adapter in (BASE, "one", "two")}) == 3


def test_adapters_compute_what_peft_computes(loaded: Loaded) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    held = loaded.engine._residents
    tokens = torch.tensor([encode(held._base.tokenizer, messages_for(QUESTIONS[0]))])
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(loaded.base, dtype=torch.float32), loaded.room / "one").eval()
    with torch.no_grad():
        expected = stock(tokens).logits
        found = held.forward(["one"], input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_streamed_pieces_join_to_the_answer(loaded: Loaded) -> None:
    events = list(loaded.engine.generate([ask(text, adapter) for text in QUESTIONS for adapter in (BASE, "one")]))
    for done in (event for event in events if isinstance(event, Done)):
        assert "".join(event.text for event in events if isinstance(event, Delta) and event.request_id == done.request_id) == done.text


def test_the_familys_own_end_of_turn_ends_an_answer_and_is_never_in_it(loaded: Loaded) -> None:
    base = loaded.engine._residents._base
    ends = {base.tokenizer.convert_tokens_to_ids(token) for token in (loaded.family.end, loaded.family.eos)}
    assert ends <= base.stop_tokens
    assert encode_answer(base.tokenizer, "Good day")[-1] == base.tokenizer.convert_tokens_to_ids(loaded.family.end)
    texts = answers(loaded.engine, [ask(f"Question {n}?", decode=DecodeSpec(max_new_tokens=40)) for n in range(8)])
    assert not [text for text in texts.values() if any(token in text for token in loaded.family.special)]


def test_rows_of_unequal_length_are_padded_though_the_tokenizer_names_no_pad_token(loaded: Loaded) -> None:
    base = loaded.engine._residents._base
    assert isinstance(base.pad_token, int)
    assert (base.tokenizer.pad_token is None) == (not loaded.family.pad)


def test_too_long_a_conversation_is_refused_with_the_numbers(loaded: Loaded) -> None:
    (event,) = loaded.engine.generate([ask("password " * 400)])
    assert isinstance(event, Failed)
    assert "160" in event.error
    assert event.error.endswith(".")
    assert answers(loaded.engine, [ask("Hi")])


# Templates


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokens_are_those_of_the_familys_own_template(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = family_tokenizer(family)
    messages = messages_for("How do I reset my password?", system="Be kind.")
    found = tokenizer.decode(encode(tokenizer, messages))
    if family.template is None:
        assert found == "<|endoftext|>### System:\nBe kind.\n\n### User:\nHow do I reset my password?\n\n### Assistant:\n"
        return
    turns = [{"role": message.role, "content": message.content} for message in messages]
    if name.startswith("gemma"):
        turns = [{"role": "user", "content": "Be kind.\n\nHow do I reset my password?"}]
    assert found == tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_earlier_turns_stay_in_order_and_typed_control_words_stay_text(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = family_tokenizer(family)
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
    plain = encode(tokenizer, messages_for("And my plan?", history=history))
    text = tokenizer.decode(plain)
    assert text.index("Hello") < text.index("Good day") < text.index("And my plan?")
    typed = encode(tokenizer, messages_for(f"And my plan? {' '.join(family.special)}", history=history))
    special = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids(token) for token in family.special}
    assert [token for token in typed if token in special] == [token for token in plain if token in special]


def test_a_base_without_a_template_gets_a_stated_plain_one(tmp_path: Path) -> None:
    from ft.template import describe

    assert "plain headings" in describe(family_tokenizer(FAMILIES["gpt2"]))
    assert describe(family_tokenizer(FAMILIES["gemma"])) == "the model's own chat template"


def test_a_conversation_the_template_cannot_hold_is_refused_in_words() -> None:
    from ft.errors import UserError

    tokenizer = family_tokenizer(FAMILIES["gemma"])
    twice = (Message("user", "One"), Message("user", "Two"))
    with pytest.raises(UserError, match="Alternate user and assistant"):
        encode(tokenizer, twice)


# Layer names of further architectures, by their files alone


OTHERS: dict[str, dict[str, Any]] = {
    "Phi3": {"pad_token_id": 0}, "Olmo2": {}, "Granite": {}, "Starcoder2": {}, "StableLm": {}, "SmolLM3": {"pad_token_id": 0},
    "Phi": {}, "Cohere": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", [*OTHERS, "GPTNeo", "GPTNeoX", "OPT"])
def test_the_files_of_further_architectures_name_their_layers_as_loaded(kind: str, tmp_path: Path) -> None:
    import transformers

    from ft.models import linear_layers

    small: dict[str, Any] = {key: value for key, value in SIZES_BY_NAME.get(kind, LLAMA_LIKE).items()} | OTHERS.get(kind, {})
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(vocab_size=50, **small))
    model.save_pretrained(tmp_path)
    shape: BaseShape = describe_base(tmp_path)
    loaded = {layer: size for layer, size in linear_layers(model).items() if layer not in shape.others}
    assert shape.linears == loaded
    assert replace(shape, name="x").linears


LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
SIZES_BY_NAME: dict[str, dict[str, Any]] = {
    "Phi": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4},
    "GPTNeo": {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "attention_types": [[["global"], 1]]},
    "GPTNeoX": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4},
    "OPT": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "word_embed_proj_dim": 32},
}
