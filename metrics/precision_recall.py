"""Precision and recall of generated images (Kynkäänniemi et al. 2019)."""

import torch

from dnnlib import UserError
from metrics.metric_utils import VGG16, MetricOptions, dataset_features, generator_features

ROWS = 2048


def precision_recall(real: torch.Tensor, fake: torch.Tensor, k: int = 3) -> tuple[float, float]:
    """Returns the share of generated features in the manifold of the real features, and the reverse (eq. 2).

    The manifold of a set is the union of balls around its points. Each ball reaches to the k-th nearest neighbour.

    Args:
        real, fake: features [N, F] and [M, F]. N and M must exceed k.

    Raises:
        UserError: there are too few rows.
    """
    for name, rows in (("real", real), ("generated", fake)):
        if len(rows) <= k:
            raise UserError(f"Precision and recall need more than {k} {name} images, but there are {len(rows)}.")
    center = real.mean(dim=0)  # distances of vectors close to zero keep more digits
    real, fake = real - center, fake - center
    return _share_inside(fake, real, k), _share_inside(real, fake, k)


def _share_inside(points: torch.Tensor, manifold: torch.Tensor, k: int) -> float:
    """Returns the share of `points` in the manifold of another set."""
    reach = torch.cat([torch.cdist(rows, manifold).kthvalue(k + 1, dim=1).values for rows in manifold.split(ROWS)])
    inside = [(torch.cdist(rows, manifold) <= reach).any(dim=1) for rows in points.split(ROWS)]
    return torch.cat(inside).double().mean().item()


def compute_pr(opts: MetricOptions, max_real: int | None, num_gen: int, k: int = 3) -> tuple[float, float]:
    """Returns precision and recall of `num_gen` generated and at most `max_real` real images. NaN off process 0."""
    features = dict(detector=VGG16, capture_all=True, return_features=True)
    real = dataset_features(opts, max_items=max_real, **features)
    fake = generator_features(opts, num_items=num_gen, **features)
    if opts.rank != 0:
        return float("nan"), float("nan")
    sets = [torch.from_numpy(stats.get_all()).to(opts.device) for stats in (real, fake)]
    return precision_recall(*sets, k=k)
