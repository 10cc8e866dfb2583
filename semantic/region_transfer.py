"""Starts a network from a network with other regions: each region starts from the region of the same name."""

from collections.abc import Sequence

import torch


class RegionTakeover:
    """Copies tensors between networks with different regions, see `training.warm_start.copy_networks`.

    Args:
        theirs, ours: names of the regions, background first.

    Attributes:
        said: one line for the user.
    """

    def __init__(self, theirs: Sequence[str], ours: Sequence[str]):
        self.origin = region_sources(theirs, ours)
        self.said = describe_regions(theirs, ours, self.origin)

    def part(self, network: torch.nn.Module, key: str, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the source's tensor for the target's regions if the network's `region_axes` lists the tensor."""
        axis = network.region_axes().get(key) if hasattr(network, "region_axes") else None
        if axis is None or not fits(source, target, axis, self.origin):
            return source
        return rearranged(source, target, axis, self.origin)


def region_sources(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """Returns the index of the region that each of our regions starts from, or None for a new region.

    Regions are matched by name. If both networks have equally many regions and no name matches, regions are matched by
    position. The first region is always the background.
    """
    by_name = {name: index for index, name in enumerate(theirs) if index > 0}
    if len(theirs) == len(ours) and not set(theirs[1:]) & set(ours[1:]):
        return list(range(len(ours)))
    return [0, *(by_name.get(name) for name in ours[1:])]


def describe_regions(theirs: Sequence[str], ours: Sequence[str], origin: Sequence[int | None]) -> str:
    """Returns one line about the origins of regions."""
    taken = [
        name if theirs[index] == name else f"{name} from {theirs[index]}"
        for name, index in zip(ours, origin, strict=True)
        if index is not None
    ]
    new = [name for name, index in zip(ours, origin, strict=True) if index is None]
    left = [name for index, name in enumerate(theirs) if index not in origin]
    parts = (("taken over", taken), ("new", new), ("left out", left))
    return "Regions of the network to resume: " + "; ".join(f"{what}: {', '.join(n)}" for what, n in parts if n) + "."


def fits(source: torch.Tensor, target: torch.Tensor, axis: int, origin: Sequence[int | None]) -> bool:
    """Whether the tensors differ only in the number of regions, and the source has all required regions."""
    rest = [[n for i, n in enumerate(tensor.shape) if i != axis] for tensor in (source, target)]
    skipped = int(target.shape[axis] == len(origin) - 1)
    per_region = (target.shape[axis] + skipped) // len(origin)
    last = max(start for start in origin if start is not None)
    return rest[0] == rest[1] and (last + 1 - skipped) * per_region <= source.shape[axis]


def rearranged(source: torch.Tensor, target: torch.Tensor, axis: int, origin: Sequence[int | None]) -> torch.Tensor:
    """Returns a copy of `target` with the parts of regions that have an origin copied from `source`.

    Args:
        source, target: tensors with equally many entries for each region along `axis`. If the axis has one entry less
            than regions, the background has no entry.
        axis: axis of the regions.
        origin: for each region of the target, the index of its origin in the source, or None.
    """
    made = target.clone().movedim(axis, 0)
    skipped = int(len(made) == len(origin) - 1)
    per_region = (len(made) + skipped) // len(origin)
    rows = source.movedim(axis, 0)
    for index, start in enumerate(origin):
        if start is not None and index >= skipped:
            here, there = ((i - skipped) * per_region for i in (index, start))
            made[here : here + per_region] = rows[there : there + per_region]
    return made.movedim(0, axis)
