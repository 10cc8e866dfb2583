"""The formulas on features, against closed forms and plain loops."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from dnnlib import UserError
from metrics.frechet import frechet_distance
from metrics.inception_score import inception_score
from metrics.kernel import averaged_kernel_distance, kernel_distance
from metrics.precision_recall import precision_recall


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=0), np.cov(rows.T)


def covariance(rng: np.random.RandomState, size: int) -> np.ndarray:
    root = rng.randn(size, size)
    return root @ root.T


def test_fid_of_gaussians_that_share_axes_has_a_closed_form():
    rng = np.random.RandomState(0)
    axes = np.linalg.qr(rng.randn(20, 20))[0]
    a, b = rng.rand(2, 20) * 3
    mean1, mean2 = rng.randn(2, 20)
    found = frechet_distance(mean1, axes * a**2 @ axes.T, mean2, axes * b**2 @ axes.T)
    assert found == pytest.approx(((mean1 - mean2) ** 2).sum() + ((a - b) ** 2).sum(), rel=1e-9)


def test_fid_agrees_with_the_matrix_root():
    rng = np.random.RandomState(1)
    cov1, cov2 = covariance(rng, 30), covariance(rng, 30)
    expected = np.trace(cov1 + cov2 - 2 * scipy.linalg.sqrtm(cov1 @ cov2).real)
    assert frechet_distance(np.zeros(30), cov1, np.zeros(30), cov2) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_fid_of_a_set_with_itself_is_zero_with_few_images_too(count):
    rows = np.random.RandomState(2).randn(count, 200) * np.logspace(-6, 2, 200)
    found = frechet_distance(*moments(rows), *moments(rows[::-1].copy()))
    assert isinstance(found, float)
    assert abs(found) < 1e-6


def test_fid_of_sets_of_low_rank_loses_no_digits():
    rng = np.random.RandomState(3)
    axes = np.linalg.qr(rng.randn(300, 300))[0][:, :5]
    a, b = rng.rand(2, 5) * 10
    found = frechet_distance(np.zeros(300), axes * a**2 @ axes.T, np.zeros(300), axes * b**2 @ axes.T)
    assert found == pytest.approx(((a - b) ** 2).sum(), rel=1e-6)


def test_kid_agrees_with_sums_over_pairs():
    rng = np.random.RandomState(4)
    x, y = rng.randn(7, 5), rng.randn(6, 5) + 1

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 5 + 1) ** 3

    within = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    between = np.mean([k(a, b) for a in x for b in y])
    expected = sum(within) - 2 * between
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-10)
    whole = averaged_kernel_distance(x[:6], y, num_subsets=3)
    assert whole == pytest.approx(kernel_distance(torch.from_numpy(x[:6]), torch.from_numpy(y)), rel=1e-10)


def test_kid_is_unbiased():
    rng = np.random.RandomState(5)
    draws = [kernel_distance(*torch.from_numpy(rng.randn(2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / math.sqrt(len(draws))
    assert min(draws) < 0


def test_precision_and_recall_agree_with_plain_loops():
    rng = np.random.RandomState(6)
    real, fake = rng.randn(60, 3), rng.randn(50, 3) * 0.6 + 0.3

    def share(points, manifold):
        reach = [sorted(np.linalg.norm(p - q) for q in manifold)[3] for p in manifold]
        inside = [any(np.linalg.norm(p - q) <= r for q, r in zip(manifold, reach, strict=True)) for p in points]
        return sum(inside) / len(inside)

    found = precision_recall(torch.from_numpy(real), torch.from_numpy(fake))
    assert found == pytest.approx((share(fake, real), share(real, fake)))
    assert 0 < found[1] < 1


def test_precision_and_recall_of_equal_and_of_disjoint_sets():
    rows = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert precision_recall(rows, rows.clone()) == (1, 1)
    assert precision_recall(rows, rows + 100) == (0, 0)
    with pytest.raises(UserError, match="more than 3 real"):
        precision_recall(rows[:3], rows)


def test_inception_score_is_one_without_variety_and_the_number_of_classes_at_best():
    assert inception_score(np.full([100, 8], 1 / 8)) == pytest.approx((1, 0))
    assert inception_score(np.tile(np.eye(8), [20, 1])) == pytest.approx((8, 0), rel=1e-6)


def test_inception_score_agrees_with_a_plain_loop():
    p = np.random.RandomState(7).dirichlet(np.ones(6), size=50)
    scores = []
    for part in np.split(p, 10):
        marginal = part.mean(axis=0)
        scores.append(
            math.exp(np.mean([sum(q * math.log(q / m) for q, m in zip(row, marginal, strict=True)) for row in part]))
        )
    assert inception_score(p) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)
