"""Measures whether an edit of one region stays in that region."""

import numpy as np
import torch

from metrics.laplacian import laplacian_pyramid, pyramid_levels, pyramid_reach
from metrics.metric_utils import FeatureStats, MetricOptions
from metrics.registry import register_metric
from semantic.editing.codes import mix_regions
from semantic.masks import change_outside, is_present
from semantic.metrics.common import (
    LatentBatch,
    count_of,
    count_pattern,
    iterate_latents,
    prefixed,
    region_network,
    render,
    with_mean,
)

PARTS = ("shape", "texture", "baseline")


def outside_share(before: torch.Tensor, after: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Returns the absolute change of images, and the change outside a region, in pixels and in the Laplacian pyramid.

    In the pyramid, every value counts with its area in the picture, 4^i pixels at level i. The region is averaged down
    to the levels and grown by the reach of the pyramid's filter (`pyramid_reach`). A change inside the region therefore
    never counts as outside. The share in pixels includes blurring over the region's edge. The share in the pyramid
    excludes it and measures changes further away.

    Args:
        before, after: images [N, C, R, R].
        region: bool [N, R, R].

    Returns:
        float64 [N, 4] on the CPU: change outside and in total, in pixels, then in the pyramid.
    """
    change, region = after - before, region.unsqueeze(1)
    found = [change_outside(change, region)]
    levels = len(pyramid_levels(change.shape[-1]))
    pyramid = zip(laplacian_pyramid(change, levels), pyramid_reach(region, levels), strict=True)
    found.append(sum(change_outside(level, reach) * 4**i for i, (level, reach) in enumerate(pyramid)))
    return torch.cat(found, dim=1).cpu().double()


def measure_edits(opts: MetricOptions, batch: LatentBatch) -> torch.Tensor:
    """Edit every region of every sample in turn: its shape, its texture, and as a baseline all codes at once.

    Returns:
        float64 [N, 3, K, 4] on the CPU: results of `outside_share` for `PARTS` and regions. 0 for absent regions.
    """
    regions = opts.G.regions
    before = render(opts, batch.ws)
    first = before.mask.argmax(dim=1)
    found = torch.zeros([len(batch.ws), len(PARTS), len(regions), 4], dtype=torch.float64)

    def measure(part: int, after: object, which: range) -> None:
        second = after.mask.argmax(dim=1)
        for k in which:
            a, b = first == k, second == k
            there = is_present(torch.maximum(*(x.float().mean(dim=(1, 2)) for x in (a, b))))
            shares = outside_share(shown(before.image), shown(after.image), a | b)
            found[:, part, k] = shares * there.cpu()[:, None]

    for k in range(len(regions)):
        for number, part in enumerate(PARTS[:2]):
            measure(number, render(opts, mix_regions(batch.ws, batch.donor_ws, regions, [k], part)), range(k, k + 1))
    measure(2, render(opts, batch.donor_ws), range(len(regions)))
    return found


def shown(images: torch.Tensor) -> torch.Tensor:
    """Returns images clamped to [-1, 1], as in picture files."""
    return images.float().clamp(-1, 1)


@register_metric(pattern=count_pattern("region_leak"), names=["region_leak"])
def region_leak(opts: MetricOptions, number: int | None, thousands: str | None) -> dict[str, float]:
    """Share of the change of an edit that falls outside the edited region, for shape and texture codes.

    A code of a region is replaced by a donor's code, with the same noise. The change is the absolute difference of the
    images, summed over pixels and channels. The result is the share of the change outside the region. The region is the
    union of its masks before and after the edit. All samples that show the region count. `baseline` is
    the share if all codes are replaced, as in a network without regions. 0 is best.
    """
    names = region_network(opts).regions.names
    stats = FeatureStats(capture_all=True)
    for batch in iterate_latents(opts, count_of(number, thousands, 1000), "edited"):
        stats.append(measure_edits(opts, batch), batch.start)
    stats.gather()
    if opts.rank != 0:
        return {}
    sums = stats.get_all().reshape(-1, len(PARTS), len(names), 2, 2).sum(axis=0)
    results = {}
    for part, of_part in zip(PARTS, sums, strict=True):
        for kind, space in enumerate(("", "_pyramid")):
            outside, total = of_part[:, kind].T
            shares = np.divide(outside, total, out=np.full(len(names), np.nan), where=total > 0)
            shares = with_mean(dict(zip(names, shares, strict=True)))
            results |= prefixed(f"{opts.metric}_{part}{space}", shares)
    return results
