"""What an adapter may be: every reason against its settings, its tensors and its fit to the base.

Keys that are not exactly LoRA weights would overwrite the base without a warning, so the set and every shape must be what config and base
call for. Pure. Must not know files, zips, torch or where an adapter is kept.
"""

import re
from typing import Any

from ft.bases import BaseShape
from ft.headers import Tensor

MAX_RANK = 256
KEY = re.compile(r"base_model\.model\.([A-Za-z0-9_.]+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?)")
NAMED_WITHIN = re.compile(r".*\.lora_[AB]\.[A-Za-z0-9_]+\.weight")
UNPREFIXED = re.compile(r"(?!base_model\.model\.)[A-Za-z0-9_.]+\.lora_[AB]\.weight")
HEAD = re.compile(r"(score|classifier|classification_head|qa_outputs|v_head)\.")
EMBEDDING = re.compile(r"(embed_tokens|word_embeddings|wte|embed_in|lm_head|embed_out)(\.modules_to_save(\.\w+)?)?\.weight$")
TARGET = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
SWITCHES = ("use_rslora", "use_dora", "fan_in_fan_out")
CHECKED = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights", *SWITCHES)
INERT = (
    "base_model_name_or_path", "inference_mode", "peft_version", "revision", "megatron_core", "qalora_group_size", "runtime_config",
    "unsloth_fixed",
)  # fmt: skip
HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
WHY = {
    "modules_to_save": "it carries whole layers of its own, which would replace the base model's for all others",
    "layer_replication": "it copies layers of the base model",
    "trainable_token_indices": "it changes the base model's token embeddings",
    "target_parameters": "it changes parameters of the base model that are not linear layers",
    "rank_pattern": "it gives layers different ranks, which are not supported here",
    "alpha_pattern": "it gives layers different strengths, which are not supported here",
    "layers_to_transform": "it adapts only some of the layers that its target_modules name, which is not supported here",
    "layers_pattern": "it adapts only some of the layers that its target_modules name, which is not supported here",
    "exclude_modules": "it adapts only some of the layers that its target_modules name, which is not supported here",
    "auto_mapping": "it names program code to load the model with",
    "lora_bias": "it adds biases to its layers, which are not supported here",
    "loftq_config": "it was made for a changed copy of the base model",
}
ODD = "it would change more than LoRA layers, or in a way that is not known here"
Parts = dict[str, dict[str, tuple[int, ...]]]  # layer -> part -> shape


def problems(config: dict[str, Any], tensors: dict[str, Tensor], base: BaseShape | None) -> list[str]:
    """Every reason against an adapter. `base` None leaves out whether it fits."""
    return config_problems(config) + tensor_problems(config, tensors, base)


def config_problems(config: dict[str, Any]) -> list[str]:
    """Every problem of adapter_config.json; keys that could change the base must be absent or empty."""
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout") or 0
    targets, start = config.get("target_modules"), config.get("init_lora_weights", True)
    rank_ok = type(rank) is int and 1 <= rank <= MAX_RANK
    alpha_ok = type(alpha) in (int, float) and 0 < alpha <= (4 * rank if rank_ok else 4 * MAX_RANK)  # type: ignore[operator]
    named = named_targets(config)
    checks = [
        (config.get("peft_type") == "LORA", f"Its type is {_show(config.get('peft_type'))}; only LoRA adapters can be used."),
        (config.get("task_type") == "CAUSAL_LM", f"Its task is {_show(config.get('task_type'))}; it must be CAUSAL_LM."),
        (rank_ok, f"Its rank r is {_show(rank)}; it must be a whole number from 1 to {MAX_RANK}."),
        (alpha_ok, f"Its lora_alpha is {_show(alpha)}; it must be above 0 and at most 4 x r."),
        (isinstance(dropout, int | float) and 0 <= dropout < 1, f"Its lora_dropout is {_show(dropout)}; it must be from 0 to below 1."),
        (config.get("bias") in (None, "none"), "It also trains biases, which would change the base for all others; bias must be none."),
        (bool(named), _unnamed(targets)),
        (len(set(named)) == len(named), "Its target_modules name a layer twice."),
        (start in HARMLESS_STARTS, f"It was started with {_show(start)}, which changes the base model; train it with the usual start."),
        *((isinstance(config.get(key, False), bool), f"Its {key} must be true or false.") for key in SWITCHES),
        *((False, f"Its setting {key[:40]} is {_show(config[key])}: {WHY.get(key, ODD)}.") for key in _strange(config)[:8]),
    ]
    return [reason for good, reason in checks if not good]


