"""Answers written during training: some validation prompts, answered greedily by the model as it is, and scored against their references.

Left padding, evaluation mode, gradients off, and everything put back as it was. Torch side. Must not know runs, events or files.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ft.metrics import METRICS, STEM_METEOR, available, score
from ft.models import LoadedBase

AT_ONCE = 8  # prompts in one batch
SHOWN = 5  # prompts whose answers are kept side by side
SHOWN_LETTERS = 1_500
SCORED = ("bleu", "rougeL", "meteor")


@dataclass(frozen=True, slots=True)
class Asked:
    """A validation prompt as tokens, as words, and the answer it should get."""

    tokens: list[int]
    words: str
    reference: str


def answers(model: Any, base: LoadedBase, asked: Sequence[Asked], new_tokens: int, should_stop: Callable[[], bool]) -> list[str]:
    """One greedy answer a prompt; fewer when `should_stop` became true."""
    order = sorted(range(len(asked)), key=lambda at: len(asked[at].tokens))
    written: dict[int, str] = {}
    with evaluating(model):
        for start in range(0, len(order), AT_ONCE):
            if should_stop():
                break
            chosen = order[start : start + AT_ONCE]
            texts = _batch(model, base, [asked[at].tokens for at in chosen], new_tokens)
            written |= dict(zip(chosen, texts, strict=True))
    return [written[at] for at in sorted(written)]


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, no gradients, no activation checkpointing; afterwards as before."""
    was_training, inner = model.training, model.get_base_model()
    checkpointed = bool(getattr(inner, "is_gradient_checkpointing", False))
    model.eval()
    if checkpointed:
        inner.gradient_checkpointing_disable()
    try:
        with torch.no_grad():
            yield
    finally:
        if checkpointed:
            inner.gradient_checkpointing_enable()
        model.train(was_training)


def _batch(model: Any, base: LoadedBase, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[str]:
    width = max(map(len, prompts))
    room = max(1, min(new_tokens, base.context_length - width))
    ids = torch.tensor([[*[base.pad_token] * (width - len(prompt)), *prompt] for prompt in prompts], device=model.device)
    mask = torch.tensor([[*[0] * (width - len(prompt)), *[1] * len(prompt)] for prompt in prompts], device=model.device)
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=room, do_sample=False, temperature=None, top_p=None, top_k=None, use_cache=True,
        eos_token_id=sorted(base.stop_tokens), pad_token_id=base.pad_token,
    )  # fmt: skip
    return [_text(base, row[width:].tolist()) for row in out]


def _text(base: LoadedBase, tokens: list[int]) -> str:
    end = next((at for at, token in enumerate(tokens) if token in base.stop_tokens), len(tokens))
    return str(base.tokenizer.decode(tokens[:end], skip_special_tokens=True)).strip()


def scores(written: Sequence[str], asked: Sequence[Asked]) -> dict[str, float]:
    """BLEU, ROUGE-L and METEOR (or its name without WordNet). No interval: a sample of a few answers shows a direction, not a result."""
    there = available()
    wanted = [STEM_METEOR if name not in there else name for name in SCORED if name in METRICS]
    return {name: score(name, written, [one.reference for one in asked], resamples=1).value for name in wanted}


def side_by_side(written: Sequence[str], asked: Sequence[Asked]) -> list[dict[str, str]]:
    """The first prompts with what was written for them, cut to what a screen can show."""
    return [
        {"prompt": one.words[:SHOWN_LETTERS], "answer": text[:SHOWN_LETTERS], "reference": one.reference[:SHOWN_LETTERS]}
        for text, one in list(zip(written, asked, strict=False))[:SHOWN]
    ]
