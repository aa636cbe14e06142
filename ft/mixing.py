"""Adapters added to the base's linear layers: one base product for all rows, one low-rank product for all adapters of a batch.

Each linear layer's `forward` is replaced once; layers that read the same input (q, k, v; gate, up) share their products. Without a mix the
base computes as if no adapter existed. Torch side, inference thread only. Must not know files, names people gave, rows' texts or queues.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ft.kernels import Kernel, Product

SMALL = 64_000  # numbers: below this one product with zeros in it is faster than several without, and soon made
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one layer: its scale * up @ down, then times `gain` for DoRA."""

    down: torch.Tensor  # (rank, inputs)
    up: torch.Tensor  # (outputs, rank)
    gain: torch.Tensor | None = None  # (outputs,)


@dataclass(frozen=True, slots=True)
class Adapter:
    """`parts` by the layer's full name. `downs` and `ups` are all their numbers, in the type of the file, which `parts` are views of."""

    parts: dict[str, LowRank]
    scale: float
    downs: torch.Tensor
    ups: torch.Tensor

    def ready(self, dtype: torch.dtype) -> dict[str, LowRank]:
        """In another type, with the scale in `up`: two operations for all, since this is done whenever the arms of a batch change."""
        downs, ups = self.downs.to(dtype), self.ups.to(dtype) * self.scale
        return {name: LowRank(_there(part.down, downs), _there(part.up, ups), part.gain) for name, part in self.parts.items()}


@dataclass(slots=True)
class Blend:
    """One group's share of a plan: all adapters' low-rank parts side by side."""

    down: torch.Tensor  # (inputs, all ranks)
    owners: tuple[int, ...]  # which adapter each of these ranks belongs to
    ups: list[tuple[int, int, int, int, torch.Tensor]]  # (first rank, last, first output, last, (ranks, outputs))
    gain: torch.Tensor | None  # (adapters + 1, outputs), the last for the base


@dataclass(slots=True)
class Plan:
    """Some adapters, ready to be mixed. `foreign` says, for each row, which ranks are not its own; `span`: the only rows concerned."""

    size: int
    blends: list[Blend | None]
    span: tuple[int, int, int] | None = None  # (first row, last, of how many), where these rows and no others have the one adapter
    _rows: tuple[int, ...] = ()
    _foreign: dict[tuple[int, ...], torch.Tensor | None] = field(default_factory=dict)
    picked: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def seat(self, rows: Sequence[int], device: str) -> None:
        """Say which adapter each row has, by its place in the plan; `size` means the base alone."""
        if self._rows == tuple(rows):
            return
        self._rows, self.picked = tuple(rows), torch.tensor(rows, device=device)
        self._foreign = {}
        self.span = _span(rows) if self.size == 1 else None
        if self.span:
            return
        for owners in {blend.owners for blend in self.blends if blend}:
            foreign = self.picked[:, None] != torch.tensor(owners, device=device)[None]
            self._foreign[owners] = foreign if bool(foreign.any()) else None

    def foreign(self, blend: Blend) -> torch.Tensor | None:
        return self._foreign.get(blend.owners)

    def concerned(self, flat: torch.Tensor) -> torch.Tensor:
        """Of something with a line for each token, the lines that the low-rank product is for."""
        if self.span is None or self.span[1] - self.span[0] == self.span[2]:
            return flat
        each = flat.shape[0] // self.span[2]
        return flat[self.span[0] * each : self.span[1] * each]


