"""One answer being written: its tokens so far, the text they make, and how its next token is chosen.

Torch side. Must not know models, batches or queues.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ft.engine import Request
from ft.models import LoadedBase
from ft.specs import DecodeSpec

NUCLEUS = 256  # tokens looked at before all are sorted
FAR, NEAR = 24, 6  # tokens decoded again at each step, at most and after a new start


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
    _anchor: int = 0  # where decoding starts: a few tokens before, since a token's text depends on its left neighbours
    _shown: int = 0  # characters of the text from the anchor on that are out
    _generator: torch.Generator | None = None

    @property
    def length(self) -> int:
        """Tokens the model has seen once the next step is done."""
        return len(self.prompt) + len(self.tokens)

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
        """Text beyond what is out, "" while a character is incomplete."""
        after = _decode(tokenizer, self.tokens[self._anchor :])
        if after.endswith("\ufffd") and self.finish is None:
            return ""
        new = after[self._shown :]
        self._decoded, self._shown = len(self.tokens), len(after)
        if self._decoded - self._anchor > FAR:
            self._anchor = self._decoded - NEAR
            self._shown = len(_decode(tokenizer, self.tokens[self._anchor :]))
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
    if spec.top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=generator))
    ordered, places = probabilities.topk(min(NUCLEUS, probabilities.numel()))
    if float(ordered.sum()) < spec.top_p:
        ordered, places = probabilities.sort(descending=True)
    ordered[ordered.cumsum(-1) - ordered >= spec.top_p] = 0
    return int(places[torch.multinomial(ordered, 1, generator=generator)])
