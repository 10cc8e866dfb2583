"""Networks for larger pictures that compute what those for smaller ones did, resampled.

Progressive growing (Karras et al. 2018) blends old and new stages for a while. Here new stages start with values with
which they pass on what they get. So a grown network is an ordinary one from its first step on.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import UserError

FACTORS = (2, 4)
"""By how much the resolution may grow at once."""

SLOPES = 1.2
"""lrelu(x) - lrelu(-x) = 1.2 x, for a leaky ReLU of slope 0.2."""


def growth(source: torch.nn.Module, target: torch.nn.Module) -> int | None:
    """By how much `target` is larger than `source`; None where it cannot start from it by growing.

    A network that can grow has a method `grown_state(source)`. It gives the state of a smaller network under the names
    and in the shapes of the larger one, with values for the new stages so that both compute the same, resampled.
    """
    factor, rest = divmod(target.img_resolution, source.img_resolution)
    return factor if factor in FACTORS and rest == 0 and hasattr(target, "grown_state") else None


def new_sizes(source: int, target: int) -> list[int]:
    """Resolutions of the new stages, the smallest first."""
    return [source << step for step in range(1, (target // source).bit_length())]


def silenced(layer: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Zeros for weight and bias of a layer, from where they learn, by their names with `prefix`."""
    return {f"{prefix}.{name}": torch.zeros_like(getattr(layer, name)) for name in ("weight", "bias")}


def extended_channels(channels: Mapping[Any, int], source: int, target: int) -> dict[int, int]:
    """Widths at each resolution, each new stage half as wide as the one before."""
    table = {int(resolution): int(count) for resolution, count in channels.items()}
    for resolution in new_sizes(source, target):
        table.setdefault(resolution, max(1, table[resolution // 2] // 2))
    return table


def needed_channels(colours: int) -> int:
    """Width of a new stage of a discriminator that passes on so many colours: each and its negative."""
    return 2 * colours


def passing_state(blocks: Mapping[str, torch.nn.Module], reader: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State of new blocks of a discriminator that give the first old block what it got before.

    The old block got lrelu(W x + b) of an image x at its size. New blocks of 'skip' give zero, as the old block still
    reads the image itself. Those of 'resnet' and 'orig' carry every colour and its negative through their activations,
    from which the colour follows, and halve it with the low-pass of their resampling. What is left of their channels
    keeps its initialization; nobody listens to it yet.

    Args:
        blocks: `training.discriminator.DiscriminatorBlock`s by name, the largest first.
        reader: the layer with W and b, `fromrgb` of the smaller discriminator.

    Returns:
        Tensors by name.

    Raises:
        UserError: the blocks are too narrow, or have another activation.
    """
    if next(iter(blocks.values())).architecture == "skip":
        return {k: v for name, block in blocks.items() for k, v in silenced(block.conv1, f"{name}.conv1").items()}
    outputs, colours = reader.weight.shape[:2]
    _check_blocks(blocks, needed_channels(colours), outputs)
    both = torch.cat([torch.eye(colours), -torch.eye(colours)]).to(reader.weight)  # a colour, and its negative
    activated = both.t() / (SLOPES * math.sqrt(2))  # colours from what layers with an activation make of both
    first, last = next(iter(blocks)), list(blocks)[-1]
    state, incoming = {}, activated
    state |= _rows(blocks[first].fromrgb, f"{first}.fromrgb", both)
    for name, block in blocks.items():
        residual = block.architecture == "resnet"
        state |= _rows(block.conv0, f"{name}.conv0", both @ incoming)
        if name == last:
            scale = math.sqrt(2) if residual else 1  # residual blocks divide what both of their paths make
            weight = reader.weight.flatten(1) * reader.weight_gain
            state |= _rows(block.conv1, f"{name}.conv1", scale * weight @ activated, scale * reader.bias)
            if residual:
                state |= _rows(block.skip, f"{name}.skip", torch.zeros_like(weight))
        elif residual:
            state |= _rows(block.conv1, f"{name}.conv1", torch.zeros_like(both))
            state |= _rows(block.skip, f"{name}.skip", math.sqrt(2) * both @ incoming)
            incoming = both.t() / 2
        else:
            state |= _rows(block.conv1, f"{name}.conv1", both @ activated)
    return state


def _check_blocks(blocks: Mapping[str, torch.nn.Module], needed: int, outputs: int) -> None:
    for name, block in blocks.items():
        width = block.conv0.weight.shape[0]
        if width < needed:
            raise UserError(
                f"To grow, D needs {needed} channels at {block.resolution}², but has {width}: choose a greater --cbase."
            )
        if block.conv0.activation != "lrelu":
            raise UserError(f"Only discriminators with leaky ReLUs can grow, but {name} has {block.conv0.activation}.")
    if block.conv1.weight.shape[0] < outputs:
        raise UserError("Networks can grow and be wider (--cbase), but not be narrower.")


def _rows(
    layer: torch.nn.Module, prefix: str, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Weight and bias of an equalized convolution whose first outputs depend on the first inputs alone, by `weight`.

    Args:
        layer: the layer; its other outputs stay as they are.
        prefix: name of the layer.
        weight: [out, in] as it acts at run time, at the centre of the kernel.
        bias: [out]; zeros by default.
    """
    outputs, inputs = weight.shape
    centre = layer.weight.shape[-1] // 2
    made = layer.weight.detach().clone()
    made[:outputs] = 0
    made[:outputs, :inputs, centre, centre] = weight.detach() / layer.weight_gain
    state = {f"{prefix}.weight": made}
    if layer.bias is not None:
        biases = layer.bias.detach().clone()
        biases[:outputs] = 0 if bias is None else bias.detach()
        state[f"{prefix}.bias"] = biases
    return state
