"""Trains D to segment images, and G to make images that D segments as intended. Not in the paper."""

import torch
import torch.nn.functional as F

from semantic.masks import one_hot
from semantic.terms.term import Term
from torch_utils import training_stats
from training.loss import Samples


def segmentation_loss(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns the cross-entropy between scores and the regions of masks, in nats.

    Weights grow with the inverse root of a region's share of the batch, so that rare regions count more. The mean
    weight of all pixels is 1.

    Args:
        scores: [N, K, R, R].
        mask: planes [N, K, R, R]. The largest plane at a pixel is its region. No gradient flows to the mask.

    Returns:
        Mean over pixels, a scalar.
    """
    truth = mask.detach().argmax(dim=1)
    areas = one_hot(truth, mask.shape[1]).mean(dim=(0, 2, 3)).add(1).div(2)
    weights = areas.clamp(min=1e-4).rsqrt()
    return F.cross_entropy(scores.float(), truth, weights)


class SegmentationTerm(Term):
    """`segmentation_loss` of D at real pairs, and of G at generated pairs. D does not learn from generated pairs."""

    needs_scores = True

    def real(self, real: Samples) -> torch.Tensor:
        return self._term(real, "Loss/segmentation/real")

    def fake(self, fake: Samples) -> torch.Tensor:
        return self._term(fake, "Loss/segmentation/fake")

    def _term(self, samples: Samples, statistic: str) -> torch.Tensor:
        value = segmentation_loss(samples.extras["scores"], samples.extras["augmented_mask"])
        training_stats.report(statistic, value)
        return self.weight * value
