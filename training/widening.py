"""Wider networks that compute what narrower ones did (as in Net2Net, Chen et al. 2016, but new channels start anew)."""

import numpy as np
import torch

LATER_INPUTS = "later_inputs"
"""Attribute of layers whose channels may be more: how many of their last inputs are no channels of the layer before."""


def may_widen(source: torch.nn.Module | None, target: torch.nn.Module) -> bool:
    """Whether a layer is one of those that widen, with the same later inputs as the source's, if that has it."""
    ours = getattr(target, LATER_INPUTS, None)
    return ours is not None and getattr(source, LATER_INPUTS, ours) == ours


def only_wider(source: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether two tensors differ only in that the target has more channels, in or out."""
    if source.ndim != target.ndim or source.shape[2:] != target.shape[2:]:
        return False
    return all(theirs <= ours for theirs, ours in zip(source.shape[:2], target.shape[:2], strict=True))


def widened(source: torch.Tensor, target: torch.Tensor, name: str, later_inputs: int = 0) -> torch.Tensor:
    """A layer's tensor for more channels, such that the old outputs are what they were.

    New outputs keep the target's initialization, and nobody listens to them yet: weights from new inputs to old outputs
    are zero, from where they learn. Weights that multiply inputs grow by what equalization takes away, the square root
    of the ratio of inputs (Karras et al. 2018, section 4.1); where weights are demodulated that changes nothing.

    Args:
        source: [out, in, ..], [channels], or StyleGAN2's constant [channels, 4, 4], which has no inputs to grow.
        target: as many or more of either.
        name: of the tensor in its layer; a 'gain' belongs to inputs, other vectors to outputs.
        later_inputs: how many of the last inputs are no channels of the layer before, and stay the last.

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
    """Where the old inputs are among the new ones: the first stay the first, the `later` last ones the last."""
    return [*range(theirs - later), *range(ours - later, ours)]
