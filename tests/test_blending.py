"""Blends are exactly the weighted sum of their parts, by the sum itself and by PEFT; uploads as browsers send them; pinned adapters."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ft.adapters import vet
from ft.bases import describe_base
from ft.blending import Part, blend, read_arrays
from ft.errors import BadInput, Conflict
from ft.scripted import ScriptedEngine
from review.services.adapters import Adapters, NotAccepted
from tests.test_engine import ask, run, texts, tiny_base
from tests.tiny import config_for, make_adapter, tensors_for, write_adapter

__all__ = ["tiny_base"]


def deltas(folder: Path) -> dict[str, Any]:
    """What an adapter adds to each layer, in float64."""
    facts = vet(folder).adapter
    assert facts is not None
    scale = facts.alpha / (facts.rank**0.5 if facts.rslora else facts.rank)
    arrays = {key: value.astype("float64") for key, value in read_arrays(folder).items()}
    layers = {key.rpartition(".lora_")[0] for key in arrays}
    return {layer: scale * arrays[f"{layer}.lora_B.weight"] @ arrays[f"{layer}.lora_A.weight"] for layer in layers}


@pytest.fixture
def parts(tiny_base: Path, tmp_path: Path) -> list[Part]:
    """Other ranks, layers, scalings and number types."""
    import torch

    one = make_adapter(tmp_path / "one", tiny_base, 1, rank=4)
    two = make_adapter(tmp_path / "two", tiny_base, 2, rank=6, targets=("v_proj", "down_proj"), use_rslora=True)
    half = {key: value.to(torch.bfloat16) for key, value in tensors_for(tiny_base, 3, 2).items()}
    three = write_adapter(tmp_path / "three", half, config_for(2))
    return [Part("one", one, 0.7), Part("two", two, -0.3), Part("three", three, 1.5)]


def test_a_blend_adds_exactly_the_weighted_sum(parts: list[Part], tiny_base: Path, tmp_path: Path) -> None:
    import numpy as np

    blend(parts, tmp_path / "blend")
    verdict = vet(tmp_path / "blend", describe_base(tiny_base))
    assert verdict.adapter is not None, verdict.reasons
    assert (verdict.adapter.rank, verdict.adapter.targets) == (12, ("down_proj", "q_proj", "v_proj"))
    found, each = deltas(tmp_path / "blend"), [(part.weight, deltas(part.folder)) for part in parts]
    assert set(found) == {layer for _, one in each for layer in one}
    for layer, delta in found.items():
        expected = sum(weight * one[layer] for weight, one in each if layer in one)
        np.testing.assert_allclose(delta, expected, rtol=1e-5, atol=1e-6)


def test_a_blend_equals_the_one_that_peft_makes(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    one, two = make_adapter(tmp_path / "one", tiny_base, 1, rank=4), make_adapter(tmp_path / "two", tiny_base, 2, rank=6)
    blend([Part("one", one, 0.7), Part("two", two, 0.3)], tmp_path / "blend")
    tokens = torch.tensor([[1, 50, 60, 70, 80]])
    theirs = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_base), one, adapter_name="one")
    theirs.load_adapter(two, adapter_name="two")
    theirs.add_weighted_adapter(["one", "two"], [0.7, 0.3], "sum", combination_type="cat")
    theirs.set_adapter("sum")
    ours = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_base), tmp_path / "blend")
    with torch.no_grad():
        alone = LlamaForCausalLM.from_pretrained(tiny_base)(tokens).logits
        expected, found = theirs.eval()(tokens).logits, ours.eval()(tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, alone, atol=1e-2)


@pytest.mark.parametrize(
    ("weights", "says"),
    [((1.0, 0.0), "weight of two"), ((1.0, float("nan")), "weight of two"), ((9.0, 1.0), "weight of one")],
)
def test_weights_that_make_no_blend_are_refused(tiny_base: Path, tmp_path: Path, weights: tuple[float, float], says: str) -> None:
    folders = [make_adapter(tmp_path / name, tiny_base, seed) for seed, name in enumerate(("one", "two"), 1)]
    with pytest.raises(BadInput, match=says):
        blend([Part(folder.name, folder, weight) for folder, weight in zip(folders, weights, strict=True)], tmp_path / "blend")


def test_what_cannot_be_added_is_refused_with_every_reason(tiny_base: Path, tmp_path: Path) -> None:
    dora = make_adapter(tmp_path / "dora", tiny_base, 3, dora=True)
    wide = make_adapter(tmp_path / "wide", tiny_base, 1, rank=255)
    with pytest.raises(BadInput, match=r"DoRA.*rank 259; at most 256"):
        blend([Part("dora", dora, 1.0), Part("wide", wide, 1.0)], tmp_path / "blend")
    with pytest.raises(BadInput, match="two different"):
        blend([Part("wide", wide, 0.5), Part("wide", wide, 0.5)], tmp_path / "blend")


@pytest.fixture
def adapters(db: Any, home: Path, tiny_base: Path, tmp_path: Path) -> Adapters:
    made = Adapters(db, home, ScriptedEngine(shape=describe_base(tiny_base)), base=str(tiny_base))
    for seed, name in enumerate(("one", "two"), 1):
        made.register(make_adapter(tmp_path / name, tiny_base, seed), name, None)
    return made


def test_a_blend_is_an_adapter_like_any_other_and_knows_its_parts(adapters: Adapters, home: Path) -> None:
    view = adapters.blend("half", {"one": 0.5, "two": 0.5}, None)
    assert (view.rank, view.method, view.title) == (8, "LoRA", "0.5 × one + 0.5 × two")
    assert [(part["name"], part["weight"]) for part in view.about["parts"]] == [("one", 0.5), ("two", 0.5)]
    assert view.about["parts"][0]["content_hash"] == adapters.adapter("one").content_hash
    assert list((home / "quarantine").iterdir()) == []
    with pytest.raises(Conflict):
        adapters.blend("half", {"one": 0.4, "two": 0.6}, None)
    with pytest.raises(BadInput, match="two different"):
        adapters.blend("less", {"one": 1.0}, None)


def test_a_blend_answers_beside_its_parts(tiny_base: Path, home: Path, tmp_path: Path) -> None:
    from ft.engine_local import LocalEngine

    one, two = (make_adapter(tmp_path / name, tiny_base, seed) for seed, name in enumerate(("one", "two"), 1))
    blend([Part("one", one, 1.0), Part("two", two, 1e-6)], tmp_path / "blend")
    engine = LocalEngine(str(tiny_base), home / "bases", device="cpu", dtype="float32")
    try:
        engine.wait_ready(240)
        for name, folder in (("one", one), ("two", two), ("blend", tmp_path / "blend")):
            engine.load(name, folder)
        answers = texts(run(engine, [ask("How do I reset my password?", name, name=name) for name in ("one", "two", "blend")]))
        assert answers["blend"] == answers["one"] != answers["two"]
    finally:
        engine.close()


# Uploads as a browser sends them: single files, somewhere


def sent(folder: Path, room: Path) -> list[str]:
    """Each file in a folder of its own, as the upload route puts it."""
    found = []
    for number, path in enumerate(sorted(folder.iterdir())):
        (room / str(number)).mkdir(parents=True)
        found.append(str(shutil.copy(path, room / str(number) / path.name)))
    return found


def test_the_files_of_a_folder_are_laid_side_by_side_again(adapters: Adapters, tiny_base: Path, tmp_path: Path, home: Path) -> None:
    folder = make_adapter(tmp_path / "three", tiny_base, 3)
    (folder / "optimizer.pt").write_bytes(b"\x80junk")
    view = adapters.receive(sent(folder, tmp_path / "up"), " third ", None)
    facts = vet(folder).adapter
    assert facts is not None
    assert (view.name, view.content_hash) == ("third", facts.content_hash)
    assert "optimizer.pt" in view.about["notes"][0]
    assert list((home / "quarantine").iterdir()) == []


def test_a_zip_gives_its_name_and_files_alone_do_not(adapters: Adapters, tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "three", tiny_base, 3)
    with pytest.raises(BadInput, match="has no name"):
        adapters.receive(sent(folder, tmp_path / "up"), "", None)
    assert adapters.receive([shutil.make_archive(str(tmp_path / "fresh"), "zip", folder)], "", None).name == "fresh"


def test_uploads_that_are_no_adapter_are_refused_in_words(adapters: Adapters, tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "three", tiny_base, 3)
    files = sent(folder, tmp_path / "up")
    twice = [*files, *sent(folder, tmp_path / "again")]
    for given, says in (([], "No file"), (twice, "more than one adapter"), (files[:1], "no adapter_model.safetensors")):
        with pytest.raises(BadInput, match=says):
            adapters.receive(given, "x", None)
    write_adapter(tmp_path / "bad", tensors_for(tiny_base, 1), config_for() | {"r": 0, "bias": "all"})
    with pytest.raises(NotAccepted) as refused:
        adapters.receive(sent(tmp_path / "bad", tmp_path / "bad-up"), "x", None)
    assert len(refused.value.reasons) == 2


def test_of_two_uploads_of_one_name_at_once_one_wins_and_the_other_is_told(
    adapters: Adapters, tiny_base: Path, tmp_path: Path, home: Path
) -> None:
    import threading

    folders = [make_adapter(tmp_path / f"n{seed}", tiny_base, seed) for seed in (5, 6, 7)]
    outcomes: list[str] = []
    gate = threading.Barrier(len(folders))

    def add(folder: Path) -> None:
        gate.wait()
        try:
            outcomes.append(adapters.register(folder, "same", None).content_hash)
        except Conflict as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=add, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = adapters.adapter("same").content_hash
    assert sorted(outcome == won for outcome in outcomes) == [False, False, True]
    assert all("is taken" in outcome for outcome in outcomes if outcome != won)
    assert {path.name for path in (home / "adapters").iterdir()} == {view.content_hash for view in adapters.adapters()}


# Pinned adapters


def test_pinned_adapters_stay_when_others_need_the_room(adapters: Adapters, tiny_base: Path, tmp_path: Path) -> None:
    from ft.errors import Refused, Unavailable

    adapters.register(make_adapter(tmp_path / "three", tiny_base, 3), "three", None)
    size = int(adapters.adapter("one").bytes * 1.2)
    adapters.memory.budget = size * 2 + 10
    adapters.pin("one", True, None)
    for name in ("two", "three"):
        adapters.bring(adapters.adapter(name).id)
    adapters.reconcile()
    assert {view.name for view in adapters.adapters() if view.resident} == {"one", "three"}
    with pytest.raises(Refused, match="pinned, so it stays"):
        adapters.want("one", False, None)
    adapters.pin("three", True, None)
    with pytest.raises(Unavailable, match=r"pinned adapters leave .* Unpin one"):
        adapters.bring(adapters.adapter("two").id)
    with pytest.raises(Refused, match="cannot be pinned"):
        adapters.pin("two", True, None)
    adapters.pin("one", False, None)
    adapters.bring(adapters.adapter("two").id)
    adapters.reconcile()
    assert {view.name for view in adapters.adapters() if view.resident} == {"two", "three"}
