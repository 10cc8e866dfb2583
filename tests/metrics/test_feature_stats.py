import pickle

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
    assert stats.is_full()
    np.testing.assert_array_equal(stats.get_all(), rows[:130])


def test_flattens_features_and_wants_two_rows(rows):
    stats = FeatureStats(capture_mean_cov=True)
    stats.append(torch.zeros(1, 3, 2, 2))
    assert stats.num_features == 12
    with pytest.raises(UserError, match="2 images"):
        stats.get_mean_cov()


@pytest.mark.parametrize("kept", [{"capture_all": True}, {"capture_mean_cov": True}])
def test_is_saved_and_loaded_without_pickles(rows, tmp_path, kept):
    stats = FeatureStats(**kept, max_items=200)
    stats.append_torch(torch.from_numpy(rows[:100]), num_gpus=1, rank=0)
    stats.save(tmp_path / "stats.pkl")
    again = FeatureStats.load(str(tmp_path / "stats.pkl"))
    assert not again.is_full()
    again.append(rows[100:300])
    assert again.is_full()
    if again.capture_all:
        assert torch.equal(again.get_all_torch(), torch.from_numpy(rows[:200]))
    else:
        np.testing.assert_allclose(again.get_mean_cov()[0], rows[:200].astype(np.float64).mean(axis=0), rtol=1e-12)
    FeatureStats(**kept).save(tmp_path / "empty.pkl")
    assert FeatureStats.load(tmp_path / "empty.pkl").num_items == 0


def test_refuses_files_that_are_no_statistics(tmp_path):
    (tmp_path / "stats.pkl").write_bytes(pickle.dumps({"num_items": 3}))
    np.savez(tmp_path / "other.npz", rows=np.zeros(3))
    for name in ("stats.pkl", "other.npz", "missing.pkl"):
        with pytest.raises(UserError, match=f"{name} holds no statistics"):
            FeatureStats.load(tmp_path / name)
