"""Building blocks of metrics: options, feature networks, batches of images, feature statistics and their cache."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from metrics.detectors import (
    INCEPTION,
    VGG16,
    Detector,
    DetectorMissing,
    get_feature_detector,
    get_feature_detector_name,
    load_detector,
)
from metrics.feature_stats import FeatureStats
from metrics.options import MetricOptions
from metrics.progress import ProgressMonitor
from metrics.samples import iterate_dataset, iterate_generator, label_sampler, my_batches, open_dataset, seeded
from metrics.stats_cache import cached_arrays
from torch_utils import distributed

__all__ = [
    "INCEPTION",
    "VGG16",
    "Detector",
    "DetectorMissing",
    "FeatureStats",
    "MetricOptions",
    "ProgressMonitor",
    "cached_arrays",
    "compute_feature_stats_for_dataset",
    "compute_feature_stats_for_generator",
    "dataset_features",
    "generator_features",
    "get_feature_detector",
    "get_feature_detector_name",
    "iterate_dataset",
    "iterate_generator",
    "label_sampler",
    "load_detector",
    "my_batches",
    "open_dataset",
    "seeded",
]


def dataset_features(
    opts: MetricOptions,
    detector: str,
    max_items: int | None = None,
    capture_all: bool = False,
    capture_mean_cov: bool = False,
    **detector_kwargs: Any,
) -> FeatureStats | None:
    """Returns the feature statistics of the real data, from the cache if possible.

    Args:
        detector: name of the feature network, `INCEPTION` or `VGG16`.
        max_items: number of images, chosen at random. None uses all.
        capture_all, capture_mean_cov: see `FeatureStats`.
        detector_kwargs: options of the feature network, such as ``return_features=True``.

    Returns:
        The statistics on process 0, None on other processes.

    Raises:
        DetectorMissing: the feature network cannot be found.
    """
    network = load_detector(opts, detector)
    key = dict(detector=network.digest, max_items=max_items, seed=opts.seed, **detector_kwargs)
    kind = "features" if capture_all else "moments"

    def compute() -> dict[str, Any]:
        stats = FeatureStats(capture_all, capture_mean_cov)
        for batch in iterate_dataset(opts, max_items):
            stats.append(network(batch.image, **detector_kwargs), batch.start)
        stats.gather()
        return stats.state()

    state = cached_arrays(opts, kind + "-both" * (capture_all and capture_mean_cov), key, compute)
    return None if state is None else FeatureStats.from_state(state)


def generator_features(
    opts: MetricOptions,
    detector: str,
    num_items: int,
    capture_all: bool = False,
    capture_mean_cov: bool = False,
    **detector_kwargs: Any,
) -> FeatureStats:
    """Returns the feature statistics of generated images, complete on process 0.

    Args:
        num_items: number of images.

    For other arguments see `dataset_features`.
    """
    network = load_detector(opts, detector)
    stats = FeatureStats(capture_all, capture_mean_cov)
    for batch in iterate_generator(opts, num_items):
        stats.append(network(batch.image, **detector_kwargs), batch.start)
    stats.gather()
    return stats


def compute_feature_stats_for_dataset(
    opts: MetricOptions,
    detector_url: str,
    detector_kwargs: Mapping[str, Any],
    rel_lo: float = 0,
    rel_hi: float = 1,
    batch_size: int | None = None,
    data_loader_kwargs: Mapping[str, Any] | None = None,
    max_items: int | None = None,
    capture_all: bool = False,
    capture_mean_cov: bool = False,
) -> FeatureStats:
    """`dataset_features` as scripts for StyleGAN2-ADA call it; complete in all processes.

    Args:
        detector_url: path or address of the feature network.
        detector_kwargs: options of the feature network.
        rel_lo, rel_hi: which part of the work this is, for ``opts.progress``.
        batch_size: images at a time; None chooses by resolution.
        data_loader_kwargs: accepted for scripts that pass it. The loader is chosen by the size of the data here.
    """
    opts = dataclasses.replace(opts.within(rel_lo, rel_hi), batch_size=batch_size or opts.batch_size)
    return _everywhere(
        dataset_features(opts, detector_url, max_items, capture_all, capture_mean_cov, **detector_kwargs)
    )


def compute_feature_stats_for_generator(
    opts: MetricOptions,
    detector_url: str,
    detector_kwargs: Mapping[str, Any],
    rel_lo: float = 0,
    rel_hi: float = 1,
    batch_size: int | None = None,
    batch_gen: int | None = None,
    jit: bool = False,
    *,
    max_items: int,
    capture_all: bool = False,
    capture_mean_cov: bool = False,
) -> FeatureStats:
    """`generator_features` as scripts for StyleGAN2-ADA call it; complete in all processes.

    Args:
        batch_size: images at a time; None chooses by resolution.
        batch_gen: the same, and takes precedence.
        jit: accepted for scripts that pass it. The generator is called as it is.
        max_items: how many images.

    The other arguments are those of `compute_feature_stats_for_dataset`.
    """
    opts = dataclasses.replace(opts.within(rel_lo, rel_hi), batch_size=batch_gen or batch_size or opts.batch_size)
    return _everywhere(
        generator_features(opts, detector_url, max_items, capture_all, capture_mean_cov, **detector_kwargs)
    )


def _everywhere(stats: FeatureStats | None) -> FeatureStats:
    """The statistics of process 0, in all processes."""
    if not distributed.is_distributed():
        return stats
    first = distributed.get_rank() == 0
    state = distributed.broadcast(stats.state() if first else None)
    return stats if first else FeatureStats.from_state(state)
