"""Divergence of coarse masks, and how much a pixel counts."""

import math

import torch

from semantic.adaptation.keeping import LEAST_TRUST, coarse_divergence, trust


def planes(*shares):
    """A coarse mask [1, K, 1, P] in [-1, 1] from the shares of regions at each pixel."""
    return torch.tensor(shares).T[None, :, None] * 2 - 1


def test_equal_masks_have_no_divergence():
    mask = planes([0.7, 0.3], [0.1, 0.9])
    assert coarse_divergence(mask, mask, torch.ones(1, 1, 1, 2)).abs() < 1e-7


def test_divergence_is_the_relative_entropy_where_regions_are_equally_large():
    ours, source = planes([0.5, 0.5], [0.5, 0.5]), planes([0.9, 0.1], [0.1, 0.9])
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    found = coarse_divergence(ours, source, torch.ones(1, 1, 1, 2))
    assert math.isclose(found.item(), expected, rel_tol=1e-5)


def test_a_small_region_counts_more():
    source = planes(*[[1.0, 0.0]] * 15, [0.0, 1.0])
    small_wrong, large_wrong = source.clone(), source.clone()
    small_wrong[..., 15] = 0
    large_wrong[..., 0] = 0
    weight = torch.ones(1, 1, 1, 16)
    assert coarse_divergence(small_wrong, source, weight) > 2 * coarse_divergence(large_wrong, source, weight)


def test_a_pixel_is_trusted_as_far_as_the_image_agrees():
    scores = torch.tensor([[[[20.0, -20.0, 0.0]], [[-20.0, 20.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0, 1.0]], [[-1.0, -1.0, -1.0]]]])
    expected = torch.tensor([1.0, LEAST_TRUST, LEAST_TRUST + (1 - LEAST_TRUST) / 2])
    assert torch.allclose(trust(scores, mask)[0, 0, 0], expected)
