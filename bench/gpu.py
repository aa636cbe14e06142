"""`python -m bench.gpu [--tiny]`: an 8B shape, random weights, bfloat16 and nf4: a pair, 64 mixed rows, swaps, memory, limits.

Needs no download: with random weights answers are noise and never end by themselves. `--tiny` runs the same code in seconds on a CPU.
Must not know the web process.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.peers import copied
from bench.row import Row
from ft.bases import BaseShape
from ft.decoding import Batch
from ft.engine import BASE, Request
from ft.mixing import LowRank
from ft.models import LoadedBase, linear_layers
from ft.residents import Resident, Residents
from ft.specs import DecodeSpec
from ft.writing import Row as Answer
from review.commands.terminal import table

EIGHT: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
RANK, RESIDENT, PROMPT = 16, 20, 64


class Letters:
    """A tokenizer that needs no file: one token a character. Enough for the probe of the base."""

    chat_template, all_special_ids, eos_token_id, pad_token_id, added_tokens_decoder = None, [2], 2, 0, {}  # type: ignore[var-annotated]
    bos_token = ""

    def __call__(self, text: str | Sequence[str], **_: Any) -> dict[str, Any]:
        return {"input_ids": self._read(text) if isinstance(text, str) else [self._read(one) for one in text]}

    @staticmethod
    def _read(text: str) -> list[int]:
        return [3 + ord(letter) % 90 for letter in text]

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: Any) -> str:
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages)

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def convert_ids_to_tokens(self, index: int) -> str:
        return "<end>"

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return "".join(chr(97 + token % 26) for token in tokens)


def random_base(sizes: dict[str, Any], quantisation: str, device: str) -> LoadedBase:
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = 128256 if sizes is EIGHT else 440
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=8192, tie_word_embeddings=False, eos_token_id=2, **sizes)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)
    if quantisation == "4bit":
        _to_nf4(model, device)
    shape = BaseShape("random", "llama", linear_layers(model), 8192)
    return LoadedBase(model, Letters(), Path(), shape, device, "bfloat16", quantisation, 8192, frozenset({-1}), 0)


def _to_nf4(model: Any, device: str) -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and module is not head:
            packed = Linear4bit(module.in_features, module.out_features, False, torch.bfloat16, quant_type="nf4", device="meta")
            packed.weight = Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4")
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, packed.to(device))


def random_parts(base: LoadedBase, seed: int) -> dict[str, LowRank]:
    made = torch.Generator(device=base.device).manual_seed(seed)

    def some(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=made, device=base.device, dtype=torch.bfloat16) * 0.02

    return {name: LowRank(some(RANK, inputs), some(outputs, RANK)) for name, (inputs, outputs) in base.shape.linears.items()}


def answers(adapters: Sequence[str], tokens: int) -> list[Answer]:
    ids = torch.randint(3, 90, (len(adapters), PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    asked = [Request(str(n), (), adapter, DecodeSpec(max_new_tokens=tokens)) for n, adapter in enumerate(adapters)]
    return [Answer(request, prompt, tokens, None) for request, prompt in zip(asked, ids, strict=True)]


def rate(base: LoadedBase, residents: Residents, adapters: Sequence[str], tokens: int) -> float:
    """Tokens a second of all rows together, prompts read before."""
    batch = Batch(base, residents.forward)
    batch.add(answers(adapters, tokens))
    while batch.readings:
        batch.read(4096)
    batch.step()
    begun, count = time.perf_counter(), 0
    while batch.rows:
        count += len(batch.rows)
        batch.step()
    return count / (time.perf_counter() - begun)


@torch.no_grad()
def measure(quantisation: str, device: str, tiny: bool, folder: Path) -> list[Row]:
    base = random_base(TINY if tiny else EIGHT, quantisation, device)
    residents = Residents(base, folder)
    tokens, kind = (6 if tiny else 64), "nf4" if quantisation == "4bit" else "bfloat16"
    names = [f"a{number}" for number in range(RESIDENT)]
    facts: Any = type("Facts", (), {"content_hash": "random"})()
    took = []
    for seed, name in enumerate(names):
        adapter = residents._mixer.settle(random_parts(base, seed), 2.0)
        begun = time.perf_counter()
        residents.load(name, facts, adapter)
        took.append(time.perf_counter() - begun)
    held = sum(tensor.nbytes for name in names for part in _resident(residents, name) for tensor in (part.down, part.up))
    rate(base, residents, [BASE, "a0"], 3)
    one = {arm: rate(base, residents, [arm], tokens) for arm in (BASE, "a0")}
    by_turns = 2 / (1 / one[BASE] + 1 / one["a0"])
    pair = rate(base, residents, [BASE, "a0"], tokens)
    many = rate(base, residents, [(BASE, *names)[n % 5] for n in range(64)], tokens)
    weights = sum(parameter.nbytes for parameter in base.model.parameters())
    limit = copied(device, 2**28 if device == "cuda" else 2**22) / weights
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else weights + held
    return [
        Row(f"{kind}: one stream, base", one[BASE], limit, "limit of the memory's bandwidth", "tokens/s", "higher"),
        Row(f"{kind}: one pair", pair, by_turns, "one by one", "tokens/s", "higher"),
        Row(f"{kind}: 64 mixed rows", many, by_turns, "one by one", "tokens/s", "higher"),
        Row(f"{kind}: bringing in a rank-{RANK} adapter", sorted(took)[len(took) // 2], 0.3, "promised, at most", "s", "lower"),
        Row(f"{kind}: base and {RESIDENT} adapters", memory / 2**30, weights / 2**30, "the base's weights", "GiB", "lower"),
    ]


def _resident(residents: Residents, name: str) -> Sequence[LowRank]:
    found: Resident = residents._resident[name]
    return list(found.adapter.parts.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine on a GPU, at the shape of an 8B model with random weights.")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, also on a CPU: shows that the script runs")
    tiny = parser.parse_args().tiny
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not tiny:
        parser.error("no GPU found; --tiny runs without one")
    with tempfile.TemporaryDirectory() as name:
        rows = [row for kind in ("none", "4bit") for row in measure(kind, device, tiny, Path(name))]
    shown = [(r.what, f"{r.ours:.3g} {r.unit}", f"{r.peer:.3g} {r.unit} ({r.peer_name})", f"{r.ratio:.2f}", r.better) for r in rows]
    table(("what", "ours", "peer", "ratio", "better is"), shown, "Nothing was measured.")


if __name__ == "__main__":
    main()
