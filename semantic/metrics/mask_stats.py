"""Distances between distributions of generated and real masks: presence, area, position and neighbours of regions."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from metrics.metric_utils import FeatureStats, MetricOptions, cached_arrays, iterate_dataset, iterate_generator
from metrics.registry import register_metric
from semantic.masks import is_present
from semantic.metrics.common import count_of, count_pattern, masked_data, prefixed, with_mean

GROUPS = ("presence", "area", "position", "adjacency")


def describe_masks(masks: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Returns presence, area, position and neighbours of the regions of single masks.

    Args:
        masks: class indices [N, H, W].
        num_regions: K.

    Returns:
        float64 [N, K, 3 + K] on the CPU. Values of each region: its share of the picture. x and y of its centre of
        gravity, from 0 (left, top) to 1. The length of its edge with each region, in sides of the picture (0 with
        itself). All values of an absent region are zero.
    """
    masks = masks.cpu().long()
    count, height, width = masks.shape
    labels = masks + num_regions * torch.arange(count)[:, None, None]  # unique labels for all masks
    across = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    down = (torch.arange(height, dtype=torch.float64) + 0.5) / height

    def total(weights: torch.Tensor) -> torch.Tensor:
        weights = weights.expand(masks.shape).flatten()
        return labels.flatten().bincount(weights, count * num_regions).view(count, num_regions)

    def pairs(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        table = (first * num_regions + second).flatten().bincount(minlength=count * num_regions**2)
        table = table.view(count, num_regions, num_regions)
        return (table + table.mT).double()

    pixels = total(torch.ones((), dtype=torch.float64))
    centre = [total(weights) / pixels.clamp(min=1) for weights in (across, down[:, None])]
    edges = pairs(labels[:, :, 1:], masks[:, :, :-1]) / height + pairs(labels[:, 1:], masks[:, :-1]) / width
    edges.diagonal(dim1=1, dim2=2).zero_()
    return torch.cat([torch.stack([pixels / (height * width), *centre], dim=2), edges], dim=2)


def mask_distances(real: np.ndarray, fake: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns the distances between two sets of masks, by group and region.

    Presence is compared over all masks. Area, position and adjacency are compared over masks that show the region, if
    both sets have such masks. A shown region covers at least `MIN_AREA` of the picture.

    Args:
        real, fake: results of `describe_masks`, [N, K, 3 + K]. Their sizes may differ.
        names: names of the regions.

    Returns:
        'presence': difference of the fractions of masks that show the region, 0 to 1.
        'area': Wasserstein-1 distance of the regions' areas, relative to the mean area of the real region.
        'position': Wasserstein-1 distances of x and of y, as the length of the vector of both, in sides of the picture:
            0.1 is a tenth of the width.
        'adjacency': part of the region's edge that borders on other regions than in the real masks, 0 to 1. It is the
            total variation distance of the mean shares.
    """
    from scipy.stats import wasserstein_distance  # takes a second to import, and many scripts import this module

    found: dict[str, dict[str, float]] = {group: {} for group in GROUPS}
    for k, name in enumerate(names):
        there = [is_present(masks[:, k, 0]) for masks in (real, fake)]
        found["presence"][name] = abs(float(there[0].mean()) - float(there[1].mean()))
        a, b = (masks[shown, k] for masks, shown in zip((real, fake), there, strict=True))
        if not len(a) or not len(b):
            continue
        found["area"][name] = wasserstein_distance(a[:, 0], b[:, 0]) / float(a[:, 0].mean())
        found["position"][name] = float(np.hypot(*(wasserstein_distance(a[:, i], b[:, i]) for i in (1, 2))))
        shares = [_neighbour_shares(masks[:, 3:]) for masks in (a, b)]
        found["adjacency"][name] = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return found


def _neighbour_shares(edges: np.ndarray) -> np.ndarray:
    """Returns the mean shares of a region's edge [N, K] with each other region, or zeros without an edge."""
    length = edges.sum(axis=1, keepdims=True)
    edges, length = edges[length[:, 0] > 0], length[length[:, 0] > 0]
    return (edges / length).mean(axis=0) if len(edges) else np.zeros(edges.shape[1])


def summarize(metric: str, distances: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns results by name: the total, and each group's mean and regions. The total is the sum of the means."""
    groups = {group: with_mean(values) for group, values in distances.items()}
    results = {f"{metric}_total": sum(values.get("mean", 0.0) for values in groups.values())}
    for group, values in groups.items():
        results |= prefixed(f"{metric}_{group}", values)
    return results


@register_metric(pattern=count_pattern("mask_stats"), names=["mask_stats"])
def mask_stats(opts: MetricOptions, number: int | None, thousands: str | None) -> dict[str, float]:
    """Distance of generated from real masks: presence, area, position and neighbours of regions.

    Uses all real masks, including mirrored masks if the network was trained with mirroring. See `mask_distances` for
    definitions and units. 0 is best.
    """
    opts, dataset = masked_data(opts)
    num_regions = len(dataset.regions)

    def describe_real() -> dict[str, np.ndarray]:
        stats = FeatureStats(capture_all=True)
        for batch in iterate_dataset(opts, dataset=dataset):
            stats.append(describe_masks(batch.mask, num_regions), batch.start)
        stats.gather()
        return {"masks": stats.get_all()}

    real = cached_arrays(opts, "masks", {"version": 1}, describe_real)
    stats = FeatureStats(capture_all=True)
    for batch in iterate_generator(opts, count_of(number, thousands, 5000), masks=True):
        stats.append(describe_masks(batch.mask, num_regions), batch.start)
    stats.gather()
    if opts.rank != 0:
        return {}
    shape = (-1, num_regions, 3 + num_regions)
    distances = mask_distances(real["masks"].reshape(shape), stats.get_all().reshape(shape), dataset.regions.names)
    return summarize(opts.metric, distances)
