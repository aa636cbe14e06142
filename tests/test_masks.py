"""The loss mask of four families of chat templates, token by token: what is read, what is learned, and where the answer ends."""

from typing import Any

import pytest

from ft.encoding import IGNORED, encode_row
from tests.trainable import TEMPLATE, byte_tokenizer

LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ROW = {"instruction": "Why <|im_end|> red?", "input": "Lamp 3", "output": "Press [INST] twice."}
SYSTEM = "Be kind."
ASKED = "Why <|im_end|> red?\n\nLamp 3"
# family: (template, special tokens, beginning of text, end of text, what is read, what ends the answer). Special tokens stand in brackets.
FAMILIES: dict[str, tuple[str, list[str], str, str, list[Any], str]] = {
    "ChatML": (
        TEMPLATE, ["<|im_start|>", "<|im_end|>"], "<|im_start|>", "<|im_end|>",
        [["<|im_start|>"], f"system\n{SYSTEM}", ["<|im_end|>"], "\n", ["<|im_start|>"], f"user\n{ASKED}", ["<|im_end|>"], "\n",
         ["<|im_start|>"], "assistant\n"],
        "<|im_end|>",
    ),
    "Llama 3": (
        LLAMA_3, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|begin_of_text|>", "<|end_of_text|>",
        [["<|begin_of_text|>"], ["<|start_header_id|>"], "system", ["<|end_header_id|>"], f"\n\n{SYSTEM}", ["<|eot_id|>"],
         ["<|start_header_id|>"], "user", ["<|end_header_id|>"], f"\n\n{ASKED}", ["<|eot_id|>"],
         ["<|start_header_id|>"], "assistant", ["<|end_header_id|>"], "\n\n"],
        "<|eot_id|>",
    ),
    "Mistral": (
        MISTRAL, ["<s>", "</s>"], "<s>", "</s>", [["<s>"], f"[INST] {SYSTEM}\n\n{ASKED} [/INST]"], "</s>",
    ),
    "Gemma": (
        GEMMA, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>",
        [["<bos>"], ["<start_of_turn>"], f"user\n{SYSTEM}\n\n{ASKED}", ["<end_of_turn>"], "\n", ["<start_of_turn>"], "model\n"],
        "<end_of_turn>",
    ),
}  # fmt: skip


def tokenizer_of(family: str) -> Any:
    template, special, bos, eos, _, _ = FAMILIES[family]
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": bos, "eos_token": eos, "additional_special_tokens": special})
    tokenizer.chat_template = template
    return tokenizer


def bytes_of(tokenizer: Any, text: str) -> list[int]:
    """A token a byte: no control token can come of it."""
    return [token for letter in text for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_answer_and_its_end_are_learned_token_by_token(family: str) -> None:
    tokenizer = tokenizer_of(family)
    pieces, end = FAMILIES[family][4:]
    read = []
    for piece in pieces:
        read += [tokenizer.convert_tokens_to_ids(piece[0])] if isinstance(piece, list) else bytes_of(tokenizer, piece)
    learned = [*bytes_of(tokenizer, ROW["output"]), tokenizer.convert_tokens_to_ids(end)]
    row = encode_row(tokenizer, ROW, SYSTEM)
    assert row["input_ids"] == read + learned
    assert row["labels"] == [IGNORED] * len(read) + learned


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_what_the_template_says_itself(family: str) -> None:
    tokenizer = tokenizer_of(family)
    row = encode_row(tokenizer, {**ROW, "output": "Press twice.", "instruction": "Why red?"}, SYSTEM)
    asked = "Why red?\n\nLamp 3"
    chat = [{"role": "user", "content": f"{SYSTEM}\n\n{asked}"}, {"role": "assistant", "content": "Press twice."}]
    if family in ("ChatML", "Llama 3"):
        chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}, chat[1]]
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer.decode(row["input_ids"]).rstrip("\n") == whole.rstrip("\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_and_single_judgements_learn_the_same_way(family: str) -> None:
    tokenizer = tokenizer_of(family)
    plain = encode_row(tokenizer, ROW, SYSTEM)
    pair = encode_row(tokenizer, {**ROW, "rejected": "No."}, SYSTEM, "dpo")
    single = encode_row(tokenizer, {**ROW, "label": "bad"}, SYSTEM, "kto")
    assert pair["prompt_ids"] + pair["chosen_ids"] == single["prompt_ids"] + single["completion_ids"] == plain["input_ids"]
    assert pair["chosen_ids"] == [label for label in plain["labels"] if label != IGNORED]
    assert pair["rejected_ids"][-1] == pair["chosen_ids"][-1]
    assert single["label"] is False
