"""Widens networks without changing their output (like Net2Net, Chen et al. 2016, but with new random channels)."""

import numpy as np
import torch

LATER_INPUTS = "later_inputs"
"""Attribute of layers that may widen: number of their last inputs that are not channels of the previous layer."""


def may_widen(source: torch.nn.Module | None, target: torch.nn.Module) -> bool:
    """Returns whether a layer may widen, with the same number of later inputs as the source."""
    ours = getattr(target, LATER_INPUTS, None)
    return ours is not None and getattr(source, LATER_INPUTS, ours) == ours


def only_wider(source: torch.Tensor, target: torch.Tensor) -> bool:
    """Returns whether the only difference between two tensors is that the target has more input or output channels."""
    if source.ndim != target.ndim or source.shape[2:] != target.shape[2:]:
        return False
    return all(theirs <= ours for theirs, ours in zip(source.shape[:2], target.shape[:2], strict=True))


def widened(source: torch.Tensor, target: torch.Tensor, name: str, later_inputs: int = 0) -> torch.Tensor:
    """Returns a layer's tensor for more channels that keeps the old outputs.

    New outputs keep the target's initialization. Weights from new inputs to old outputs start at zero, and learn from
    there. Equalization divides by the square root of the number of inputs (Karras et al. 2018, section 4.1). Weights of
    old inputs are therefore multiplied by the square root of the ratio. Demodulation cancels this factor.

    Args:
        source: [out, in, ..], [channels], or StyleGAN2's constant [channels, 4, 4], which has no inputs to grow.
        target: tensor with at least as many channels.
        name: name of the tensor in its layer. A 'gain' belongs to inputs, other vectors to outputs.
        later_inputs: number of last inputs that are not channels of the previous layer. They stay last.

    Returns:
        A new tensor of the target's shape.
    """
    made = target.clone()
    outputs = source.shape[0]
    if source.ndim == 1:
        places = input_places(outputs, len(target), later_inputs) if name == "gain" else slice(outputs)
        made[places] = source
        return made
    theirs, ours = source.shape[1], target.shape[1]
    made[:outputs] = 0
    made[:outputs, input_places(theirs, ours, later_inputs)] = source * np.sqrt(ours / theirs)
    return made


def input_places(theirs: int, ours: int, later: int) -> list[int]:
    """Returns the positions of the old inputs among the new inputs. The `later` last inputs stay last."""
    return [*range(theirs - later), *range(ours - later, ours)]
