"""Rows being answered together: prefill, one token a step, rows joining and leaving, each with its own adapter and decoding.

Left padding; the key-value cache is kept for all rows and trimmed as rows leave. Must not know queues, threads or how adapters are loaded.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import DynamicCache

from ft.engine import Request
from ft.models import LoadedBase
from ft.specs import DecodeSpec

Forward = Callable[..., Any]  # forward(adapters, **inputs) -> output with logits


@dataclass(eq=False, slots=True)
class Row:
    """One request under way. `room` is how many tokens it may still become."""

    request: Request
    prompt: list[int]
    room: int
    owner: Any
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish: Literal["stop", "length"] | None = None
    begun: float = field(default_factory=time.monotonic)
    _decoded: int = 0  # tokens whose text is out
    _generator: torch.Generator | None = None

    def take(self, token: int, base: LoadedBase) -> str:
        """Add a token; returns the new text, "" while a character is incomplete."""
        if token in base.stop_tokens:
            self.finish = "stop"
        else:
            self.tokens.append(token)
            if len(self.tokens) >= self.room:
                self.finish = "length"
        return self._new_text(base.tokenizer)

    def _new_text(self, tokenizer: Any) -> str:
        """Text beyond what is out. A few tokens before it are decoded along, since a token's text depends on its left neighbours."""
        start = max(0, self._decoded - 6)
        before = _decode(tokenizer, self.tokens[start : self._decoded])
        after = _decode(tokenizer, self.tokens[start:])
        if after.endswith("\ufffd") and self.finish is None:
            return ""
        new = after[len(before) :]
        self._decoded = len(self.tokens)
        self.text += new
        return new

    def choose(self, logits: torch.Tensor) -> int:
        """The next token by this row's own decoding. `logits` are of this row, float32 on the CPU."""
        spec = self.request.decode
        if spec.repetition_penalty != 1.0:
            seen = torch.tensor(sorted({*self.prompt, *self.tokens}))
            found = logits[seen]
            logits = logits.clone()
            logits[seen] = torch.where(found > 0, found / spec.repetition_penalty, found * spec.repetition_penalty)
        if spec.temperature == 0:
            return int(logits.argmax())
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(spec.seed)
        return _sample(logits, spec, self._generator)

    @property
    def is_plain_greedy(self) -> bool:
        return self.request.decode.temperature == 0 and self.request.decode.repetition_penalty == 1.0


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _sample(logits: torch.Tensor, spec: DecodeSpec, generator: torch.Generator) -> int:
    probabilities = torch.softmax(logits / spec.temperature, dim=-1)
    if spec.top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= spec.top_p] = 0
        return int(places[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


class Batch:
    """Rows in step. `forward` computes each row with its adapter; all methods run on the inference thread."""

    def __init__(self, base: LoadedBase, forward: Forward) -> None:
        self._base, self._forward = base, forward
        known = inspect.signature(base.model.forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"  # renamed by transformers 5.24
        self.rows: list[Row] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._last = torch.zeros(0, dtype=torch.long)

    def add(self, rows: Sequence[Row]) -> None:
        """Read the prompts of new rows, of at least two tokens; they take their first step with all others at the next `step`."""
        width = max(len(row.prompt) for row in rows)
        ids = torch.full((len(rows), width - 1), self._base.pad_token, dtype=torch.long)
        mask = torch.zeros(len(rows), width - 1, dtype=torch.long)
        for index, row in enumerate(rows):
            read = row.prompt[:-1]
            ids[index, width - 1 - len(read) :] = torch.tensor(read, dtype=torch.long)
            mask[index, width - 1 - len(read) :] = 1
        cache = DynamicCache()
        mask = mask.to(self._base.device)
        self._forward(
            [row.request.adapter for row in rows], input_ids=ids.to(self._base.device), attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0), use_cache=True, logits_to_keep=1, **{self._cache_name: cache},
        )  # fmt: skip
        last = torch.tensor([row.prompt[-1] for row in rows], device=self._base.device)
        self._merge(rows, cache, mask, last)

    def step(self) -> list[tuple[Row, str]]:
        """One token for every row: (row, new text). Rows that ended have `finish` set and are gone afterwards."""
        ones = torch.ones(len(self.rows), 1, dtype=torch.long, device=self._base.device)
        self._mask = torch.cat([self._mask, ones], dim=1)
        logits = self._forward(
            [row.request.adapter for row in self.rows], input_ids=self._last[:, None], attention_mask=self._mask,
            position_ids=self._mask.sum(-1, keepdim=True) - 1, use_cache=True, logits_to_keep=1,
            **{self._cache_name: self._cache},
        ).logits[:, -1]  # fmt: skip
        greedy = logits.argmax(-1)
        picked = greedy.tolist()
        for index, row in enumerate(self.rows):
            if not row.is_plain_greedy:
                picked[index] = row.choose(logits[index].float().cpu())
        self._last = torch.tensor(picked, device=self._base.device)
        stepped = [(row, row.take(token, self._base)) for row, token in zip(self.rows, picked, strict=True)]
        self.keep([row for row in self.rows if row.finish is None])
        return stepped

    def keep(self, rows: Sequence[Row]) -> None:
        """Drop all other rows, and the columns that were only theirs."""
        if len(rows) == len(self.rows):
            return
        if not rows:
            self.clear()
            return
        kept = {id(row) for row in rows}
        places = [index for index, row in enumerate(self.rows) if id(row) in kept]
        chosen = torch.tensor(places, device=self._base.device)
        self.rows = [self.rows[index] for index in places]
        self._mask, self._last = self._mask[chosen], self._last[chosen]
        spare = int((self._mask.sum(0) == 0).long().cumprod(0).sum())
        self._mask = self._mask[:, spare:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[chosen, :, spare:], layer.values[chosen, :, spare:]

    def clear(self) -> None:
        self.rows, self._cache = [], None
        self._mask, self._last = torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long)

    def tokens_with(self, rows: Sequence[Row]) -> int:
        """Size of the cache, in tokens, once these rows have joined and everyone has used all the room."""
        everyone = [*self.rows, *rows]
        return len(everyone) * max((len(row.prompt) + row.room for row in everyone), default=0)

    def _merge(self, rows: Sequence[Row], cache: Any, mask: torch.Tensor, last: torch.Tensor) -> None:
        if self.rows:
            width = max(self._mask.shape[1], mask.shape[1])
            pairs = list(zip(self._cache.layers, cache.layers, strict=True))
            joined = [(_join(mine.keys, theirs.keys, width), _join(mine.values, theirs.values, width)) for mine, theirs in pairs]
            for (mine, _), (keys, values) in zip(pairs, joined, strict=True):  # all or nothing, should memory run out above
                mine.keys, mine.values = keys, values
            self._mask = torch.cat([_left(self._mask, width), _left(mask, width)])
            self._last = torch.cat([self._last, last])
        else:
            self._cache, self._mask, self._last = cache, mask, last
        self.rows = [*self.rows, *rows]


def _join(mine: torch.Tensor, theirs: torch.Tensor, width: int) -> torch.Tensor:
    """Keys or values (row, head, token, size) of both, with empty tokens on the left up to `width`."""
    return torch.cat([torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0)) for states in (mine, theirs)])


def _left(mask: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
