import numpy as np
import pytest
import torch

from dnnlib import UserError
from metrics.structural_similarity import ms_ssim, num_scales


def plain_ssim(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure of two grey images, place by place (Wang et al. 2004)."""
    across = np.arange(11) - 5
    window = np.exp(-(across[:, None] ** 2 + across**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            structure = (2 * cov + c2) / (vp + vq + c2)
            values.append(((2 * mp * mq + c1) / (mp**2 + mq**2 + c1) * structure, structure))
    return tuple(np.mean(values, axis=0))


def test_agrees_with_a_plain_loop_at_one_and_two_scales():
    rng = np.random.RandomState(0)
    a = rng.rand(28, 28) * 255
    b = np.clip(a + rng.randn(28, 28) * 30, 0, 255)
    halves = [x.reshape(14, 2, 14, 2).mean(axis=(1, 3)) for x in (a, b)]
    weights = np.array([0.0448, 0.2856]) / (0.0448 + 0.2856)
    expected = plain_ssim(a, b)[1] ** weights[0] * plain_ssim(*halves)[0] ** weights[1]
    found = ms_ssim(*(torch.from_numpy(x)[None, None] for x in (a, b)))
    assert found.item() == pytest.approx(expected, rel=1e-4)
    one = ms_ssim(*(torch.from_numpy(x)[None, None] for x in halves))
    assert one.item() == pytest.approx(plain_ssim(*halves)[0], rel=1e-4)


def test_equal_images_are_fully_alike_and_noise_is_not():
    a = torch.randint(0, 256, [3, 3, 64, 64], generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(3))
    assert (ms_ssim(a, a.roll(9, dims=3)) < 0.2).all()


def test_small_images_have_fewer_scales():
    assert [num_scales(side) for side in (8, 16, 32, 64, 128, 256, 1024)] == [0, 1, 2, 3, 4, 5, 5]
    with pytest.raises(UserError, match="11 pixels"):
        ms_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
