"""Fréchet distance between two sets of features (Heusel et al. 2017, eq. 6)."""

import numpy as np
import torch

from metrics.metric_utils import INCEPTION, MetricOptions, dataset_features, generator_features


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Returns the squared Fréchet distance of two Gaussians: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    Eigenvalues give S1 = A'A and S2 = B'B. The trace of the root is the sum of the singular values of A B'. This avoids
    roots of small differences. Covariances without full rank lose no precision, and no value is complex.

    Args:
        mean1, mean2: [F].
        cov1, cov2: symmetric [F, F].
    """
    roots = [_factor(cov) for cov in (cov1, cov2)]
    trace = torch.linalg.svdvals(roots[0] @ roots[1].T).sum().item()
    shift = np.square(np.asarray(mean1, np.float64) - mean2).sum()
    return float(shift + np.trace(cov1) + np.trace(cov2) - 2 * trace)


def _factor(cov: np.ndarray) -> torch.Tensor:
    """Returns A [rank, F] with A'A = cov. Directions whose variance is only rounding error are dropped."""
    values, vectors = torch.linalg.eigh(torch.as_tensor(cov, dtype=torch.float64))
    keep = values > values[-1].clamp(min=0) * len(values) * torch.finfo(torch.float64).eps
    return values[keep].sqrt()[:, None] * vectors[:, keep].T


def compute_fid(opts: MetricOptions, max_real: int | None, num_gen: int) -> float:
    """Returns the FID of `num_gen` generated and at most `max_real` real images (None: all). NaN off process 0."""
    features = dict(detector=INCEPTION, capture_mean_cov=True, return_features=True)
    real = dataset_features(opts, max_items=max_real, **features)
    fake = generator_features(opts, num_items=num_gen, **features)
    if opts.rank != 0:
        return float("nan")
    return frechet_distance(*fake.get_mean_cov(), *real.get_mean_cov())
