import numpy as np
import pytest
import torch

from semantic.metrics import mask_fit
from semantic.metrics.common import overlap_counts, region_ious
from semantic.metrics.segmenter import augment, shrink, train_segmenter
from tests.semantic.metrics.hand_made import Replay, faces, options, write_archive

SIDE, TRAINING = 32, 1600


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An archive of 60 faces, the folder of a cache for it, and 40 other pairs."""
    folder = tmp_path_factory.mktemp("faces")
    images, masks = faces(100, SIDE)
    return write_archive(folder / "faces.zip", images[:60], masks[:60]), folder / "cache", images[60:], masks[60:]


@pytest.fixture
def fit(data, monkeypatch):
    """Computes the metric of a generator that shows the other pairs, with masks changed by a function."""
    path, cache, images, masks = data
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(cache))
    return lambda change: mask_fit.compute_mask_fit(options(Replay(images, change(masks)), path), 200, TRAINING)


def test_real_pairs_fit_and_masks_that_are_moved_or_shuffled_do_not(fit):
    right = fit(lambda masks: masks)
    assert 0.25 < right["mean"] < 1
    assert right["ratio"] == pytest.approx(1, abs=0.25)
    assert right["difference"] == pytest.approx(right["real_mean"] - right["mean"])
    for wrong in (fit(lambda masks: masks.roll(8, dims=2)), fit(lambda masks: masks.roll(1, dims=0))):
        assert wrong["mean"] < 0.8 * right["mean"]
        assert wrong["hair"] < 0.8 * right["hair"]
        assert wrong["real_hair"] == right["real_hair"]


def test_the_network_comes_from_the_cache_the_second_time(fit, monkeypatch):
    first = fit(lambda masks: masks)
    monkeypatch.setattr(mask_fit, "train_segmenter", None)
    assert fit(lambda masks: masks) == first


def test_regions_that_are_not_generated_leave_both_means(fit):
    found = fit(lambda masks: torch.where(masks == 7, 0, masks))
    assert "hair" not in found
    assert "real_hair" in found
    regions = [name for name in found if f"real_{name}" in found and name != "mean"]
    for prefix in ("", "real_"):
        assert found[f"{prefix}mean"] == pytest.approx(np.mean([found[prefix + name] for name in regions]))


def test_training_repeats_itself_whatever_the_number_of_threads():
    images, masks = faces(8, 16)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(train_segmenter(images, masks, 13, 64, torch.device("cpu"), seed=1).state_dict())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    other = train_segmenter(images, masks, 13, 64, torch.device("cpu"), seed=2).state_dict()
    assert not torch.equal(other["last.weight"], found[0]["last.weight"])


def test_augmentation_moves_image_and_mask_together():
    masks = torch.zeros(16, 32, 32, dtype=torch.int64)
    masks[:, 10:20, 6:14] = 1
    images = (masks[:, None] * 2.0 - 1).expand(-1, 3, -1, -1)
    moved, truth = augment(images, masks, [0, 1], np.random.default_rng(0))
    assert not torch.equal(truth, masks)
    for image, mask in zip(moved, truth, strict=True):  # bright where the mask is, at any brightness and contrast
        middle = (image.amax(dim=(1, 2), keepdim=True) + image.amin(dim=(1, 2), keepdim=True)) / 2
        assert ((image > middle).all(dim=0) != (mask == 1)).float().mean() < 0.02


def test_left_and_right_change_places_where_a_pair_is_mirrored():
    masks = torch.zeros(32, 32, 32, dtype=torch.int64)
    masks[:, 8:24, 4:12], masks[:, 8:24, 20:28] = 1, 2  # in every picture, region 1 is left of region 2
    images = torch.zeros(32, 3, 32, 32)
    places = torch.arange(32.0)
    for mirror, always in (([0, 2, 1], True), ([0, 1, 2], False)):
        _, truth = augment(images, masks, mirror, np.random.default_rng(0))
        means = [((truth == k) * places).sum([1, 2]) / (truth == k).sum([1, 2]) for k in (1, 2)]
        assert bool((means[0] < means[1]).all()) == always


def test_overlaps_agree_with_plain_loops():
    truth, guess = torch.randint(0, 3, [2, 5, 8, 8], generator=torch.Generator().manual_seed(0))
    found = region_ious(overlap_counts(truth, guess, 4).numpy(), "abcd")
    assert list(found) == ["a", "b", "c"]  # nothing is d
    for k, name in enumerate("abc"):
        pairs = list(zip(truth.flatten().tolist(), guess.flatten().tolist(), strict=True))
        both = sum(a == k and b == k for a, b in pairs)
        assert found[name] == pytest.approx(both / sum(k in pair for pair in pairs))


def test_large_pairs_shrink_together():
    masks = torch.zeros(1, 512, 512, dtype=torch.uint8)
    masks[:, 100:200, 300:400] = 1
    images, small = shrink((masks * 255)[:, None].expand(-1, 3, -1, -1), masks)
    assert images.shape == (1, 3, 128, 128)
    assert torch.equal(images[:, 0] > 127, small == 1)
    assert small.sum() == 25 * 25
