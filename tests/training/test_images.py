import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib import UserError
from training.images import image_grid, save_image, tile, to_uint8


def test_to_uint8_rounds_and_clamps():
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0, -1 + 1.4 / 127.5, -1 + 1.6 / 127.5])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 1, 2]


def test_bytes_survive_the_way_to_floats_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(torch.from_numpy(pixels).float() / 127.5 - 1), pixels)


def test_tile_places_images_row_by_row():
    images = np.random.RandomState(0).randint(0, 255, [5, 3, 2, 4], dtype=np.uint8)
    picture = tile(images, columns=3)
    assert picture.shape == (4, 12, 3)
    for i, image in enumerate(images):
        y, x = 2 * (i // 3), 4 * (i % 3)
        assert np.array_equal(picture[y : y + 2, x : x + 4], image.transpose(1, 2, 0))
    assert not picture[2:, 8:].any()


def test_grid_has_its_size_even_with_few_or_many_images():
    grey = torch.zeros(3, 1, 4, 4)
    assert image_grid(grey, (2, 4)).shape == (16, 8, 3)
    assert image_grid(to_uint8(grey), (2, 1)).shape == (4, 8, 3)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_saved_pictures_read_back(tmp_path, shape):
    pixels = np.random.RandomState(0).randint(0, 255, shape, dtype=np.uint8)
    save_image(tmp_path / "a" / "b.png", pixels)
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "a" / "b.png")), pixels)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.png"]


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Name it \.png"):
        save_image(tmp_path / "a.xyz", np.zeros([2, 2], np.uint8))
