"""What an adapter may be: every reason against its settings, its tensors and its fit to the base.

Keys that are not exactly LoRA weights would overwrite the base without a warning, so the set and every shape must be what config and base
call for. Pure. Must not know files, zips, torch or where an adapter is kept.
"""

import re
from typing import Any

from ft.bases import BaseShape
from ft.parcels import Tensor

MAX_RANK = 256
KEY = re.compile(r"base_model\.model\.([A-Za-z0-9_.]+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?)")
TARGET = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
SWITCHES = ("use_rslora", "use_dora", "fan_in_fan_out")
CHECKED = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights", *SWITCHES)
INERT = ("base_model_name_or_path", "inference_mode", "peft_version", "revision", "megatron_core", "qalora_group_size", "runtime_config")
HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal")
Parts = dict[str, dict[str, tuple[int, ...]]]  # layer -> part -> shape


def config_problems(config: dict[str, Any]) -> list[str]:
    """Every problem of adapter_config.json; keys that could change the base must be absent or empty."""
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout", 0)
    targets, start = config.get("target_modules"), config.get("init_lora_weights", True)
    rank_ok = type(rank) is int and 1 <= rank <= MAX_RANK
    alpha_ok = rank_ok and type(alpha) in (int, float) and 0 < alpha <= 4 * rank  # type: ignore[operator]
    named = isinstance(targets, list) and 0 < len(targets) <= 2000 and all(isinstance(t, str) and TARGET.fullmatch(t) for t in targets)
    checks = [
        (config.get("peft_type") == "LORA", f"Its type is {_show(config.get('peft_type'))}; only LoRA adapters can be used."),
        (config.get("task_type") == "CAUSAL_LM", f"Its task is {_show(config.get('task_type'))}; it must be CAUSAL_LM."),
        (rank_ok, f"Its rank r is {_show(rank)}; it must be a whole number from 1 to {MAX_RANK}."),
        (alpha_ok, f"Its lora_alpha is {_show(alpha)}; it must be above 0 and at most 4 x r."),
        (isinstance(dropout, int | float) and 0 <= dropout < 1, f"Its lora_dropout is {_show(dropout)}; it must be from 0 to below 1."),
        (config.get("bias", "none") == "none", "It also trains biases, which would change the base for all others; bias must be none."),
        (named, f"Its target_modules are {_show(targets)}; they must be a list of layer names such as q_proj."),
        (not named or len(set(targets or [])) == len(targets or []), "Its target_modules name a layer twice."),
        (start in HARMLESS_STARTS, f"It was started with {_show(start)}, which changes the base model; train it with the usual start."),
        *((isinstance(config.get(key, False), bool), f"Its {key} must be true or false.") for key in SWITCHES),
    ]
    strange = sorted(key for key, value in config.items() if key not in CHECKED + INERT and value not in (None, False, {}, []))
    if strange:
        names = ", ".join(key[:40] for key in strange[:5])
        checks.append((False, f"Its settings {names} would change more than LoRA layers; they must be empty."))
    return [reason for good, reason in checks if not good]


def _show(value: Any) -> str:
    return repr(value)[:60]


def tensor_problems(config: dict[str, Any], tensors: dict[str, Tensor], base: BaseShape | None) -> list[str]:
    """Why the weights are not exactly the LoRA layers that the settings, and the base if known, call for."""
    parts: Parts = {}
    for name, tensor in tensors.items():
        match = KEY.fullmatch(name)
        if not match:
            return [f"Tensor {name[:100]} is not a LoRA weight; loading it could overwrite the base model. Save only the adapter."]
        parts.setdefault(match[1], {})[match[2].removesuffix(".weight")] = tensor.shape
    wanted = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if config.get("use_dora") else set())
    incomplete = sorted(module for module, found in parts.items() if set(found) != wanted)
    if incomplete or not parts:
        where = incomplete[0][:100] if incomplete else "any layer"
        return [f"Layer {where} does not have exactly the tensors {', '.join(sorted(wanted))}. Save the adapter again."]
    targets = tuple(config["target_modules"])
    astray = sorted(module for module in parts if not _targeted(module, targets))
    idle = sorted(target for target in targets if not any(_targeted(module, (target,)) for module in parts))
    if astray or idle:
        what = f"layer {astray[0][:100]} is in the weights" if astray else f"{idle[0][:100]} is in the settings"
        return [f"Its settings and weights disagree about the layers: {what} only. Save the adapter again."]
    wrong = next((reason for module, found in sorted(parts.items()) if (reason := _shape_problem(module, found, config["r"]))), "")
    if wrong:
        return [wrong]
    made_for = str(config.get("base_model_name_or_path") or "another model")
    return _fit_problems(parts, targets, base, made_for) if base and base.linears else []


def _targeted(module: str, targets: tuple[str, ...]) -> bool:
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _shape_problem(module: str, found: dict[str, tuple[int, ...]], rank: int) -> str:
    a, b = found["lora_A"], found["lora_B"]
    magnitude = found.get("lora_magnitude_vector", b[:1])
    if len(a) == 2 and len(b) == 2 and a[0] == rank == b[1] and magnitude == b[:1]:
        return ""
    return f"Layer {module[:100]} has weights of shape {a} and {b}, which is not rank {rank} as its settings say. Save the adapter again."


def _fit_problems(parts: Parts, targets: tuple[str, ...], base: BaseShape, made_for: str) -> list[str]:
    """Against the base: the layers exactly those that the targets name, each of the base's size."""
    expected = {module for module in base.linears if _targeted(module, targets)}
    advice = f"It was made for {made_for[:100]}; use an adapter trained on {base.name[-100:]}."
    foreign = sorted(set(parts) - expected)
    if foreign:
        return [f"It does not fit the base model: there is no layer {foreign[0][:100]}. {advice}"]
    for module, found in sorted(parts.items()):
        mine, theirs = base.linears[module], (found["lora_A"][1], found["lora_B"][0])
        if mine != theirs:
            sizes = f"{mine[0]} to {mine[1]} here, {theirs[0]} to {theirs[1]} there"
            return [f"It does not fit the base model: layer {module} is {sizes}. {advice}"]
    missing = sorted(expected - set(parts))
    if missing:
        return [f"{len(missing)} layers that its settings name have no weights, such as {missing[0][:100]}. {advice}"]
    return []
