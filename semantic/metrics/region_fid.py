"""FID of crops of single regions."""

import numpy as np
import torch

from metrics.frechet import frechet_distance
from metrics.metric_utils import (
    INCEPTION,
    FeatureStats,
    MetricOptions,
    cached_arrays,
    iterate_dataset,
    iterate_generator,
    load_detector,
)
from metrics.registry import register_metric
from semantic.masks import MIN_AREA, is_present
from semantic.metrics.common import count_of, count_pattern, masked_data, prefixed, with_mean

SIDE = 128
"""Side of the crops in pixels."""
MARGIN = 0.25
"""Margin on each side of the bounding box, relative to its longer side."""
MIN_CROPS = 20
"""Smallest number of crops of a region for a result."""


def crop_region(images: torch.Tensor, masks: torch.Tensor, region: int) -> torch.Tensor:
    """Returns square crops of a region: its bounding box with a margin, limited by the image, resized to 128².

    Args:
        images: uint8 [N, C, R, R].
        masks: class indices [N, R, R].
        region: index of the region. Masks with less than `MIN_AREA` of the region have no crop.

    Returns:
        uint8 [M, C, 128, 128], M <= N.
    """
    plane = masks == region
    crops = []
    for image, shape in zip(images, plane, strict=True):
        if not is_present(shape.float().mean()):
            continue
        top, left, side = _square(shape)
        crop = image[None, :, top : top + side, left : left + side].float()
        crops.append(torch.nn.functional.interpolate(crop, [SIDE, SIDE], mode="bilinear", antialias=True))
    found = torch.cat(crops) if crops else images.new_zeros([0, images.shape[1], SIDE, SIDE]).float()
    return found.round().clamp(0, 255).to(torch.uint8)


def _square(shape: torch.Tensor) -> tuple[int, int, int]:
    """Returns top, left and side of the square around the true pixels of a mask [R, R]. It lies inside the picture."""
    spans = [shape.any(dim=1 - axis).nonzero().flatten()[[0, -1]].tolist() for axis in (0, 1)]
    longest = max(last - first + 1 for first, last in spans)
    side = min(round(longest * (1 + 2 * MARGIN)), shape.shape[0])
    starts = [round((first + last + 1 - side) / 2) for first, last in spans]
    top, left = (min(max(start, 0), shape.shape[0] - side) for start in starts)
    return top, left, side


class RegionFeatures:
    """Mean and covariance of the features of crops, for each region.

    Args:
        opts: options with the location of the feature network.
        num_regions: K.
    """

    def __init__(self, opts: MetricOptions, num_regions: int):
        self.network = load_detector(opts, INCEPTION)
        self.stats = [FeatureStats(capture_mean_cov=True) for _ in range(num_regions)]

    def append(self, images: torch.Tensor, masks: torch.Tensor) -> None:
        """Add images uint8 [N, 3, R, R] with masks [N, R, R]."""
        for region, stats in enumerate(self.stats):
            crops = crop_region(images, masks, region)
            if len(crops):
                stats.append(self.network(crops, return_features=True))

    def gather(self) -> list[FeatureStats]:
        """Returns the statistics of all processes, on process 0."""
        for stats in self.stats:
            stats.gather()
        return self.stats


@register_metric(pattern=count_pattern("region_fid"), names=["region_fid"])
def region_fid(opts: MetricOptions, number: int | None, thousands: str | None) -> dict[str, float]:
    """Fréchet inception distance of crops of each region, and their mean; needs Inception.

    Compares crops of all real images and of generated images. A region with fewer than 20 crops in either set is
    omitted. 0 is best. FID depends on the number of crops, so compare only numbers with the same name.
    """
    opts, dataset = masked_data(opts, xflip=False)
    names = dataset.regions.names
    fake = RegionFeatures(opts, len(names))

    def real_features() -> dict[str, np.ndarray]:
        real = RegionFeatures(opts, len(names))
        for batch in iterate_dataset(opts, dataset=dataset):
            real.append(batch.image, batch.mask)
        return {f"{k}_{name}": array for k, stats in enumerate(real.gather()) for name, array in stats.state().items()}

    key = dict(detector=fake.network.digest, side=SIDE, margin=MARGIN, min_area=MIN_AREA)
    arrays = cached_arrays(opts, "region-moments", key, real_features)
    for batch in iterate_generator(opts, count_of(number, thousands, 10_000), masks=True):
        fake.append(batch.image, batch.mask)
    fakes = fake.gather()
    if opts.rank != 0:
        return {}
    found = {}
    for k, name in enumerate(names):
        prefix = f"{k}_"
        state = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        if min(int(state["num_items"]), fakes[k].num_items) >= MIN_CROPS:
            real = FeatureStats.from_state(state)
            found[name] = frechet_distance(*fakes[k].get_mean_cov(), *real.get_mean_cov())
    return prefixed(opts.metric, with_mean(found))
