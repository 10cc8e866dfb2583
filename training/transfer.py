"""Starting a run from networks that were trained before."""

import inspect
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch

from dnnlib import EasyDict, UserError
from training.widening import can_widen, widened

OF_THE_RUN = ("num_fp16_res", "conv_clamp", "block_kwargs", "segmentation")
"""Arguments that follow from --precision and from the loss, whatever the network to resume was built with."""


def copy_networks(source: Mapping[str, Any], targets: Mapping[str, torch.nn.Module]) -> str | None:
    """Start networks from trained ones; a D or G that the file lacks starts from what there is.

    Networks with other regions take what belongs to a region from the one of the same name; see `region_sources`.
    Wider networks take what they compute from narrower ones; see `training.widening`.

    Returns:
        What was done about regions or widths, for the user; None where they are the same.

    Raises:
        UserError: they are of another kind, or were built for other data or options.
    """
    origin, said = None, None
    theirs, ours = (
        getattr(networks.get("G_ema") or networks.get("G"), "regions", None) for networks in (source, targets)
    )
    if theirs is not None and ours is not None and theirs.names != ours.names:
        origin = region_sources(theirs.names, ours.names)
        said = describe_regions(theirs.names, ours.names, origin)
    wider = []
    for name, target in targets.items():
        network = source.get(name)
        if network is None and name == "G":
            network = source.get("G_ema")
        if network is not None and copy_matching(network, target, name, origin):
            wider.append(name)
    if wider:
        said = f"Wider than the network to resume: {', '.join(wider)}. What they make is the same at first."
    return said


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


def copy_matching(
    source: torch.nn.Module, target: torch.nn.Module, name: str, origin: Sequence[int | None] | None = None
) -> bool:
    """Copy parameters and buffers that both networks have, by name.

    Args:
        source, target: networks of the same class.
        name: of the network, for messages.
        origin: as from `region_sources`, where the regions differ: of tensors that the target's `region_axes` names,
            each region's part comes from there; what is new stays as it is.

    Returns:
        Whether the target is wider.

    Raises:
        UserError: the network is of another kind, resolution or shape, or wider than the target.
    """
    if type(source) is not type(target):
        raise UserError(
            f"The network to resume does not fit --cfg: its {name} is a {_kind(source)}, this run's a {_kind(target)}."
        )
    mismatch = f"The network to resume does not fit the data or --cfg: its {name} is ({source.extra_repr()}), "
    mismatch += f"this run's is ({target.extra_repr()})"
    if source.img_resolution != target.img_resolution:
        raise UserError(f"{mismatch}. Make the archive again with dataset_tool.py at {source.img_resolution}².")
    theirs = source.state_dict()
    axes = target.region_axes() if origin is not None and hasattr(target, "region_axes") else {}
    same_data, wider = source.extra_repr() == target.extra_repr(), False
    with torch.no_grad():
        for key, tensor in target.state_dict().items():
            if key not in theirs:
                continue
            kept = theirs[key]
            if kept.shape != tensor.shape and same_data and can_widen(kept, tensor):
                layer, _, last = key.rpartition(".")
                kept = widened(kept, tensor, last, getattr(target.get_submodule(layer), "later_inputs", 0))
                wider = True
            if key in axes and fits(kept, tensor, axes[key], origin):
                kept = rearranged(kept, tensor, axes[key], origin)
            if kept.shape != tensor.shape:
                advice = " Networks can go on wider (--cbase), not narrower." if can_widen(tensor, kept) else ""
                shapes = f"{key} has shape {list(kept.shape)} there and {list(tensor.shape)} here"
                raise UserError(f"{mismatch}; {shapes}.{advice}")
            tensor.copy_(kept)
    return wider


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


def _kind(network: torch.nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def inherit_arguments(own: Mapping[str, Any], network: torch.nn.Module, from_data: Container[str]) -> EasyDict:
    """Arguments of a network that is built like another one, for other data.

    Args:
        own: class name and arguments that a configuration gives.
        network: the other one; what it was not given has its default, whatever the configuration says.
        from_data: names of arguments that follow from the data.
    """
    given = inspect.signature(type(network)).bind(*network.init_args, **network.init_kwargs).arguments
    found = EasyDict()
    for name in dict.fromkeys((*own, *given)):
        if name == "class_name" or name in from_data:
            if name in own:
                found[name] = own[name]
        elif name in OF_THE_RUN and name in own:
            found[name] = {**own[name], **(given.get(name) or {})} if isinstance(own[name], Mapping) else own[name]
        elif name in given:
            found[name] = given[name]
        elif isinstance(own[name], Mapping):
            found[name] = {}
    return found
