"""Published comparisons, turned into study files: what somebody does who brings a study in. Not a test itself."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.conftest import shared

HEADER = {"type": "study", "format": "tiebreak study", "version": 1}


def write(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def pandalm(path: Path) -> Path:
    """999 pairs of five models, three raters each. A prompt comes up with other answers again, so every pair has its own prompt."""
    rows = json.loads(shared("pandalm", "testset-v1.json").read_text())
    models = sorted({model for row in rows for model in row["cmp_key"].split("_")})
    lines: list[dict[str, Any]] = [HEADER | {"name": "pandalm", "reviewers": ["1", "2", "3"]}]
    lines += [{"type": "arm", "name": model} for model in models]
    for row in rows:
        left, right = row["cmp_key"].split("_")
        pair = str(row["idx"])
        lines.append({"type": "prompt", "id": pair, "instruction": row["instruction"], "input": row["input"]})
        for model, answer in ((left, row["response1"]), (right, row["response2"])):
            text = answer if isinstance(answer, str) else json.dumps(answer)  # six answers are the bare words true and false
            lines.append({"type": "answer", "prompt": pair, "arm": model, "text": text})
        for rater in ("1", "2", "3"):
            choice = ("tie", "left", "right")[int(row[f"annotator{rater}"])]
            lines.append({"type": "vote", "reviewer": rater, "prompt": pair, "left": left, "right": right, "choice": choice})
    return write(path, lines)


def vicuna80(path: Path, other: str) -> Path:
    """80 questions, `other` against vicuna-13b, judged by GPT-4 with two scores each."""
    lines: list[dict[str, Any]] = [HEADER | {"name": f"{other} or vicuna", "against": other}]
    lines += [{"type": "arm", "name": name} for name in (other, "vicuna-13b")]
    for question in _rows("vicuna80", "question.jsonl"):
        number = str(question["question_id"])
        lines.append({"type": "prompt", "id": number, "instruction": question["text"], "category": question["category"]})
    for arm in (other, "vicuna-13b"):
        answers = _rows("vicuna80", f"answer_{arm}.jsonl")
        lines += [{"type": "answer", "prompt": str(row["question_id"]), "arm": arm, "text": row["text"]} for row in answers]
    for review in _rows("vicuna80", f"review_{other}_vicuna-13b.jsonl"):
        first, second = review["score"]
        choice = "left" if first > second else "right" if second > first else "tie"
        vote = {"type": "vote", "reviewer": "GPT-4", "prompt": str(review["question_id"]), "left": other, "right": "vicuna-13b"}
        lines.append(vote | {"choice": choice, "comment": review["text"]})
    return write(path, lines)


def llmbar(path: Path) -> Path:
    """100 instructions, the first output against the second, with one objectively better."""
    rows = json.loads(shared("llmbar", "Natural.json").read_text())
    lines: list[dict[str, Any]] = [HEADER | {"name": "llmbar"}, *({"type": "arm", "name": f"output {n}"} for n in (1, 2))]
    for at, row in enumerate(rows):
        lines.append({"type": "prompt", "id": str(at), "instruction": row["input"]})
        lines += [{"type": "answer", "prompt": str(at), "arm": f"output {n}", "text": row[f"output_{n}"]} for n in (1, 2)]
        vote = {"type": "vote", "reviewer": "label", "prompt": str(at), "left": "output 1", "right": "output 2"}
        lines.append(vote | {"choice": ("left", "right")[row["label"] - 1]})
    return write(path, lines)


def _rows(*parts: str) -> list[Any]:
    return [json.loads(line) for line in shared(*parts).read_text().splitlines() if line.strip()]
