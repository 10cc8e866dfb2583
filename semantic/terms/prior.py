"""A prior on place and area of regions: matches means of generated masks to the data. Not in the paper."""

import torch
import torch.nn.functional as F

from semantic.terms.term import Term
from torch_utils import distributed, training_stats
from training.loss import Samples, StyleGAN2Loss

CELLS = 8
"""Cells per side."""
HALF_LIVES = {"real": 1000, "generated": 50}
"""Half-lives of the running means in images. The first values are plain means."""
EPS = 1e-8
LARGEST_LOG_RATIO = 1
"""Bound on the logarithm of the ratio of two mean squares."""


def mean_shares(mask: torch.Tensor) -> torch.Tensor:
    """Returns the mean share of regions in cells of a batch: planes [N, K, H, H] in [-1, 1] -> [K, CELLS, CELLS]."""
    return (F.adaptive_avg_pool2d(mask.mean(dim=0), CELLS) + 1) / 2


def mean_squares(mask: torch.Tensor) -> torch.Tensor:
    """Returns the mean square of each region's share of the picture: planes [N, K, H, H] in [-1, 1] -> [K]."""
    return ((mask.mean(dim=(2, 3)) + 1) / 2).square().mean(dim=0)


class RegionMeans:
    """Running means of region shares in cells and of squared areas, for real and for generated masks.

    A generator that matches the data matches these means too. A discriminator's gradient passes through a softmax, so
    it vanishes if a region is hardly present. The gradient of these terms is the factor by which a region is too rare,
    and does not vanish. Squares distinguish glasses on every fourth face from a quarter of glasses on every face.

    Args:
        num_regions: K.
        device: device of the means.
    """

    def __init__(self, num_regions: int, device: torch.device):
        self.shares = {kind: torch.zeros(num_regions, CELLS, CELLS, device=device) for kind in HALF_LIVES}
        self.squares = {kind: torch.zeros(num_regions, device=device) for kind in HALF_LIVES}
        self.images = {kind: torch.zeros([], device=device) for kind in HALF_LIVES}

    def running(self) -> list[torch.Tensor]:
        """Returns all tensors that `observe` updates."""
        return [*self.shares.values(), *self.images.values(), *self.squares.values()]

    def observe(self, kind: str, shares: torch.Tensor, squares: torch.Tensor, count: int) -> None:
        """Move the means towards the means of a batch, over all processes.

        Args:
            kind: 'real' or 'generated'.
            shares: result of `mean_shares`.
            squares: result of `mean_squares`.
            count: number of images in the batch.
        """
        count = count * distributed.get_world_size()
        self.images[kind] += count
        rate = (count / self.images[kind]).clamp(min=1 - 0.5 ** (count / HALF_LIVES[kind]))
        for mean, batch in ((self.shares[kind], shares), (self.squares[kind], squares)):
            mean.lerp_(distributed.all_reduce(batch.detach().clone()) / distributed.get_world_size(), rate)

    def divergence(self) -> torch.Tensor:
        """Returns the Kullback-Leibler divergence of generated from real shares, a mean over cells, in nats."""
        real, generated = (self.shares[kind] + EPS for kind in HALF_LIVES)
        return (real * (real / generated).log()).sum(dim=0).mean()

    def share_term(self, batch: torch.Tensor) -> torch.Tensor:
        """Returns a scalar whose gradient with respect to a batch's shares is that of `divergence` at the mean.

        The scalar is linear in the shares, so single batches and samples may differ from the mean.

        Args:
            batch: shares of a generated batch. `observe` must have seen it before, which bounds the factors.
        """
        factors = self.shares["real"] / (self.shares["generated"] + EPS)
        return (factors * (self.shares["generated"] - batch)).sum(dim=0).mean()

    def log_square_ratio(self) -> torch.Tensor:
        """Returns the logarithm of the ratio of mean squares, generated to real, clamped to ±LARGEST_LOG_RATIO, [K]."""
        real, generated = (self.squares[kind] + EPS for kind in HALF_LIVES)
        return (generated / real).log().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)

    def square_term(self, batch: torch.Tensor) -> torch.Tensor:
        """Returns a scalar with the gradient of half the squared logarithm, weighted with the real regions' areas.

        Beyond LARGEST_LOG_RATIO, the gradient is that at the bound.

        Args:
            batch: mean squares of a generated batch. `observe` must have seen it before.
        """
        areas = self.shares["real"].mean(dim=(1, 2))
        factors = areas * self.log_square_ratio() / (self.squares["generated"] + EPS)
        return (factors * (batch - self.squares["generated"])).sum()


class PriorTerm(Term):
    """Matches mean place, mean area and mean squared area of regions in coarse masks to the data, see `RegionMeans`."""

    def __init__(self, loss: StyleGAN2Loss, weight: float):
        super().__init__(loss, weight)
        self.means = RegionMeans(len(loss.G.regions), loss.device)

    def running(self) -> list[torch.Tensor]:
        return self.means.running()

    def real(self, real: Samples) -> float:
        """Observe the data. D has no term."""
        mask = F.adaptive_avg_pool2d(real.extras["mask"], self.loss.G.synthesis.grid.shape[-1])
        self.means.observe("real", mean_shares(mask), mean_squares(mask), len(mask))
        return 0.0

    def fake(self, fake: Samples) -> torch.Tensor:
        mask = fake.extras["coarse_mask"].float()
        shares, squares = mean_shares(mask), mean_squares(mask)
        self.means.observe("generated", shares, squares, len(mask))
        training_stats.report("Loss/region_prior", self.means.divergence())
        training_stats.report("Loss/region_squares", self.means.log_square_ratio().square().mean())
        return self.weight * (self.means.share_term(shares) + self.means.square_term(squares))
