"""Inception score (Salimans et al. 2016, section 4)."""

import itertools

import numpy as np

from dnnlib import UserError
from metrics.metric_utils import INCEPTION, MetricOptions, generator_features


def inception_score(probabilities: np.ndarray, num_splits: int = 10) -> tuple[float, float]:
    """Returns mean and standard deviation of exp(E[KL(p(y|x) || p(y))]) over parts of the set.

    Args:
        probabilities: class probabilities [N, classes]. Each row sums to 1, and N is at least `num_splits`.

    Raises:
        UserError: there are too few rows.
    """
    if len(probabilities) < num_splits:
        raise UserError(f"The inception score needs {num_splits} images or more, but there are {len(probabilities)}.")
    bounds = np.arange(num_splits + 1) * len(probabilities) // num_splits
    scores = []
    for start, stop in itertools.pairwise(bounds):
        p = np.asarray(probabilities[start:stop], np.float64)
        marginal = np.broadcast_to(p.mean(axis=0), p.shape)
        some = p > 0  # p log p is 0 at 0
        divergence = (p[some] * np.log(p[some] / marginal[some])).sum() / len(p)
        scores.append(np.exp(divergence))
    return float(np.mean(scores)), float(np.std(scores))


def compute_is(opts: MetricOptions, num_gen: int, num_splits: int = 10) -> tuple[float, float]:
    """Returns mean and standard deviation of the inception score of `num_gen` generated images. NaN off process 0."""
    stats = generator_features(opts, INCEPTION, num_gen, capture_all=True, no_output_bias=True)
    return inception_score(stats.get_all(), num_splits) if opts.rank == 0 else (float("nan"), float("nan"))
