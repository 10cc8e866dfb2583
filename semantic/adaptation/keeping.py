"""Masks of the adapted generator stay near those of the source."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from semantic.terms.term import Term
from torch_utils import training_stats
from training.loss import Samples, StyleGAN2Loss


class MaskKeeping(Term):
    """Squared distance of coarse and final mask from the masks of the source generator for the same codes.

    The source is the generator as it was when the term was built.
    """

    def __init__(self, loss: StyleGAN2Loss, weight: float):
        super().__init__(loss, weight)
        self.source = copy.deepcopy(loss.G.synthesis).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "source": self.source.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.source.load_state_dict(state["source"])

    def fake(self, fake: Samples) -> torch.Tensor:
        with torch.no_grad(), self.loss.autocast():
            target = self.source(fake.extras["ws"].detach(), noise_mode="const", return_mask=True)
        term = (fake.extras["coarse_mask"] - target.coarse_mask).square().mean()
        term = term + (fake.extras["mask"].clamp(-1, 1) - target.mask.clamp(-1, 1)).square().mean()
        training_stats.report("Loss/mask_consistency", term)
        return self.weight * term
