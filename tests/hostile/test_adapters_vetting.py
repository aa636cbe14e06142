"""T5, T6, T7, T19 to T22: adapters that attack the base, the machine or the truth. Each with the unguarded library as positive control."""

import io
import json
import os
import pickle
import random
import resource
import stat
import struct
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft.adapters import install, judge, vet
from ft.bases import describe_base
from ft.engine import BASE, Done, Failed
from ft.errors import BadInput, Conflict, UserError
from ft.specs import DecodeSpec
from tests.test_engine import ask, run, texts, tiny_base
from tests.test_engine_local import engine
from tests.tiny import config_for, make_adapter, tensors_for, write_adapter

__all__ = ["engine", "tiny_base"]
pytestmark = pytest.mark.hostile
PROBES = [f"Question {n}: how do I reset password {n * 37}?" for n in range(20)]


def stock_model(base: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(base).eval()


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([[1, 50, 60, 70]])).logits


# T5: tensors and settings that reach the base


def poisoned(base: Path) -> dict[str, Callable[[dict[str, Any], dict[str, Any]], None]]:
    """Ways to reach the base, each changing (tensors, config)."""
    import torch

    def key(name: str, *shape: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        return lambda tensors, config: tensors.update({name: torch.ones(*shape)})

    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    return {
        "head": key("base_model.model.lm_head.weight", 422, 64),
        "embedding": key("base_model.model.model.embed_tokens.weight", 422, 64),
        "norm": key("base_model.model.model.norm.weight", 64),
        "base layer": key(f"{layer}.base_layer.weight", 64, 64),
        "bias": key(f"{layer}.bias", 64),
        "saved module": key("base_model.model.lm_head.modules_to_save.weight", 422, 64),
        "another adapter": key(f"{layer}.lora_A.other.weight", 4, 64),
        "no prefix": key("lora_A.weight", 4, 64),
        "path": key("base_model.model.../../x.lora_A.weight", 4, 64),
        "modules_to_save": lambda tensors, config: config.update(modules_to_save=["lm_head"]),
        "layer_replication": lambda tensors, config: config.update(layer_replication=[[0, 2], [1, 2]]),
        "bias setting": lambda tensors, config: config.update(bias="lora_only"),
        "replaced tokens": lambda tensors, config: config.update(trainable_token_indices=[1, 2]),
        "target_parameters": lambda tensors, config: config.update(target_parameters=["lm_head.weight"]),
    }


def test_adapters_that_would_change_the_base_are_refused_and_the_base_is_untouched(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    requests = [ask(text) for text in PROBES]
    before = texts(run(engine, requests))
    for number, (what, poison) in enumerate(poisoned(tiny_base).items()):
        tensors, config = tensors_for(tiny_base, 1), config_for()
        poison(tensors, config)
        folder = write_adapter(tmp_path / str(number), tensors, config)
        assert not vet(folder).ok, what
        with pytest.raises(BadInput):
            engine.load(f"bad{number}", folder)
    assert engine.adapters() == {}
    engine._residents.check_base()
    assert texts(run(engine, requests)) == before


def test_stock_peft_lets_an_adapter_overwrite_the_base(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    tensors = tensors_for(tiny_base, 1) | {"base_model.model.lm_head.weight": torch.ones(len(logits(stock_model(tiny_base))[0, 0]), 64)}
    folder = write_adapter(tmp_path / "poison", tensors, config_for())
    clean = logits(stock_model(tiny_base))
    model = PeftModel.from_pretrained(stock_model(tiny_base), folder)
    with model.disable_adapter():
        assert not torch.allclose(logits(model), clean), "the control lost its power: peft now guards the base itself"


# T6: pickles


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.safetensors"])
@pytest.mark.parametrize("wrap", ["folder", "zip", "file"])
def test_pickles_are_refused_and_never_opened(tiny_base: Path, tmp_path: Path, name: str, wrap: str) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config_for()))
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    archive = zip_of(tmp_path / "evil.zip", {path.name: path.read_bytes() for path in folder.iterdir()})
    given = {"folder": folder, "file": folder / name, "zip": archive}
    verdict = vet(given[wrap])
    assert not verdict.ok
    assert "pickle" in verdict.reasons[0]
    assert not canary.exists()


def test_the_canary_of_the_pickle_test_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))  # noqa: S301
    assert (tmp_path / "canary").exists()


