"""Starting a run from networks that were trained before."""

import inspect
from collections.abc import Container, Mapping
from typing import Any, Protocol

import torch

from dnnlib import EasyDict, UserError
from training.growing import FACTORS, growth
from training.widening import LATER_INPUTS, may_widen, only_wider, widened

OF_THE_RUN = ("num_fp16_res", "conv_clamp", "block_kwargs", "segmentation")
"""Arguments that follow from --precision and from the loss, whatever the network to resume was built with."""

COMPARED = ("z_dim", "c_dim", "w_dim", "img_channels", "num_regions")
"""Attributes of networks that must be equal before one may be wider."""


class Takeover(Protocol):
    """How networks start from ones for other data.

    Attributes:
        said: one line for the user.
    """

    said: str

    def part(self, network: torch.nn.Module, key: str, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """What `network` takes of the source's tensor `key`: of the target's shape, or the source as it is."""


def copy_networks(source: Mapping[str, Any], targets: Mapping[str, torch.nn.Module]) -> str | None:
    """Start networks from trained ones; a D or G that the file lacks starts from what there is.

    A G with a method `transfer_from(source)` may say how it is taken over from a network for other data: it gives None,
    or a `Takeover`. Wider networks take what they compute from narrower ones, see `training.widening`, and larger ones
    from smaller ones, see `training.growing`.

    Returns:
        What was taken over, grown or widened, for the user; None where the networks are alike.

    Raises:
        UserError: they are of another kind, or were built for other data or options.
    """
    takeover = factor = None
    theirs, ours = (networks.get("G_ema") or networks.get("G") for networks in (source, targets))
    if ours is not None and type(theirs) is type(ours):
        factor = growth(theirs, ours)
        takeover = ours.transfer_from(theirs) if hasattr(ours, "transfer_from") else None
    if factor and takeover is not None:
        raise UserError(
            f"The network to resume has other regions and {theirs.img_resolution}²: take the regions over first, with "
            f"data of {theirs.img_resolution}², then grow."
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
            f"Grown from {theirs.img_resolution}² to {ours.img_resolution}²: G makes the same at first, resampled."
        )
    if wider:
        said.append(f"Wider than the network to resume: {', '.join(wider)}. What G makes is the same at first.")
    if takeover is not None:
        said.append(takeover.said)
    return " ".join(said) or None


def copy_matching(
    source: torch.nn.Module, target: torch.nn.Module, name: str, takeover: Takeover | None = None
) -> bool:
    """Copy parameters and buffers that both networks have, by name.

    Args:
        source, target: networks of the same class.
        name: of the network, for messages.
        takeover: what fits networks for different data, see `copy_networks`.

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
    larger = growth(source, target)
    if source.img_resolution != target.img_resolution and not larger:
        sizes = ", ".join(f"{source.img_resolution * n}²" for n in (1, *FACTORS))
        raise UserError(f"{mismatch}. Make the archive again with dataset_tool.py: networks go on at {sizes}.")
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
                    advice = " Networks can go on wider (--cbase), not narrower."
                elif widens and only_wider(kept, tensor):
                    advice = " Take the regions over first, at the width as it is, then go on wider (--cbase)."
                raise UserError(f"{mismatch}; {shapes}.{advice}")
            tensor.copy_(kept)
    return wider


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
