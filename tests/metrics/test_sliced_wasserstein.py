import numpy as np
import pytest
import torch

from dnnlib import UserError
from metrics import sliced_wasserstein as swd
from semantic.procedural import ProceduralFaces


def arrays(images: torch.Tensor) -> dict[str, np.ndarray]:
    patches = swd.PatchSet(images.shape[-1])
    for start in range(0, len(images), 16):
        patches.append(images[start : start + 16], start, seed=start)
    return patches.arrays()


def test_patches_are_squares_of_the_level():
    level = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    found = swd.draw_patches(level, seed=0, count=40).reshape(2, 40, 3, 7, 7)
    corner = found[:, :, :1, :1, :1]
    offsets = torch.arange(3)[:, None, None] * 256 + torch.arange(7)[:, None] * 16 + torch.arange(7)
    assert (found == corner + offsets).all()
    rows, columns = corner % 256 // 16, corner % 16
    assert (rows.min(), columns.min()) == (0, 0)
    assert (rows.max(), columns.max()) == (9, 9)


def test_distance_of_a_shifted_set_is_the_mean_projected_shift():
    rows = torch.randn(500, 40, generator=torch.Generator().manual_seed(0))
    shift = torch.zeros(40)
    shift[3] = 2
    expected = 2 * np.sqrt(2 / (np.pi * 40))  # mean of |d_3| over unit vectors in 40 dimensions
    assert swd.sliced_wasserstein(rows, rows) == 0
    assert swd.sliced_wasserstein(rows, rows + shift) == pytest.approx(expected, rel=0.1)


def test_channels_are_normalized_over_the_whole_set():
    rows = torch.randn(400, 3, 49, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 9])[:, None] + 7
    found = swd.normalize_channels(rows.flatten(1)).reshape(400, 3, 49)
    torch.testing.assert_close(found.mean(dim=(0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=(0, 2), correction=0), torch.ones(3))


def test_distance_grows_from_real_over_disturbed_to_noise():
    faces = ProceduralFaces(32, seed=1)
    images = torch.from_numpy(np.stack([faces.render(i)[0] for i in range(128)]).transpose(0, 3, 1, 2).copy())
    real, other = images.split(64)
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, other.shape, generator=g)
    disturbed = [(other.float() * (1 - a) + noise * a).to(torch.uint8) for a in (0.05, 0.2, 1)]
    reference = arrays(real)
    found = [swd.compare_patches(reference, arrays(images))["mean"] for images in (other, *disturbed)]
    assert found == sorted(found)
    assert found[0] < found[-1] / 3


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(UserError, match="8 pixels"):
        swd.PatchSet(4)