class Mixer:
    """The model's linear layers in groups. `plan` is what the next forward pass mixes in, None for the base alone."""

    def __init__(self, model: Any, names: Sequence[str], kernel: Kernel) -> None:
        self.plan: Plan | None = None
        modules = dict(model.named_modules())
        grouped = list(_grouped(modules, names))
        self.groups = [Group(self, place, [(name, modules[name]) for name in members], kernel) for place, members in enumerate(grouped)]
        head = model.get_output_embeddings()
        self.head = Group(self, -1, [("", head)], kernel) if type(head) is torch.nn.Linear else None
        self.least_rows = kernel.least_rows

    def settle(self, parts: dict[str, LowRank], scale: float) -> Adapter:
        """An adapter of these parts, laid out so that what one group reads stands together. May be called on any thread."""
        order = [name for group in self.groups for name in group.names if name in parts]
        downs, ups = (torch.cat([getattr(parts[name], half).flatten() for name in order]) for half in ("down", "up"))
        settled, first, second = {}, 0, 0
        for name in order:
            part = parts[name]
            down = downs[first : first + part.down.numel()].view(part.down.shape)
            up = ups[second : second + part.up.numel()].view(part.up.shape)
            settled[name] = LowRank(down, up, part.gain)
            first, second = first + down.numel(), second + up.numel()
        return Adapter(settled, scale, downs, ups)

    def prepare(self, adapters: Sequence[Adapter], dtype: torch.dtype) -> Plan:
        parts = [adapter.ready(dtype) for adapter in adapters]
        return Plan(len(adapters), [group.blend(parts) for group in self.groups])


class Group:
    """Layers computed at once from one input; a layer alone is a group of one. Each layer asks for its part."""

    def __init__(self, mixer: Mixer, place: int, members: list[tuple[str, Any]], kernel: Kernel) -> None:
        self._mixer, self._place = mixer, place
        self.names = [name for name, _ in members]
        modules = [module for _, module in members]
        sizes = [_outputs(module) for module in modules]
        self._edges = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        plain = all(type(module) is torch.nn.Linear for module in modules)
        self._bias: torch.Tensor | None = getattr(modules[0], "bias", None)
        self._base: Product = modules[0].forward
        if plain:
            weight, self._bias = _joined(modules, kernel)
            self._base = kernel.bind(weight, self._bias)
        self._input: torch.Tensor | None = None
        self._parts: list[torch.Tensor | None] = []
        for index, module in enumerate(modules):
            module.forward = self.compute if len(modules) == 1 else lambda given, index=index: self._part(index, given)

    def blend(self, adapters: Sequence[dict[str, LowRank]]) -> Blend | None:
        downs: list[torch.Tensor] = []
        owners: list[int] = []
        ups, gained = [], False
        for member, name in enumerate(self.names):
            first = len(owners)
            parts = [(owner, adapter[name]) for owner, adapter in enumerate(adapters) if name in adapter]
            for owner, part in parts:
                downs.append(part.down)
                owners += [owner] * part.down.shape[0]
                gained |= part.gain is not None
            if parts:
                found = [part.up for _, part in parts]
                up = (found[0] if len(found) == 1 else torch.cat(found, dim=1)).t()
                ups.append((first, len(owners), self._edges[member], self._edges[member + 1], up))
        if not downs:
            return None
        down = _stacked(downs)
        if len(ups) > 1 and len(owners) * self._edges[-1] <= SMALL:
            ups = [(0, len(owners), 0, self._edges[-1], _one(ups, len(owners), self._edges[-1]))]
        return Blend(down.t(), tuple(owners), ups, self._gains(adapters, down) if gained else None)

    def _gains(self, adapters: Sequence[dict[str, LowRank]], like: torch.Tensor) -> torch.Tensor:
        gain = torch.ones(len(adapters) + 1, self._edges[-1], dtype=like.dtype, device=like.device)
        for owner, adapter in enumerate(adapters):
            for member, name in enumerate(self.names):
                part = adapter.get(name)
                if part is not None and part.gain is not None:
                    gain[owner, self._edges[member] : self._edges[member + 1]] = part.gain
        return gain

    def _part(self, index: int, given: torch.Tensor) -> torch.Tensor:
        if self._input is not given or self._parts[index] is None:
            self._parts = list(self.compute(given).split([b - a for a, b in zip(self._edges, self._edges[1:], strict=False)], dim=-1))
            self._input = given
        part, self._parts[index] = self._parts[index], None
        if not any(other is not None for other in self._parts):
            self._input = None
        assert part is not None
        return part

    def compute(self, given: torch.Tensor) -> torch.Tensor:
        """The outputs of all its layers, side by side."""
        found = self._base(given)
        plan = self._mixer.plan
        blend = plan.blends[self._place] if plan and self._place >= 0 else None
        if plan is None or blend is None:
            return found
        flat = given.dim() == 2  # as at every step, in which each operation counts
        out = plan.concerned(found if flat else found.view(-1, self._edges[-1]))
        low = torch.mm(plan.concerned(given if flat else given.reshape(-1, given.shape[-1])), blend.down)
        foreign = plan.foreign(blend)
        if foreign is not None:
            low.view(foreign.shape[0], -1, low.shape[1]).masked_fill_(foreign[:, None], 0)  # not times 0: another's may be infinite
        if len(blend.ups) == 1 and blend.ups[0][4].shape == (low.shape[1], out.shape[1]):
            out.addmm_(low, blend.ups[0][4])
        else:
            for first, last, start, end, up in blend.ups:
                out[:, start:end].addmm_(low[:, first:last], up)
        if blend.gain is not None:
            self._scale(found, blend.gain[plan.picked])
        return found

    def _scale(self, found: torch.Tensor, gain: torch.Tensor) -> None:
        """DoRA's magnitudes, which leave the bias alone. A gain of one changes no bit of other rows where there is no bias."""
        rows = found.view(gain.shape[0], -1, gain.shape[1])
        scaled = rows * gain[:, None] if self._bias is None else (rows - self._bias) * gain[:, None] + self._bias
        rows.copy_(torch.where((gain != 1).any(1)[:, None, None], scaled, rows))


