"""Kernel distance between two sets of features (Bińkowski et al. 2018)."""

import numpy as np
import torch

from dnnlib import UserError
from metrics.metric_utils import INCEPTION, MetricOptions, dataset_features, generator_features


def kernel_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Returns an unbiased estimate of the squared MMD with the kernel (x·y / F + 1)^3.

    Args:
        x, y: features [N, F] and [M, F], N and M at least 2.
    """
    x, y = x.double(), y.double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / x.shape[1] + 1) ** 3

    def mean_of_pairs(a: torch.Tensor) -> torch.Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean())


def averaged_kernel_distance(
    real: np.ndarray,
    fake: np.ndarray,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """Returns the mean of `kernel_distance` over random subsets of features [N, F] and [M, F].

    Raises:
        UserError: a set has fewer than 2 rows.
    """
    size = min(len(real), len(fake), subset_size)
    if size < 2:
        raise UserError(f"A kernel distance needs 2 images or more of each kind, but there are {size}.")
    rng = np.random.default_rng(seed)
    total = 0.0
    for _ in range(num_subsets):
        x, y = (rows[rng.choice(len(rows), size, replace=False)] for rows in (real, fake))
        total += kernel_distance(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
    return total / num_subsets


def compute_kid(opts: MetricOptions, max_real: int | None, num_gen: int) -> float:
    """Returns the KID of `num_gen` generated and at most `max_real` real images (None: all). NaN off process 0."""
    features = dict(detector=INCEPTION, capture_all=True, return_features=True)
    real = dataset_features(opts, max_items=max_real, **features)
    fake = generator_features(opts, num_items=num_gen, **features)
    if opts.rank != 0:
        return float("nan")
    device = opts.device if opts.device.type == "cuda" else "cpu"
    return averaged_kernel_distance(real.get_all(), fake.get_all(), seed=opts.seed, device=device)
