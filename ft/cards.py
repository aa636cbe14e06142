"""An adapter's model card: README.md as Hugging Face reads it, from plain facts. Light. Must not know the database, torch or screens."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from ft.bases import EMBEDDED

METHOD_WORDS = {"none": "LoRA", "8bit": "QLoRA (int8)", "4bit": "QLoRA (nf4)"}
RELATIONS = {"adapter": ("adapter", "peft"), "merged": ("finetune", "transformers"), "gguf": ("quantized", "")}
FORMS = {"adapter": "A", "merged": "The base model merged with a", "gguf": "The base model merged with a"}
EMBEDDED_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_NOTE = "The weights it was trained on come from a 4-bit GGUF file of that model: with the original ones answers differ a little."
OBJECTIVE_TAGS = {"sft": "sft", "dpo": "dpo", "kto": "kto"}


@dataclass(frozen=True, slots=True)
class CardScore:
    """One metric on one test set, with its 95 % interval, and the difference from the base where there is one."""

    set_name: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    versus_base: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Everything a card tells. `spec` as the run was started, `record` as it was resolved; `made_at` in UTC seconds."""

    name: str
    base: str
    run_id: str
    spec: Mapping[str, Any]
    record: Mapping[str, Any]
    snapshot_hash: str
    train: int
    validation: int
    categories: Mapping[str, int] = field(default_factory=dict)
    origins: Mapping[str, int] = field(default_factory=dict)
    approved_by: Mapping[str, int] = field(default_factory=dict)
    personal: Mapping[str, int] = field(default_factory=dict)
    too_long: int = 0
    too_close: int | None = None
    what: str = "examples"
    curve: Sequence[tuple[int, float]] = ()
    scores: Sequence[CardScore] = ()
    worse: Sequence[str] = ()
    made_at: float = 0.0
    content_hash: str = ""


def public_name(base: str) -> str:
    """What others know a base by: never a path on this machine."""
    if base == EMBEDDED:
        return EMBEDDED_NAME
    return PurePath(base).name or base if base.startswith(("/", ".", "~")) else base


