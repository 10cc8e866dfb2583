"""Where regions are on average, in real masks and in generated ones, and a term that brings the two together."""

import torch
import torch.nn.functional as F

from torch_utils import distributed

CELLS = 8
"""Cells along a side."""
HALF_LIVES = {"real": 1000, "generated": 50}
"""Half-lives of the running means in images, once they have seen enough of them."""
EPS = 1e-8


def mean_shares(mask: torch.Tensor) -> torch.Tensor:
    """Mean share of every region in every cell of a batch: planes [N, K, H, H] in [-1, 1] -> [K, CELLS, CELLS]."""
    return (F.adaptive_avg_pool2d(mask.mean(dim=0), CELLS) + 1) / 2


class RegionPrior:
    """Running means of the shares of regions in cells, and the divergence of the generated from the real ones.

    A generator that matches the data matches this mean, too. Its gradient does not fade where a region is hardly
    there, as that of a discriminator behind a softmax does: what counts is by which factor a region is too rare.

    Args:
        num_regions: K.
        device: where the means are.
    """

    def __init__(self, num_regions: int, device: torch.device):
        self.means = {kind: torch.zeros(num_regions, CELLS, CELLS, device=device) for kind in HALF_LIVES}
        self.images = {kind: torch.zeros([], device=device) for kind in HALF_LIVES}

    def running(self) -> list[torch.Tensor]:
        """All tensors that `observe` moves along."""
        return [*self.means.values(), *self.images.values()]

    def observe(self, kind: str, batch: torch.Tensor, count: int) -> None:
        """Move a mean towards that of a batch.

        Args:
            kind: 'real' or 'generated'.
            batch: as from `mean_shares`.
            count: images in the batch.
        """
        count = count * distributed.get_world_size()
        everywhere = distributed.all_reduce(batch.detach().clone()) / distributed.get_world_size()
        self.images[kind] += count
        rate = (count / self.images[kind]).clamp(min=1 - 0.5 ** (count / HALF_LIVES[kind]))
        self.means[kind].lerp_(everywhere, rate)

    def divergence(self) -> torch.Tensor:
        """Kullback-Leibler divergence of the generated from the real shares, a mean over cells, in nats."""
        real, generated = (self.means[kind] + EPS for kind in HALF_LIVES)
        return (real * (real / generated).log()).sum(dim=0).mean()

    def term(self, batch: torch.Tensor) -> torch.Tensor:
        """A scalar whose gradient is that of `divergence` at the running mean, with respect to a batch's shares.

        It is linear in the shares, so that it does not ask every batch, and every sample, to look like the mean.

        Args:
            batch: shares of a generated batch, which `observe` has seen already: so the factors stay bounded.
        """
        factors = self.means["real"] / (self.means["generated"] + EPS)
        return (factors * (self.means["generated"] - batch)).sum(dim=0).mean()
