"""Grows networks to larger pictures. A grown network computes the resampled pictures of the smaller network.

Progressive growing (Karras et al. 2018) blends old and new stages for a while. Here new stages start with values that
pass their input on. A grown network is therefore an ordinary network from its first step.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import UserError

FACTORS = (2, 4)
"""Factors by which the resolution may grow at once."""

SLOPES = 1.2
"""lrelu(x) - lrelu(-x) = 1.2 x, for a leaky ReLU of slope 0.2."""


def growth(source: torch.nn.Module, target: torch.nn.Module) -> int | None:
    """Returns the factor by which `target` is larger than `source`, or None if `target` cannot grow from `source`.

    A network that can grow has a method `grown_state(source)`. It returns the state of a smaller network with the names
    and shapes of the larger network. The values of the new stages make both networks compute the same, resampled.
    """
    factor, rest = divmod(target.img_resolution, source.img_resolution)
    return factor if factor in FACTORS and rest == 0 and hasattr(target, "grown_state") else None


def new_sizes(source: int, target: int) -> list[int]:
    """Returns the resolutions of the new stages, smallest first."""
    return [source << step for step in range(1, (target // source).bit_length())]


def silenced(layer: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Returns zeros as trainable start values for weight and bias of a layer, by their names with `prefix`."""
    return {f"{prefix}.{name}": torch.zeros_like(getattr(layer, name)) for name in ("weight", "bias")}


def extended_channels(channels: Mapping[Any, int], source: int, target: int) -> dict[int, int]:
    """Returns the widths at each resolution. Each new stage is half as wide as the previous stage."""
    table = {int(resolution): int(count) for resolution, count in channels.items()}
    for resolution in new_sizes(source, target):
        table.setdefault(resolution, max(1, table[resolution // 2] // 2))
    return table


def needed_channels(colours: int) -> int:
    """Returns the width that a new stage of D needs to pass `colours` colours on: each colour and its negative."""
    return 2 * colours


def passing_state(blocks: Mapping[str, torch.nn.Module], reader: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the state of new blocks of a discriminator that pass the old input on to the first old block.

    The old block reads lrelu(W x + b) of an image x at its own size. With 'skip', new blocks output zero, since the old
    block still reads the image itself. With 'resnet' and 'orig', new blocks carry every colour and its negative through
    their activations. They recover the colour from both, and halve its size with their low-pass filter. Their other
    channels keep the initialization, with zero weights in the following layer.

    Args:
        blocks: `training.discriminator.DiscriminatorBlock`s by name, largest first.
        reader: layer with W and b, `fromrgb` of the smaller discriminator.

    Returns:
        Tensors by name.

    Raises:
        UserError: the blocks are too narrow, or do not use leaky ReLUs.
    """
    if next(iter(blocks.values())).architecture == "skip":
        return {k: v for name, block in blocks.items() for k, v in silenced(block.conv1, f"{name}.conv1").items()}
    outputs, colours = reader.weight.shape[:2]
    _check_blocks(blocks, needed_channels(colours), outputs)
    both = torch.cat([torch.eye(colours), -torch.eye(colours)]).to(reader.weight)  # each colour and its negative
    activated = both.t() / (SLOPES * math.sqrt(2))  # recovers colours from the activations of both
    first, last = next(iter(blocks)), list(blocks)[-1]
    state, incoming = {}, activated
    state |= _rows(blocks[first].fromrgb, f"{first}.fromrgb", both)
    for name, block in blocks.items():
        residual = block.architecture == "resnet"
        state |= _rows(block.conv0, f"{name}.conv0", both @ incoming)
        if name == last:
            scale = math.sqrt(2) if residual else 1  # residual blocks divide the sum of their two paths
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
                f"To grow, D needs {needed} channels at {block.resolution}², but has {width}. Set a larger --cbase."
            )
        if block.conv0.activation != "lrelu":
            raise UserError(f"Only discriminators with leaky ReLUs can grow, but {name} uses {block.conv0.activation}.")
    if block.conv1.weight.shape[0] < outputs:
        raise UserError("Networks can grow and become wider (--cbase), but not narrower.")


def _rows(
    layer: torch.nn.Module, prefix: str, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Returns weight and bias of an equalized convolution whose first outputs are `weight` times the first inputs.

    Args:
        layer: the layer. Its other outputs keep their values.
        prefix: name of the layer.
        weight: effective weight [out, in] at the centre of the kernel.
        bias: [out], zeros by default.
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
