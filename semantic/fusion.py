"""Fusion of regions by softmax over pseudo-depth (Shi et al. 2022, equations 2 and 3)."""

from collections.abc import Sequence

import torch

EPS = 1e-8


def coarse_mask(depth: torch.Tensor, keep_regions: torch.Tensor | None = None) -> torch.Tensor:
    """Share of every region at every pixel.

    Args:
        depth: pseudo-depths [N, K, ...]; the larger is in front.
        keep_regions: [N, K] of 0 and 1; the shares of regions left out go to the others.

    Returns:
        Shares of the shape of `depth` in [0, 1]; they sum to 1 over the regions.
    """
    precision = torch.promote_types(depth.dtype, torch.float32)  # in half precision the shares would not sum to 1
    mask = depth.softmax(dim=1, dtype=precision)
    if keep_regions is None:
        return mask
    mask = mask * keep_regions.to(mask).reshape(*keep_regions.shape, *[1] * (depth.ndim - 2))
    return mask / (mask.sum(dim=1, keepdim=True) + EPS)


def feature_weights(mask: torch.Tensor, transparent: Sequence[int]) -> torch.Tensor:
    """Weight of every region's features; through transparent regions what lies behind stays visible.

    Opaque regions share the pixel among themselves, as if the transparent ones were not there; the features of
    transparent regions come on top with their own share.

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
