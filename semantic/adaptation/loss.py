"""Adaptation of a trained pair to a domain that has images only (Shi et al. 2022, section 4.4)."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from semantic.loss import SemanticLoss
from torch_utils import training_stats
from training.loss import Samples, StyleGAN2Loss


class AdaptationLoss(SemanticLoss):
    """The image branch of D alone judges; the masks are held near those of the generator that training started from.

    Args:
        args, kwargs: see `SemanticLoss`. `mask_weight` weighs the squared distance of coarse and final mask from the
            source generator's masks for the same codes; 0 lets masks drift.
    """

    def __init__(self, *args: Any, mask_weight: float = 10, **kwargs: Any):
        super().__init__(*args, mask_weight=mask_weight, r1_gamma_mask=0, **kwargs)
        self.source = copy.deepcopy(self.G.synthesis).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "source": self.source.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.source.load_state_dict(state["source"])

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> Samples:
        ws = self.mix_styles(z, c, update_w_avg=True)
        with self.autocast():
            out = self.G.synthesis(ws, return_mask=True)
        return Samples(out.image.float(), {"ws": ws, "mask": out.mask, "coarse_mask": out.coarse_mask})

    def real_samples(self, real: Mapping[str, torch.Tensor]) -> Samples:
        return StyleGAN2Loss.real_samples(self, real)

    def discriminate(self, samples: Samples, c: torch.Tensor, full_precision: bool = False) -> torch.Tensor:
        return StyleGAN2Loss.discriminate(self, samples, c, full_precision)

    def generator_terms(self, fake: Samples) -> torch.Tensor | float:
        if self.mask_weight == 0:
            return 0.0
        with torch.no_grad(), self.autocast():
            target = self.source(fake.extras["ws"].detach(), noise_mode="const", return_mask=True)
        term = (fake.extras["coarse_mask"] - target.coarse_mask).square().mean()
        term = term + (fake.extras["mask"].clamp(-1, 1) - target.mask.clamp(-1, 1)).square().mean()
        training_stats.report("Loss/mask_consistency", term)
        return self.mask_weight * term

    def r1_terms(self) -> dict[str, tuple[str, float]]:
        return StyleGAN2Loss.r1_terms(self)
