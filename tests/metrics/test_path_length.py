import math

import numpy as np
import pytest
import torch

from metrics.path_length import path_distances, prepare, slerp, trimmed_mean


class Linear:
    """Images that are linear in w, w = z."""

    def mapping(self, z, c):
        return z[:, None].repeat(1, 2, 1)


def distances(space: str, A: torch.Tensor, z: tuple, t: torch.Tensor, epsilon: float = 1e-4) -> torch.Tensor:
    c = torch.zeros(len(t), 0)
    return path_distances(Linear(), lambda x: x, z, c, t, epsilon, space, lambda ws: ws[:, 0] @ A)


@pytest.fixture
def case():
    g = torch.Generator().manual_seed(0)
    z = tuple(torch.randn(2, 50, 6, generator=g, dtype=torch.float64))
    A = torch.randn(6, 12, generator=g, dtype=torch.float64)
    return A, z, torch.rand(50, generator=g, dtype=torch.float64)


def test_straight_paths_through_a_linear_generator_have_a_known_length(case):
    A, z, t = case
    expected = ((z[1] - z[0]) @ A).square().sum(dim=1)
    torch.testing.assert_close(distances("w", A, z, t), expected, rtol=1e-6, atol=0)


def test_paths_on_the_sphere_have_constant_speed(case):
    _, z, t = case
    a, b = (v / v.norm(dim=1, keepdim=True) for v in z)
    angle = torch.arccos((a * b).sum(dim=1))
    torch.testing.assert_close(distances("z", torch.eye(6).double(), z, t), angle**2, rtol=1e-6, atol=0)


def test_sphere_interpolation_starts_and_ends_where_it_should():
    a, b = torch.tensor([[2.0, 0]]), torch.tensor([[0, 5.0]])
    for t, expected in [(0, [1, 0]), (1, [0, 1]), (1 / 3, [math.cos(math.pi / 6), 0.5])]:
        torch.testing.assert_close(slerp(a, b, torch.tensor([[float(t)]])), torch.tensor([expected]).float())


def test_extremes_are_left_out():
    values = np.arange(1000.0)
    values[-1] = 1e9
    assert trimmed_mean(np.random.RandomState(0).permutation(values)) == pytest.approx(np.arange(9, 991).mean())


def test_crop_takes_the_lower_middle_and_large_images_shrink():
    image = torch.zeros(1, 1, 512, 512) - 1
    image[:, :, 192:448, 128:384] = 1
    assert prepare(image, crop=True).shape == (1, 3, 256, 256)
    assert (prepare(image, crop=True) == 255).all()
    assert prepare(image, crop=False).shape == (1, 3, 256, 256)
