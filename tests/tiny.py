"""A tiny Llama with a tokenizer of its own and adapters for it, all made offline: real parts, small enough for any test."""

import json
from pathlib import Path
from typing import Any

WORDS = (
    "How do I reset my password? Open Settings > Network and choose Reconnect. The invoice of March is wrong, please check the plan. "
    "You are a helpful assistant of our support team. system user assistant Grüße, ça va? 你好 🔒🙂 naïve café 12345 67890 "
)
CHAT = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are TinyBrand<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TARGETS = ("q_proj", "v_proj")


def make_tokenizer(chat_template: str | None = CHAT) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    raw.train_from_iterator([WORDS] * 4, trainer)
    raw.add_tokens([AddedToken("<tool_call>", special=False), AddedToken("[INST]", special=False)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    if chat_template:
        made.chat_template = chat_template
    return made


def make_base(folder: Path, seed: int = 1, context: int = 256) -> Path:
    """A random model whose greedy answers vary with the prompt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=context, initializer_range=0.25, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tensors_for(base: Path, seed: int, rank: int = 4, targets: tuple[str, ...] = TARGETS, dora: bool = False) -> dict[str, Any]:
    import torch

    from ft.bases import describe_base

    generator = torch.Generator().manual_seed(seed)
    made = {}
    for layer, (inputs, outputs) in describe_base(base).linears.items():
        if layer.rpartition(".")[2] in targets:
            key = f"base_model.model.{layer}"
            made[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.3
            made[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.3
            if dora:
                made[f"{key}.lora_magnitude_vector"] = torch.rand(outputs, generator=generator) + 0.5
    return made


def config_for(rank: int = 4, targets: tuple[str, ...] = TARGETS, **more: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(targets),
        "bias": "none", "base_model_name_or_path": "tiny", **more,
    }  # fmt: skip


def make_adapter(
    folder: Path, base: Path, seed: int = 1, rank: int = 4, targets: tuple[str, ...] = TARGETS, dora: bool = False, **more: Any
) -> Path:
    """A random adapter that fits `base`. `more` goes into its config."""
    write_adapter(folder, tensors_for(base, seed, rank, targets, dora), config_for(rank, targets, use_dora=dora, **more))
    return folder


def write_adapter(folder: Path, tensors: dict[str, Any], config: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
