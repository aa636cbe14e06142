"""Rows being answered together: prompts read in pieces, one token a step, rows joining and leaving, each with its adapter and decoding.

Must not know queues, threads or how adapters are loaded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from ft.keyvalues import KeyValues, cache_name
from ft.models import LoadedBase
from ft.writing import Row

Forward = Callable[..., Any]  # forward(adapters, reads_only, **inputs) -> output, with logits unless it only reads


class Reading:
    """Rows whose prompts are being read together, all but the last token, which their first step takes."""

    def __init__(self, rows: Sequence[Row], base: LoadedBase) -> None:
        self.rows = list(rows)
        self.cache = DynamicCache()
        self.at = 0
        self.width = max(len(row.prompt) for row in rows) - 1
        self._ids = torch.full((len(rows), self.width), base.pad_token, dtype=torch.long)
        for index, row in enumerate(rows):
            self._ids[index, : len(row.prompt) - 1] = torch.tensor(row.prompt[:-1], dtype=torch.long)
        self._ids = self._ids.to(base.device)

    @property
    def left(self) -> int:
        """Tokens still to be read."""
        return (self.width - self.at) * len(self.rows)

    def piece(self, tokens: int) -> torch.Tensor:
        end = min(self.at + max(tokens // len(self.rows), 1), self.width)
        found, self.at = self._ids[:, self.at : end], end
        return found


class Batch:
    """Rows in step. `forward` computes each row with its adapter; all methods run on the inference thread."""

    def __init__(self, base: LoadedBase, forward: Forward) -> None:
        self._base, self._forward = base, forward
        self._cache_name = cache_name(base.model)
        self._windows = _windows(base.model.config.get_text_config())
        self._type = getattr(torch, base.dtype)
        self.rows: list[Row] = []  # in step, in the order of the cache
        self.readings: list[Reading] = []
        self._oldest_next = False
        self._last = torch.zeros(0, dtype=torch.long)
        self._cache = KeyValues(base.device, self._type)
        self._clear_cache()

    def everyone(self) -> list[Row]:
        return [*self.rows, *(row for reading in self.readings for row in reading.rows)]

    def add(self, rows: Sequence[Row]) -> None:
        """Rows whose prompts, of at least two tokens, are to be read; together they then take their first step with all others."""
        self.readings.append(Reading(rows, self._base))

    def read(self, tokens: int) -> int:
        """Read a piece, about so many tokens, of the shortest prompts waiting and of the oldest in turn; how many it was.

        So a short prompt overtakes a long one, and no number of short ones keeps a long one from being read.
        """
        if not self.readings:
            return 0
        reading = self.readings[0] if self._oldest_next else min(self.readings, key=lambda found: found.left)
        self._oldest_next = reading is not self.readings[0]
        piece = reading.piece(tokens)
        names = [row.request.adapter for row in reading.rows]
        self._forward(names, reads_only=True, input_ids=piece, use_cache=True, **{self._cache_name: reading.cache})
        if not reading.left:
            self._join(reading)
        return piece.numel()

    def step(self) -> list[tuple[Row, str | None]]:
        """One token for every row: (row, new text), None where the model gave no number. Those, and rows with `finish` set, are gone."""
        positions = self._cache.lengths[:, None]
        self._cache.open(max(row.length for row in self.rows))
        logits = self._forward(
            [row.request.adapter for row in self.rows], input_ids=self._last[:, None], attention_mask=self._mask(),
            position_ids=positions, use_cache=True, logits_to_keep=1, **{self._cache_name: self._cache},
        ).logits[:, -1]  # fmt: skip
        best, places = logits.max(-1)
        picked, sound = places.tolist(), torch.isfinite(best).tolist()
        for index, row in enumerate(self.rows):
            if sound[index] and not row.is_plain_greedy:
                picked[index] = row.choose(logits[index].float().cpu())
        self._last = torch.tensor(picked, device=self._base.device)
        stepped = [(row, row.take(token, self._base) if good else None) for row, token, good in zip(self.rows, picked, sound, strict=True)]
        self._drop({row for row, text in stepped if row.finish or text is None})
        return stepped

    def keep(self, wanted: Callable[[Row], bool]) -> None:
        """Drop all other rows, whether they are in step or still being read."""
        self._drop({row for row in self.rows if not wanted(row)})
        for reading in [found for found in self.readings if not any(wanted(row) for row in found.rows)]:
            self.readings.remove(reading)

    def clear(self) -> None:
        self.rows, self.readings = [], []
        self._clear_cache()

    def tokens_with(self, rows: Sequence[Row]) -> int:
        """Size of the cache, in tokens, once these rows have joined and everyone has used all the room."""
        everyone = [*self.everyone(), *rows]
        return len(everyone) * max((len(row.prompt) + row.room for row in everyone), default=0)

    def _mask(self) -> Any:
        masks = {kind: self._cache.hidden(window) for kind, window in self._windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _join(self, reading: Reading) -> None:
        self._cache.join(reading.cache, [len(row.prompt) - 1 for row in reading.rows])
        self.readings.remove(reading)
        last = torch.tensor([row.prompt[-1] for row in reading.rows], device=self._base.device)
        self._last = torch.cat([self._last, last])
        self.rows = [*self.rows, *reading.rows]

    def _drop(self, leaving: set[Row]) -> None:
        """The last row takes the place of one that leaves."""
        if not leaving:
            return
        for index in reversed(range(len(self.rows))):
            if self.rows[index] in leaving:
                last = len(self.rows) - 1
                if index != last:
                    self._cache.move(last, index)
                    self.rows[index], self._last[index] = self.rows[last], self._last[last]
                self.rows.pop()
        self._cache.keep_first(len(self.rows))
        self._last = self._last[: len(self.rows)]
        if not self.rows:
            self._clear_cache()

    def _clear_cache(self) -> None:
        self._cache = KeyValues(self._base.device, self._type)
        self._last = torch.zeros(0, dtype=torch.long, device=self._base.device)


def _windows(config: Any) -> dict[str, int | None]:
    """The kinds of attention in this model and how many tokens each sees, None for all."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if len(kinds) > 1:
        return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
    slides = window and (not kinds or "sliding_attention" in kinds)
    return {"all": window if slides else None}
