"""The base model: found, fetched, checked, converted, described and loaded; every failure in one clear sentence."""

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ft import bases, embedded, models
from ft.bases import describe_base, locate
from ft.errors import BadInput, Conflict, NotFound, Unavailable
from tests.test_engine import tiny_base
from tests.tiny import make_base

__all__ = ["tiny_base"]


def wheel(target: Path, content: bytes = b"not the model", member: str = embedded.GGUF_MEMBER) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(member, content)
    return target


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "bases").mkdir()
    return tmp_path / "bases"


def test_a_wheel_with_another_checksum_is_refused_and_leaves_nothing(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIEBREAK_WHEEL", str(wheel(tmp_path / "fake.whl")))
    with pytest.raises(Unavailable, match=hashlib.sha256(b"not the model").hexdigest()[:12]):
        embedded.fetch_embedded(room / "embedded")
    assert left_over(room) == []


@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_a_damaged_or_missing_wheel_is_named(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    path = wheel(tmp_path / "w.whl", member="something/else" if damage == "other" else embedded.GGUF_MEMBER)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    if damage == "gone":
        path.unlink()
    monkeypatch.setenv("TIEBREAK_WHEEL", str(path))
    with pytest.raises(Unavailable, match=r"w\.whl"):
        embedded.fetch_embedded(room / "embedded")
    assert left_over(room) == []


def test_a_download_that_fails_says_what_the_installer_said(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIEBREAK_WHEEL", raising=False)
    failing = [sys.executable, "-c", "print('ERROR: no route to host'); raise SystemExit(1)"]
    monkeypatch.setattr(embedded, "_download_command", lambda work: failing)
    with pytest.raises(Unavailable, match=r"no route to host.*Check the network"):
        embedded.fetch_embedded(room / "embedded")
    assert left_over(room) == []


def test_a_full_disk_is_told_before_anything_is_fetched(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="free disk space"):
        embedded.fetch_embedded(room / "embedded")


def test_a_folder_of_something_else_is_never_overwritten(room: Path) -> None:
    (room / "embedded").mkdir()
    (room / "embedded" / "precious.txt").write_text("mine")
    with pytest.raises(Conflict, match="Move it away"):
        embedded.fetch_embedded(room / "embedded")
    assert (room / "embedded" / "precious.txt").read_text() == "mine"


def test_a_complete_copy_is_used_as_it_is(room: Path) -> None:
    folder = room / "embedded"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1234")
    (folder / "tiebreak.json").write_text(json.dumps({"files": {"model.safetensors": 4}}))
    told: list[float] = []
    assert embedded.fetch_embedded(folder, lambda share, words: told.append(share)) == folder
    assert told == [1.0]
    (folder / "model.safetensors").write_bytes(b"123")
    assert not bases.is_complete(folder)


def test_what_a_killed_attempt_left_is_cleared_away(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (room / ".embedded-old.part").mkdir()
    (room / ".embedded-old.part" / "half").write_text("x")
    monkeypatch.setenv("TIEBREAK_WHEEL", str(wheel(tmp_path / "fake.whl")))
    with pytest.raises(Unavailable):
        embedded.fetch_embedded(room / "embedded")
    assert left_over(room) == []


def test_a_failed_conversion_names_its_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF junk")
    with pytest.raises(Unavailable, match=r"Converting broken\.gguf failed: .+\. Check"):
        embedded.convert_apart(tmp_path / "broken.gguf", tmp_path / "out", "float32", lambda share, words: None)


def test_the_command_line_explains_itself_and_fails_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedded.main([]) == 2
    assert "usage" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    assert embedded.main([str(tmp_path / "full")]) == 1
    assert "Move it away" in capsys.readouterr().err


@pytest.mark.real
def test_the_embedded_base_is_what_the_wheel_holds(base_folder: Path) -> None:
    assert bases.is_complete(base_folder)
    shape = describe_base(base_folder)
    assert (shape.model_type, shape.context_length, len(shape.linears)) == ("llama", 8192, 210)
    assert shape.linears["model.layers.29.mlp.down_proj"] == (1536, 576)
    assert json.loads((base_folder / "config.json").read_text()).get("quantization_config") is None


def test_locating_knows_folders_files_and_what_is_not_there(tiny_base: Path, room: Path, tmp_path: Path) -> None:
    assert locate(str(tiny_base), room) == tiny_base
    assert locate("embedded", room) is None
    assert locate(str(tmp_path / "nowhere"), room) is None
    assert locate("nobody/no-such-model", room) is None


def test_two_gguf_files_are_a_question_not_a_guess(tmp_path: Path, room: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="Name one of them"):
        locate(str(tmp_path), room)


def test_a_folder_without_a_model_is_named(tmp_path: Path, room: Path) -> None:
    (tmp_path / "empty").mkdir()
    for base in (str(tmp_path / "empty"), str(tmp_path / "nowhere")):
        with pytest.raises(NotFound, match="TIEBREAK_BASE names"):
            models.load(base, room)


def test_a_hub_id_without_a_hub_says_so(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unavailable, match="could not be downloaded"):
        models.load("nobody/no-such-model", room)


def test_a_loaded_base_carries_the_reason_of_each_choice(tiny_base: Path, room: Path) -> None:
    told: list[tuple[float, str]] = []
    loaded = models.load(str(tiny_base), room, device="cpu", progress=lambda share, words: told.append((share, words)))
    assert (loaded.device, loaded.dtype, loaded.quantisation, loaded.context_length) == ("cpu", "float32", "none", 256)
    assert set(loaded.reasons) == {"device", "dtype", "quantisation"}
    assert loaded.stop_tokens == {2}
    assert loaded.shape.linears == describe_base(tiny_base).linears
    assert [share for share, _ in told] == sorted(share for share, _ in told)


def test_a_device_that_is_not_there_is_refused(tiny_base: Path, room: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(Unavailable, match="TIEBREAK_DEVICE is cuda"):
        models.load(str(tiny_base), room, device="cuda")


@pytest.mark.parametrize("quantisation", ["8bit", "4bit"])
def test_a_quantised_base_loads_and_answers_on_the_cpu(tiny_base: Path, room: Path, quantisation: str) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    loaded = models.load(str(tiny_base), room, quantisation, device="cpu")
    assert quantisation in loaded.reasons["quantisation"]
    with torch.no_grad():
        assert bool(torch.isfinite(loaded.model(torch.tensor([[1, 5, 9]])).logits).all())


def test_weights_that_are_cut_off_are_named(tmp_path: Path, room: Path) -> None:
    folder = make_base(tmp_path / "cut")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Unavailable, match=r"could not be loaded|cannot be read"):
        models.load(str(folder), room)
    path.write_bytes(b"junk")
    with pytest.raises(Unavailable, match="cannot be read"):
        describe_base(folder)


def test_the_identity_of_weights_survives_copying_and_notices_change(tiny_base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_base, tmp_path / "copy"))
    assert bases.weights_hash(copy) == bases.weights_hash(tiny_base)
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[-10] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(raw))
    assert bases.weights_hash(copy) != bases.weights_hash(tiny_base)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 99}}, 99),
        ({}, 2048),
    ],
)
def test_the_context_length_comes_from_the_config(config: dict[str, Any], length: int) -> None:
    assert bases.context_length(config) == length