def test_no_code_of_ours_unpickles_or_trusts_remote_code() -> None:
    root = Path(__file__).parents[2]
    files = [path for folder in ("ft", "review", "storage") for path in (root / folder).rglob("*.py")]
    forbidden = ("torch.load(", "pickle.load", "trust_remote_code=True")
    assert [(path.name, word) for path in files for word in forbidden if word in path.read_text()] == []


# T7: archives


def zip_of(target: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, to in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, to)
    return target


def good_members(base: Path, room: Path) -> dict[str, bytes]:
    folder = make_adapter(room / "good", base)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_false_size(path: Path) -> Path:
    """The weights' declared size raised in both headers."""
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("adapter_model.safetensors").file_size
    old, new = struct.pack("<I", size), struct.pack("<I", size + 1000)
    assert raw.count(old) >= 2
    path.write_bytes(bytes(raw).replace(old, new))
    return path


def attacks(base: Path, room: Path) -> dict[str, Path]:
    good = good_members(base, room)
    config, weights = good["adapter_config.json"], good["adapter_model.safetensors"]
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name, content in good.items():
            archive.writestr(name, content)
    zeros = b"\0" * (64 << 20)
    tensor = {"dtype": "F32", "shape": [4, 4 << 20], "data_offsets": [0, 64 << 20]}
    header = json.dumps({"base_model.model.a.lora_A.weight": tensor}).encode()
    bomb = struct.pack("<Q", len(header)) + header + zeros
    made = {
        "slip": zip_of(room / "slip.zip", good | {"../../escaped.txt": b"x"}),
        "absolute": zip_of(room / "absolute.zip", good | {"/tmp/escaped.txt": b"x"}),
        "windows": zip_of(room / "windows.zip", good | {"..\\escaped.txt": b"x"}),
        "drive": zip_of(room / "drive.zip", good | {"C:escaped.txt": b"x"}),
        "link": zip_of(room / "link.zip", {"adapter_config.json": config}, {"adapter_model.safetensors": "/etc/passwd"}),
        "other link": zip_of(room / "otherlink.zip", good, {"x": "/etc"}),
        "nested": zip_of(room / "nested.zip", {"adapter.zip": inner.getvalue()}),
        "bomb": zip_of(room / "bomb.zip", {"adapter_config.json": config, "adapter_model.safetensors": bomb}),
        "config bomb": zip_of(room / "configbomb.zip", {"adapter_config.json": zeros, "adapter_model.safetensors": weights}),
        "members": zip_of(room / "members.zip", good | {f"{n}.txt": b"" for n in range(10_000)}),
        "two adapters": zip_of(room / "two.zip", {f"{d}/{name}": content for d in "ab" for name, content in good.items()}),
        "false size": with_false_size(zip_of(room / "size.zip", good)),
        "cut": room / "cut.zip",
        "not a zip": room / "text.zip",
        "tar": room / "adapter.tar",
    }
    made["cut"].write_bytes(zip_of(room / "whole.zip", good).read_bytes()[:-400])
    made["not a zip"].write_text("hello")
    made["tar"].write_bytes(b"ustar" * 500)
    raw = zip_of(room / "plain.zip", good).read_bytes()
    end = raw.rindex(b"PK\x05\x06")
    made["zip64"] = room / "zip64.zip"
    made["zip64"].write_bytes(raw[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + raw[end:])
    made["duplicate"] = room / "duplicate.zip"
    with zipfile.ZipFile(made["duplicate"], "w") as archive:
        for name, content in good.items():
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("adapter_model.safetensors", weights)
    return made


def test_hostile_archives_are_refused_quickly_without_writing_or_growing(tiny_base: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    shape = describe_base(tiny_base)
    given = attacks(tiny_base, room)
    files = sorted(tmp_path.rglob("*"))
    for what, path in given.items():
        memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        verdict = vet(path, shape)
        assert not verdict.ok, what
        assert verdict.reasons[0].endswith(".")
        assert time.process_time() - begun <= 5, what
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory <= 200 * 1024, what
    assert sorted(tmp_path.rglob("*")) == files
    assert not Path("/tmp/escaped.txt").exists()


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 500])
def test_a_zip_that_claims_more_than_it_holds_is_refused_at_once(tiny_base: Path, tmp_path: Path, missing: int) -> None:
    good = good_members(tiny_base, tmp_path)
    weights = good["adapter_model.safetensors"]
    path = tmp_path / "short.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("adapter_config.json", good["adapter_config.json"])
        archive.writestr("adapter_model.safetensors", weights[:-missing])
    short, whole = (struct.pack("<II", len(weights) - missing, size) for size in (len(weights) - missing, len(weights)))
    raw = path.read_bytes()
    assert raw.count(short) == 2, "the size in the member's header and in the directory"
    path.write_bytes(raw.replace(short, whole))
    begun = time.monotonic()
    assert judge(path, describe_base(tiny_base)).reasons == ("The weights end before their header says. Copy the adapter again.",)
    assert time.monotonic() - begun < 10


