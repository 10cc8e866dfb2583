"""Coarse masks and the weights of features."""

import pytest
import torch

from semantic.fusion import coarse_mask, feature_weights
from tests.helpers import assert_close
from tests.semantic.local.test_generators import random_tensor


def plain_mask(depth, keep_regions=None):
    """Softmax over regions, then the shares of regions left out go to the others."""
    samples = []
    for n, maps in enumerate(depth):
        largest = maps[0]
        for one in maps:
            largest = torch.maximum(largest, one)
        shares = [torch.exp(one - largest) for one in maps]
        total = sum(shares)
        shares = [one / total for one in shares]
        if keep_regions is not None:
            shares = [one * keep_regions[n][k] for k, one in enumerate(shares)]
            total = sum(shares)
            shares = [one / (total + 1e-8) for one in shares]
        samples.append(torch.stack(shares))
    return torch.stack(samples)


def plain_weights(mask, transparent):
    """Opaque regions share the pixel as if the transparent ones were not there."""
    if not transparent:
        return mask
    samples = []
    for maps in mask:
        opaque = sum(one for k, one in enumerate(maps) if k not in transparent)
        samples.append(torch.stack([one if k in transparent else one / (opaque + 1e-8) for k, one in enumerate(maps)]))
    return torch.stack(samples)


@pytest.mark.parametrize("count", [2, 3, 13])
@pytest.mark.parametrize("shape", [(4, 4), (6,)])
def test_coarse_mask_is_a_softmax_over_regions(count, shape):
    depth = 3 * random_tensor(2, count, *shape)
    mask = coarse_mask(depth)
    assert_close(mask, plain_mask(depth), 1e-12)
    assert_close(mask.sum(dim=1), torch.ones(2, *shape), 1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (6,)])
def test_regions_left_out_give_their_share_to_the_others(shape):
    depth = random_tensor(3, 4, *shape)
    keep = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0]], dtype=torch.float64)
    mask = coarse_mask(depth, keep)
    assert_close(mask, plain_mask(depth, keep), 1e-12)
    assert (mask[1, [1, 3]] == 0).all()
    assert_close(mask.sum(dim=1), torch.ones(3, *shape), 1e-5)
    assert_close(coarse_mask(depth, torch.ones(3, 4)), coarse_mask(depth), 1e-6)


def test_leaving_every_region_out_gives_zeros():
    mask = coarse_mask(random_tensor(1, 3, 2, 2), torch.zeros(1, 3))
    assert (mask == 0).all()


def test_far_away_depths_stay_finite():
    mask = coarse_mask(torch.tensor([[[0.0], [1e4], [-1e4]]]))
    assert mask.flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("transparent", [(), (2,), (1, 3), (0, 1, 2), (10, 12)])
@pytest.mark.parametrize("shape", [(4, 4), (6,)])
def test_feature_weights_with_transparent_regions(transparent, shape):
    count = 13 if 12 in transparent else 4
    mask = coarse_mask(random_tensor(2, count, *shape))
    assert_close(feature_weights(mask, transparent), plain_weights(mask, transparent), 1e-12)


def test_opaque_regions_ignore_transparent_ones():
    depth = random_tensor(1, 3, 4, 4)
    weights = feature_weights(coarse_mask(depth), [2])
    assert_close(weights[:, :2], coarse_mask(depth[:, :2]), 1e-6)
    assert_close(weights[:, 2], coarse_mask(depth)[:, 2], 1e-12)


def test_without_transparent_regions_the_weights_are_the_mask():
    mask = coarse_mask(random_tensor(1, 3, 4, 4))
    assert torch.equal(feature_weights(mask, ()), mask)


def test_second_derivatives():
    depth = random_tensor(1, 3, 2).requires_grad_()
    keep = torch.tensor([[1, 1, 0]], dtype=torch.float64)

    def function(depth):
        return feature_weights(coarse_mask(depth), [2]), coarse_mask(depth, keep)

    assert torch.autograd.gradcheck(function, depth)
    assert torch.autograd.gradgradcheck(function, depth)
