"""Fit of masks and images, measured by a segmentation network that is trained on the real pairs."""

import dataclasses
from typing import Any

import numpy as np
import torch

from dnnlib import UserError
from metrics.metric_utils import FeatureStats, MetricOptions, cached_arrays, iterate_dataset, iterate_generator
from metrics.registry import register_metric
from semantic.metrics.common import (
    count_of,
    count_pattern,
    masked_data,
    overlap_counts,
    prefixed,
    region_ious,
    with_mean,
)
from semantic.metrics.segmenter import Segmenter, shrink, train_segmenter
from torch_utils import distributed

HELD_OUT = 0.2
"""Share of the pairs that are held out from training, at most 1,000 pairs."""
MAX_HELD_OUT, MAX_TRAINING = 1000, 5000
TRAIN_IMAGES = 12_800


def count_overlaps(network: Segmenter, images: torch.Tensor, masks: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Returns overlaps [N, 3, K] (see `overlap_counts`) of masks, the truth, with the network's segmentation.

    Args:
        images: uint8 [N, 3, R, R].
        masks: class indices [N, R, R].
    """
    images, masks = shrink(images, masks)
    return overlap_counts(masks, network.predict(images), num_regions)


def held_out(dataset: Any) -> int:
    """Returns the number of held-out pairs of the data."""
    return min(int(len(dataset) * HELD_OUT), MAX_HELD_OUT)


def real_pairs(opts: MetricOptions, dataset: Any) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Returns the real pairs in an order set by the seed. The first pairs are held out, the others are for training.

    Args:
        opts, dataset: from `masked_data`.

    Returns:
        Images uint8 [N, 3, S, S], S at most 128. Class indices uint8 [N, S, S]. The number of held-out pairs.
    """
    alone, num_held = dataclasses.replace(opts, num_gpus=1), held_out(dataset)
    batches = iterate_dataset(alone, num_held + MAX_TRAINING, shuffle=True, dataset=dataset)
    pairs = [[part.cpu() for part in shrink(batch.image, batch.mask)] for batch in batches]
    images, masks = (torch.cat(part) for part in zip(*pairs, strict=True))
    return images, masks, num_held


def real_segmenter(opts: MetricOptions, train_images: int) -> tuple[Segmenter, np.ndarray | None]:
    """Returns a network trained on the real pairs except held-out pairs, and its overlaps on these. Uses the cache.

    The seed decides which pairs are held out. Process 0 trains, and all processes get the network.

    Args:
        opts: with the real data, not mirrored; see `masked_data`.
        train_images: number of images in training in total.

    Returns:
        The network, and on process 0 overlaps [N, 3, K], see `overlap_counts`.

    Raises:
        UserError: there are fewer than 5 pairs.
    """
    mirror = bool(opts.dataset_kwargs.get("xflip"))
    opts, dataset = masked_data(opts, xflip=False)
    pairs = dataset.regions.mirror if mirror else []
    num_regions = len(dataset.regions)
    if len(dataset) < 5:
        raise UserError(f"{opts.metric} needs 5 or more images with masks, but {dataset.name} has {len(dataset)}.")
    num_held = held_out(dataset)

    def train() -> dict[str, np.ndarray]:
        if opts.rank != 0:
            return {}
        images, masks, _ = real_pairs(opts, dataset)
        network = train_segmenter(
            images[num_held:],
            masks[num_held:],
            num_regions,
            train_images,
            opts.device,
            seed=opts.seed,
            mirror=dataset.regions.mirror_table() if mirror else None,
            hide_progress=opts.hide_progress,
            text=f"{opts.metric} segmenter",
        )
        held = zip(images[:num_held].split(64), masks[:num_held].split(64), strict=True)
        counts = [count_overlaps(network, x.to(opts.device), m.to(opts.device), num_regions).cpu() for x, m in held]
        weights = {f"weights.{name}": tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
        return {"counts": torch.cat(counts).numpy(), **weights}

    key = dict(version=1, images=train_images, held=num_held, mirror=mirror, seed=opts.seed)
    key |= {"pairs": pairs} if pairs else {}
    arrays = cached_arrays(opts, "segmenter", key, train)
    network = Segmenter(num_regions).to(opts.device).eval().requires_grad_(False)
    if arrays is not None:
        network.load_state_dict({name: torch.from_numpy(arrays[f"weights.{name}"]) for name in network.state_dict()})
    distributed.broadcast_module(network)
    return network, None if arrays is None else arrays["counts"]


def compute_mask_fit(opts: MetricOptions, num_images: int, train_images: int = TRAIN_IMAGES) -> dict[str, float]:
    """Returns the intersection over union of masks and segmented images, for generated and held-out pairs.

    A region's overlap uses all its pixels in the set. A region that no mask of the set shows has no overlap. Means are
    over the regions that both sets show, so that they can be compared.

    Args:
        num_images: number of generated pairs.
        train_images: see `real_segmenter`.

    Returns:
        On process 0, values by region and 'mean': of the generated pairs; of the real pairs with prefix 'real_';
        'ratio' and 'difference' of the means, where the difference is real minus generated.
    """
    network, counts = real_segmenter(opts, train_images)
    names = opts.G.regions.names
    stats = FeatureStats(capture_all=True)
    for batch in iterate_generator(opts, num_images, masks=True):
        stats.append(count_overlaps(network, batch.image, batch.mask, len(names)), batch.start)
    stats.gather()
    if opts.rank != 0:
        return {}
    fake, real = region_ious(stats.get_all().reshape(-1, 3, len(names)), names), region_ious(counts, names)
    common = [name for name in names if name in fake and name in real]
    fake, real = with_mean(fake, common), with_mean(real, common)
    results = {**fake, **prefixed("real", real)}
    if common:
        results |= {"difference": real["mean"] - fake["mean"]}
        results |= {"ratio": fake["mean"] / real["mean"]} if real["mean"] > 0 else {}
    return results


@register_metric(pattern=count_pattern("mask_fit"), names=["mask_fit"])
def mask_fit(opts: MetricOptions, number: int | None, thousands: str | None) -> dict[str, float]:
    """Fit of generated masks and images, beside the fit of real pairs.

    A small segmentation network is trained on four fifths of the real pairs. The result is the mean intersection over
    union of its segmentation with the masks. It is computed on generated pairs and on held-out real pairs. A good
    generator comes close to the real value. See `compute_mask_fit`.
    """
    return prefixed(opts.metric, compute_mask_fit(opts, count_of(number, thousands, 1000)))