def card(facts: CardFacts, form: str = "adapter") -> str:
    """The whole README.md of the adapter's own folder, of the merged model or of a folder with a GGUF file."""
    sections = [_front(facts, form), _what(facts, form), _use(facts, form), _data(facts), _training(facts), _results(facts), _limits(facts)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front(facts: CardFacts, form: str) -> str:
    objective = OBJECTIVE_TAGS.get(str(facts.spec.get("objective", "sft")), "sft")
    relation, library = RELATIONS[form]
    lines = ["---", f"base_model: {_yaml(public_name(facts.base))}", f"base_model_relation: {relation}"]
    lines += [*([f"library_name: {library}"] if library else []), "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in (*(["base_model:adapter"] if form == "adapter" else [form]), "lora", objective)]
    return "\n".join([*lines, "---"])


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _plain(text: object) -> str:
    """One line of text that Markdown cannot mistake for more."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in line)


def _what(facts: CardFacts, form: str) -> str:
    made = datetime.fromtimestamp(facts.made_at, UTC).strftime("%d %B %Y").lstrip("0") if facts.made_at else "an unknown day"
    lora: Mapping[str, Any] = facts.spec.get("lora") or {}
    method = METHOD_WORDS.get(str(facts.spec.get("quantisation", "none")), "LoRA")
    kind = " with DoRA" if lora.get("dora") else " with rank-stabilised scaling" if lora.get("rslora") else ""
    targets = facts.record.get("targets") or lora.get("targets") or "layers that are not known"
    targets = targets if isinstance(targets, str) else ", ".join(dict.fromkeys(one.rpartition(".")[2] for one in targets))
    name = _plain(public_name(facts.base))
    return (
        f"# {_plain(facts.name)}\n\n{FORMS[form]} {method} adapter{kind} for {name}, trained on {made} by Tiebreak, "
        f"run {_plain(facts.run_id)}. Rank {lora.get('rank')}, alpha {lora.get('alpha')}, on {_plain(targets)}."
        + (f" {EMBEDDED_NOTE}" if facts.base == EMBEDDED else "")
    )


def _use(facts: CardFacts, form: str) -> str:
    system = str(facts.spec.get("system_prompt") or "").splitlines() or ["(the default of Tiebreak)"]
    base = _yaml(public_name(facts.base).replace("`", ""))
    ways = {
        "adapter": "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base})\ntokenizer = AutoTokenizer.from_pretrained({base})\n"
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n```',
        "merged": "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```',
        "gguf": "```\nllama-server -m path/to/the/file.gguf --jinja\n```",
    }
    return f"## Use\n\n{ways[form]}\n\nAsk with the base's chat template and the system prompt it was trained with:\n\n" + "\n".join(
        f"> {_plain(line)}" for line in system
    )


def _data(facts: CardFacts) -> str:
    lines = [f"{facts.train} training and {facts.validation} validation {facts.what}, frozen as snapshot `{facts.snapshot_hash[:16]}`."]
    by = "Approved by" if facts.what == "examples" else "Judged by"
    told = (("Subjects", facts.categories), ("Where the answers come from", facts.origins), (by, facts.approved_by))
    lines += [f"- {title}: {_counts(of)}." for title, of in told if of]
    found = _counts(facts.personal) if facts.personal else "none found by the rules for e-mail addresses, numbers and keys"
    lines.append(f"- Personal data in the examples: {found}.")
    close = f" On the day this was written {facts.too_close} approved ones were." if facts.too_close is not None else ""
    lines.append(f"- Leakage: what asks nearly the same as a test prompt is left out of every snapshot.{close}")
    if facts.too_long:
        lines.append(f"- Left out because they were too long: {facts.too_long}.")
    return "## Data\n\n" + "\n".join(lines[:1]) + "\n\n" + "\n".join(lines[1:])


def _counts(of: Mapping[str, int], most: int = 12) -> str:
    ordered = sorted(of.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[most:])
    return ", ".join([f"{_plain(name)} {count}" for name, count in ordered[:most]] + ([f"others {rest}"] if rest else []))


def _training(facts: CardFacts) -> str:
    record = facts.record
    rows: list[tuple[str, object]] = [
        ("Objective", facts.spec.get("objective", "sft")),
        ("Learning rate, schedule", f"{facts.spec.get('learning_rate')}, {facts.spec.get('schedule')}"),
        ("Batch size × accumulation", f"{facts.spec.get('batch_size')} × {facts.spec.get('accumulation')}"),
        ("Epochs", facts.spec.get("epochs")),
        *_went(record),
        ("Seed", facts.spec.get("seed")),
        ("Base revision", record.get("base_revision")),
        ("Base fingerprint", record.get("base_hash")),
        ("Template hash", record.get("template_hash")),
        ("Data hash", record.get("data_hash")),
        ("Content hash of this adapter", facts.content_hash),
        ("Versions", ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())),
    ]
    table = "\n".join(f"| {title} | {_plain(value)} |" for title, value in rows if value not in (None, "", "None"))
    return f"## Training\n\n| | |\n|---|---|\n{table}" + _curve(facts) + _spec(facts)


def _curve(facts: CardFacts) -> str:
    if not facts.curve:
        return ""
    lines = "\n".join(f"| {step} | {_round(loss)} |" for step, loss in facts.curve)
    return f"\n\n| Step | Validation loss |\n|---|---|\n{lines}"


def _spec(facts: CardFacts) -> str:
    """The settings whole, as `tiebreak train` takes them."""
    settings = {key: value for key, value in facts.spec.items() if key != "system_prompt"}
    text = json.dumps(settings, indent=1, default=str).replace("`", "'").replace("<", "(").replace(">", ")")
    return f"\n\n```json\n{text}\n```"


def _went(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    if not record:
        return [("How it went", "The record of the run is lost")]
    return [
        ("Steps", f"{record.get('steps')} (kept: {record.get('best_step')})" + (", stopped early" if record.get("stopped_early") else "")),
        ("Validation loss", f"{_round(record.get('validation_loss_before'))} before, {_round(record.get('validation_loss'))} kept"),
        ("Duration", _duration(record.get("seconds"))),
        ("Energy", f"{_round(record['energy_kwh'])} kWh" if record.get("energy_kwh") else None),
        ("Device, dtype", f"{record.get('device')}, {record.get('dtype')}"),
    ]


def _round(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "unknown"


def _duration(seconds: object) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _results(facts: CardFacts) -> str:
    if not facts.scores:
        return "## Results\n\nNot scored yet."
    lines = "\n".join(_result(score) for score in facts.scores)
    worse = "".join(f"\n- {_plain(line)}" for line in facts.worse)
    return (
        "## Results\n\nOn held-out test prompts, 95 % intervals; the difference from the base is paired by prompt. Overlap metrics "
        "mislead: a blind human review decides.\n\n"
        f"| Test set | Metric | Value | Against the base | Prompts |\n|---|---|---|---|---|\n{lines}"
        + (f"\n\nWhat got worse:\n{worse}" if worse else "")
    )


def _result(score: CardScore) -> str:
    difference = "{:+.3g} ({:.3g} to {:.3g})".format(*score.versus_base) if score.versus_base else ""
    value = f"{score.value:.3g} ({score.low:.3g} to {score.high:.3g})"
    return f"| {_plain(score.set_name)} | {_plain(score.metric)} | {value} | {difference} | {score.n} |"


def _limits(facts: CardFacts) -> str:
    return "## Limits\n\n" + " ".join(_limit_words(facts))


def _limit_words(facts: CardFacts) -> Iterator[str]:
    yield "It knows its own subject and was tested on nothing else than what stands above."
    if facts.train < 100:
        yield f"{facts.train} examples teach a tone at best."
    yield "It may state facts that are wrong: have a person read what it writes to customers."