def named_targets(config: dict[str, Any]) -> tuple[str, ...]:
    """The target modules where they are a list of names, else none."""
    targets = config.get("target_modules")
    named = isinstance(targets, list) and len(targets) <= 2000 and all(isinstance(t, str) and TARGET.fullmatch(t) for t in targets)
    return tuple(targets) if named and isinstance(targets, list) else ()


def used_targets(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """The target modules that some weights belong to: people list names of several model families at once."""
    modules = {match[1] for name in tensors if (match := KEY.fullmatch(name))}
    return tuple(sorted(target for target in set(named_targets(config)) if any(_targeted(module, (target,)) for module in modules)))


def _strange(config: dict[str, Any]) -> list[str]:
    known = CHECKED + INERT + (("eva_config",) if config.get("init_lora_weights") == "eva" else ())
    return sorted(key for key, value in config.items() if key not in known and not _is_off(key, value))


def _is_off(key: str, value: Any) -> bool:
    """Empty or false; of a setting that is known to do something, the number 0 is a value like any other."""
    return value in (None, False, {}, [], "") and not (key in WHY and type(value) in (int, float))


def _unnamed(targets: Any) -> str:
    """Why these target modules are not names."""
    if isinstance(targets, str) and targets:
        what = f"Its target_modules are the pattern {_show(targets)}, which says too little about what it changes"
        return f"{what}; they must be a list of layer names such as q_proj."
    return f"Its target_modules are {_show(targets)}; they must be a list of layer names such as q_proj."


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def tensor_problems(config: dict[str, Any], tensors: dict[str, Tensor], base: BaseShape | None) -> list[str]:
    """Why the weights are not exactly the LoRA layers that the settings, and the base if known, call for."""
    parts: Parts = {}
    astray = []
    for name, tensor in tensors.items():
        if match := KEY.fullmatch(name):
            parts.setdefault(match[1], {})[match[2].removesuffix(".weight")] = tensor.shape
        else:
            astray.append(name)
    reasons = _not_lora(sorted(astray))
    if not parts:
        return reasons or ["It holds no weights at all. Save the adapter again, after training."]
    wanted = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if config.get("use_dora") is True else set())
    incomplete = sorted(module for module, found in parts.items() if set(found) != wanted)
    if incomplete:
        return [*reasons, _incomplete(incomplete[0], set(parts[incomplete[0]]), wanted)]
    rank = config.get("r")
    wrong = next((why for module, found in sorted(parts.items()) if (why := _shape_problem(module, found, rank))), "")
    if wrong and type(rank) is int and 1 <= rank <= MAX_RANK:
        return [*reasons, wrong]
    if targets := named_targets(config):
        reasons += _target_problems(parts, targets, base)
    if base and base.linears:
        reasons += _fit_problems(parts, targets, base, str(config.get("base_model_name_or_path") or "another model"))
    return reasons


def _incomplete(module: str, found: set[str], wanted: set[str]) -> str:
    if "lora_magnitude_vector" in found - wanted:
        return f"Layer {module[:100]} has DoRA's lora_magnitude_vector, and its settings do not say use_dora. Save the adapter again."
    lacks = f"lacks {', '.join(sorted(wanted - found))}"
    return f"Layer {module[:100]} does not have exactly the tensors {', '.join(sorted(wanted))}: it {lacks}. Save the adapter again."


