"""Adapter folders and zips judged by their headers; the adapter service on a scripted engine."""

import json
import os
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ft.adapters import fingerprint, install, vet
from ft.bases import BaseShape, describe_base
from ft.errors import BadInput, Conflict, NotFound, Refused, Unavailable
from ft.scripted import ScriptedEngine
from review.services.adapters import Adapters
from review.services.answers import Answers
from tests.conftest import shared
from tests.test_engine import tiny_base
from tests.tiny import config_for, make_adapter, make_base, tensors_for, write_adapter

__all__ = ["tiny_base"]


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "good", tiny_base)


@pytest.fixture
def shape(tiny_base: Path) -> BaseShape:
    return describe_base(tiny_base, "tiny")


def zipped(folder: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{inside}{path.name}")
    return target


def test_a_good_adapter_is_described(adapter: Path, shape: BaseShape) -> None:
    verdict = vet(adapter, shape)
    assert verdict.ok
    facts = verdict.adapter
    assert facts is not None
    assert (facts.method, facts.rank, facts.alpha, facts.targets, facts.layers) == ("LoRA", 4, 8, ("q_proj", "v_proj"), 4)
    assert facts.bytes == (adapter / "adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize("inside", ["", "my adapter/"])
def test_a_zip_is_judged_like_its_folder(adapter: Path, shape: BaseShape, tmp_path: Path, inside: str) -> None:
    assert vet(zipped(adapter, tmp_path / "a.zip", inside), shape) == vet(adapter, shape)


def test_the_fingerprint_follows_weights_and_meaning_only(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    first = fingerprint(adapter)
    (adapter / "README.md").write_text("more")
    config = json.loads((adapter / "adapter_config.json").read_text())
    same = config | {"peft_version": "0.1", "revision": "x", "lora_dropout": 0.1}
    (adapter / "adapter_config.json").write_text(json.dumps(same, indent=4))
    assert fingerprint(adapter) == first
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 4}))
    assert fingerprint(adapter) != first
    assert fingerprint(make_adapter(tmp_path / "other", tiny_base, seed=2)) != first


def test_what_is_installed_is_two_read_only_files_of_the_same_content(adapter: Path, tmp_path: Path, shape: BaseShape) -> None:
    (adapter / "optimizer.pt").write_bytes(b"junk")
    facts = vet(adapter).adapter
    assert facts is not None
    folder = install(adapter, tmp_path / "home", facts)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert folder.name == fingerprint(folder) == facts.content_hash
    assert vet(folder, shape).ok
    assert {oct(p.stat().st_mode & 0o777) for p in folder.iterdir()} == {"0o400"}
    assert install(zipped(adapter, tmp_path / "a.zip"), tmp_path / "home", facts) == folder
    assert [p.name for p in (tmp_path / "home").iterdir()] == [folder.name]


def test_an_adapter_that_peft_saves_passes(tiny_base: Path, tmp_path: Path, shape: BaseShape) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    for name, options in {"lora": {}, "rs": {"use_rslora": True}, "dora": {"use_dora": True}}.items():
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)  # type: ignore[arg-type]
        get_peft_model(LlamaForCausalLM.from_pretrained(tiny_base), config).save_pretrained(tmp_path / name)
        verdict = vet(tmp_path / name, shape)
        assert verdict.ok, verdict.reasons
    assert vet(tmp_path / "dora").adapter.method == "DoRA"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "only LoRA"),
        ({"task_type": "SEQ_CLS"}, "CAUSAL_LM"),
        ({"r": 0}, "rank r"),
        ({"r": 2_000_000}, "rank r"),
        ({"r": True}, "rank r"),
        ({"r": "4"}, "rank r"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": 1e30}, "lora_alpha"),
        ({"lora_alpha": -8}, "lora_alpha"),
        ({"bias": "all"}, "biases"),
        ({"target_modules": ".*"}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["q_proj", "q_proj", "v_proj"]}, "twice"),
        ({"target_modules": ["q_proj"]}, "disagree"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "disagree"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping"),
        ({"something_new": "x"}, "something_new"),
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"use_rslora": "yes"}, "use_rslora"),
    ],
)
def test_settings_that_do_more_or_nothing_are_refused_by_name(adapter: Path, change: dict[str, Any], says: str) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps(config_for() | change))
    verdict = vet(adapter)
    assert not verdict.ok
    assert says in " ".join(verdict.reasons)


