"""Usefulness of generated pairs for training a segmentation network (DatasetGAN, Zhang et al. 2021)."""

import dataclasses

import torch

from metrics.metric_utils import MetricOptions, iterate_generator
from metrics.registry import register_metric
from semantic.metrics.common import count_of, count_pattern, masked_data, prefixed, region_ious, with_mean
from semantic.metrics.mask_fit import TRAIN_IMAGES, count_overlaps, real_pairs, real_segmenter
from semantic.metrics.segmenter import shrink, train_segmenter


def generated_pairs(opts: MetricOptions, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images uint8 [N, 3, S, S] and class indices uint8 [N, S, S] on the CPU. S is at most 128."""
    batches = iterate_generator(dataclasses.replace(opts, num_gpus=1), count, masks=True)
    pairs = [[part.cpu() for part in shrink(batch.image, batch.mask)] for batch in batches]
    images, masks = (torch.cat(part) for part in zip(*pairs, strict=True))
    return images, masks


def compute_train_on_fakes(opts: MetricOptions, num_images: int, train_images: int = TRAIN_IMAGES) -> dict[str, float]:
    """Returns the intersection over union on held-out real pairs, of networks trained on generated or real pairs.

    All networks train on equally many images. With both kinds, half of the images are of each kind. Process 0 trains.

    Args:
        num_images: number of generated pairs.
        train_images: number of images in training of each network in total.

    Returns:
        On process 0, values by region and 'mean'. Values without a prefix: trained on generated pairs. Values with the
        prefixes 'real_' and 'both_': trained on real pairs, or on both. 'ratio': mean of generated divided by real.

    Raises:
        UserError: there are fewer than 5 real pairs.
    """
    _, real_counts = real_segmenter(opts, train_images)
    if opts.rank != 0:
        return {}
    real_opts, dataset = masked_data(opts, xflip=False)
    mirror = dataset.regions.mirror_table() if opts.dataset_kwargs.get("xflip") else None
    names = dataset.regions.names
    images, masks, held = real_pairs(real_opts, dataset)
    fakes = generated_pairs(opts, num_images)

    def tested(parts: list[tuple[torch.Tensor, torch.Tensor]], text: str) -> dict[str, float]:
        network = train_segmenter(
            *(torch.cat(tensors) for tensors in zip(*parts, strict=True)),
            len(names),
            train_images,
            opts.device,
            seed=opts.seed,
            mirror=mirror,
            hide_progress=opts.hide_progress,
            text=text,
            parts=[len(part[0]) for part in parts],
        )
        batches = zip(images[:held].split(64), masks[:held].split(64), strict=True)
        counts = [count_overlaps(network, x.to(opts.device), m.to(opts.device), len(names)).cpu() for x, m in batches]
        return with_mean(region_ious(torch.cat(counts).numpy(), names))

    learned = tested([fakes], f"{opts.metric} on generated pairs")
    both = tested([fakes, (images[held:], masks[held:])], f"{opts.metric} on both")
    real = with_mean(region_ious(real_counts, names))
    ratio = {"ratio": learned["mean"] / real["mean"]} if real.get("mean", 0) > 0 else {}
    return {**learned, **prefixed("real", real), **prefixed("both", both), **ratio}


@register_metric(pattern=count_pattern("train_on_fakes"), names=["train_on_fakes"])
def train_on_fakes(opts: MetricOptions, number: int | None, thousands: str | None) -> dict[str, float]:
    """Usefulness of generated pairs as labelled data.

    A small segmentation network is trained on generated pairs, on real pairs, and on both. The result is the mean
    intersection over union of its segmentation with the masks of real images. See `compute_train_on_fakes`.
    """
    return prefixed(opts.metric, compute_train_on_fakes(opts, count_of(number, thousands, 1000)))