def _not_lora(names: list[str]) -> list[str]:
    """What the first of these tensors is, in a sentence."""
    if not names:
        return []
    first, more = names[0][:100], f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return [f"Tensor {first}{more} {_what_it_is(names[0])}"]


def _what_it_is(name: str) -> str:
    if "lora_embedding" in name:
        return "adapts token embeddings, which is not supported here. Train it on linear layers only."
    if "trainable_tokens" in name:
        return "retrains single tokens' embeddings, which is not supported here. Train it on linear layers only."
    if NAMED_WITHIN.fullmatch(name):
        return "names an adapter within its key, so it was not saved by PEFT's save_pretrained. Save it so."
    if UNPREFIXED.fullmatch(name):
        return "lacks PEFT's prefix base_model.model., so it was not saved by PEFT's save_pretrained. Save it so."
    if EMBEDDING.search(name):
        return (
            "is a whole embedding or output layer, not a LoRA weight (PEFT adds it when the tokenizer was extended); loading it could "
            "overwrite the base model. Train without new tokens, or save with save_embedding_layers=False."
        )
    if HEAD.search(name):
        return (
            "is a classification head, not a LoRA weight; loading it could overwrite the base model. Such an adapter sorts texts and "
            "writes no answers: use one trained as CAUSAL_LM."
        )
    return "is not a LoRA weight; loading it could overwrite the base model. Save only the adapter."


def _targeted(module: str, targets: tuple[str, ...]) -> bool:
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _target_problems(parts: Parts, targets: tuple[str, ...], base: BaseShape | None) -> list[str]:
    astray = sorted(module for module in parts if not _targeted(module, targets))
    known = base is not None and bool(base.linears)  # then what is missing is said of the base's own layers
    idle = [] if known else sorted(target for target in targets if not any(_targeted(module, (target,)) for module in parts))
    if not astray and not idle:
        return []
    what = f"layer {astray[0][:100]} is in the weights" if astray else f"{idle[0][:100]} is in the settings"
    return [f"Its settings and weights disagree about the layers: {what} only. Save the adapter again."]


def _shape_problem(module: str, found: dict[str, tuple[int, ...]], rank: Any) -> str:
    a, b = found["lora_A"], found["lora_B"]
    magnitude = found.get("lora_magnitude_vector", b[:1])
    if len(a) == 2 and len(b) == 2 and a[0] == rank == b[1] and magnitude == b[:1]:
        return ""
    return f"Layer {module[:100]} has weights of shape {a} and {b}, which is not rank {rank} as its settings say. Save the adapter again."


def _fit_problems(parts: Parts, targets: tuple[str, ...], base: BaseShape, made_for: str) -> list[str]:
    """Against the base: the layers exactly those that the targets name, each of the base's size."""
    if made_for.rstrip("/").rpartition("/")[2] == base.name.rstrip("/").rpartition("/")[2]:
        advice = f"It names {made_for[:100]} as its base all the same; save it again."
    else:
        advice = f"It was made for {made_for[:100]}; use an adapter trained on {base.name[-100:]}."
    foreign = sorted(set(parts) - set(base.linears))
    outside = next((module for module in foreign if module in base.others), "")
    if outside:
        return [f"It adapts {outside[:100]}, outside the model's blocks, which is not supported here. Train it without that layer."]
    if foreign:
        return [f"It does not fit the base model: there is no layer {foreign[0][:100]}. {advice}"]
    for module, found in sorted(parts.items()):
        mine, theirs = base.linears[module], (found["lora_A"][1], found["lora_B"][0])
        if mine != theirs:
            sizes = f"{mine[0]} to {mine[1]} here, {theirs[0]} to {theirs[1]} there"
            return [f"It does not fit the base model: layer {module} is {sizes}. {advice}"]
    missing = sorted({module for module in base.linears if _targeted(module, targets)} - set(parts))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return [f"Its settings name layer {missing[0][:100]}{more}, for which it has no weights. {advice}"]
    return []
