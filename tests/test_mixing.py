"""One mixed batch against PEFT itself: each row's logits are those of stock PEFT with that adapter alone, for every kind of adapter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft.engine import BASE
from ft.errors import BadInput
from tests.test_engine import tiny_base
from tests.tiny import config_for, make_adapter, tensors_for, write_adapter

__all__ = ["tiny_base"]
IDS = [[1, 50, 60, 70, 33, 90, 12], [1, 7, 8, 9, 200, 210, 3]]
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"seed": 1},
    "everywhere": {"seed": 2, "targets": ALL, "rank": 8},
    "other rank": {"seed": 3, "rank": 2, "targets": ("k_proj", "gate_proj", "down_proj")},
    "rsLoRA": {"seed": 4, "rank": 6, "use_rslora": True},
    "DoRA": {"seed": 5, "dora": True, "targets": ("q_proj", "v_proj", "up_proj")},
}


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    room = tmp_path_factory.mktemp("adapters")
    return {kind: make_adapter(room / kind, tiny_base, **options) for kind, options in KINDS.items()}


@pytest.fixture(scope="module")
def residents(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Iterator[Any]:
    import torch

    from ft.models import load
    from ft.residents import Residents

    with torch.no_grad():
        found = Residents(load(str(tiny_base), tiny_base.parent, device="cpu", dtype="float32"), tmp_path_factory.mktemp("measures"))
        for kind, folder in folders.items():
            found.load(kind, *found.read(folder))
        yield found


def logits(residents: Any, names: list[str], ids: list[list[int]] | None = None) -> Any:
    import torch

    with torch.no_grad():
        return residents.forward(names, input_ids=torch.tensor(ids or [IDS[0]] * len(names))).logits


def assert_same(found: Any, wanted: Any, who: str = "", within: float = 1e-5) -> None:
    """But for the rounding of float32."""
    assert float((found - wanted).abs().max()) <= within * float(wanted.abs().max()), who


@pytest.fixture(scope="module")
def stock(tiny_base: Path, folders: dict[str, Path]) -> dict[str, Any]:
    """What PEFT computes with each adapter alone."""
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    found = {}
    with torch.no_grad():
        for kind, folder in folders.items():
            model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_base), folder).eval()
            found[kind] = model(torch.tensor(IDS)).logits
        found[BASE] = LlamaForCausalLM.from_pretrained(tiny_base).eval()(torch.tensor(IDS)).logits
    return found


@pytest.mark.parametrize("kind", [BASE, *KINDS])
def test_an_adapter_alone_computes_what_peft_computes(residents: Any, stock: dict[str, Any], kind: str) -> None:
    assert_same(logits(residents, [kind] * 2, IDS), stock[kind])
    if kind != BASE:
        assert float((stock[kind] - stock[BASE]).abs().max()) > 0.1, "the adapter does too little for the test to tell"


def test_each_row_of_a_mixed_batch_computes_what_peft_computes_alone(residents: Any, stock: dict[str, Any]) -> None:
    names = [*KINDS, BASE, *reversed(KINDS)]
    ids = [IDS[index % 2] for index in range(len(names))]
    for index, (name, found) in enumerate(zip(names, logits(residents, names, ids), strict=True)):
        assert_same(found, stock[name][index % 2], name)


def test_the_base_in_a_mixed_batch_differs_in_no_bit_from_a_batch_of_bases(residents: Any) -> None:
    import torch

    mixed, plain = logits(residents, [BASE, *KINDS]), logits(residents, [BASE] * (len(KINDS) + 1))
    assert torch.equal(mixed[0], plain[0])


def test_rows_that_change_places_keep_their_adapters(residents: Any, stock: dict[str, Any]) -> None:
    for names in (["plain", BASE], [BASE, "plain"], ["rsLoRA", "plain"], ["plain", "plain"], [BASE, BASE]):
        for name, found in zip(names, logits(residents, names), strict=True):
            assert_same(found, stock[name][0])


def test_an_adapter_whose_numbers_overflow_harms_no_other_row(residents: Any, tiny_base: Path, stock: dict[str, Any]) -> None:
    import torch

    from ft.adapters import AdapterFacts
    from ft.mixing import LowRank
    from ft.residents import Resident

    huge = {name: LowRank(torch.full((4, inputs), 1e38), torch.full((out, 4), 1e38)) for name, (inputs, out) in shape(residents)}
    adapter = residents._mixer.settle(huge, 1.0)
    residents._resident["huge"] = Resident(AdapterFacts("", 4, 8, (), 2, 1, ""), adapter, torch.empty(0))
    try:
        found = logits(residents, ["huge", "plain", BASE])
    finally:
        residents._forget("huge")
    assert not torch.isfinite(found[0]).all(), "the control lost its power"
    assert_same(found[1], stock["plain"][0])
    assert_same(found[2], stock[BASE][0])


def shape(residents: Any) -> Any:
    return residents._base.shape.linears.items()


def test_fifty_adapters_in_memory_take_the_space_of_their_files(residents: Any, folders: dict[str, Path]) -> None:
    for kind, folder in folders.items():
        found = residents._resident[kind]
        held = [t for part in found.adapter.parts.values() for t in (part.down, part.up, part.gain) if t is not None]
        file = (folder / "adapter_model.safetensors").stat().st_size
        assert sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}.values()) <= 1.2 * file
        assert found.logits.untyped_storage().nbytes() == 4 * residents._model.config.vocab_size, "more than one token's"


def test_half_precision_rows_agree_with_single_ones_within_its_rounding(
    tiny_base: Path, folders: dict[str, Path], tmp_path: Path, stock: dict[str, Any]
) -> None:
    import torch

    from ft.models import load
    from ft.residents import Residents

    with torch.no_grad():
        found = Residents(load(str(tiny_base), tmp_path, device="cpu", dtype="bfloat16"), tmp_path)
        found.load("plain", *found.read(folders["plain"]))
        mixed, alone = logits(found, [BASE, "plain", "plain"]), logits(found, ["plain"])
    largest = float(stock["plain"].abs().max())
    assert float((mixed[1] - alone[0]).abs().max()) < 0.03 * largest
    assert float((mixed[1].float() - stock["plain"][0]).abs().max()) < 0.1 * largest


def test_weights_that_lack_their_other_half_are_refused(residents: Any, tiny_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from ft.adapter_weights import read_adapter
    from ft.adapters import vet

    folder = write_adapter(tmp_path / "whole", tensors_for(tiny_base, 1), config_for())
    facts = vet(folder).adapter
    assert facts
    half = {key: value for key, value in tensors_for(tiny_base, 1).items() if not key.endswith("layers.1.self_attn.v_proj.lora_B.weight")}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(BadInput, match="do not match its settings"):
        read_adapter(tmp_path / "half.safetensors", facts, residents._base.model, "cpu")


Took = dict[str, tuple[float, float]]  # milliseconds for one row and for several, by kernel


def choose(monkeypatch: pytest.MonkeyPatch, folder: Path, took: Took, free: int = 2**40) -> tuple[Any, dict[str, str], list[str]]:
    """The kernel chosen where each takes so long; the reasons; and which were measured."""
    import torch

    from ft import kernels

    measured: list[str] = []

    def milliseconds(kernel: Any, weights: Any) -> tuple[float, float]:
        half = weights[0].dtype == torch.bfloat16
        name = {kernels.USUAL: "usual", kernels.ONEDNN: "onednn", kernels.PACKED: "packed"}[kernel]
        measured.append("half" if half else name)
        return took[measured[-1]]

    class Room:
        def __init__(self, device: str) -> None:
            assert device == "cpu"

        def free(self) -> int:
            return free

    monkeypatch.setattr(kernels, "_milliseconds", milliseconds)
    monkeypatch.setattr(kernels, "Memory", Room)
    reasons: dict[str, str] = {}
    weights = [torch.randn(600, 600) for _ in range(3)]
    return kernels.choose_kernel(weights, 4 * 3 * 600 * 600, folder, reasons), reasons, measured


def test_the_fastest_kernel_is_taken_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft import kernels

    took = {"usual": (3.0, 6.0), "onednn": (1.0, 2.0), "packed": (1.0, 1.9), "half": (0.5, 0.95)}
    chosen, reasons, measured = choose(monkeypatch, tmp_path, took)
    assert chosen is kernels.ONEDNN, "a second copy of the base for next to nothing"
    assert "3.0 times" in reasons["kernel"]
    assert "2.0 times as fast" in reasons["dtype"]
    assert measured == ["usual", "onednn", "packed", "half"]
    again, _, measured = choose(monkeypatch, tmp_path, took)
    assert again is kernels.ONEDNN
    assert measured == [], "it was measured again"


def test_weights_are_rearranged_where_that_pays_and_the_memory_holds_them_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft import kernels

    took = {"usual": (3.0, 6.0), "onednn": (1.0, 2.0), "packed": (0.8, 1.2), "half": (0.5, 1.0)}
    chosen, reasons, _ = choose(monkeypatch, tmp_path, took)
    assert chosen is kernels.PACKED
    assert "a second copy of 4 MiB" in reasons["kernel"]
    assert "4.5 times" in reasons["kernel"]
    chosen, reasons, _ = choose(monkeypatch, tmp_path, took, free=10 * 2**20)
    assert chosen is kernels.ONEDNN
    assert "too little free memory" in reasons["kernel"]


def test_a_gain_too_small_to_trust_or_a_broken_file_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ft import kernels

    (tmp_path / kernels.FILE).write_text("{broken")
    took = {"usual": (1.0, 1.0), "onednn": (0.95, 0.95), "packed": (0.9, 0.9), "half": (1.0, 1.0)}
    assert choose(monkeypatch, tmp_path, took)[0] is kernels.USUAL


def test_a_torch_without_these_kernels_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ft import kernels

    def absent(weight: object, bias: object) -> Any:
        raise AttributeError

    monkeypatch.setattr(kernels, "ONEDNN", kernels.Kernel("absent", absent))
    monkeypatch.setattr(kernels, "PACKED", kernels.Kernel("absent", absent))
    weights = [torch.randn(600, 600) for _ in range(3)]
    assert kernels.choose_kernel(weights, 4 * 3 * 600 * 600, tmp_path, {}) is kernels.USUAL


def test_a_single_row_keeps_the_usual_kernel_where_only_several_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    took = {"usual": (1.0, 2.0), "onednn": (1.0, 1.0), "packed": (0.0, 0.0), "half": (1.0, 1.0)}
    kernel, reasons, _ = choose(monkeypatch, tmp_path, took)
    assert "from two rows on" in reasons["kernel"]
    used: list[str] = []
    from ft import kernels

    for name in ("USUAL", "ONEDNN"):
        told = kernels.Kernel(name, lambda weight, bias, name=name: lambda given: used.append(name))  # type: ignore[misc]
        monkeypatch.setattr(kernels, name, told)
    product = kernel.bind(torch.randn(600, 600), None)
    for shape in ((1, 600), (1, 1, 600), (2, 600), (1, 4, 600)):
        product(torch.randn(*shape))
    assert used == ["USUAL", "USUAL", "ONEDNN", "ONEDNN"]


@pytest.mark.parametrize("shape", [(1, 96), (1, 1, 96), (3, 96), (2, 1, 96), (4, 96), (5, 96), (2, 7, 96)])
@pytest.mark.parametrize("name", ["USUAL", "ONEDNN", "BY_ROWS", "PACKED"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_every_kernel_computes_the_same(name: str, shape: tuple[int, ...], with_bias: bool) -> None:
    import torch

    from ft import kernels

    weight, bias = torch.randn(160, 96), torch.randn(160) if with_bias else None
    given = torch.randn(*shape)
    found = getattr(kernels, name).bind(weight, bias)(given)
    wanted = (given.double() @ weight.double().t() + (0 if bias is None else bias.double())).float()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_rearranged_weights_give_what_the_library_gives_for_one_row_and_for_many(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], residents: Any
) -> None:
    """As the ordinary residents compute it, which are compared with PEFT above."""
    import torch

    from ft import residents as module
    from ft.kernels import PACKED
    from ft.keyvalues import KeyValues
    from ft.models import load

    monkeypatch.setattr(module, "choose_kernel", lambda *given: PACKED)
    with torch.no_grad():
        found = module.Residents(load(str(tiny_base), tiny_base.parent, device="cpu", dtype="float32"), tmp_path)
        for kind, folder in folders.items():
            found.load(kind, *found.read(folder))
        for arms in ([BASE], ["everywhere"], [BASE, "DoRA"], ["rsLoRA", "plain", BASE], [BASE, *KINDS]):
            assert_same(logits(found, arms), logits(residents, arms), f"{arms} through the library", 5e-5)
            held = [KeyValues("cpu", torch.float32) for _ in range(2)]
            step = [_one_step(each, arms, cache) for each, cache in zip((found, residents), held, strict=True)]
            assert found._lean is not None, "the step in few operations was not used"
            assert step[0].shape == (len(arms), step[0].shape[1])
            assert_same(step[0], step[1], f"{arms}, one step", 5e-5)


def _one_step(residents: Any, arms: list[str], held: Any) -> Any:
    """The logits for the last token, all before it having been read."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    ids = torch.tensor([IDS[0]] * len(arms))
    residents.forward(arms, reads_only=True, input_ids=ids[:, :-1], use_cache=True, **{residents._cache_name: cache})
    held.join(cache, [ids.shape[1] - 1] * len(arms))
    positions = held.lengths[:, None]
    held.open(ids.shape[1])
    given = {"input_ids": ids[:, -1:], "position_ids": positions, "attention_mask": held.hidden(), residents._cache_name: held}
    return residents.forward(arms, **given).logits[:, -1]
