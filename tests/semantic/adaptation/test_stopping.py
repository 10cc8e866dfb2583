"""The rule that ends an adaptation, and the figures that it reads."""

import pytest
import torch

from semantic.adaptation.measures import (
    mask_drift,
    nearest_distance,
    patch_distance,
    random_images,
    sample_count,
    similarity_of_pairs,
)
from semantic.adaptation.stopping import Bounds, best_row, reason_to_end

BOUNDS = Bounds(patience=3, drift=0.5, diversity=0.5)
REAL = 0.2


def row(swd, drift=0.1, msssim=0.2):
    return {"kimg": 1.0, "swd": swd, "drift": {"hair": drift, "face": drift}, "msssim": msssim, "nearest": 0.2}


def rows(*distances):
    return [row(swd) for swd in distances]


@pytest.mark.parametrize(
    ("distances", "ends"),
    [
        ((9, 8), False),
        ((9, 8, 7, 7.1, 7.2), False),
        ((9, 8, 7, 7.1, 7.2, 7.0), True),
        ((9, 8, 7, 7.1, 7.2, 6.9), False),
        ((5, 8, 9, 7), False),
    ],
)
def test_three_snapshots_without_gain_end_an_adaptation(distances, ends):
    assert (reason_to_end(rows(*distances), REAL, BOUNDS) is not None) == ends


def test_drift_and_lost_diversity_end_it_at_once():
    assert "drifted" in reason_to_end([row(9, 0), row(8, drift=0.51)], REAL, BOUNDS)
    assert "MS-SSIM of pairs" in reason_to_end([row(9, 0), row(8, msssim=0.61)], REAL, BOUNDS)
    assert reason_to_end([row(9, 0), row(8, drift=0.49, msssim=0.59)], REAL, BOUNDS) is None


def test_the_best_snapshot_is_the_nearest_one_within_the_bounds_and_never_the_source():
    assert best_row(rows(5, 8, 7, 9), REAL, BOUNDS) == 2
    assert best_row([row(9), row(8), row(3, drift=0.9)], REAL, BOUNDS) == 1
    assert best_row([row(9), row(8, drift=0.9)], REAL, BOUNDS) == 1


def test_drift_is_one_less_the_overlap_of_regions_that_are_there():
    ours = torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8)
    theirs = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    assert mask_drift(ours, theirs, ["sky", "hair", "hat"]) == {"sky": 0.5, "hair": pytest.approx(1 / 3)}


def noise(count, seed, side=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, [count, 3, side, side], dtype=torch.uint8, generator=generator)


def test_few_images_compare_with_many():
    flat = torch.arange(0, 256, 16, dtype=torch.uint8)[:, None, None, None].expand(16, 3, 32, 32)
    assert sample_count(7) % 7 == 0
    assert sample_count(7) >= 96
    assert sample_count(150) == 150
    near, far = patch_distance(noise(2, 0), noise(16, 1)), patch_distance(noise(2, 0), flat)
    assert near < far / 3


def test_wrong_colours_and_contrasts_are_a_distance():
    images = noise(8, 0)
    paler, redder = images // 2 + 64, images.clone()
    redder[:, 0] = redder[:, 0] // 4 + 190
    same = patch_distance(images, noise(8, 1))
    assert patch_distance(images, paler) > 3 * same
    assert patch_distance(images, redder) > 3 * same


def test_images_are_drawn_from_the_whole_set_in_an_order_of_its_own():
    images = torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1)
    drawn = random_images(images, 20).flatten()
    assert len(drawn.unique()) == 20
    assert (drawn.int().diff() != 1).float().mean() > 0.8
    assert torch.equal(drawn, random_images(images, 20).flatten())


def test_copies_are_nearest_and_alike():
    images = noise(6, 0)
    assert nearest_distance(images[:3], images) < 1e-3 < nearest_distance(noise(3, 9), images)
    assert similarity_of_pairs(images[[0, 0, 1, 1]]) == pytest.approx(1, abs=1e-5)
    assert similarity_of_pairs(images) < 0.5
