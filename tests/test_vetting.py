"""Adapters as people have them, unseen before: each is accepted, or refused with the true reason."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft.adapters import Vetted, judge, vet
from ft.bases import BaseShape, describe_base
from ft.embedded import embedded_shape
from review.services.adapters import Adapters
from tests.conftest import shared
from tests.test_engine import tiny_base
from tests.tiny import config_for, make_adapter, tensors_for, write_adapter

__all__ = ["tiny_base"]
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def shape(tiny_base: Path) -> BaseShape:
    return describe_base(tiny_base, "tiny")


def peft_defaults() -> dict[str, Any]:
    """Every setting of the installed PEFT at its default, as save_pretrained writes them."""
    from peft import LoraConfig

    made = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]).to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in made.items()} | {
        "base_model_name_or_path": "tiny", "task_type": "CAUSAL_LM", "peft_type": "LORA",
    }  # fmt: skip


def test_every_default_of_the_installed_peft_is_accepted(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    folder = write_adapter(tmp_path / "a", tensors_for(tiny_base, 1), json.loads(json.dumps(peft_defaults(), default=str)))
    verdict = judge(folder, shape)
    assert verdict.ok, verdict.reasons


GOOD: dict[str, dict[str, Any]] = {
    "unknown settings that are empty": {"hyper_config": None, "use_hyper": False, "hyper_pattern": {}, "hyper_names": [], "hyper_note": ""},
    "what PEFT leaves of unused methods": {"megatron_core": "megatron.core", "qalora_group_size": 32, "runtime_config": {"x": False}},
    "alpha as a fraction": {"lora_alpha": 6.5},
    "alpha as a float": {"lora_alpha": 8.0},
    "an EVA start": {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
    "a gaussian start": {"init_lora_weights": "gaussian"},
    "dropout": {"lora_dropout": 0.1},
    "trained on a 4-bit copy": {"base_model_name_or_path": "someone/tiny-bnb-4bit"},
    "names of other model families too": {"target_modules": ["q_proj", "v_proj", "query_key_value", "c_attn"]},
    "fan_in_fan_out on plain layers": {"fan_in_fan_out": True},
    "rsLoRA": {"use_rslora": True},
    "a mark of a trainer": {"unsloth_fixed": True},
    "settings left empty": {"bias": None, "lora_dropout": None, "init_lora_weights": None},
}


@pytest.mark.parametrize("what", GOOD)
def test_what_does_no_harm_is_accepted(tiny_base: Path, tmp_path: Path, shape: BaseShape, what: str) -> None:
    verdict = judge(write_adapter(tmp_path / "a", tensors_for(tiny_base, 1), config_for() | GOOD[what]), shape)
    assert verdict.ok, verdict.reasons
    assert verdict.adapter is not None
    assert verdict.adapter.targets == ("q_proj", "v_proj")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_in_half_precision_are_accepted_and_said(tiny_base: Path, tmp_path: Path, shape: BaseShape, dtype: str) -> None:
    import torch

    tensors = {key: value.to(getattr(torch, dtype)) for key, value in tensors_for(tiny_base, 1).items()}
    verdict = judge(write_adapter(tmp_path / "a", tensors, config_for()), shape)
    assert verdict.adapter is not None
    assert verdict.adapter.dtype == dtype


BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "sequence classification": ({"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}, ("SEQ_CLS", "whole layers")),
    "no rank": ({"r": 0}, ("rank r is 0",)),
    "different ranks": ({"rank_pattern": {"q_proj": 8}}, ("rank_pattern", "different ranks")),
    "different strengths": ({"alpha_pattern": {"q_proj": 8}}, ("alpha_pattern", "strengths")),
    "some layers only": ({"layers_to_transform": [0]}, ("layers_to_transform", "only some")),
    "the first layer only, as a number": ({"layers_to_transform": 0}, ("layers_to_transform is 0", "only some")),
    "a pattern for modules": ({"target_modules": r".*\.(q|v)_proj"}, ("target_modules are the pattern", "list of layer names")),
    "all-linear": ({"target_modules": "all-linear"}, ("target_modules are the pattern 'all-linear'", "list of layer names")),
    "biases within LoRA": ({"lora_bias": True}, ("lora_bias", "biases")),
    "single tokens": ({"trainable_token_indices": [7, 8]}, ("trainable_token_indices", "token embeddings")),
    "LoftQ's copy of the base": ({"loftq_config": {"loftq_bits": 4}}, ("loftq_config", "changed copy of the base")),
    "a name that steers a terminal": ({"a\x1b[31m\u202eb": 1}, ("Its setting a\ufffd[31m\ufffdb is 1",)),
    "whole layers beside": ({"modules_to_save": ["lm_head"]}, ("modules_to_save", "whole layers")),
    "another method": ({"peft_type": "LOHA"}, ("LOHA", "only LoRA")),
    "a method within LoRA": ({"use_qalora": True}, ("use_qalora",)),
    "activated LoRA": ({"alora_invocation_tokens": [1, 2]}, ("alora_invocation_tokens",)),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, ("pissa_niter_4", "changes the base")),
    "a newer setting that is on": ({"use_hyper": True}, ("use_hyper", "not known")),
    "DoRA without magnitudes": ({"use_dora": True}, ("lora_magnitude_vector",)),
    "three at once": ({"r": 0, "bias": "all", "task_type": "X", "modules_to_save": ["y"]}, ("rank r", "bias", "task", "modules_to_save")),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_is_refused_with_the_true_reasons(tiny_base: Path, tmp_path: Path, shape: BaseShape, what: str) -> None:
    change, says = BAD[what]
    verdict = judge(write_adapter(tmp_path / "a", tensors_for(tiny_base, 1), config_for() | change), shape)
    assert not verdict.ok
    assert verdict.adapter is None
    for words in says:
        assert words in " ".join(verdict.reasons)


def test_settings_and_weights_are_judged_together(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    import torch

    tensors = tensors_for(tiny_base, 1) | {"base_model.model.score.weight": torch.ones(2, 64)}
    reasons = judge(write_adapter(tmp_path / "a", tensors, config_for() | {"task_type": "SEQ_CLS"}), shape).reasons
    assert len(reasons) == 2
    assert "SEQ_CLS" in reasons[0]
    assert "score.weight is a classification head, not a LoRA weight" in reasons[1]


@pytest.mark.parametrize(
    ("key", "size", "says"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", (4, 422), "token embeddings"),
        (f"{Q}.lora_A.default.weight", (4, 64), "names an adapter within its key"),
        ("base_model.model.lm_head.weight", (422, 64), "whole embedding or output layer"),
        ("base_model.model.model.embed_tokens.modules_to_save.default.weight", (430, 64), "the tokenizer was extended"),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", (2, 64), "single tokens"),
        ("base_model.model.classifier.out_proj.weight", (3, 64), "classification head"),
        ("base_model.model.model.norm.weight", (64,), "could overwrite the base"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", (4, 64), "lacks PEFT's prefix"),
        (f"{Q}.lora_B.bias", (64,), "is not a LoRA weight"),
    ],
)
def test_tensors_that_are_no_lora_layer_are_named(
    tiny_base: Path, tmp_path: Path, shape: BaseShape, key: str, size: tuple[int, ...], says: str
) -> None:
    import torch

    folder = write_adapter(tmp_path / "a", tensors_for(tiny_base, 1) | {key: torch.ones(*size)}, config_for())
    assert says in " ".join(judge(folder, shape).reasons)


def test_weights_saved_by_others_than_peft_are_told_so_and_nothing_else(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    bare = {key.removeprefix("base_model.model."): value for key, value in tensors_for(tiny_base, 1).items()}
    (reason,) = judge(write_adapter(tmp_path / "bare", bare, config_for()), shape).reasons
    assert "lacks PEFT's prefix" in reason
    assert judge(write_adapter(tmp_path / "none", {}, config_for()), shape).reasons == (
        "It holds no weights at all. Save the adapter again, after training.",
    )


def test_magnitudes_without_the_setting_are_named(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    (reason,) = judge(write_adapter(tmp_path / "a", tensors_for(tiny_base, 1, dora=True), config_for()), shape).reasons
    assert "DoRA's lora_magnitude_vector" in reason
    assert "do not say use_dora" in reason


def test_an_incomplete_adapter_of_this_base_is_not_called_another_bases(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    some = {key: value for key, value in tensors_for(tiny_base, 1).items() if not key.startswith(Q)}
    (reason,) = judge(write_adapter(tmp_path / "a", some, config_for()), shape).reasons
    assert "for which it has no weights" in reason
    assert "use an adapter trained on" not in reason


def test_an_adapted_output_head_is_not_called_a_layer_that_is_missing(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    import torch

    head = {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 64), "base_model.model.lm_head.lora_B.weight": torch.ones(422, 4)}
    targets = ("q_proj", "v_proj", "lm_head")
    folder = write_adapter(tmp_path / "a", tensors_for(tiny_base, 1) | head, config_for(targets=targets))
    assert "lm_head, outside the model's blocks" in " ".join(judge(folder, shape).reasons)


# The numbers


def spoilt(kind: str) -> Callable[[dict[str, Any]], None]:
    def spoil(tensors: dict[str, Any]) -> None:
        import torch

        for key in tensors:
            if kind == "zero" and "lora_B" in key:
                tensors[key].zero_()
        last = sorted(tensors)[-1]
        if kind in ("nan", "inf"):
            tensors[last].reshape(-1)[-1] = float(kind)
        for key in tensors:
            tensors[key] = tensors[key].to(torch.bfloat16 if kind == "nan" else torch.float16)

    return spoil


@pytest.mark.parametrize(("kind", "says"), [("nan", "not all finite"), ("inf", "not all finite"), ("zero", "changes nothing")])
@pytest.mark.parametrize("wrap", ["folder", "zip"])
def test_numbers_that_cannot_work_are_found_before_anything_is_loaded(
    tiny_base: Path, tmp_path: Path, kind: str, says: str, wrap: str
) -> None:
    tensors = tensors_for(tiny_base, 1)
    spoilt(kind)(tensors)
    folder = write_adapter(tmp_path / "a", tensors, config_for())
    assert vet(folder).ok, "the header alone cannot show it"
    assert says in judge(zipped(folder, tmp_path / "a.zip") if wrap == "zip" else folder).reasons[0]


# Folders and zips as people make them

PAGE = b"<!DOCTYPE html><html>Sign in"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 134\n"


@pytest.mark.parametrize(
    ("member", "content", "says"),
    [
        ("adapter_model.safetensors", PAGE, "is a web page"),
        ("adapter_model.safetensors", POINTER, "Git LFS pointer"),
        ("adapter_config.json", POINTER, "Git LFS pointer"),
        ("adapter_config.json", b'{"base_model_name_or_path": "\\ud800"}', "surrogates"),
        ("adapter_config.json", b'{"r": ' + b"9" * 6000 + b"}", "thousands of digits"),
    ],
)
def test_what_lies_in_place_of_a_file_is_said(tiny_base: Path, tmp_path: Path, member: str, content: bytes, says: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_base)
    (folder / member).write_bytes(content)
    for given in (folder, zipped(folder, tmp_path / "a.zip")):
        assert says in judge(given).reasons[0]


@pytest.mark.parametrize(
    ("renamed", "says"),
    [
        ("model.safetensors", "holds a whole model"),
        ("adapter_model-00001-of-00002.safetensors", "a part of a file in several"),
        ("adapter.zip", "adapter.zip within is not unpacked"),
    ],
)
def test_what_is_there_instead_of_the_weights_is_said(tiny_base: Path, tmp_path: Path, renamed: str, says: str) -> None:
    folder = make_adapter(tmp_path / "a", tiny_base)
    (folder / "adapter_model.safetensors").rename(folder / renamed)
    for given in (folder, zipped(folder, tmp_path / "a.zip")):
        assert says in judge(given).reasons[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.tar.gz", "a gz archive is not opened"), ("w.safetensors", "the weights alone"), ("a.gguf", "a GGUF file"), ("a.bin", "pickled")],
)
def test_a_file_that_is_no_zip_is_called_what_it_is(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08 something")
    assert says in judge(tmp_path / name).reasons[0]


def test_a_name_with_a_backslash_is_not_called_a_way_out(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", tiny_base)
    reason = judge(zipped(folder, tmp_path / "a.zip", inside="lora\\")).reasons[0]
    assert "backslash" in reason
    assert "leads outside" not in reason


def zipped(folder: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{inside}{path.relative_to(folder)}")
    return target


@pytest.fixture
def checkpoint(tiny_base: Path, tmp_path: Path) -> Path:
    """A folder as a trainer leaves it: pickles, tokenizer, card and state beside the adapter."""
    folder = make_adapter(tmp_path / "Run" / "CHECKPOINT-500", tiny_base)
    for name in ("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth", "tokenizer.json", "trainer_state.json"):
        (folder / name).write_bytes(b"\x80\x04junk")
    card = "---\nbase_model: acme/tiny\nlicense: apache-2.0\nlibrary_name: peft\n---\n# My adapter\nlicense: none of this\n"
    (folder / "README.md").write_text(card)
    return folder


@pytest.mark.parametrize("wrap", ["folder", "parent", "zip", "nested zip"])
def test_pickles_beside_good_weights_are_left_unopened_and_said(checkpoint: Path, tmp_path: Path, shape: BaseShape, wrap: str) -> None:
    given = {
        "folder": lambda: checkpoint,
        "parent": lambda: checkpoint.parent,
        "zip": lambda: zipped(checkpoint, tmp_path / "A.ZIP"),
        "nested zip": lambda: zipped(checkpoint.parent, tmp_path / "a.zip", "My Adapters/"),
    }[wrap]()
    verdict = judge(given, shape)
    assert verdict.ok, verdict.reasons
    assert "optimizer.pt" in " ".join(verdict.notes)
    assert "training_args.bin" in " ".join(verdict.notes)
    assert dict(verdict.card) == {"base_model": "acme/tiny", "license": "apache-2.0", "library_name": "peft"}
    assert verdict.adapter == vet(checkpoint).adapter


def test_of_an_output_folder_with_checkpoints_the_outermost_counts(checkpoint: Path, tiny_base: Path, tmp_path: Path) -> None:
    make_adapter(checkpoint.parent, tiny_base, seed=5)
    outer = vet(make_adapter(tmp_path / "same", tiny_base, seed=5)).adapter
    assert vet(checkpoint.parent).adapter == outer
    verdict = vet(zipped(checkpoint.parent, tmp_path / "a.zip"))
    assert verdict.adapter == outer
    assert "CHECKPOINT-500" in verdict.notes[0]


def test_two_checkpoints_are_a_question_not_a_guess(checkpoint: Path) -> None:
    shutil.copytree(checkpoint, checkpoint.parent / "checkpoint-1000")
    assert "holds 2 adapters" in vet(checkpoint.parent).reasons[0]


def test_pickled_weights_alone_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "adapter_model.safetensors").rename(checkpoint / "adapter_model.bin")
    for path in (checkpoint, zipped(checkpoint, tmp_path / "a.zip"), zipped(checkpoint, tmp_path / "b.zip", "inside/")):
        assert "pickled weights (adapter_model.bin)" in judge(path).reasons[0]


def test_upper_case_file_names_are_told_from_missing_ones(checkpoint: Path) -> None:
    (checkpoint / "adapter_model.safetensors").rename(checkpoint / "ADAPTER_MODEL.SAFETENSORS")
    assert "must be named adapter_model.safetensors" in judge(checkpoint).reasons[0]


# Real ones, and a base that is not here yet


def vetted(db: Any, home: Path, base: str, name: str) -> Vetted:
    return Adapters(db, home, base=base).vet(shared("lora_adapters", name))


def test_real_adapters_for_other_bases_are_refused_before_the_embedded_base_is_fetched(db: Any, home: Path) -> None:
    assert not (home / "bases").exists()
    for name, made_for in {"gpt2_tigrinya": "gpt2", "movies_apache": "EleutherAI/gpt-neo-125M"}.items():
        (reason,) = vetted(db, home, "embedded", name).reasons
        assert "does not fit" in reason
        assert made_for in reason
    assert "Git LFS pointer" in vetted(db, home, "embedded", "lfs_pointer_ghostcoder").reasons[0]


def test_without_the_base_at_hand_only_its_name_can_speak_for_an_adapter(db: Any, home: Path) -> None:
    assert vetted(db, home, "EleutherAI/gpt-neo-125M", "movies_apache").ok
    assert "not on this machine" in " ".join(vetted(db, home, "EleutherAI/gpt-neo-125M", "gpt2_tigrinya").reasons)


def test_a_real_gpt2_adapter_is_accepted_with_a_gpt2_base(db: Any, home: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    facts = json.loads(shared("expected.json").read_text())["lora_adapters"]["gpt2_tigrinya"]
    assert facts["base"] == "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32)).save_pretrained(tmp_path / "gpt2")
    verdict = vetted(db, home, str(tmp_path / "gpt2"), "gpt2_tigrinya")
    assert verdict.ok, verdict.reasons
    assert "does not fit" in vetted(db, home, str(tmp_path / "gpt2"), "movies_apache").reasons[0]


@pytest.mark.real
def test_the_embedded_base_has_the_shape_that_is_written_down(base_folder: Path) -> None:
    found, written = describe_base(base_folder), embedded_shape()
    assert (found.linears, found.others, found.context_length) == (written.linears, written.others, written.context_length)
