import numpy as np
import pytest
import torch

from dnnlib import UserError
from metrics.metric_main import calc_metric, load_plugins
from semantic.metrics.mask_stats import GROUPS, describe_masks, mask_distances, summarize
from semantic.regions import Regions
from tests.runs import make_archive
from tests.semantic.metrics.hand_made import Replay, options, write_archive

load_plugins(["semantic.metrics"])
NAMES = ["background", "left", "right"]


def two_boxes(sizes, x=10, gap=0, side=100):
    """A box of each size in a row of 20 pixels' height from `x`, and right of it one of 10 pixels' width."""
    masks = torch.zeros([len(sizes), side, side], dtype=torch.uint8)
    for mask, size in zip(masks, sizes, strict=True):
        mask[40:60, x : x + size] = 1
        mask[40:60, x + size + gap : x + size + gap + 10] = 2
    return masks


def distances(real, fake):
    return mask_distances(describe_masks(real, 3).numpy(), describe_masks(fake, 3).numpy(), NAMES)


def test_masks_are_described_as_plain_loops_describe_them():
    mask = torch.randint(0, 3, [7, 9], generator=torch.Generator().manual_seed(0))
    found = describe_masks(mask[None], 3)[0]
    for k in range(3):
        places = [(y, x) for y in range(7) for x in range(9) if mask[y, x] == k]
        centre = [np.mean([x + 0.5 for _, x in places]) / 9, np.mean([y + 0.5 for y, _ in places]) / 7]
        edges = [0.0] * 3
        for y, x in places:
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                if 0 <= y + dy < 7 and 0 <= x + dx < 9 and mask[y + dy, x + dx] != k:
                    edges[mask[y + dy, x + dx]] += 1 / 7 if dx else 1 / 9
        assert found[k].tolist() == pytest.approx([len(places) / 63, *centre, *edges])


def test_a_set_is_at_no_distance_from_itself_in_another_order():
    masks = two_boxes([5, 10, 20, 30])
    found = distances(masks, masks.flip(0).repeat(2, 1, 1))
    assert all(value == pytest.approx(0, abs=1e-12) for group in found.values() for value in group.values())


def test_larger_regions_are_at_the_distance_of_their_areas():
    found = distances(two_boxes([10, 20]), two_boxes([12, 24]))
    assert found["area"]["left"] == pytest.approx((2 + 4) / 2 / 15)
    assert found["area"]["right"] == pytest.approx(0)
    assert found["presence"] == {name: 0 for name in NAMES}
    assert found["position"]["left"] == pytest.approx((1 + 2) / 2 / 100)


def test_moved_regions_are_at_the_distance_of_the_move():
    real = two_boxes([10, 20])
    found = distances(real, real.roll((8, 6), dims=(1, 2)))
    for name in NAMES[1:]:
        assert found["position"][name] == pytest.approx(0.1)
        assert found["area"][name] == pytest.approx(0)
    assert found["adjacency"]["left"] == pytest.approx(0)


def test_regions_that_come_apart_have_other_neighbours():
    found = distances(two_boxes([10, 10]), two_boxes([10, 10], gap=5))
    assert found["adjacency"]["left"] == pytest.approx(20 / 60)  # a third of its edge lay at the other box
    assert found["presence"]["left"] == 0


def test_missing_regions_count_as_presence_alone():
    real, fake = two_boxes([10] * 4), two_boxes([10] * 4)
    fake[:3][fake[:3] == 2] = 0
    found = distances(real, fake)
    assert found["presence"]["right"] == pytest.approx(0.75)
    assert found["area"]["right"] == pytest.approx(0)
    fake[fake == 2] = 0
    found = distances(real, fake)
    assert found["presence"]["right"] == 1
    assert all("right" not in found[group] for group in GROUPS[1:])


def test_the_total_adds_up_the_means_of_the_groups():
    found = summarize("m", {"presence": {"a": 0.1, "b": 0.3}, "area": {"a": 1.0}, "position": {}, "adjacency": {}})
    assert found == pytest.approx(
        {
            "m_total": 1.2,
            "m_presence_mean": 0.2,
            "m_presence_a": 0.1,
            "m_presence_b": 0.3,
            "m_area_mean": 1,
            "m_area_a": 1,
        }
    )


def test_generated_masks_are_held_against_the_data_mirrored_where_training_was(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    regions = Regions(["background", "first", "second"])  # no names of two sides, which a mirror would swap
    masks = two_boxes([2, 4, 8], side=64)
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    data = options(None, write_archive(tmp_path / "boxes.zip", images, masks, regions)).dataset_kwargs
    both = torch.cat([masks, masks.flip(2)])
    G = Replay(images.repeat(2, 1, 1, 1), both, regions)
    mirrored = calc_metric("mask_stats200", G, {**data, "xflip": True}, progress=False).results
    plain = calc_metric("mask_stats200", G, data, progress=False).results
    assert mirrored["mask_stats200_position_first"] < 0.05 < 0.1 < plain["mask_stats200_position_first"]
    with pytest.raises(UserError, match="regions of boxes"):
        calc_metric("mask_stats200", Replay(images, masks, Regions(["x", "y"])), data)
    with pytest.raises(UserError, match="needs masks"):
        calc_metric("mask_stats200", G, {**data, "class_name": "training.dataset.ImageFolderDataset"})
    some = {
        "class_name": "semantic.adaptation.data.TargetDataset",
        "path": str(make_archive(tmp_path / "some.zip", count=8, without=range(4))),
        "regions": regions.to_dict(),
    }
    with pytest.raises(UserError, match=r"needs a mask for each image, but only \d of 7 images of some"):
        calc_metric("mask_stats200", G, some)