def test_links_in_a_folder_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "real", tiny_base)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "adapter_config.json").symlink_to(folder / "adapter_config.json")
    (linked / "adapter_model.safetensors").symlink_to("/etc/passwd")
    assert "link" in vet(linked).reasons[0]
    (tmp_path / "whole").symlink_to(folder)
    assert "link" in vet(tmp_path / "whole").reasons[0]


def test_an_adapter_swapped_between_vetting_and_storing_is_noticed(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", tiny_base, 1)
    facts = vet(folder).adapter
    assert facts is not None
    make_adapter(tmp_path / "a", tiny_base, 2)
    with pytest.raises(BadInput, match="changed while"):
        install(folder, tmp_path / "home", facts)
    assert list((tmp_path / "home").iterdir()) == []


# T19 and T20: many users, adapters coming and going


def test_concurrent_requests_with_loads_and_unloads_equal_their_serial_references(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    targets = (("q_proj", "v_proj"), ("down_proj",), ("o_proj", "up_proj"))
    folders = {f"a{n}": make_adapter(tmp_path / f"a{n}", tiny_base, n + 1, targets=chosen) for n, chosen in enumerate(targets)}
    for name, folder in folders.items():
        engine.load(name, folder)
    decode = DecodeSpec(max_new_tokens=24)
    requests = [ask(f"{text} {n}", name, decode) for n, text in enumerate(PROBES) for name in (BASE, *folders)]
    reference = {key: text for request in requests for key, text in texts(run(engine, [request])).items()}
    rng = random.Random(3)
    asked = [rng.choice(requests) for _ in range(200)]
    wrong: list[str] = []
    answered: list[str] = []
    stop = threading.Event()

    def use(share: list[Any]) -> None:
        for request in share:
            (end,) = [event for event in engine.generate([request]) if isinstance(event, Done | Failed)]
            if isinstance(end, Failed):
                if "not in memory" not in end.error:
                    wrong.append(end.error)
            elif end.text != reference[request.id] or end.adapter != request.adapter:
                wrong.append(f"{request.id}: {end.text!r} by {end.adapter}")
            else:
                answered.append(request.id)

    def swap() -> None:
        while not stop.is_set():
            name = rng.choice(list(folders))
            engine.unload(name)
            engine.load(name, folders[name])

    swapper = threading.Thread(target=swap)
    users = [threading.Thread(target=use, args=(asked[n::20],)) for n in range(20)]
    for thread in (swapper, *users):
        thread.start()
    for thread in users:
        thread.join()
    stop.set()
    swapper.join()
    assert wrong == []
    assert len(answered) >= 100


def test_stock_peft_mixes_answers_up_when_threads_choose_adapters(tiny_base: Path, tmp_path: Path) -> None:
    """The control: `set_adapter` and then a forward pass, from three threads."""
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(stock_model(tiny_base), make_adapter(tmp_path / "0", tiny_base, 1), adapter_name="0")
    for n in (1, 2):
        model.load_adapter(make_adapter(tmp_path / str(n), tiny_base, n + 1), adapter_name=str(n))
    right = {}
    for n in "012":
        model.set_adapter(n)
        right[n] = logits(model)
    wrong: list[str] = []
    together = threading.Barrier(3)

    def use(name: str) -> None:
        for _ in range(100):
            together.wait()
            model.set_adapter(name)
            if not torch.allclose(logits(model), right[name], atol=1e-4):
                wrong.append(name)

    threads = [threading.Thread(target=use, args=(name,)) for name in "012"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong, "the control lost its power: peft became safe for threads"


def test_stock_peft_overwrites_an_adapter_of_the_same_name(tiny_base: Path, tmp_path: Path) -> None:
    """The control of `test_a_name_is_never_overwritten` and of this file's T20."""
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(stock_model(tiny_base), make_adapter(tmp_path / "0", tiny_base, 1), adapter_name="x")
    before = logits(model)
    model.load_adapter(make_adapter(tmp_path / "1", tiny_base, 2), adapter_name="x")
    assert not torch.allclose(logits(model), before)


def test_the_adapter_in_use_is_neither_replaced_nor_torn_away(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    one, two = make_adapter(tmp_path / "one", tiny_base, 1), make_adapter(tmp_path / "two", tiny_base, 2)
    engine.load("x", one)
    request = ask(PROBES[0], "x", DecodeSpec(max_new_tokens=120))
    alone = run(engine, [request])[-1].text
    stream = engine.generate([request])
    next(stream)
    with pytest.raises(Conflict):
        engine.load("x", two)
    swapping = threading.Thread(target=lambda: (engine.unload("x"), engine.load("x", two)))
    swapping.start()
    assert list(stream)[-1].text == alone
    swapping.join(30)
    after = run(engine, [request])[-1]
    assert isinstance(after, Done)
    assert after.text != alone


# T21 and T22: failed loads and senseless weights


def bad_weights(base: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    import torch

    good = tensors_for(base, 1)
    first = next(iter(good))
    missing = {key: value for key, value in good.items() if key != first}
    return {
        "nan": ({**good, first: good[first] * float("nan")}, config_for()),
        "inf": ({**good, first: good[first] * float("inf")}, config_for()),
        "huge": ({key: value * 1e30 for key, value in good.items()}, config_for()),
        "int8": ({key: value.to(torch.int8) for key, value in good.items()}, config_for()),
        "float64": ({key: value.double() for key, value in good.items()}, config_for()),
        "alpha 0": (good, config_for(lora_alpha=0)),
        "alpha 1e30": (good, config_for(lora_alpha=1e30)),
        "missing key": (missing, config_for()),
        "renamed key": ({**missing, first.replace("layers.0", "layers.7"): good[first]}, config_for()),
        "wrong base": ({key: value.repeat(1, 2) if "lora_A" in key else value for key, value in good.items()}, config_for()),
        "rank": (good, config_for(r=2_000_000)),
        "zero": ({key: value * 0 for key, value in good.items()}, config_for()),
    }


def test_senseless_adapters_are_refused_with_the_reason_and_leave_nothing(engine: Any, tiny_base: Path, tmp_path: Path) -> None:
    engine.load("good", make_adapter(tmp_path / "good", tiny_base, 9))
    before = texts(run(engine, [ask(PROBES[0]), ask(PROBES[0], "good")]))
    for what, (tensors, config) in bad_weights(tiny_base).items():
        folder = write_adapter(tmp_path / what, {key: value.contiguous() for key, value in tensors.items()}, config)
        begun = time.process_time()
        with pytest.raises(UserError) as refusal:
            engine.load("bad", folder)
        assert time.process_time() - begun <= 10
        assert len(str(refusal.value)) > 30, what
        assert set(engine.adapters()) == {"good"}, what
        assert isinstance(run(engine, [ask(PROBES[0], "bad")])[0], Failed), what
        assert texts(run(engine, [ask(PROBES[0]), ask(PROBES[0], "good")])) == before, what
    assert engine._residents.hashes().keys() == {"good"}
    assert all(key == ("good",) for key in engine._residents._plans)


def test_stock_peft_takes_senseless_weights_without_a_word(tiny_base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    accepted = []
    for what, (tensors, config) in bad_weights(tiny_base).items():
        folder = write_adapter(tmp_path / what, {key: value.contiguous() for key, value in tensors.items()}, config)
        try:
            PeftModel.from_pretrained(stock_model(tiny_base), folder)
        except Exception:
            continue
        accepted.append(what)
    assert {"nan", "inf", "zero", "missing key"} <= set(accepted)


def test_stock_peft_leaves_a_failed_load_answering_as_the_base(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(stock_model(tiny_base), make_adapter(tmp_path / "good", tiny_base), adapter_name="good")
    wrong = write_adapter(tmp_path / "wrong", {key: value.repeat(1, 2) for key, value in tensors_for(tiny_base, 1).items()}, config_for())
    with pytest.raises(RuntimeError):
        model.load_adapter(wrong, adapter_name="bad")
    model.set_adapter("bad")
    assert torch.allclose(logits(model), logits(stock_model(tiny_base)), atol=1e-5)
