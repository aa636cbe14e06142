"""One decode step of a Llama-like model in as few operations as torch allows: the library's many small ones cost a third of a step.

Used only where a trial at start gives the library's logits; everything else runs through the library. Torch side, inference thread only.
Must not know requests, adapters' files or queues: adapters come in through the groups of linear layers.
"""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

from ft.keyvalues import KeyValues
from ft.mixing import Group, Mixer

log = logging.getLogger(__name__)
KINDS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
SAME = {torch.float32: 1e-4}  # of the largest logit
SAME_HALF = 0.02


class Unlike(Exception):
    """The model is built otherwise than this file computes."""


class Lean:
    """Raises Unlike for a model that it cannot compute."""

    def __init__(self, model: Any, mixer: Mixer) -> None:
        config, inner = model.config, model.model
        if type(model).__name__ not in KINDS or config.hidden_act != "silu" or getattr(config, "sliding_window", None) or not mixer.head:
            raise Unlike
        groups = {group.names[0]: group for group in mixer.groups}
        names = {id(module): name for name, module in model.named_modules()}
        self._layers = [_layer(layer, groups, names) for layer in inner.layers]
        attention = inner.layers[0].self_attn
        self._size, self._scale = attention.head_dim, attention.scaling
        self._heads, self._shared = config.num_attention_heads, config.num_key_value_heads
        self._embed, self._rotary, self._norm, self._head = inner.embed_tokens, inner.rotary_emb, _normer(inner.norm), mixer.head
        like = inner.norm.weight
        self._nothing = torch.zeros(mixer.least_rows, config.hidden_size, dtype=like.dtype, device=like.device)

    def rows(self, count: int) -> int:
        """How many are computed where `count` are asked: some kernels take as long for one row as for four."""
        return max(count, len(self._nothing))

    def step(self, tokens: torch.Tensor, positions: torch.Tensor, hidden: torch.Tensor, held: KeyValues) -> Any:
        """Like the model's forward for one token a row: an object with `logits`. The plan must seat as many rows as `rows` says."""
        x = self._filled(self._embed(tokens[:, 0]))
        cos, sin = self._rotary(x, positions)  # looks at the type of x alone
        half = self._size // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)  # so that a plain exchange of the halves turns them
        for place, layer in enumerate(self._layers):
            x = self._advance(layer, x, (cos, sin), hidden, held, place)
        return SimpleNamespace(logits=self._head.compute(self._norm(x))[: len(tokens), None])

    def _filled(self, found: torch.Tensor) -> torch.Tensor:
        """With rows of zeros, which stay zeros in every layer."""
        return found if len(found) >= len(self._nothing) else torch.cat([found, self._nothing[len(found) :]])

    def _advance(
        self, layer: Any, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], hidden: torch.Tensor, held: KeyValues, place: int
    ) -> torch.Tensor:
        before, after, qkv, out, gate_up, down, inner = layer
        rows, turned, kept = held.count, self._heads + self._shared, held.layers[place]
        states = qkv.compute(before(x))[:rows].view(rows, turned + self._shared, self._size)
        whole = states[:, :turned]
        whole = torch.addcmul(whole * turn[0], torch.roll(whole, self._size // 2, -1), turn[1])
        keys, values = kept.write(whole[:, self._heads :], states[:, turned:])
        query = whole[:, : self._heads].unflatten(1, (self._shared, -1))
        seen = functional.scaled_dot_product_attention(query, keys, values, attn_mask=hidden, scale=self._scale)
        x = x + out.compute(self._filled(seen.reshape(rows, -1)))
        both = gate_up.compute(after(x))
        return x + down.compute(functional.silu(both[:, :inner]).mul_(both[:, inner:]))  # type: ignore[no-any-return]


def _normer(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """RMS norm: x * weight / sqrt(mean(x²) + epsilon), in float32 within. Torch has it in one operation on a GPU, in eight on a CPU."""
    weight, epsilon = norm.weight.data, norm.variance_epsilon
    if weight.device.type != "cpu":
        return lambda x: functional.rms_norm(x, weight.shape, weight, epsilon)
    size = weight.numel()
    whole, least = weight.float() * size**0.5, torch.tensor((size * epsilon) ** 0.5)  # for a sum in place of the mean

    def normed(x: torch.Tensor) -> torch.Tensor:
        length = torch.hypot(torch.linalg.vector_norm(x, 2, -1, True, dtype=torch.float32), least)
        return (x * whole).div_(length).to(x.dtype)

    return normed


def _layer(layer: Any, groups: dict[str, Group], names: dict[int, str]) -> Any:
    attention, mlp = layer.self_attn, layer.mlp

    def group(first: Any, *others: Any) -> Group:
        found = groups.get(names[id(first)])
        if found is None or found.names != [names[id(module)] for module in (first, *others)]:
            raise Unlike
        return found

    return (
        _normer(layer.input_layernorm),
        _normer(layer.post_attention_layernorm),
        group(attention.q_proj, attention.k_proj, attention.v_proj),
        group(attention.o_proj),
        group(mlp.gate_proj, mlp.up_proj),
        group(mlp.down_proj),
        mlp.gate_proj.out_features,
    )


@torch.no_grad()
def lean_for(model: Any, mixer: Mixer, probe: torch.Tensor, cache_name: str, dtype: torch.dtype) -> Lean | None:
    """The lean step, if it gives the library's logits for two rows of different lengths; None otherwise, with no harm done."""
    try:
        lean = Lean(model, mixer)
        short = probe[:, : probe.shape[1] // 2]
        library = model(input_ids=short).logits[0, -1], model(input_ids=probe).logits[0, -1]
        held = KeyValues(str(probe.device), dtype)
        for ids in (short, probe):
            read = model.model(input_ids=ids[:, :-1], use_cache=True)
            held.join(getattr(read, cache_name), [ids.shape[1] - 1])
        positions = held.lengths[:, None]
        held.open(probe.shape[1])
        found = lean.step(torch.cat([short[:, -1:], probe[:, -1:]]), positions, held.hidden(), held).logits[:, 0]
    except Unlike:
        return None
    except (RuntimeError, AttributeError, TypeError, ValueError):
        log.exception("the lean step does not run with this model")
        return None
    off = max(float((mine - its).abs().max() / its.abs().max()) for mine, its in zip(found.float(), library, strict=True))
    if not off <= SAME.get(dtype, SAME_HALF):
        log.warning("the lean step is off by %.2g of the largest logit, so the library's is used", off)
        return None
    return lean
