"""The joint loss of image and mask (Shi et al. 2022, section 3.4)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from semantic.masks import one_hot
from semantic.regions import Regions
from semantic.terms.locality import EDITS, Locality
from semantic.terms.prior import RegionPrior, mean_outlines, mean_shares, mean_squares
from torch_utils import training_stats
from training.loss import Samples, StyleGAN2Loss


def mask_consistency(coarse_mask: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared distance of the coarse mask from the final mask, averaged down to its size.

    Args:
        coarse_mask: [N, K, H, H] in [-1, 1].
        mask: [N, K, R, R], R a multiple of H.

    Returns:
        Mean over everything, a scalar.
    """
    return (coarse_mask - F.avg_pool2d(mask, mask.shape[-1] // coarse_mask.shape[-1])).square().mean()


def segmentation_loss(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of what a network sees in images with the regions of their masks, in nats.

    Rare regions count more, by the inverse root of their share of the batch; the weights' mean over pixels is 1.

    Args:
        scores: [N, K, R, R].
        mask: planes [N, K, R, R], of which the largest at a pixel counts; no gradient flows there.

    Returns:
        Mean over pixels, a scalar.
    """
    truth = mask.detach().argmax(dim=1)
    areas = one_hot(truth, mask.shape[1]).mean(dim=(0, 2, 3)).add(1).div(2)
    weights = areas.clamp(min=1e-4).rsqrt()
    return F.cross_entropy(scores.float(), truth, weights)


def mix_region_codes(ws: torch.Tensor, other: torch.Tensor, regions: Regions, choice: torch.Tensor) -> torch.Tensor:
    """Per-region style mixing; base codes stay.

    Args:
        ws, other: codes of latents A and B, [N, b+2K, D].
        regions: layout of the codes.
        choice: integers [N, K]: 0 keeps both codes of A, 1 takes the texture of B, 2 both codes of B.

    Returns:
        [N, b+2K, D].
    """
    shape, texture = choice == 2, choice >= 1
    from_other = torch.stack([shape, texture], dim=2).flatten(1)
    from_other = F.pad(from_other, (regions.base_layers, 0), value=False)
    return torch.where(from_other.unsqueeze(2), other, ws)


class SemanticLoss(StyleGAN2Loss):
    """StyleGAN2's loss on pairs of image and mask, with R1 on each, for masks that agree and edits that stay local.

    Args:
        r1_gamma_mask: weight of R1 on masks.
        mask_weight: weight of `mask_consistency`.
        style_mixing_prob: probability that a batch mixes two latents region by region.
        pl_weight: weight of the path length on expanded latents.
        locality_weight: weight of `Locality.term`, which is not in the paper; 0 leaves it out.
        segmentation_weight: weight of `segmentation_loss`, which is not in the paper, for a D with that head: D learns
            to find the regions in real images, G to make images in which D finds the regions of their masks.
        prior_weight: weight of the terms of `RegionPrior` on coarse masks, which are not in the paper: regions are as
            large, and where, as in the data on average, and as often large.
        prior_outlines: weight of its term of outlines beside the others; 0 leaves it out, as in runs before it.
        kwargs: see `StyleGAN2Loss`.
    """

    def __init__(
        self,
        *args: Any,
        r1_gamma_mask: float = 1000,
        mask_weight: float = 100,
        style_mixing_prob: float = 0.3,
        pl_weight: float = 0.5,
        locality_weight: float = 0,
        segmentation_weight: float = 0,
        prior_weight: float = 0,
        prior_outlines: float = 0,
        **kwargs: Any,
    ):
        super().__init__(*args, style_mixing_prob=style_mixing_prob, pl_weight=pl_weight, **kwargs)
        self.r1_gamma_mask = r1_gamma_mask
        self.mask_weight = mask_weight
        self.locality_weight = locality_weight
        self.segmentation_weight = segmentation_weight
        self.prior_weight = prior_weight
        self.prior_outlines = prior_outlines
        self.num_regions = len(self.G.regions)
        self.prior = RegionPrior(self.num_regions, self.device, outlines=prior_outlines != 0)
        self.locality = Locality(self.num_regions, self.device)

    def running(self) -> list[torch.Tensor]:
        return [*super().running(), *self.prior.running(), *self.locality.running()]

    def state_dict(self) -> dict[str, Any]:
        parts = {"prior": self.prior, "locality": self.locality}
        return {**super().state_dict(), **{name: [t.cpu() for t in part.running()] for name, part in parts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for name, part in (("prior", self.prior), ("locality", self.locality)):
            running, kept = part.running(), state.get(name, ())
            if len(kept) == len(running):  # else of a run before there was this much of it: it starts anew
                for tensor, value in zip(running, kept, strict=True):
                    tensor.copy_(value)

    def mix_styles(self, z: torch.Tensor, c: torch.Tensor, update_w_avg: bool) -> torch.Tensor:
        """Codes for a batch; with probability `style_mixing_prob` regions take codes of a second latent.

        Of a mixed batch every sample and region independently keeps A, takes B's texture, or takes B whole.
        """
        ws = self.G.mapping(z, c, skip_w_avg_update=not update_w_avg)
        if self.style_mixing_prob > 0:
            other = self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
            choice = torch.randint(3, [z.shape[0], self.num_regions], device=z.device)
            mixed = torch.rand([], device=z.device) < self.style_mixing_prob
            ws = mix_region_codes(ws, other, self.G.regions, choice * mixed)
        return ws

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> Samples:
        ws = self.mix_styles(z, c, update_w_avg=True)
        with self.autocast():
            out = self.G.synthesis(ws, return_mask=True)
        return Samples(out.image.float(), {"mask": out.mask.float(), "coarse_mask": out.coarse_mask})

    def real_samples(self, real: Mapping[str, torch.Tensor]) -> Samples:
        return Samples(super().real_samples(real).images, {"mask": one_hot(real["mask"], self.num_regions)})

    def augment(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images and masks as D sees them, and the regions that are there to find in these images."""
        images, mask = samples.images, samples.extras["mask"]
        if self.augment_pipe is not None:
            images, mask = self.augment_pipe(images, mask=mask)
        return images, mask, mask

    def discriminate(self, samples: Samples, c: torch.Tensor, full_precision: bool = False) -> torch.Tensor:
        """Logits of augmented pairs; where masks teach, `segmentation_loss` of the images joins the extras.

        It teaches D at real pairs and G at its own, but not D at generated ones.
        """
        images, mask, regions = self.augment(samples)
        # G's own pairs when G learns, and real ones: those alone have no coarse mask.
        teaches = samples.images.requires_grad or "coarse_mask" not in samples.extras
        if self.segmentation_weight == 0 or full_precision or not teaches:
            return self.run_D(images, c, full_precision, mask=mask)
        logits, scores = self.run_D(images, c, full_precision, mask=mask, return_segmentation=True)
        samples.extras["segmentation_loss"] = segmentation_loss(scores, regions)
        return logits

    def discriminator_terms(self, real: Samples) -> torch.Tensor | float:
        if self.prior_weight != 0:
            mask = F.adaptive_avg_pool2d(real.extras["mask"], self.G.synthesis.grid.shape[-1])
            self.prior.observe("real", mean_shares(mask), mean_squares(mask), self.outlines(mask), len(mask))
        return self.segmentation_term(real, "Loss/segmentation/real")

    def generator_terms(self, fake: Samples) -> torch.Tensor:
        term = mask_consistency(fake.extras["coarse_mask"], fake.extras["mask"])
        training_stats.report("Loss/mask_consistency", term)
        return self.mask_weight * term + self.segmentation_term(fake, "Loss/segmentation/fake") + self.prior_term(fake)

    def prior_term(self, fake: Samples) -> torch.Tensor | float:
        """Weighted terms of place, area and outline of regions in coarse masks; see `RegionPrior`."""
        if self.prior_weight == 0:
            return 0.0
        mask = fake.extras["coarse_mask"].float()
        shares, squares, outlines = mean_shares(mask), mean_squares(mask), self.outlines(mask)
        self.prior.observe("generated", shares, squares, outlines, len(mask))
        training_stats.report("Loss/region_prior", self.prior.divergence())
        training_stats.report("Loss/region_squares", self.prior.pull().square().mean())
        terms = self.prior.term(shares) + self.prior.square_term(squares)
        if outlines is not None:
            training_stats.report("Loss/region_outlines", self.prior.jags().square().mean())
            terms = terms + self.prior_outlines * self.prior.outline_term(outlines)
        return self.prior_weight * terms

    def outlines(self, mask: torch.Tensor) -> torch.Tensor | None:
        """`mean_outlines`, None where they have no weight."""
        return mean_outlines(mask) if self.prior_outlines != 0 else None

    def segmentation_term(self, samples: Samples, statistic: str) -> torch.Tensor | float:
        """Weighted cross-entropy of what D sees in images with their masks; see `discriminate`."""
        if self.segmentation_weight == 0:
            return 0.0
        term = samples.extras["segmentation_loss"]
        training_stats.report(statistic, term)
        return self.segmentation_weight * term

    def r1_terms(self) -> dict[str, tuple[str, float]]:
        return {**super().r1_terms(), "mask": ("r1_penalty_mask", self.r1_gamma_mask)}

    def path_length_inputs(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.G.synthesis.expand(super().path_length_inputs(z, c))

    def generator_step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        super().generator_step(z, c)
        if self.locality_weight != 0:
            self.locality_step(z, c)

    def locality_step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        """Keep edits in their regions: penalize what one code of one region changes outside that region.

        A sixteenth of the batch is made as it is, and each of these samples again with one code of one region from
        another latent, `locality.EDITS` times (fewer in a batch of less than 16); see `Locality`. The statistic
        Loss/region_leak is that of the edits that are tried, most of which are those that leak most. It trains what
        makes and spreads colours: texture layers, feature heads and render network. Shape layers would rather give a
        region up than keep to it.
        """
        images = max(z.shape[0] // 4, 2)
        count = max(images // (1 + EDITS), 1)
        edits = min(EDITS, images // count - 1)
        z, c = z[:count], c[:count]
        with torch.no_grad():
            ws = self.G.mapping(z, c, skip_w_avg_update=True)
        first = self.render(ws)
        codes = self.locality.choose(first[1], edits)
        z, c, ws = (tensor.repeat_interleave(edits, dim=0) for tensor in (z, c, ws))
        with torch.no_grad():
            other = self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
        slots = torch.arange(ws.shape[1], device=z.device) - self.G.regions.base_layers
        edited_image, edited_mask = self.render(
            torch.where((slots == codes.flatten().unsqueeze(1)).unsqueeze(2), other, ws)
        )
        before, mask = (tensor.repeat_interleave(edits, dim=0) for tensor in first)
        change = edited_image.float().clamp(-1, 1) - before.float().clamp(-1, 1)
        loss = self.locality.term(codes.flatten(), change, mask, edited_mask)
        training_stats.report("Loss/region_leak", loss)
        (loss * self.locality_weight).backward()

    def render(self, ws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and mask with the noise as it is; gradients reach all but mapping, shape layers and depths."""
        with self.autocast():
            features, coarse_mask, _ = self.G.synthesis.compose(ws, fixed_shapes=True)
            return self.G.synthesis.render(features, coarse_mask, "const")
