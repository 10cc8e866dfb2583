"""Frames of moved labels are found again."""

import math

import pytest
import torch

from semantic.inversion.align import combined
from semantic.inversion.framing import RANGES, Framing, fit_framing, moved_labels, surrounded, transforms
from semantic.inversion.layout import one_hot_planes
from tests.semantic.inversion.doll import doll_layout, shares

CPU = torch.device("cpu")


def dolls(count, seed):
    return shares(count, radius=0.36 + 0.02 * torch.randn(count, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def framing():
    arrays = fit_framing(dolls(48, seed=0))
    return Framing(*(torch.from_numpy(arrays[name]) for name in ("means", "weights", "biases")))


def corners(transform):
    """Corners of the unit square after (a, b, tx, ty), with complex numbers."""
    a, b, x, y = transform.tolist()
    return [complex(a, b) * corner + complex(x, y) for corner in (0, 1, 1 + 1j, 1j)]


def test_a_move_is_a_similarity_about_the_middle():
    (found,) = transforms(torch.tensor([[math.log(0.5), math.pi / 2, 0.1, -0.2]], dtype=torch.float64))
    middle, turn = 0.6 + 0.3j, 0.5j
    wanted = [middle + turn * (corner - (0.5 + 0.5j)) for corner in (0, 1, 1 + 1j, 1j)]
    assert max(abs(x - y) for x, y in zip(corners(found), wanted, strict=True)) < 1e-9


def test_moved_labels_lie_where_the_move_says():
    planes = torch.zeros(1, 2, 40, 40)
    planes[:, 1, 8:12, 8:12], planes[:, 0] = 1, 1
    planes[:, 0, 8:12, 8:12] = 0
    moves = torch.tensor([[math.log(0.5), 0.5, 0.1, 0.05]])
    found = moved_labels(planes, moves, "border")
    assert torch.allclose(found.sum(dim=1), torch.ones(1, 40, 40), atol=1e-5)
    places = (torch.arange(40) + 0.5) / 40
    weight = found[0, 1] / found[0, 1].sum()
    center = complex(float((weight.sum(dim=0) * places).sum()), float((weight.sum(dim=1) * places).sum()))
    a, b, x, y = transforms(moves.double())[0].tolist()
    assert abs(center - (complex(a, b) * complex(0.25, 0.25) + complex(x, y))) < 0.01


def test_other_labels_lie_around_the_frame_alone():
    planes = torch.zeros(2, 3, 32, 32)
    planes[0, 1], planes[1, 2] = 1, 1
    moves = torch.tensor([[math.log(0.5), 0.0, 0.0, 0.0]]).expand(2, 4)
    moved = moved_labels(planes, moves, "border")
    found = surrounded(moved, moves, planes.flip(0), torch.Generator().manual_seed(0))
    assert torch.equal(found[:, :, 9:23, 9:23], moved[:, :, 9:23, 9:23])
    outside = found[:, :, :7]
    assert torch.allclose(outside, planes.flip(0)[:, :, :7], atol=1e-5)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_the_frame_of_labels_of_other_samples_is_found_in_three_stages(framing, padding):
    planes, random = dolls(24, seed=1), torch.Generator().manual_seed(2)
    scale, angle, shift = RANGES[0]
    moves = (2 * torch.rand(24, 4, generator=random) - 1) * torch.tensor([scale, angle, shift, shift]) * 0.8
    true = transforms(moves.double())
    found = torch.tensor([[1.0, 0, 0, 0]]).double().expand(24, 4)
    for stage in (0, 1, 2, 2):
        rest = combined(inverse(found), true)
        part = torch.stack([rest[:, :2].norm(dim=1).log(), torch.atan2(rest[:, 1], rest[:, 0]), *middle(rest)], dim=1)
        found = combined(found, framing(moved_labels(planes, part.float(), padding), stage))
    off = [
        max(abs(x - y) for x, y in zip(corners(f), corners(t), strict=True)) for f, t in zip(found, true, strict=True)
    ]
    assert torch.tensor(off).quantile(0.9) < 0.05


def inverse(transform):
    a, b, x, y = transform.unbind(dim=1)
    square = a * a + b * b
    return torch.stack([a / square, -b / square, -(a * x + b * y) / square, (b * x - a * y) / square], dim=1)


def middle(transform):
    a, b, x, y = transform.unbind(dim=1)
    return x + (a - b) / 2 - 0.5, y + (a + b) / 2 - 0.5


def test_samples_of_the_network_fit_better_than_moved_ones():
    layout = doll_layout()
    planes, whole = dolls(6, seed=3), torch.ones(6, layout.side, layout.side)
    away = moved_labels(planes, torch.tensor([[0.3, 0.2, 0.1, 0.1]]).expand(6, 4), "zeros")
    fits, other_fits = (
        layout.fit(one_hot_planes(found.argmax(dim=1), 4, layout.side), whole) for found in (planes, away)
    )
    assert fits.min() > 0.9 * layout.usual
    assert other_fits.max() < 0.7 * layout.usual
