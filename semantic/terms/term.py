"""The interface of terms that are not in the paper's loss."""

from collections.abc import Mapping
from typing import Any

import torch

from training.loss import Samples, StyleGAN2Loss


class Term:
    """One term of the loss that is not in the paper. A subclass overrides the methods that it needs.

    Args:
        loss: the loss that the term belongs to. It holds the networks and the precision.
        weight: factor of the term. A term of weight 0 is never built.
    """

    needs_scores = False
    """Whether D must also segment the images. `real` and `fake` then get `scores` and `augmented_mask`."""

    def __init__(self, loss: StyleGAN2Loss, weight: float):
        self.loss = loss
        self.weight = weight

    def real(self, real: Samples) -> torch.Tensor | float:
        """Returns the weighted term of D's loss at real samples after `discriminate`, a batch mean."""
        return 0.0

    def fake(self, fake: Samples) -> torch.Tensor | float:
        """Returns the weighted term of G's loss at generated samples after `discriminate`, a batch mean."""
        return 0.0

    def step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        """Add the gradients of a term that renders its own images.

        Args:
            z, c: latents [N, z_dim] and labels [N, c_dim] of G's step.
        """

    def running(self) -> list[torch.Tensor]:
        """Returns tensors that the term updates beside the gradients, see `training.loss.Loss.running`."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Returns the values that a resume needs: the running tensors, unless a subclass has more."""
        return {"running": [tensor.cpu() for tensor in self.running()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state_dict`."""
        for tensor, value in zip(self.running(), state["running"], strict=True):
            tensor.copy_(value)