def _there(view: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The same place of another tensor that is laid out alike."""
    return other.as_strided(view.shape, view.stride(), view.storage_offset())


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All rows of these in one tensor: without a copy where they stand one behind the other, as those of one adapter do."""
    ends = [part.storage_offset() + part.numel() for part in parts]
    starts = [part.storage_offset() for part in parts[1:]]
    if starts == ends[:-1] and len({part.untyped_storage().data_ptr() for part in parts}) == 1:
        rows, width = sum(part.shape[0] for part in parts), parts[0].shape[1]
        return parts[0].as_strided((rows, width), (width, 1), parts[0].storage_offset())
    return torch.cat(list(parts))


def _one(ups: Sequence[tuple[int, int, int, int, torch.Tensor]], ranks: int, outputs: int) -> torch.Tensor:
    """All layers' parts in one product: zeros where a rank belongs to another layer."""
    whole = torch.zeros(ranks, outputs, dtype=ups[0][4].dtype, device=ups[0][4].device)
    for first, last, start, end, up in ups:
        whole[first:last, start:end] = up
    return whole


def _span(rows: Sequence[int]) -> tuple[int, int, int] | None:
    """Where the rows of the only adapter stand, if they stand together."""
    mine = [index for index, row in enumerate(rows) if row == 0]
    together = bool(mine) and mine[-1] - mine[0] + 1 == len(mine)
    return (mine[0], mine[-1] + 1, len(rows)) if together else None


def _grouped(modules: dict[str, Any], names: Sequence[str]) -> list[list[str]]:
    wanted, found = list(names), []
    while wanted:
        name = wanted.pop(0)
        parent, _, last = name.rpartition(".")
        siblings = next((group for group in TOGETHER if group[0] == last), ())
        members = [f"{parent}.{sibling}" for sibling in siblings]
        if len(members) > 1 and all(member == name or member in wanted for member in members) and _alike([modules[m] for m in members]):
            wanted = [other for other in wanted if other not in members]
            found.append(members)
        else:
            found.append([name])
    return found


def _alike(modules: list[Any]) -> bool:
    kinds = {(module.in_features, module.weight.dtype, module.weight.device, module.bias is None) for module in modules}
    return len(kinds) == 1 and all(type(module) is torch.nn.Linear for module in modules)


def _joined(modules: list[Any], kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One weight for all. Unless the kernel makes a copy of it anyway, each layer's own becomes a view, so that nothing is held twice."""
    if len(modules) == 1:
        return modules[0].weight.data, None if modules[0].bias is None else modules[0].bias.data
    weight = torch.cat([module.weight.data for module in modules])
    bias = None if modules[0].bias is None else torch.cat([module.bias.data for module in modules])
    start = 0
    for module in modules if not kernel.copies else ():
        end = start + module.weight.shape[0]
        module.weight.data = weight[start:end]
        if bias is not None:
            module.bias.data = bias[start:end]
        start = end
    return weight, bias


def _outputs(module: Any) -> int:
    return int(module.out_features if hasattr(module, "out_features") else module.nf)
