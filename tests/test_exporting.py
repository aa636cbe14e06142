"""Exports prove themselves: what is given out answers token by token as base and adapter do, or it is not given out."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft import locks
from ft.errors import BadInput, Busy, Conflict, NotFound, Refused, Unavailable
from ft.scripted import ScriptedEngine
from review.services.exports import KINDS, zipped
from review.services.house import House, build
from review.settings import Settings
from storage.tables import Adapter
from tests.conftest import ROOT
from tests.trainable import tiny_base

PROMPTS = [f"Who paints wall {n * 17}?" for n in range(8)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A folder as PEFT saves it, with weights that change the answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def asked(kind: str, base: Path, adapter: Path, **more: Any) -> dict[str, Any]:
    given = {"kind": kind, "name": "helper", "base": str(base), "bases": str(base.parent), "adapter": str(adapter), "device": "cpu"}
    return given | {"dtype": "float32", "system": "Be brief.", "prompts": PROMPTS, "card": "# helper", "converter": ""} | more


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_what_is_exported_answers_as_base_and_adapter_do(tmp_path: Path, base: Path, adapter: Path, kind: str) -> None:
    from ft.exporting import export

    told = export(asked(kind, base, adapter), tmp_path, lambda share, words: None)
    assert told["proof"]["agreement"] == 1.0
    assert told["proof"]["divergence"] < 1e-5
    assert told["proof"]["prompts"] == 8
    files = {path.name for path in (tmp_path / "files").iterdir()}
    assert {"README.md", "tokenizer.json", "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"} <= files
    for path in (tmp_path / "files").glob("*.json"):
        assert str(base.parent) not in path.read_text(), f"{path.name} names a path of this machine"
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path / "files").chat_template, "the chat template went along"


def test_the_merged_model_is_not_the_base(tmp_path: Path, base: Path, adapter: Path) -> None:
    """The proof has power: the base itself does not pass for base and adapter."""
    from transformers import AutoModelForCausalLM

    from ft import exporting
    from ft.models import load

    given = asked("merged", base, adapter)
    loaded = load(str(base), base.parent, "none", "cpu", "float32")
    model = exporting._with_adapter(loaded.model, adapter)
    replays = [exporting._reference(model, loaded, prompt) for prompt in exporting._encoded(loaded, given)]
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    assert not exporting.prove(plain.eval(), replays).holds


def test_an_export_that_answers_otherwise_is_deleted_and_says_why(
    tmp_path: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTuner

    from ft.exporting import export

    right = BaseTuner.merge_and_unload

    def forgetful(self: Any, **more: Any) -> Any:
        for module in self.modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] = 0.0
        return right(self, **more)

    monkeypatch.setattr(BaseTuner, "merge_and_unload", forgetful)
    with pytest.raises(Unavailable, match="does not answer as base and adapter do"):
        export(asked("merged", base, adapter), tmp_path, lambda share, words: None)
    assert not (tmp_path / "files").exists()


def test_a_gguf_without_the_converter_says_what_to_install(tmp_path: Path, base: Path, adapter: Path) -> None:
    from ft.exporting import export

    with pytest.raises(Unavailable, match="TIEBREAK_GGUF_CONVERTER"):
        export(asked("gguf", base, adapter), tmp_path, lambda share, words: None)


@pytest.fixture
def house(home: Path, db: Any, base: Path, adapter: Path) -> House:
    made = build(Settings(home=home, base=str(base), engine="scripted"), db, ScriptedEngine())
    file = home / "walls.jsonl"
    file.write_text("\n".join(json.dumps({"instruction": prompt, "output": "A painter.", "split": "test"}) for prompt in PROMPTS))
    made.library.import_file(file, "walls")
    made.adapters.register(adapter, "helper", None, foreign=True)
    made.answers.ensure_arms()
    return made


def test_an_export_is_made_beside_the_app_and_kept_until_deleted(house: House) -> None:
    export_id = house.exports.start("helper", "merged", None)
    view = house.exports.wait(export_id, 120)
    assert (view.state, view.kind, view.adapter) == ("finished", "merged", "helper"), view
    assert view.proof["agreement"] == 1.0
    assert (view.folder / "model.safetensors").exists()
    assert view.bytes > 1000
    whole = io.BytesIO(b"".join(zipped(view.folder)))
    with zipfile.ZipFile(whole) as archive:
        assert archive.testzip() is None
        assert archive.read("model.safetensors") == (view.folder / "model.safetensors").read_bytes()
    assert [each.id for each in house.exports.exports()] == [export_id]
    house.exports.delete(export_id, None)
    assert house.exports.exports() == []
    with pytest.raises(NotFound):
        house.exports.export("../../etc")


def test_bad_wishes_are_refused_in_words(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(KINDS) == {"adapter", "merged", "gguf"}
    with pytest.raises(BadInput, match="no export 'onnx'"):
        house.exports.start("helper", "onnx", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match="converter is not installed"):
        house.exports.start("helper", "gguf", None)
    with pytest.raises(NotFound):
        house.exports.start("nobody", "merged", None)
    with house.db.write() as session:
        session.get_one(Adapter, 1).status = "quarantined"
    with pytest.raises(Conflict, match="set aside"):
        house.exports.start("helper", "merged", None)


def test_an_export_whose_process_is_gone_is_lost_in_words(house: House) -> None:
    folder = house.settings.home / "exports" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / "asked.json").write_text(json.dumps({"kind": "merged", "adapter_name": "helper"}))
    assert house.exports.export(folder.name).state == "lost"


def kept(house: House, state: str, **told: Any) -> Path:
    """The folder of an export as it stands after it has ended."""
    folder = house.settings.home / "exports" / "20260101-000000-abcdef"
    (folder / "files").mkdir(parents=True)
    (folder / "asked.json").write_text(json.dumps({"kind": "merged", "adapter_name": "helper", "at": 1.0}))
    (folder / "export.json").write_text(json.dumps({"state": state, "message": "done", **told}))
    return folder


def test_an_adapter_whose_files_are_gone_or_changed_is_not_exported(house: House) -> None:
    folder = house.adapters.folder("helper")
    folder.chmod(0o700)
    weights = folder / "adapter_model.safetensors"
    weights.chmod(0o600)
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Refused, match="no longer those that were registered"):
        house.exports.start("helper", "adapter", None)
    shutil.rmtree(folder)
    with pytest.raises(Conflict, match="gone from the data folder"):
        house.exports.start("helper", "adapter", None)
    assert house.exports.exports() == []


def test_an_export_deleted_by_hand_is_told_and_can_be_tidied_away(house: House) -> None:
    folder = kept(house, "finished", bytes=5)
    assert house.exports.export(folder.name).state == "finished"
    shutil.rmtree(folder / "files")
    (view,) = house.exports.exports()
    assert (view.state, view.message) == ("lost", "Its files are gone from the data folder. Make it again.")
    house.exports.delete(folder.name, None)
    with pytest.raises(NotFound):
        house.exports.delete(folder.name, None)


def test_an_export_that_ends_while_one_looks_is_not_called_lost(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept(house, "running")
    right = locks.is_held

    def ends_now(path: Path) -> bool:
        held = right(path)
        (folder / "export.json").write_text(json.dumps({"state": "finished", "message": "done"}))
        return held

    monkeypatch.setattr(locks, "is_held", ends_now)
    assert house.exports.export(folder.name).state == "finished"


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "null", '"x"'])
def test_an_export_with_a_broken_record_is_still_listed(house: House, content: str) -> None:
    folder = kept(house, "finished")
    for name in ("asked.json", "export.json"):
        (folder / name).write_text(content)
    assert [each.state for each in house.exports.exports()] == ["lost"]


def test_one_export_at_a_time_and_the_second_leaves_nothing_behind(house: House) -> None:
    root = house.settings.home / "exports"
    root.mkdir(exist_ok=True)
    held = locks.take(root / "lock")
    assert held is not None
    with pytest.raises(Busy, match="Another export"):
        house.exports.start("helper", "adapter", None)
    assert house.exports.exports() == []
    os.close(held)


def test_a_full_disk_at_the_start_is_told_and_leaves_nothing_behind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *given: Any, **more: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        house.exports.start("helper", "adapter", None)
    assert house.exports.exports() == []


def test_a_merged_model_that_has_no_room_is_refused_before_the_work(
    tmp_path: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft.exporting import export

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(Unavailable, match="has no room for the export"):
        export(asked("merged", base, adapter), tmp_path, lambda share, words: None)


def test_a_zip_is_there_whole_or_not_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from review.commands import exports

    (home / "files").mkdir()
    (home / "files" / "a").write_bytes(b"x" * 5)
    exports.write_zip(home / "files", home / "a.zip")
    assert zipfile.ZipFile(home / "a.zip").namelist() == ["a"]

    def breaks(folder: Path) -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exports, "zipped", breaks)
    with pytest.raises(Unavailable, match="No space left"):
        exports.write_zip(home / "files", home / "b.zip")
    assert {path.name for path in home.iterdir() if "zip" in path.name} == {"a.zip"}


@pytest.mark.parametrize("out", ["nowhere/a.zip", "."])
def test_a_zip_that_cannot_be_written_is_refused_before_the_export(home: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    from typer.testing import CliRunner

    from review.commands.main import program

    monkeypatch.chdir(home)
    done = CliRunner().invoke(program(lambda: None), ["export", "make", "helper", "--out", out])
    assert isinstance(done.exception, BadInput)
    assert "must be a file in a folder that is there" in str(done.exception)


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.ENOSPC, "No space left on device"), "disk is full"), (MemoryError(), "ran out of memory"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full"),
    (ValueError("no adapter_config.json"), "removed while it was being exported"), (KeyError("x"), "removed while"),
])  # fmt: skip
def test_why_an_export_failed_is_said_in_words(tmp_path: Path, error: Exception, words: str) -> None:
    from ft.export import why

    (tmp_path / "asked.json").write_text(json.dumps({"adapter": str(tmp_path / "gone")}))
    assert words in why(error, tmp_path)
    (tmp_path / "asked.json").unlink()
    assert why(error, tmp_path), "whatever is missing"


def test_an_export_whose_adapter_went_meanwhile_ends_in_words(tmp_path: Path, base: Path) -> None:
    """Through the process itself."""
    (tmp_path / "asked.json").write_text(json.dumps(asked("adapter", base, tmp_path / "gone")))
    done = subprocess.run([sys.executable, "-m", "ft.export", str(tmp_path)], cwd=ROOT, capture_output=True, timeout=300, check=False)
    told = json.loads((tmp_path / "export.json").read_text())
    assert (done.returncode, told["state"]) == (1, "failed")
    assert "removed while it was being exported" in told["message"]
    assert not (tmp_path / "files").exists()
