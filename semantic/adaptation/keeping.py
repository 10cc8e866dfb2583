"""A loss term that keeps masks of the adapted generator near masks of the source."""

import torch
import torch.nn.functional as F

from semantic.loss import mask_consistency
from semantic.terms.term import Term
from torch_utils import training_stats
from training.loss import Samples

LEAST_TRUST = 0.25
"""Weight of a pixel at which the image contradicts the source's mask; 1 where it agrees."""
LEAST_SHARE = 1e-4


def trust(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns how well the regions found in images agree with masks, from `LEAST_TRUST` to 1.

    Args:
        scores: scores of regions found in the images, [N, K, R, R].
        mask: planes [N, K, R, R]. The largest plane is the region of a pixel.

    Returns:
        [N, 1, R, R], the probability that the parser gives to the mask's region, raised to the least weight.
    """
    found = scores.float().softmax(dim=1).gather(1, mask.argmax(dim=1, keepdim=True))
    return LEAST_TRUST + (1 - LEAST_TRUST) * found


def coarse_divergence(coarse: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Returns the cross-entropy of coarse masks and masks of the source, less its least value.

    Rare regions weigh more, by the inverse root of their share of the batch. The mean of these weights is 1.

    Args:
        coarse, target: 2m - 1 in [-1, 1], [N, K, H, H].
        weight: weight of pixels, [N, 1, H, H].

    Returns:
        Mean over pixels, a scalar, 0 where the masks are the same.
    """
    found, wanted = ((planes.float().add(1) / 2).clamp(min=LEAST_SHARE) for planes in (coarse, target))
    shares = wanted.mean(dim=(0, 2, 3), keepdim=True).clamp(min=LEAST_SHARE)
    rarity = (wanted * shares.rsqrt()).sum(dim=1, keepdim=True)
    divergence = (wanted * (wanted.log() - found.log())).sum(dim=1, keepdim=True)
    return (divergence * weight * rarity / rarity.mean()).mean()


class MaskKeeping(Term):
    """Keeps coarse and final masks near the masks of the source for the same codes, and near each other.

    A frozen parser finds regions in the adapted image. A pixel counts less if its region differs from the source's
    mask. So shapes may move with the image, and regions keep their meaning. Without a parser all pixels count alike.
    """

    def fake(self, fake: Samples) -> torch.Tensor:
        source = self.loss.source
        coarse, mask = (fake.extras[name].float() for name in ("coarse_mask", "mask"))
        with torch.no_grad(), self.loss.autocast():
            target = source.G.synthesis(fake.extras["ws"].detach(), noise_mode="const", return_mask=True)
            scores = source.find(fake.images)
            weight = torch.ones_like(mask[:, :1]) if scores is None else trust(scores, target.mask)
        term = coarse_divergence(coarse, target.coarse_mask, F.avg_pool2d(weight, mask.shape[-1] // coarse.shape[-1]))
        training_stats.report("Loss/mask_drift", term)
        training_stats.report("Loss/mask_trust", weight.mean())
        fine = (weight * (mask.clamp(-1, 1) - target.mask.float().clamp(-1, 1)).square()).mean()
        consistency = mask_consistency(coarse, mask)
        training_stats.report("Loss/mask_consistency", consistency)
        return self.weight * (term + fine + consistency)
