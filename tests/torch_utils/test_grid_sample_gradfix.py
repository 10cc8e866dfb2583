import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from torch_utils.ops import grid_sample_gradfix
from torch_utils.ops.grid_sample_gradfix import grid_sample


@pytest.fixture
def image():
    return torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def grid():
    """Points inside, on the rim and outside."""
    return torch.rand(2, 5, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 - 1.5


def plain_grid_sample(image, grid):
    n, c, h, w = image.shape
    out = torch.zeros(n, c, *grid.shape[1:3], dtype=image.dtype)
    for i in range(n):
        for j in range(grid.shape[1]):
            for k in range(grid.shape[2]):
                x, y = grid[i, j, k].tolist()
                column, row = ((x + 1) * w - 1) / 2, ((y + 1) * h - 1) / 2
                for r in (math.floor(row), math.floor(row) + 1):
                    for q in (math.floor(column), math.floor(column) + 1):
                        if 0 <= r < h and 0 <= q < w:
                            out[i, :, j, k] += (1 - abs(row - r)) * (1 - abs(column - q)) * image[i, :, r, q]
    return out


def test_equals_the_bilinear_formula(image, grid):
    assert_close(grid_sample(image.detach(), grid), plain_grid_sample(image.detach(), grid), 1e-12)


def test_derivatives_to_the_third(image, grid):
    def squared(x):
        return grid_sample(x, grid).pow(3)

    def slope(x):
        return torch.autograd.grad(squared(x).sum(), x, create_graph=True)[0]

    assert gradcheck(squared, image)
    assert gradgradcheck(squared, image)
    assert gradgradcheck(slope, image)


def test_a_grid_that_requires_gradients_gets_them(image, grid):
    grid.requires_grad_()
    actual = torch.autograd.grad(grid_sample(image, grid).square().sum(), [image, grid])
    expected = torch.autograd.grad(F.grid_sample(image, grid, align_corners=False).square().sum(), [image, grid])
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, 1e-12)


def test_disabled_it_is_pytorchs_operator(image, grid, monkeypatch):
    monkeypatch.setattr(grid_sample_gradfix, "enabled", False)
    y = grid_sample(image, grid)
    assert type(y.grad_fn).__name__.startswith("GridSampler2D")
    assert_close(y.detach(), plain_grid_sample(image.detach(), grid), 1e-12)


@pytest.mark.parametrize(
    ("image_shape", "grid_shape", "told"),
    [((2, 4, 5), (2, 5, 4, 2), "input must be"), ((2, 1, 4, 5), (1, 5, 4, 2), "grid must"),
     ((2, 1, 4, 5), (2, 5, 4, 3), "grid must"), ((2, 1, 4, 5), (2, 5, 2), "grid must")],
)  # fmt: skip
def test_bad_shapes_are_told_in_one_line(image_shape, grid_shape, told):
    with pytest.raises(ValueError, match=told) as error:
        grid_sample(torch.zeros(image_shape), torch.zeros(grid_shape))
    assert "\n" not in str(error.value)
