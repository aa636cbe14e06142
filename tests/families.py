"""Tiny random bases of the families people use, each with its own chat template, special tokens and layer names, made offline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny import WORDS

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 160, "initializer_range": 0.25, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + (system + '\n\n' if system and loop.last else '') + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Brand.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """`special`: the tokens of its template; `end`: what ends an answer, `eos`: what its tokenizer calls so; `pad` "" where it has none."""

    model: str
    special: tuple[str, ...]
    bos: str
    end: str
    eos: str
    pad: str
    template: str | None
    targets: tuple[str, ...] = ("q_proj", "v_proj", "down_proj")
    more: tuple[tuple[str, Any], ...] = ()


FAMILIES = {
    "llama3": Family(
        "Llama", ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "", LLAMA3,
    ),
    "mistral": Family(
        "Mistral", ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>", "</s>", "", MISTRAL, more=(("sliding_window", 64),),
    ),
    "qwen2": Family("Qwen2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>", "<|im_end|>", "<|endoftext|>", CHATML),
    "qwen3": Family(
        "Qwen3", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>", "<|im_end|>", "<|endoftext|>", CHATML,
        more=(("head_dim", 16),),
    ),
    "gemma": Family(
        "Gemma", ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>", "<eos>", "<pad>", GEMMA,
        more=(("head_dim", 16), ("tie_word_embeddings", True)),
    ),
    "gemma2": Family(
        "Gemma2", ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>", "<eos>", "<pad>", GEMMA,
        more=(("head_dim", 16), ("sliding_window", 64)),
    ),
    "gpt2": Family("GPT2", ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "", None, ("c_attn", "c_proj")),
}  # fmt: skip


def family_tokenizer(family: Family) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(family.special), show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([WORDS] * 4, trainer)
    named = {"bos_token": family.bos, "eos_token": family.eos, "pad_token": family.pad}
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **{key: value for key, value in named.items() if value})
    made.chat_template = family.template
    return made


def family_base(name: str, folder: Path) -> Path:
    """A base of this family whose greedy answers vary with the prompt."""
    import torch
    import transformers

    family = FAMILIES[name]
    tokenizer = family_tokenizer(family)
    torch.manual_seed(3)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = SIZES | dict(family.more)
    if name == "gpt2":
        sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 160, "initializer_range": 0.25}
    config = getattr(transformers, f"{family.model}Config")(vocab_size=len(tokenizer), **sizes, **ids)
    model = getattr(transformers, "GPT2LMHeadModel" if name == "gpt2" else f"{family.model}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
