"""Laplacian pyramids (Burt and Adelson 1983)."""

import torch

SMALLEST = 16


def pyramid_levels(resolution: int) -> list[int]:
    """Sides of the levels, from `resolution` down to 16; a smaller image has one level."""
    levels = [resolution]
    while levels[-1] > SMALLEST:
        levels.append(levels[-1] // 2)
    return levels


def laplacian_pyramid(images: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """What each octave adds, from the finest; the last level is the rest.

    Args:
        images: float [N, C, R, R], R a multiple of 2^(levels - 1).
        levels: how many.

    Returns:
        Tensors [N, C, R / 2^i, R / 2^i]. Enlarged step by step and added up they give the images.
    """
    pyramid = []
    for _ in range(levels - 1):
        smaller = reduce(images)
        pyramid.append(images - enlarge(smaller))
        images = smaller
    return [*pyramid, images]


def pyramid_reach(mask: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Where an image that is 0 outside the mask can have a pyramid that is not 0.

    The mask is averaged down by the filter of the pyramid, and every place that gets any of it counts: the mask
    grows by what the filter reaches, up to 4 pixels at the finest level, and further in the image at the next ones.

    Args:
        mask: bool [N, C, R, R].
        levels: as for `laplacian_pyramid`.

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
    """Half the size without aliasing: [N, C, H, W] to [N, C, H/2, W/2]."""
    return _blur(images)[:, :, ::2, ::2]


def enlarge(images: torch.Tensor) -> torch.Tensor:
    """Twice the size, smoothly: [N, C, H, W] to [N, C, 2H, 2W]."""
    n, c, h, w = images.shape
    spread = images.new_zeros([n, c, h, 2, w, 2])
    spread[:, :, :, 0, :, 0] = images
    return _blur(spread.reshape(n, c, 2 * h, 2 * w)) * 4


def _blur(images: torch.Tensor) -> torch.Tensor:
    """Binomial low-pass of 5 taps; borders are mirrored about the outermost pixels."""
    taps = images.new_tensor([1, 4, 6, 4, 1]) / 16
    channels = images.shape[1]
    padded = torch.nn.functional.pad(images, [2, 2, 2, 2], mode="reflect")
    rows = torch.nn.functional.conv2d(padded, taps.view(1, 1, 5, 1).expand(channels, -1, -1, -1), groups=channels)
    return torch.nn.functional.conv2d(rows, taps.view(1, 1, 1, 5).expand(channels, -1, -1, -1), groups=channels)
