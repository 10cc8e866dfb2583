"""Starting from a network with other regions: each region starts from the one of the same name."""

from collections.abc import Sequence

import torch


class RegionTakeover:
    """What a network with some regions takes from one with others; see `training.warm_start.copy_networks`.

    Args:
        theirs, ours: names of the regions, background first.

    Attributes:
        said: one line for the user.
    """

    def __init__(self, theirs: Sequence[str], ours: Sequence[str]):
        self.origin = region_sources(theirs, ours)
        self.said = describe_regions(theirs, ours, self.origin)

    def part(self, network: torch.nn.Module, key: str, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The source's tensor for the regions of the target, if the network's `region_axes` name it and it fits."""
        axis = network.region_axes().get(key) if hasattr(network, "region_axes") else None
        if axis is None or not fits(source, target, axis, self.origin):
            return source
        return rearranged(source, target, axis, self.origin)


def region_sources(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """For each of our regions the index of the one that it starts from, by name; None for a region that is new.

    As many regions that are all called differently were given other names: each starts from the one at its place.
    The first region is the background, whatever its name.
    """
    by_name = {name: index for index, name in enumerate(theirs) if index > 0}
    if len(theirs) == len(ours) and not set(theirs[1:]) & set(ours[1:]):
        return list(range(len(ours)))
    return [0, *(by_name.get(name) for name in ours[1:])]


def describe_regions(theirs: Sequence[str], ours: Sequence[str], origin: Sequence[int | None]) -> str:
    """One line on where regions come from."""
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
    """Whether the tensors differ in the number of regions alone, and the source has all that are wanted of it."""
    rest = [[n for i, n in enumerate(tensor.shape) if i != axis] for tensor in (source, target)]
    skipped = int(target.shape[axis] == len(origin) - 1)
    per_region = (target.shape[axis] + skipped) // len(origin)
    last = max(start for start in origin if start is not None)
    return rest[0] == rest[1] and (last + 1 - skipped) * per_region <= source.shape[axis]


def rearranged(source: torch.Tensor, target: torch.Tensor, axis: int, origin: Sequence[int | None]) -> torch.Tensor:
    """`target` with the parts of regions that have an origin taken from `source`.

    Args:
        source, target: along `axis` they have the same number of entries for each region in turn, and none for the
            background if there is one entry less than regions.
        axis: which one.
        origin: for each region of the target the index of its origin in the source.
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
