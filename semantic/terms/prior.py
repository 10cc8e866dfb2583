"""Where regions are, how areas vary, how long outlines are: terms that bring generated masks to the data."""

import torch
import torch.nn.functional as F

from semantic.terms.term import Term
from torch_utils import distributed, training_stats
from training.loss import Samples, StyleGAN2Loss

CELLS = 8
"""Cells along a side."""
HALF_LIVES = {"real": 1000, "generated": 50}
"""Half-lives of the running means in images, once they have seen enough of them."""
EPS = 1e-8
LARGEST_PULL = 1
"""Bound on the logarithm of the ratio of two mean squares, or of two mean outlines."""
FLOOR = 2e-4
"""Added to the real share of a cell before the excess over it is divided by it: about what counts as being there."""
LARGEST_EXCESS = 20
"""Bound on by how many times the real share is exceeded."""


def mean_shares(mask: torch.Tensor) -> torch.Tensor:
    """Mean share of every region in every cell of a batch: planes [N, K, H, H] in [-1, 1] -> [K, CELLS, CELLS]."""
    return (F.adaptive_avg_pool2d(mask.mean(dim=0), CELLS) + 1) / 2


def mean_squares(mask: torch.Tensor) -> torch.Tensor:
    """Mean square of the share of the picture that each region takes: planes [N, K, H, H] in [-1, 1] -> [K]."""
    return ((mask.mean(dim=(2, 3)) + 1) / 2).square().mean(dim=0)


def mean_outlines(mask: torch.Tensor) -> torch.Tensor:
    """Mean length of the outline of each region, in sides of the picture: planes [N, K, H, H] in [-1, 1] -> [K].

    The length is that of steps along rows and columns, the anisotropic total variation; a soft edge is as long as a
    sharp one, and the border of the picture does not count.
    """
    steps = mask.diff(dim=3).abs().sum(dim=(2, 3)) + mask.diff(dim=2).abs().sum(dim=(2, 3))
    return steps.mean(dim=0) / (2 * mask.shape[3])


