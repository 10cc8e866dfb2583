"""Starting a run from networks that were trained before."""

import inspect
from collections.abc import Container, Mapping
from typing import Any

import torch

from dnnlib import EasyDict, UserError

OF_THE_RUN = ("num_fp16_res", "conv_clamp", "block_kwargs", "segmentation")
"""Arguments that follow from --precision and from the loss, whatever the network to resume was built with."""


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
