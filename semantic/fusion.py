"""Fusion of regions by softmax over pseudo-depth (Shi et al. 2022, equations 2 and 3)."""

from collections.abc import Sequence

import torch

EPS = 1e-8


def coarse_mask(depth: torch.Tensor, keep_regions: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the share of every region at every pixel (equation 2): a softmax over pseudo-depths.

    Args:
        depth: pseudo-depths [N, K, ...]. A larger value is in front.
        keep_regions: [N, K] of 0 and 1. The shares of dropped regions go to the other regions.

    Returns:
        Shares in [0, 1] of the shape of `depth`. The shares of all regions sum to 1.
    """
    precision = torch.promote_types(depth.dtype, torch.float32)  # in half precision the sum would not be 1
    mask = depth.softmax(dim=1, dtype=precision)
    if keep_regions is None:
        return mask
    mask = mask * keep_regions.to(mask).reshape(*keep_regions.shape, *[1] * (depth.ndim - 2))
    return mask / (mask.sum(dim=1, keepdim=True) + EPS)


def feature_weights(mask: torch.Tensor, transparent: Sequence[int]) -> torch.Tensor:
    """Returns the weight of every region's features (equation 3). Transparent regions let regions behind show through.

    Opaque regions divide each pixel as if transparent regions did not exist. The features of transparent regions are
    added with their own share.

    Args:
        mask: shares [N, K, ...] from `coarse_mask`.
        transparent: indices of transparent regions.

    Returns:
        Weights of the shape of `mask`.
    """
    if not transparent:
        return mask
    opaque = torch.ones(mask.shape[1], device=mask.device, dtype=mask.dtype)
    opaque[list(transparent)] = 0
    opaque = opaque.view(1, -1, *[1] * (mask.ndim - 2))
    total = (mask * opaque).sum(dim=1, keepdim=True) + EPS
    return mask * (opaque / total + (1 - opaque))
