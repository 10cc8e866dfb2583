"""Starting a run from networks that were trained before."""

from collections.abc import Container, Mapping
from typing import Any

import torch

from dnnlib import EasyDict, UserError


def copy_networks(source: Mapping[str, Any], targets: Mapping[str, torch.nn.Module]) -> None:
    """Start networks from trained ones; a D or G that the file lacks starts from what there is.

    Raises:
        UserError: they are of another kind, or were built for other data or options.
    """
    for name, target in targets.items():
        network = source.get(name)
        if network is None and name == "G":
            network = source.get("G_ema")
        if network is not None:
            copy_matching(network, target, name)


def copy_matching(source: torch.nn.Module, target: torch.nn.Module, name: str) -> None:
    """Copy parameters and buffers that both networks have, by name.

    Raises:
        UserError: the network is of another kind, resolution or shape.
    """
    if type(source) is not type(target):
        raise UserError(
            f"The network to resume does not fit --cfg: its {name} is a {_kind(source)}, this run's a {_kind(target)}."
        )
    mismatch = f"The network to resume does not fit the data or --cfg: its {name} is ({source.extra_repr()}), "
    mismatch += f"this run's is ({target.extra_repr()})"
    if source.img_resolution != target.img_resolution:
        raise UserError(f"{mismatch}. Make the archive again with dataset_tool.py at {source.img_resolution}².")
    theirs = dict([*source.named_parameters(), *source.named_buffers()])
    with torch.no_grad():
        for key, tensor in [*target.named_parameters(), *target.named_buffers()]:
            if key not in theirs:
                continue
            if theirs[key].shape != tensor.shape:
                raise UserError(
                    f"{mismatch}; {key} has shape {list(theirs[key].shape)} there and {list(tensor.shape)} here."
                )
            tensor.copy_(theirs[key])


def _kind(network: torch.nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def inherit_arguments(own: Mapping[str, Any], theirs: Mapping[str, Any], from_data: Container[str]) -> EasyDict:
    """Arguments of a network that is built like another one, for other data.

    Args:
        own: class name and arguments that a configuration gives.
        theirs: arguments that the other network was built with; what they leave out had its default.
        from_data: names of arguments that follow from the data.
    """
    kept = {k: v for k, v in own.items() if k in theirs or k in from_data or k == "class_name" or isinstance(v, dict)}
    return EasyDict(kept | {k: v for k, v in theirs.items() if k not in from_data})
