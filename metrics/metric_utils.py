"""What metrics are made of: options, feature networks, batches of images, statistics of features and their cache."""

from typing import Any

from metrics.detectors import INCEPTION, VGG16, Detector, DetectorMissing, load_detector
from metrics.feature_stats import FeatureStats
from metrics.options import MetricOptions
from metrics.samples import iterate_dataset, iterate_generator, label_sampler, my_batches, open_dataset, seeded
from metrics.stats_cache import cached_arrays

__all__ = [
    "INCEPTION",
    "VGG16",
    "Detector",
    "DetectorMissing",
    "FeatureStats",
    "MetricOptions",
    "cached_arrays",
    "dataset_features",
    "generator_features",
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
    """Statistics of the features of the real data, from the cache where they are there.

    Args:
        detector: name of the feature network, `INCEPTION` or `VGG16`.
        max_items: use this many images, chosen at random; None uses all.
        capture_all, capture_mean_cov: see `FeatureStats`.
        detector_kwargs: options of the feature network, such as ``return_features=True``.

    Returns:
        The statistics on process 0, None on the others.

    Raises:
        DetectorMissing: the feature network is not there.
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
    """Statistics of the features of generated images; complete on process 0.

    Args:
        num_items: how many images.

    The other arguments are those of `dataset_features`.
    """
    network = load_detector(opts, detector)
    stats = FeatureStats(capture_all, capture_mean_cov)
    for batch in iterate_generator(opts, num_items):
        stats.append(network(batch.image, **detector_kwargs), batch.start)
    stats.gather()
    return stats