class RegionPrior:
    """Running means of shares of regions in cells, of squared areas and of outlines, real and generated.

    A generator that matches the data matches these, too. The gradient of the shares does not fade where a region is
    hardly there, as that of a discriminator behind a softmax does: what counts is by which factor a region is too rare.
    Nor does it fade where the data never have a region: pieces of noses beside the head are too much by that factor.
    The squares tell glasses on every fourth face from a quarter of them on every face. Outlines tell an eye from dots
    in its place, which mean and square cannot.

    Args:
        num_regions: K.
        device: where the means are.
        outlines: whether outlines are observed.
    """

    def __init__(self, num_regions: int, device: torch.device, outlines: bool = True):
        self.means = {kind: torch.zeros(num_regions, CELLS, CELLS, device=device) for kind in HALF_LIVES}
        self.squares = {kind: torch.zeros(num_regions, device=device) for kind in HALF_LIVES}
        self.outlines = {kind: torch.zeros(num_regions, device=device) for kind in HALF_LIVES} if outlines else {}
        self.images = {kind: torch.zeros([], device=device) for kind in HALF_LIVES}

    def running(self) -> list[torch.Tensor]:
        """All tensors that `observe` moves along."""
        return [*self.means.values(), *self.images.values(), *self.squares.values(), *self.outlines.values()]

    def observe(
        self, kind: str, shares: torch.Tensor, squares: torch.Tensor, outlines: torch.Tensor | None, count: int
    ) -> None:
        """Move the means towards those of a batch.

        Args:
            kind: 'real' or 'generated'.
            shares: as from `mean_shares`.
            squares: as from `mean_squares`.
            outlines: as from `mean_outlines`, if they are observed.
            count: images in the batch.
        """
        count = count * distributed.get_world_size()
        self.images[kind] += count
        rate = (count / self.images[kind]).clamp(min=1 - 0.5 ** (count / HALF_LIVES[kind]))
        pairs = [(self.means[kind], shares), (self.squares[kind], squares)]
        if self.outlines:
            pairs.append((self.outlines[kind], outlines))
        for mean, batch in pairs:
            mean.lerp_(distributed.all_reduce(batch.detach().clone()) / distributed.get_world_size(), rate)

    def divergence(self) -> torch.Tensor:
        """Kullback-Leibler divergence of the generated from the real shares, a mean over cells, in nats."""
        real, generated = (self.means[kind] + EPS for kind in HALF_LIVES)
        return (real * (real / generated).log()).sum(dim=0).mean()

    def excess(self) -> torch.Tensor:
        """By how many times the real share is exceeded in each cell, within LARGEST_EXCESS, [K, CELLS, CELLS]."""
        real, generated = (self.means[kind] for kind in HALF_LIVES)
        excess = ((generated - real) / (real + FLOOR)).clamp(0, LARGEST_EXCESS)
        return excess * (self.images["real"] > 0)  # G steps first, before there is anything real to exceed

    def term(self, batch: torch.Tensor) -> torch.Tensor:
        """A scalar whose gradient, with respect to a batch's shares, is `excess` plus that of `divergence` at the mean.

        The excess is the gradient of half of Pearson's chi-squared, with FLOOR in its denominator, on the side where
        there is too much. The scalar is linear in the shares, so that it does not ask every batch, and every sample, to
        look like the mean.

        Args:
            batch: shares of a generated batch, which `observe` has seen already: so the factors stay bounded.
        """
        factors = self.means["real"] / (self.means["generated"] + EPS) - self.excess()
        return (factors * (self.means["generated"] - batch)).sum(dim=0).mean()

    def pull(self) -> torch.Tensor:
        """Logarithm of the ratio of the mean squares, generated to real, within LARGEST_PULL, for each region [K]."""
        real, generated = (self.squares[kind] + EPS for kind in HALF_LIVES)
        return (generated / real).log().clamp(-LARGEST_PULL, LARGEST_PULL)

    def square_term(self, batch: torch.Tensor) -> torch.Tensor:
        """A scalar whose gradient is that of half the square of the logarithm, weighted with the real regions' areas.

        Where the logarithm is beyond LARGEST_PULL it pulls as at the bound.

        Args:
            batch: mean squares of a generated batch, which `observe` has seen already.
        """
        areas = self.means["real"].mean(dim=(1, 2))
        factors = areas * self.pull() / (self.squares["generated"] + EPS)
        return (factors * (batch - self.squares["generated"])).sum()

    def jags(self) -> torch.Tensor:
        """Logarithm of the ratio of the mean outlines, generated to real, from 0 to LARGEST_PULL, by region [K]."""
        real, generated = (self.outlines[kind] + EPS for kind in HALF_LIVES)
        return (generated / real).log().clamp(0, LARGEST_PULL)

    def outline_term(self, batch: torch.Tensor) -> torch.Tensor:
        """A scalar whose gradient is that of half the square of the logarithm, weighted with the real lengths.

        Outlines that are shorter than real ones, as all are until a region has taken shape, are left alone.

        Args:
            batch: mean outlines of a generated batch, which `observe` has seen already.
        """
        factors = self.outlines["real"] * self.jags() / (self.outlines["generated"] + EPS)
        return (factors * (batch - self.outlines["generated"])).sum()


class PriorTerm(Term):
    """Draws the mean place and area of regions in generated coarse masks to those of the data; see `RegionPrior`."""

    outlines_weight: float = 0

    def __init__(self, loss: StyleGAN2Loss, weight: float):
        super().__init__(loss, weight)
        self.prior = RegionPrior(len(loss.G.regions), loss.device)

    def running(self) -> list[torch.Tensor]:
        return self.prior.running()

    def real(self, real: Samples) -> float:
        """Observes the data; D has no term."""
        size = self.loss.G.synthesis.grid.shape[-1]
        mask = F.adaptive_avg_pool2d(real.extras["mask"], size)
        self.prior.observe("real", mean_shares(mask), mean_squares(mask), mean_outlines(mask), len(mask))
        return 0.0

    def fake(self, fake: Samples) -> torch.Tensor:
        mask = fake.extras["coarse_mask"].float()
        shares, squares, outlines = mean_shares(mask), mean_squares(mask), mean_outlines(mask)
        self.prior.observe("generated", shares, squares, outlines, len(mask))
        training_stats.report("Loss/region_prior", self.prior.divergence())
        training_stats.report("Loss/region_squares", self.prior.pull().square().mean())
        terms = self.prior.term(shares) + self.prior.square_term(squares)
        training_stats.report("Loss/region_outlines", self.prior.jags().square().mean())
        terms = terms + self.outlines_weight * self.prior.outline_term(outlines)
        return self.weight * terms
