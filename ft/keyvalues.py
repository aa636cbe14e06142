"""Keys and values of rows of different lengths, each row from column 0 on: rows join by one copy and leave by one copy.

Torch side. Buffers grow now and then, not at every step. Must not know requests, adapters or tokens' meaning.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROUND = 64  # columns are added in steps of this


class _Layer(DynamicLayer):
    """Writes each row's new key and value at that row's own place."""

    def __init__(self, held: "KeyValues") -> None:
        super().__init__()
        self.held = held
        self.is_initialized = True
        self.keys: Any = None  # (row, column, head, size)
        self.values: Any = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.write(key_states[:, :, 0], value_states[:, :, 0])

    def write(self, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One token a row, as (row, head, size); returns all keys and values, as (row, head, column, size)."""
        held = self.held
        self.keys.flatten(0, 1).index_copy_(0, held.places, key_states)
        self.values.flatten(0, 1).index_copy_(0, held.places, value_states)
        return self.keys[: held.count, : held.width].transpose(1, 2), self.values[: held.count, : held.width].transpose(1, 2)

    def get_seq_length(self) -> int:
        return self.held.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.held.width, 0


def cache_name(model: Any) -> str:
    """What the model's forward calls it: renamed by transformers 5.24."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class KeyValues(Cache):
    """`lengths` of the rows, in their order. `open` makes room for one token a row, which the model's layers then write."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        super().__init__(layers=[])
        self.layers: Any = []
        self._device, self._dtype = device, dtype
        self._slots = self._columns = 0
        self._hidden = torch.zeros(0, 0)  # added to attention scores: 0 where a row has a token
        self.count = self.width = 0
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)
        self.places = self.lengths

    def open(self, width: int) -> None:
        """The next step writes at each row's end; `width` is the longest row's length with it."""
        if width > self._columns:
            self._allot(self.count, width + ROUND)
        self.width = width
        self.places = torch.arange(self.count, device=self._device) * self._columns + self.lengths
        self._hidden.view(-1)[self.places] = 0
        self.lengths = self.lengths + 1

    def hidden(self, window: int | None = None) -> torch.Tensor:
        """What attention must not see, as (row, 1, 1, column); with a window only the last tokens are seen."""
        seen = self._hidden[: self.count, : self.width]
        if window is not None:
            columns = torch.arange(self.width, device=self._device)
            seen = seen.masked_fill(columns[None] < (self.lengths - window)[:, None], torch.finfo(self._dtype).min)
        return seen[:, None, None]

    def join(self, read: Any, lengths: Sequence[int]) -> None:
        """Take in rows that were read together, padded on the right."""
        first, count = self.count, self.count + len(lengths)
        if not self.layers:
            self.layers = [_Layer(self) for _ in read.layers]
        if count > self._slots or max(lengths) + 1 > self._columns:
            self._allot(count, max([*lengths, int(self.lengths.max()) if self.count else 0]) + ROUND, like=read)
        wide = max(lengths)
        for mine, theirs in zip(self.layers, read.layers, strict=True):
            for held, new in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
                held[first:count, :wide] = new[:, :, :wide].transpose(1, 2)
                held[first:count, wide:] = 0  # what an earlier row left might not be finite, and hidden is not absent
        self.lengths = torch.cat([self.lengths, torch.tensor(lengths, device=self._device)])
        self._hidden[first:count] = torch.finfo(self._dtype).min
        for row, length in enumerate(lengths, first):
            self._hidden[row, :length] = 0
        self.count = count

    def move(self, source: int, target: int) -> None:
        """Row `source` takes the place of row `target`."""
        for layer in self.layers:
            layer.keys[target], layer.values[target] = layer.keys[source], layer.values[source]
        self._hidden[target] = self._hidden[source]
        self.lengths[target] = self.lengths[source]

    def keep_first(self, count: int) -> None:
        self.count, self.lengths = count, self.lengths[:count]

    def _allot(self, slots: int, columns: int, like: Any = None) -> None:
        """Other buffers, as large as asked, with the rows as they are."""
        columns = (columns + ROUND - 1) // ROUND * ROUND
        made = []
        for index, layer in enumerate(self.layers):
            pair = []
            for name in ("keys", "values"):
                old = getattr(layer, name)
                shape = old.shape[2:] if old is not None else (getattr(like.layers[index], name).shape[i] for i in (1, 3))
                new = torch.zeros(slots, columns, *shape, dtype=self._dtype, device=self._device)
                if self.count:
                    wide = min(columns, self._columns)
                    new[: self.count, :wide] = old[: self.count, :wide]
                pair.append(new)
            made.append(pair)
        hidden = torch.full((slots, columns), torch.finfo(self._dtype).min, dtype=self._dtype, device=self._device)
        if self.count:
            wide = min(columns, self._columns)
            hidden[: self.count, :wide] = self._hidden[: self.count, :wide]
        for layer, (keys, values) in zip(self.layers, made, strict=True):  # all or nothing, should memory run out above
            layer.keys, layer.values = keys, values
        self._hidden, self._slots, self._columns = hidden, slots, columns