def test_every_problem_of_the_settings_is_told_at_once(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps(config_for() | {"r": 0, "bias": "all", "task_type": "x"}))
    assert len(vet(adapter).reasons) >= 3


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"r": NaN}', '{"r": 1, "r": 2}', "[" * 100_000, "\ufeff{}", '{"r": 1}' + " " * 70_000])
def test_settings_that_are_no_settings_are_refused(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text)
    assert not vet(adapter).ok


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"hidden_size": 128}, "64 to"),
        ({"num_hidden_layers": 1}, "there is no layer"),
        ({"num_hidden_layers": 3}, "for which it has no weights"),
    ],
)
def test_an_adapter_for_another_base_is_refused_with_the_reason(adapter: Path, tmp_path: Path, other: dict[str, int], says: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    usual = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = usual | other
    LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "base")
    (reason,) = vet(adapter, describe_base(tmp_path / "base")).reasons
    assert says in reason
    assert reason.endswith("use an adapter trained on base.")


def test_missing_things_are_named(tmp_path: Path, adapter: Path) -> None:
    assert "neither a folder nor a file" in vet(tmp_path / "nowhere").reasons[0]
    (adapter / "adapter_config.json").unlink()
    assert "adapter_config.json" in vet(adapter).reasons[0]
    (adapter / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in vet(adapter).reasons[0]


def test_real_adapters_of_others_are_judged_rightly(base_shape: BaseShape) -> None:
    expected = json.loads(shared("expected.json").read_text())["lora_adapters"]
    for name, facts in expected.items():
        verdict = vet(shared("lora_adapters", name))
        if facts["expect"].startswith("refuse"):
            assert not verdict.ok
            assert "Git LFS pointer" in verdict.reasons[0]
            continue
        found = verdict.adapter
        assert found is not None
        assert (found.rank, found.alpha, set(found.targets)) == (facts["r"], facts["lora_alpha"], set(facts["target_modules"]))
        assert (found.bytes, found.layers * 2, found.base_name) == (facts["size"], facts["tensors"], facts["base"])
        refusal = vet(shared("lora_adapters", name), base_shape).reasons[0]
        assert "does not fit the base model" in refusal
        assert facts["base"] in refusal


@pytest.fixture
def base_shape(shape: BaseShape) -> BaseShape:
    return shape


# The service


@pytest.fixture
def adapters(db: Any, home: Path, tiny_base: Path) -> Adapters:
    return Adapters(db, home, ScriptedEngine(shape=describe_base(tiny_base)), base=str(tiny_base), memory_mb=1)


def test_a_registered_adapter_is_listed_with_its_facts(adapters: Adapters, adapter: Path, home: Path) -> None:
    view = adapters.register(adapter, "connect v1", None, title="First")
    assert adapters.adapters() == [view]
    assert (view.name, view.title, view.status) == ("connect v1", "First", "registered")
    assert (view.wanted, view.resident, view.in_use) == (False, False, False)
    assert (home / "adapters" / view.content_hash).is_dir()


@pytest.mark.parametrize("name", ["", "base", "HUMAN", "__base__", "../x", "a/b", "a\nb", "x" * 65, ".hidden", "a\0b"])
def test_names_that_mean_something_else_are_refused(adapters: Adapters, adapter: Path, name: str) -> None:
    with pytest.raises(BadInput):
        adapters.register(adapter, name, None)
    assert adapters.adapters() == []


def test_a_name_or_content_is_registered_once(adapters: Adapters, adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    adapters.register(adapter, "one", None)
    other = make_adapter(tmp_path / "two", tiny_base, 2)
    with pytest.raises(Conflict, match="taken"):
        adapters.register(other, "ONE", None)
    with pytest.raises(Conflict, match="already, as one"):
        adapters.register(adapter, "again", None)
    adapters.remove("one", None)
    with pytest.raises(Conflict, match="taken"):
        adapters.register(other, "one", None)


def test_an_adapter_trained_on_other_weights_must_be_confirmed(adapters: Adapters, tiny_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = write_adapter(tmp_path / "foreign", tensors_for(tiny_base, 1), config_for())
    save_file(tensors_for(tiny_base, 1), folder / "adapter_model.safetensors", metadata={"base_hash": "feedfeedfeedfeed"})
    with pytest.raises(BadInput, match="other weights"):
        adapters.register(folder, "foreign", None)
    assert adapters.register(folder, "foreign", None, foreign=True).name == "foreign"


def test_what_is_wanted_is_loaded_and_what_is_not_leaves(adapters: Adapters, adapter: Path) -> None:
    name = adapters.register(adapter, "one", None).name
    adapters.reconcile()
    assert not adapters.adapter(name).resident
    adapters.want(name, True, None)
    adapters.reconcile()
    assert adapters.adapter(name).resident
    adapters.want(name, False, None)
    adapters.reconcile()
    assert not adapters.adapter(name).resident


def test_the_adapter_in_use_is_loaded_and_cannot_be_removed(adapters: Adapters, adapter: Path) -> None:
    adapters.register(adapter, "one", None)
    assert adapters.in_use() is None
    adapters.use("one", None)
    adapters.reconcile()
    assert adapters.in_use() == "one"
    assert adapters.adapter("one").resident
    with pytest.raises(Refused, match="in use"):
        adapters.remove("one", None)
    adapters.use(None, None)
    adapters.remove("one", None)
    assert adapters.adapters() == []
    with pytest.raises(NotFound):
        adapters.want("one", True, None)


def test_a_removed_adapter_leaves_memory_and_disk(adapters: Adapters, adapter: Path, home: Path) -> None:
    adapters.register(adapter, "one", None)
    adapters.want("one", True, None)
    adapters.reconcile()
    adapters.remove("one", None)
    adapters.reconcile()
    assert list((home / "adapters").iterdir()) == []


def test_a_damaged_adapter_goes_to_quarantine_with_the_reason(adapters: Adapters, adapter: Path, home: Path) -> None:
    view = adapters.register(adapter, "one", None)
    stored = home / "adapters" / view.content_hash / "adapter_model.safetensors"
    os.chmod(stored, 0o600)
    stored.write_bytes(stored.read_bytes()[:-10])
    adapters.want("one", True, None)
    adapters.reconcile()
    after = adapters.adapter("one")
    assert after.status == "quarantined"
    assert "cut off" in after.status_reason
    assert not after.wanted
    with pytest.raises(Refused, match="set aside"):
        adapters.use("one", None)


def test_the_least_recently_used_leaves_first_when_memory_is_short(adapters: Adapters, tiny_base: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        folder = make_adapter(tmp_path / name, tiny_base, seed, rank=40, targets=("q_proj", "v_proj", "down_proj", "up_proj"))
        adapters.register(folder, name, None)
    size = adapters.adapter("a").bytes
    adapters.memory.budget = int(size * 2.5)
    for name in ("a", "b"):
        adapters.bring(adapters.adapter(name).id)
    adapters.bring(adapters.adapter("a").id)
    adapters.bring(adapters.adapter("c").id)
    adapters.reconcile()
    assert {view.name for view in adapters.adapters() if view.resident} == {"a", "c"}
    assert "make room" in adapters.adapter("b").status_reason


def test_an_adapter_that_still_answers_keeps_nobody_else_waiting_while_it_leaves(
    db: Any, home: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("review.services.adapter_memory.LEAVES", 0.1)
    ended = threading.Event()

    class Answering(ScriptedEngine):
        """Of which each adapter answers until `ended`; it is not listed as soon as it is told to leave."""

        def unload(self, name: str) -> None:
            super().unload(name)
            ended.wait(60)

    adapters = Adapters(db, home, Answering(shape=describe_base(tiny_base)), base=str(tiny_base))
    for name, seed in (("long", 1), ("other", 2)):
        adapters.register(make_adapter(tmp_path / name, tiny_base, seed), name, None)
    adapters.want("long", True, None)
    adapters.reconcile()
    adapters.want("long", False, None)
    begun = time.monotonic()
    adapters.reconcile()
    adapters.bring(adapters.adapter("other").id)
    took = time.monotonic() - begun
    ended.set()
    assert took < 10
    assert [view.name for view in adapters.adapters() if view.resident or view.wanted] == ["other"]


def test_another_base_in_the_same_data_folder_is_refused_not_mixed(adapters: Adapters, adapter: Path, db: Any, home: Path) -> None:
    from storage.tables import Answer, Prompt, PromptSet

    adapters.register(adapter, "one", None)
    adapters.use("one", None)
    adapters.reconcile()
    arm = Answers(db, ScriptedEngine(), adapters).arms()[0]
    with db.write() as session:
        session.add(PromptSet(id=1, name="s"))
        session.flush()
        session.add(Prompt(id=1, set_id=1, split="test", instruction="x", content_hash="x"))
        session.flush()
        session.add(Answer(arm_id=arm.id, prompt_id=1, text="x", base_hash="scripted:none:none"))

    class Other(ScriptedEngine):
        def identity(self) -> Any:
            from dataclasses import replace

            return replace(super().identity(), base_hash="another")

    moved = Adapters(db, home, Other(), base="embedded")
    with pytest.raises(Conflict, match=r"another base model \(scripted, now another\)"):
        moved.reconcile()
    assert moved.adapter("one").status == "registered"
    Adapters(db, home, ScriptedEngine()).reconcile()


def test_a_repaired_adapter_may_leave_quarantine_and_a_broken_one_may_not(adapters: Adapters, adapter: Path, home: Path) -> None:
    view = adapters.register(adapter, "one", None)
    stored = home / "adapters" / view.content_hash / "adapter_model.safetensors"
    whole = stored.read_bytes()
    os.chmod(stored, 0o600)
    stored.write_bytes(whole[:-10])
    adapters.want("one", True, None)
    adapters.reconcile()
    with pytest.raises(Refused, match=r"stays set aside.*cut off"):
        adapters.want("one", True, None)
    stored.write_bytes(whole)
    adapters.want("one", True, None)
    adapters.reconcile()
    assert adapters.adapter("one").resident


def test_an_adapter_removed_while_it_loads_stays_removed(adapters: Adapters, adapter: Path) -> None:
    view = adapters.register(adapter, "one", None)
    adapters.remove("one", None)
    adapters.memory.mark(view.id, status="quarantined")
    assert adapters.adapters() == []


def test_without_an_engine_adapters_are_listed_but_not_loaded(db: Any, home: Path, adapter: Path) -> None:
    bare = Adapters(db, home)
    bare.register(adapter, "one", None)
    with pytest.raises(Unavailable, match="Start the app"):
        bare.reconcile()


def test_an_adapter_in_an_unfinished_study_is_kept(adapters: Adapters, adapter: Path, db: Any, home: Path) -> None:
    from storage.tables import PromptSet, Study, StudyArm

    adapters.register(adapter, "one", None)
    arm = next(a for a in Answers(db, ScriptedEngine(), adapters).arms() if a.name == "one")
    with db.write() as session:
        session.add(PromptSet(id=1, name="s"))
        session.flush()
        session.add(Study(id=1, name="First study", set_id=1))
        session.flush()
        session.add(StudyArm(study_id=1, arm_id=arm.id))
    with pytest.raises(Refused, match="First study"):
        adapters.remove("one", None)


def test_a_base_of_the_same_shape_and_other_weights_has_another_identity(tiny_base: Path, tmp_path: Path) -> None:
    other = describe_base(make_base(tmp_path / "other", seed=2))
    mine = describe_base(tiny_base)
    assert other.linears == mine.linears
    assert other.base_hash != mine.base_hash
