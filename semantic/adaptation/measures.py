"""Compares an adapted generator with held-out images, with its source, and with its training images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from metrics.laplacian import laplacian_pyramid, pyramid_levels
from metrics.sliced_wasserstein import PATCH, draw_patches, sliced_wasserstein
from metrics.structural_similarity import ms_ssim
from semantic.masks import is_present
from torch_utils.images import to_bytes

SAMPLES = 96
"""Smallest number of images for the judgement of a snapshot."""
PATCHES = 64
"""Number of patches from each generated image."""
LEAST_STD = 1e-3
"""Deviation of pixels in [-1, 1] that counts at least, so that a flat colour makes no infinite distance."""
THUMBNAIL = 32
"""Side at which images are compared pixel by pixel."""
BATCH = 8


def patch_distance(images: torch.Tensor, others: torch.Tensor) -> float:
    """Returns 1,000 times the sliced Wasserstein distance of two sets of images (Karras et al. 2018).

    It is the mean over levels. Colours of both sets are normalized by the first set. The paper normalizes each set by
    itself; then the distance does not tell wrong colours and contrasts, which are much of a style.

    Of the smaller set more patches are drawn from each image, so that both have equally many.

    Args:
        images, others: uint8 [N, 3, R, R] and [M, 3, R, R]; M is a multiple of N.
    """
    levels = pyramid_levels(images.shape[-1])
    pyramids = [laplacian_pyramid(part.float() / 127.5 - 1, len(levels)) for part in (images, others)]
    counts = (PATCHES * len(others) // len(images), PATCHES)
    found = []
    for number, pair in enumerate(zip(*pyramids, strict=True)):
        rows = [
            draw_patches(level, 2 * number + side, count).reshape(-1, level.shape[1], PATCH**2)
            for side, (level, count) in enumerate(zip(pair, counts, strict=True))
        ]
        std, mean = torch.std_mean(rows[0], dim=(0, 2), keepdim=True)
        rows = [((row - mean) / std.clamp(min=LEAST_STD)).flatten(1) for row in rows]
        found.append(1e3 * sliced_wasserstein(*rows))
    return float(np.mean(found))


def sample_count(images: int) -> int:
    """Returns the number of generated images to compare with `images` images.

    It is a multiple of this number, and at least `SAMPLES`.
    """
    return images * -(-SAMPLES // images)


def mask_drift(masks: torch.Tensor, others: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """Returns 1 - IoU of each region over all samples. The result lacks regions that neither set shows.

    Args:
        masks, others: class indices [N, R, R].
        names: names of the regions.
    """
    found = {}
    for k, name in enumerate(names):
        ours, theirs = masks == k, others == k
        either = (ours | theirs).sum().item()
        if is_present(either / masks[0].numel()):
            found[name] = 1 - (ours & theirs).sum().item() / either
    return found


def similarity_of_pairs(images: torch.Tensor) -> float:
    """Returns the mean MS-SSIM of neighbours in images uint8 [N, 3, R, R], or NaN for fewer than 2 images."""
    pairs = len(images) // 2 * 2
    return ms_ssim(images[0:pairs:2], images[1:pairs:2]).mean().item() if pairs else float("nan")


def random_images(images: torch.Tensor, most: int = SAMPLES) -> torch.Tensor:
    """Returns up to `most` images in a random order that is always the same: files in a row often show one person."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:most]]


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """Returns small images float32 [N, 3 * 32 * 32] in 0..1 of images uint8 [N, 3, R, R]."""
    return (F.adaptive_avg_pool2d(images.float(), min(THUMBNAIL, images.shape[-1])) / 255).flatten(1)


def nearest_distance(images: torch.Tensor, known: torch.Tensor) -> float:
    """Returns the mean distance of images to their nearest known image: root mean square difference in 0..1."""
    a, b = thumbnails(images), thumbnails(known)
    return (torch.cdist(a, b).min(dim=1).values / a.shape[1] ** 0.5).mean().item()


@torch.no_grad()
def samples_of(G: torch.nn.Module, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns generated images uint8 [N, 3, R, R] and class indices uint8 [N, R, R], on the CPU."""
    images, masks = [], []
    for codes, labels in zip(z.split(BATCH), c.split(BATCH), strict=True):
        out = G(codes, labels, noise_mode="const", return_mask=True)
        images.append(to_bytes(out.image).cpu())
        masks.append(out.mask.argmax(dim=1).to(torch.uint8).cpu())
    return torch.cat(images), torch.cat(masks)


def images_of(dataset: Any, most: int = 2000) -> torch.Tensor:
    """Returns the first images of a data set, uint8 [N, 3, R, R]."""
    return torch.from_numpy(np.stack([dataset[i].image for i in range(min(len(dataset), most))]))
