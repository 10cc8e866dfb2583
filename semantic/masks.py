"""Masks as tensors: planes per region, class indices, areas and centres."""

from typing import Any

import numpy as np
import torch

MIN_AREA = 1e-3
"""Smallest share of the picture at which a region counts as present: 4 pixels at 64², 66 at 256²."""


def is_present(share: Any) -> Any:
    """Whether a region is there, by its share of the picture: a number, an array or a tensor; see `MIN_AREA`."""
    return share >= MIN_AREA


def one_hot(indices: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Returns mask planes from class indices: uint8 [N, H, W] -> float32 [N, K, H, W], 2·onehot - 1."""
    classes = torch.arange(num_regions, device=indices.device, dtype=indices.dtype).view(1, -1, 1, 1)
    return (indices.unsqueeze(1) == classes).float().mul_(2).sub_(1)


def mask_to_indices(mask: torch.Tensor) -> np.ndarray:
    """Returns the region with the largest plane at each pixel: [N, K, H, W] -> uint8 [N, H, W]."""
    return mask.argmax(dim=1).to(torch.uint8).cpu().numpy()


def change_outside(change: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Returns how much an edit changes outside a region, and in total.

    Args:
        change: differences of images [N, C, H, W].
        region: bool [N, 1, H, W].

    Returns:
        [N, 2]: sums of absolute values outside and everywhere.
    """
    size = change.abs()
    return torch.stack([(size * ~region).sum(dim=(1, 2, 3)), size.sum(dim=(1, 2, 3))], dim=1)


def region_centers(coarse_mask: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Returns the centres of gravity of the regions.

    Args:
        coarse_mask: 2m - 1 in [-1, 1], [N, K, H, W].
        grid: [2, H, W], x first.

    Returns:
        [N, K, 2], x first, in the units of `grid`. A region without area gets the middle of the grid.
    """
    share = (coarse_mask.float() + 1) / 2
    total = share.sum(dim=(2, 3)).unsqueeze(-1)
    moments = torch.einsum("nkhw,chw->nkc", share, grid.float())
    return torch.where(total > 1e-4, moments / total.clamp_min(1e-4), grid.float().mean(dim=(1, 2)))


def mask_areas(mask: torch.Tensor) -> torch.Tensor:
    """Returns the share of the picture that each region covers: mask planes [N, K, H, W] -> float32 [N, K]."""
    indices = mask.argmax(dim=1).flatten(1)
    regions = torch.arange(mask.shape[1], device=mask.device)
    return (indices.unsqueeze(2) == regions).float().mean(dim=1)
