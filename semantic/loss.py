"""The joint loss of image and mask (Shi et al. 2022, section 3.4)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from semantic.masks import one_hot
from semantic.regions import Regions
from semantic.terms.locality import LocalityTerm
from semantic.terms.prior import PriorTerm
from semantic.terms.segmentation import SegmentationTerm
from semantic.terms.term import Term
from torch_utils import training_stats
from training.loss import Samples, StyleGAN2Loss


def mask_consistency(coarse_mask: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns the squared distance of the coarse mask from the final mask, averaged down to its size.

    Args:
        coarse_mask: [N, K, H, H] in [-1, 1].
        mask: [N, K, R, R]. R must be a multiple of H.

    Returns:
        Mean over all elements, a scalar.
    """
    return (coarse_mask - F.avg_pool2d(mask, mask.shape[-1] // coarse_mask.shape[-1])).square().mean()


def mix_region_codes(ws: torch.Tensor, other: torch.Tensor, regions: Regions, choice: torch.Tensor) -> torch.Tensor:
    """Returns codes mixed region by region. Base codes stay.

    Args:
        ws, other: codes of latents A and B, [N, b+2K, D].
        regions: layout of the codes.
        choice: integers [N, K]: 0 keeps both codes of A, 1 takes the texture of B, 2 takes both codes of B.

    Returns:
        [N, b+2K, D].
    """
    shape, texture = choice == 2, choice >= 1
    from_other = torch.stack([shape, texture], dim=2).flatten(1)
    from_other = F.pad(from_other, (regions.base_layers, 0), value=False)
    return torch.where(from_other.unsqueeze(2), other, ws)


class RegionLoss(StyleGAN2Loss):
    """StyleGAN2's loss for a generator with regions, and a list of further terms.

    Styles are mixed region by region. The path length uses expanded latents.

    Args:
        args: see `StyleGAN2Loss`.
        style_mixing_prob: probability that a batch mixes two latents region by region.
        pl_weight: weight of the path length.
        kwargs: NAME_weight is the weight of the entry NAME of `TERMS`. The default 0 turns the term off. For other
            options see `StyleGAN2Loss`.
    """

    TERMS: ClassVar[Mapping[str, type[Term]]] = {}
    """Further terms of the loss by name."""

    def __init__(self, *args: Any, style_mixing_prob: float = 0.3, pl_weight: float = 0.5, **kwargs: Any):
        weights = {name: kwargs.pop(f"{name}_weight", 0) for name in self.TERMS}
        super().__init__(*args, style_mixing_prob=style_mixing_prob, pl_weight=pl_weight, **kwargs)
        self.num_regions = len(self.G.regions)
        self.terms = {name: self.TERMS[name](self, weight) for name, weight in weights.items() if weight != 0}

    def running(self) -> list[torch.Tensor]:
        return [*super().running(), *(tensor for term in self.terms.values() for tensor in term.running())]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "terms": {name: term.state_dict() for name, term in self.terms.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for name, term in self.terms.items():
            term.load_state_dict(state["terms"][name])

    def mix_styles(self, z: torch.Tensor, c: torch.Tensor, update_w_avg: bool) -> torch.Tensor:
        """Returns codes for a batch. With probability `style_mixing_prob` regions use codes of a second latent.

        In a mixed batch, every region of every sample independently keeps A, takes B's texture, or takes all of B.
        """
        ws = self.G.mapping(z, c, skip_w_avg_update=not update_w_avg)
        if self.style_mixing_prob > 0:
            other = self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
            choice = torch.randint(3, [z.shape[0], self.num_regions], device=z.device)
            mixed = torch.rand([], device=z.device) < self.style_mixing_prob
            ws = mix_region_codes(ws, other, self.G.regions, choice * mixed)
        return ws

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> Samples:
        """Returns generated samples. The extras are codes `ws`, `mask` [N, K, R, R] and `coarse_mask` [N, K, H, H]."""
        ws = self.mix_styles(z, c, update_w_avg=True)
        with self.autocast():
            out = self.G.synthesis(ws, return_mask=True)
        return Samples(out.image.float(), {"ws": ws, "mask": out.mask.float(), "coarse_mask": out.coarse_mask})

    def path_length_inputs(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.G.synthesis.expand(super().path_length_inputs(z, c))

    def discriminator_terms(self, real: Samples) -> torch.Tensor | float:
        return sum(term.real(real) for term in self.terms.values())

    def generator_terms(self, fake: Samples) -> torch.Tensor | float:
        return sum(term.fake(fake) for term in self.terms.values())

    def generator_step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        super().generator_step(z, c)
        for term in self.terms.values():
            term.step(z, c)


class SemanticLoss(RegionLoss):
    """The paper's loss on pairs of image and mask: joint logits, R1 on both inputs, and mask consistency.

    `TERMS` are not in the paper. `segmentation_weight` needs a D with a segmentation head.

    Args:
        args, kwargs: see `RegionLoss`.
        r1_gamma_mask: weight of R1 on masks.
        mask_weight: weight of `mask_consistency`.
    """

    TERMS: ClassVar[Mapping[str, type[Term]]] = {
        "segmentation": SegmentationTerm,
        "prior": PriorTerm,
        "locality": LocalityTerm,
    }

    def __init__(self, *args: Any, r1_gamma_mask: float = 1000, mask_weight: float = 100, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.r1_gamma_mask = r1_gamma_mask
        self.mask_weight = mask_weight
        regions = self.G.regions
        self.mirrored_planes = regions.mirror_table() if regions.mirror else None
        self.needs_scores = any(term.needs_scores for term in self.terms.values())

    def real_samples(self, real: Mapping[str, torch.Tensor]) -> Samples:
        return Samples(super().real_samples(real).images, {"mask": one_hot(real["mask"], self.num_regions)})

    def augment(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns augmented images for D, masks for D, and the masks that fit the augmented images."""
        images, mask = samples.images, samples.extras["mask"]
        if self.augment_pipe is not None:
            images, mask = self.augment_pipe(images, mask=mask, mirrored_planes=self.mirrored_planes)
        return images, mask, mask

    def discriminate(
        self, samples: Samples, c: torch.Tensor, for_terms: bool = False, full_precision: bool = False
    ) -> torch.Tensor:
        """Returns logits of augmented pairs, [N, 1].

        For terms with `needs_scores`, the extras get the segmentation `scores` of the images, [N, K, R, R], and their
        targets `augmented_mask`.
        """
        images, mask, regions = self.augment(samples)
        if not (for_terms and self.needs_scores):
            return self.run_D(images, c, full_precision, mask=mask)
        logits, scores = self.run_D(images, c, full_precision, mask=mask, return_segmentation=True)
        samples.extras.update(scores=scores, augmented_mask=regions)
        return logits

    def generator_terms(self, fake: Samples) -> torch.Tensor | float:
        term = mask_consistency(fake.extras["coarse_mask"], fake.extras["mask"])
        training_stats.report("Loss/mask_consistency", term)
        return self.mask_weight * term + super().generator_terms(fake)

    def r1_terms(self) -> dict[str, tuple[str, float]]:
        return {**super().r1_terms(), "mask": ("r1_penalty_mask", self.r1_gamma_mask)}
