"""Starts a run from trained networks."""

import inspect
from collections.abc import Container, Mapping
from typing import Any, Protocol

import torch

from dnnlib import EasyDict, UserError
from training.growing import FACTORS, growth
from training.widening import LATER_INPUTS, may_widen, only_wider, widened

OF_THE_RUN = ("num_fp16_res", "conv_clamp", "block_kwargs", "segmentation")
"""Arguments that follow from --precision and from the loss, not from the network to resume."""

COMPARED = ("z_dim", "c_dim", "w_dim", "img_channels", "num_regions")
"""Attributes of networks that must be equal if the new network is wider."""


class Takeover(Protocol):
    """Starts networks from networks for other data.

    Attributes:
        said: one line for the user.
    """

    said: str

    def part(self, network: torch.nn.Module, key: str, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the part of the source's tensor `key` for `network`: in the target's shape, or unchanged."""


def copy_networks(source: Mapping[str, Any], targets: Mapping[str, torch.nn.Module]) -> str | None:
    """Start networks from trained networks. If the file lacks D or G, that network keeps its initialization.

    A G with a method `transfer_from(source)` may be initialized from a network for other data. The method returns a
    `Takeover` or None. Wider networks start from narrower networks, see `training.widening`. Larger networks start
    from smaller networks, see `training.growing`.

    Returns:
        A line for the user about transferred, grown or widened networks. None if the networks are of equal shape.

    Raises:
        UserError: the networks are of another kind, or were built for other data or options.
    """
    takeover = factor = None
    theirs, ours = (networks.get("G_ema") or networks.get("G") for networks in (source, targets))
    if ours is not None and type(theirs) is type(ours):
        factor = growth(theirs, ours)
        takeover = ours.transfer_from(theirs) if hasattr(ours, "transfer_from") else None
    if factor and takeover is not None:
        raise UserError(
            f"The network to resume has other regions and {theirs.img_resolution}². First transfer the regions, with "
            f"data of {theirs.img_resolution}², then grow the result."
        )
    wider = []
    for name, target in targets.items():
        network = source.get(name)
        if network is None and name == "G":
            network = source.get("G_ema")
        if network is not None and copy_matching(network, target, name, takeover):
            wider.append(name)
    said = []
    if factor:
        said.append(
            f"Grown from {theirs.img_resolution}² to {ours.img_resolution}². At first G makes resampled pictures."
        )
    if wider:
        said.append(f"Wider than the network to resume: {', '.join(wider)}. At first G makes the same pictures.")
    if takeover is not None:
        said.append(takeover.said)
    return " ".join(said) or None


def copy_matching(
    source: torch.nn.Module, target: torch.nn.Module, name: str, takeover: Takeover | None = None
) -> bool:
    """Copy parameters and buffers that both networks have, by name.

    Args:
        source, target: networks of the same class.
        name: name of the network for messages.
        takeover: fits the tensors of networks for different data, see `copy_networks`.

    Returns:
        Whether the target is wider.

    Raises:
        UserError: the network is of another kind, resolution or shape, or is wider than the target.
    """
    if type(source) is not type(target):
        raise UserError(
            f"The network to resume does not fit --cfg: its {name} is a {_kind(source)}, not a {_kind(target)}."
        )
    mismatch = f"The network to resume does not fit the data or --cfg: its {name} is ({source.extra_repr()}), "
    mismatch += f"this run's is ({target.extra_repr()})"
    larger = growth(source, target)
    if source.img_resolution != target.img_resolution and not larger:
        sizes = ", ".join(f"{source.img_resolution * n}²" for n in (1, *FACTORS))
        raise UserError(f"{mismatch}. Networks can resume at {sizes}: make the archive again with dataset_tool.py.")
    theirs, wider = target.grown_state(source) if larger else source.state_dict(), False
    layers = dict(source.named_modules())
    comparable = takeover is not None or all(getattr(source, n, 0) == getattr(target, n, 0) for n in COMPARED)
    with torch.no_grad():
        for key, tensor in target.state_dict().items():
            if key not in theirs:
                continue
            kept = theirs[key]
            path, _, last = key.rpartition(".")
            layer = target.get_submodule(path)
            widens = comparable and may_widen(layers.get(path), layer)
            if takeover is not None:
                kept = takeover.part(target, key, kept, tensor)
            elif kept.shape != tensor.shape and widens and only_wider(kept, tensor):
                kept, wider = widened(kept, tensor, last, getattr(layer, LATER_INPUTS)), True
            if kept.shape != tensor.shape:
                shapes = f"{key} has shape {list(kept.shape)} there and {list(tensor.shape)} here"
                advice = ""
                if widens and only_wider(tensor, kept):
                    advice = " A network can become wider (--cbase), not narrower."
                elif widens and only_wider(kept, tensor):
                    advice = " First transfer the regions at the same width, then make the network wider (--cbase)."
                raise UserError(f"{mismatch}; {shapes}.{advice}")
            tensor.copy_(kept)
    return wider


def _kind(network: torch.nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def inherit_arguments(own: Mapping[str, Any], network: torch.nn.Module, from_data: Container[str]) -> EasyDict:
    """Returns the arguments of a network that is built like another network, for other data.

    Args:
        own: class name and arguments of a configuration.
        network: the other network. Arguments that it did not set keep their defaults, not the configuration's values.
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
