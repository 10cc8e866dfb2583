"""Distances of pictures and masks from the targets of a search, one number for each photo."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from dnnlib.util import cached_path
from metrics.detectors import ADDRESS, VGG16, Detector
from metrics.laplacian import laplacian_pyramid, pyramid_levels
from metrics.structural_similarity import ms_ssim, num_scales

MASK_SHARPNESS = 4.0
"""Factor from mask planes, which differ by about 2, to the logits of a softmax."""
LEAST_SIMILARITY = 1e-4


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the parts of the distance."""

    pyramid: float = 1.0
    structure: float = 1.0
    features: float = 0.5
    perceptual: float = 1.0
    mask: float = 0.1
    depth: float = 0.3


@dataclass(frozen=True)
class Targets:
    """Targets of a search.

    Attributes:
        images: [N, 3, R, R] in [-1, 1].
        masks: class indices int64 [N, R, R]. None if images alone count.
    """

    images: torch.Tensor
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: torch.Tensor | slice) -> "Targets":
        """Returns some of the photos, by a tensor of indices or a slice."""
        return Targets(self.images[index], None if self.masks is None else self.masks[index])


class Distance:
    """The distance of generated images and masks from targets.

    It adds the L1 distance of Laplacian pyramids, one minus MS-SSIM (Wang et al. 2003), and the distance of features.
    Features come from LPIPS (Zhang et al. 2018) if its network is available, else from the frozen discriminator. Masks
    add their cross-entropy. A pixel weighs one over the root of its region's area, so small regions are not lost.

    Args:
        D: the discriminator, for features of its image branch, or None.
        perceptual: the network of LPIPS, see `find_perceptual`. It replaces the discriminator.
        weights: weights of the parts.
    """

    def __init__(
        self, D: torch.nn.Module | None = None, perceptual: Detector | None = None, weights: Weights | None = None
    ):
        self.weights = weights or Weights()
        self.perceptual = perceptual
        self._features = _image_features(D) if perceptual is None else None

    def prepare(self, targets: Targets) -> "Prepared":
        """Returns the targets with their features and weights. They are computed once."""
        with torch.no_grad():
            return Prepared(targets, self._describe(targets.images), mask_weights(targets.masks))

    def __call__(
        self,
        images: torch.Tensor,
        masks: torch.Tensor | None,
        prepared: "Prepared",
        depths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the distance of each photo, [N]. It is differentiable.

        Args:
            images: [N, 3, R, R], unbounded.
            masks: planes [N, K, R, R]. None if the targets have no masks.
            prepared: the targets, see `prepare`.
            depths: pseudo-depths [N, K, H, H], whose softmax is the coarse mask. Their cross-entropy has
                gradients also for hidden regions. The cross-entropy of the masks has no such gradients.
        """
        features = self._describe(images)  # under the autocast of the caller, if any; all other terms are exact
        with torch.autocast(images.device.type, enabled=False):
            images, masks, depths = (None if x is None else x.float() for x in (images, masks, depths))
            return self._measure(images, masks, depths, features, prepared)

    def _measure(
        self,
        images: torch.Tensor,
        masks: torch.Tensor | None,
        depths: torch.Tensor | None,
        features: list[torch.Tensor],
        prepared: "Prepared",
    ) -> torch.Tensor:
        weights, targets = self.weights, prepared.targets
        total = weights.pyramid * pyramid_distance(images, targets.images)
        if num_scales(images.shape[-1]):
            shown = [x.add(1).mul(127.5) for x in (images.clamp(-1.1, 1.1), targets.images)]
            total = total + weights.structure * (1 - ms_ssim(*shown, floor=LEAST_SIMILARITY))
        weight = weights.features if self.perceptual is None else weights.perceptual
        for found, wanted in zip(features, prepared.features, strict=True):
            total = total + weight * (found - wanted).square().sum(dim=1).flatten(1).mean(dim=1)
        if masks is not None and targets.masks is not None:
            entropy = F.cross_entropy(masks * MASK_SHARPNESS, targets.masks, reduction="none")
            total = total + weights.mask * (entropy * prepared.mask_weights).mean(dim=(1, 2))
            if depths is not None:
                total = total + weights.depth * depth_distance(depths, prepared)
        return total

    @torch.no_grad()
    def perceptual_distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Returns LPIPS of images [N, 3, R, R], [N]. It needs the network of LPIPS."""
        (first,), (second,) = self._describe(a), self._describe(b)
        return (first - second).square().sum(dim=1)

    def _describe(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Returns features of images: LPIPS features, or unit vectors at each place of every block of the
        discriminator.
        """
        if self.perceptual is not None:
            pixels = images.clamp(-1, 1).add(1).mul(127.5)
            return [self.perceptual.features(pixels, resize_images=False, return_lpips=True)]
        return [F.normalize(x.float(), dim=1) for x in self._features(images)] if self._features else []


@dataclass(frozen=True)
class Prepared:
    """Targets, their features, and the weights of their masks' pixels."""

    targets: Targets
    features: list[torch.Tensor]
    mask_weights: torch.Tensor | None

    def __getitem__(self, index: torch.Tensor | slice) -> "Prepared":
        """Returns some of the photos."""
        weights = None if self.mask_weights is None else self.mask_weights[index]
        return Prepared(self.targets[index], [x[index] for x in self.features], weights)


def pyramid_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns the distance of images [N, C, R, R], [N].

    It adds the mean absolute differences at all levels of the Laplacian pyramid.
    """
    levels = laplacian_pyramid(a - b, len(pyramid_levels(a.shape[-1])))
    return sum(level.abs().mean(dim=(1, 2, 3)) for level in levels)


def depth_distance(depths: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """Returns the weighted cross-entropy of the softmax of pseudo-depths [N, K, H, H] with the target's masks, [N]."""
    num_regions, size = depths.shape[1:3]
    planes = F.one_hot(prepared.targets.masks, num_regions).permute(0, 3, 1, 2).float()
    weights = F.adaptive_avg_pool2d(prepared.mask_weights, size)
    entropy = F.cross_entropy(depths, F.adaptive_avg_pool2d(planes, size), reduction="none")
    return (entropy * weights).mean(dim=(1, 2))


def mask_weights(masks: torch.Tensor | None) -> torch.Tensor | None:
    """Returns the weight of each pixel, [N, R, R]: one over the root of its region's area.

    The mean over a mask is 1.
    """
    if masks is None:
        return None
    areas = F.one_hot(masks).float().mean(dim=(1, 2))
    weights = areas.clamp(min=1e-6).rsqrt().gather(1, masks.flatten(1)).view(masks.shape)
    return weights / weights.mean(dim=(1, 2), keepdim=True)


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns the peak signal-to-noise ratio in dB, [N], of images [N, C, R, R]. Images are clamped to [-1, 1]."""
    error = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error.clamp(min=1e-10))


def mask_iou(a: torch.Tensor, b: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Returns the intersection over union of class indices [N, R, R], [N].

    It is the mean over the regions that either mask shows.
    """
    first, second = (F.one_hot(x.long(), num_regions).bool() for x in (a, b))
    both, either = ((x.sum(dim=(1, 2))).float() for x in (first & second, first | second))
    return (both / either.clamp(min=1)).sum(dim=1) / (either > 0).sum(dim=1).clamp(min=1)


def find_perceptual(path: str | None, device: torch.device) -> Detector | None:
    """Returns the network of LPIPS from a file, or from the cache if no file is named. None: the cache has none.

    Raises:
        UserError: the named file is not there, or is no such network.
    """
    if path is not None:
        return Detector(path, device)
    cached = cached_path(f"{ADDRESS}/{VGG16}")
    return Detector(cached, device) if cached.is_file() else None


def _image_features(D: torch.nn.Module | None) -> Callable[[torch.Tensor], list[torch.Tensor]] | None:
    """Returns the function that gives the features of a discriminator's image branch, or None."""
    branch = getattr(D, "image", None)
    if hasattr(branch, "features"):
        return branch.features
    return functools.partial(_block_features, D) if hasattr(D, "block_resolutions") else None


def _block_features(D: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Returns the outputs of every block of StyleGAN2's discriminator, for images of half the size and smaller."""
    x, found = None, []
    for resolution in D.block_resolutions:
        x, images = getattr(D, f"b{resolution}")(x, images)
        found.append(x)
    return found
