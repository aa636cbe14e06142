"""From rows to tokens with a loss mask, the same way for training and for looking at it beforehand: one function an objective.

Light: the tokenizer comes from the caller. Must not know torch, runs or files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft.template import encode, encode_answer, messages_for

IGNORED = -100
Row = Mapping[str, str]
Encoded = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cut:
    """A row that is too long: how many tokens it has, and by how many it is over."""

    row: int
    tokens: int
    over: int


def encode_row(tokenizer: Any, row: Row, system: str, objective: str = "sft") -> Encoded:
    """sft: input_ids and labels; dpo: prompt_ids, chosen_ids, rejected_ids; kto: prompt_ids, completion_ids, label."""
    prompt = encode(tokenizer, messages_for(row["instruction"], row.get("input", ""), system))
    answer = encode_answer(tokenizer, row["output"])
    if objective == "dpo":
        return {"prompt_ids": prompt, "chosen_ids": answer, "rejected_ids": encode_answer(tokenizer, row["rejected"])}
    if objective == "kto":
        return {"prompt_ids": prompt, "completion_ids": answer, "label": row["label"] == "good"}
    return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}


def length(encoded: Encoded) -> int:
    """Tokens of a row; of a pair, those of its longer side."""
    if "input_ids" in encoded:
        return len(encoded["input_ids"])
    return len(encoded["prompt_ids"]) + max(len(encoded.get(key, ())) for key in ("chosen_ids", "rejected_ids", "completion_ids"))


def trained(encoded: Encoded) -> int:
    """Tokens the loss is taken over."""
    if "labels" in encoded:
        return sum(label != IGNORED for label in encoded["labels"])
    return sum(len(encoded.get(key, ())) for key in ("chosen_ids", "rejected_ids", "completion_ids"))


def fit_in(encoded: Sequence[Encoded], limit: int) -> tuple[list[Encoded], list[Cut]]:
    """(rows of at most `limit` tokens, those that are longer). A longer row is left out: a cut answer would teach to stop short."""
    sizes = [length(row) for row in encoded]
    kept = [row for row, size in zip(encoded, sizes, strict=True) if size <= limit]
    return kept, [Cut(at, size, size - limit) for at, size in enumerate(sizes) if size > limit]


def mismatched(rows: Sequence[Encoded]) -> list[Encoded]:
    """KTO's rows, each with the answer to another prompt, from which the method estimates how far the model has moved as a whole."""
    return [{**row, "KL_completion_ids": rows[(at + 1) % len(rows)]["completion_ids"]} for at, row in enumerate(rows)]


def pack(rows: Sequence[Encoded], limit: int) -> list[Encoded]:
    """Rows joined into longer ones of at most `limit` tokens, longest first into the fullest that has room; positions start anew in each.

    The first label of each joined row is ignored: it would be predicted from the row before.
    """
    bins: list[tuple[int, list[Encoded]]] = []
    for row in sorted(rows, key=length, reverse=True):
        size = length(row)
        open_ = [at for at, (used, _) in enumerate(bins) if used + size <= limit]
        if not open_:
            bins.append((size, [row]))
            continue
        at = max(open_, key=lambda at: bins[at][0])
        used, held = bins[at]
        bins[at] = (used + size, [*held, row])
    return [_joined(held) for _, held in bins]


def _joined(rows: Sequence[Encoded]) -> Encoded:
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in (IGNORED, *row["labels"][1:])],
        "position_ids": [at for row in rows for at in range(len(row["input_ids"]))],
    }
