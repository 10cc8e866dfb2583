import pytest
import torch

from metrics.metric_main import calc_metric, load_plugins
from semantic.masks import one_hot
from semantic.metrics.coarse_fit import coarse_counts
from semantic.metrics.common import region_ious
from tests.semantic.metrics.hand_made import Squares

load_plugins(["semantic.metrics"])


def test_a_coarse_mask_that_is_the_final_one_averaged_fits_perfectly():
    found = calc_metric("coarse_fit20", Squares(), progress=False).results
    assert list(found) == [f"coarse_fit20{end}" for end in ("", "_mean", "_background", "_a", "_b", "_c", "_d")]
    assert set(found.values()) == {1}


def test_a_coarse_mask_that_is_off_by_one_place_has_a_known_overlap():
    final = torch.zeros(1, 16, 16, dtype=torch.uint8)
    final[:, 4:12, 4:12] = 1
    coarse = torch.zeros(1, 8, 8, dtype=torch.uint8)
    coarse[:, 2:6, 3:7] = 1
    counts = coarse_counts(one_hot(final, 2), one_hot(coarse, 2)).numpy()
    found = region_ious(counts, ["background", "square"])
    assert found == pytest.approx({"background": 44 / 52, "square": 12 / 20})
    assert counts[0, 0].sum() / counts[0, 2].sum() == 56 / 64


def test_a_larger_coarse_mask_is_averaged_down_instead():
    masks = torch.randint(0, 3, [2, 4, 4], generator=torch.Generator().manual_seed(0))
    large = masks.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    counts = coarse_counts(one_hot(masks, 3), one_hot(large, 3))
    assert torch.equal(counts[:, 0], counts[:, 2])
