import numpy as np
import pytest
import torch

from dnnlib import UserError
from metrics.feature_stats import FeatureStats


@pytest.fixture
def rows() -> np.ndarray:
    return (np.random.RandomState(0).randn(2500, 7) * [1, 2, 3, 4, 5, 6, 1000] + 1000).astype(np.float32)


def test_streaming_gives_what_all_rows_at_once_give(rows):
    stats = FeatureStats(capture_all=True, capture_mean_cov=True)
    for start, stop in [(0, 1), (1, 700), (700, 2100), (2100, 2500)]:
        stats.append(torch.from_numpy(rows[start:stop]))
    mean, cov = stats.get_mean_cov()
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(rows.astype(np.float64).T), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(stats.get_all(), rows)


def test_parts_of_several_processes_merge_exactly_and_in_order(rows):
    parts = [FeatureStats(capture_all=True, capture_mean_cov=True) for _ in range(3)]
    for number, start in enumerate(range(0, 2500, 100)):
        parts[number % 2].append(rows[start : start + 100], start)
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].num_items == 2500
    np.testing.assert_array_equal(parts[0].get_all(), rows)
    np.testing.assert_allclose(parts[0].get_mean_cov()[1], np.cov(rows.astype(np.float64).T), rtol=1e-9, atol=1e-9)


def test_survives_the_way_through_arrays(rows):
    stats = FeatureStats(capture_all=True, capture_mean_cov=True)
    stats.append(rows[1000:], 1000)
    stats.append(rows[:1000], 0)
    again = FeatureStats.from_state(stats.state())
    np.testing.assert_array_equal(again.get_all(), rows)
    np.testing.assert_array_equal(again.get_mean_cov()[1], stats.get_mean_cov()[1])


def test_takes_no_more_than_max_items(rows):
    stats = FeatureStats(capture_all=True, max_items=130)
    for start in range(0, 300, 100):
        stats.append(rows[start : start + 100])
    assert stats.is_full
    np.testing.assert_array_equal(stats.get_all(), rows[:130])


def test_flattens_features_and_wants_two_rows(rows):
    stats = FeatureStats(capture_mean_cov=True)
    stats.append(torch.zeros(1, 3, 2, 2))
    assert stats.num_features == 12
    with pytest.raises(UserError, match="2 images"):
        stats.get_mean_cov()
