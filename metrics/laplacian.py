"""Laplacian pyramids (Burt and Adelson 1983)."""

import torch

SMALLEST = 16


def pyramid_levels(resolution: int) -> list[int]:
    """Returns the sides of the levels, from `resolution` down to 16. A smaller image has one level."""
    levels = [resolution]
    while levels[-1] > SMALLEST:
        levels.append(levels[-1] // 2)
    return levels


def laplacian_pyramid(images: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Returns the Laplacian pyramid, finest level first. The last level is the low-pass rest.

    Args:
        images: float [N, C, R, R], R a multiple of 2^(levels - 1).
        levels: number of levels.

    Returns:
        Tensors [N, C, R / 2^i, R / 2^i]. Enlarged step by step and summed, they equal the images.
    """
    pyramid = []
    for _ in range(levels - 1):
        smaller = reduce(images)
        pyramid.append(images - enlarge(smaller))
        images = smaller
    return [*pyramid, images]


def pyramid_reach(mask: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Returns where the pyramid of an image that is 0 outside the mask can be nonzero.

    The mask is averaged down by the filter of the pyramid, and every nonzero place counts. The mask grows by the reach
    of the filter: up to 4 pixels at the finest level, and further in the image at coarser levels.

    Args:
        mask: bool [N, C, R, R].
        levels: see `laplacian_pyramid`.

    Returns:
        bool tensors [N, C, R / 2^i, R / 2^i].
    """
    found = []
    for _ in range(levels - 1):
        smaller = reduce(mask.float()) > 0
        found.append(mask | (enlarge(smaller.float()) > 0))
        mask = smaller
    return [*found, mask]


def reduce(images: torch.Tensor) -> torch.Tensor:
    """Reduce to half the size without aliasing: [N, C, H, W] to [N, C, H/2, W/2]."""
    return _blur(images)[:, :, ::2, ::2]


def enlarge(images: torch.Tensor) -> torch.Tensor:
    """Enlarge smoothly to twice the size: [N, C, H, W] to [N, C, 2H, 2W]."""
    n, c, h, w = images.shape
    spread = images.new_zeros([n, c, h, 2, w, 2])
    spread[:, :, :, 0, :, 0] = images
    return _blur(spread.reshape(n, c, 2 * h, 2 * w)) * 4


def _blur(images: torch.Tensor) -> torch.Tensor:
    """Apply a binomial low-pass of 5 taps. Borders are mirrored at the outermost pixels."""
    taps = images.new_tensor([1, 4, 6, 4, 1]) / 16
    channels = images.shape[1]
    padded = torch.nn.functional.pad(images, [2, 2, 2, 2], mode="reflect")
    rows = torch.nn.functional.conv2d(padded, taps.view(1, 1, 5, 1).expand(channels, -1, -1, -1), groups=channels)
    return torch.nn.functional.conv2d(rows, taps.view(1, 1, 1, 5).expand(channels, -1, -1, -1), groups=channels)
