"""The crop of a photo and the way back."""

import json
import math

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib import UserError
from semantic.placement import Placement


def placement(scale=3.0, degrees=20.0, shift=(40.0, 25.0), size=(300, 260), resolution=32):
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    matrix = ((a, -b, shift[0]), (b, a, shift[1]))
    return Placement(photo="a.jpg", photo_size=size, resolution=resolution, matrix=matrix)


def smooth(width, height):
    """A picture that hardly changes from pixel to pixel, as a function of continuous coordinates."""
    y, x = np.mgrid[:height, :width] + 0.5
    return torch.from_numpy(np.stack([np.sin(x / 25), np.cos(y / 20), np.sin((x + y) / 40)])).float()


def test_a_saved_placement_reads_back_equal(tmp_path):
    before = placement()
    before.save(tmp_path / "placement.json")
    assert Placement.load(tmp_path / "placement.json") == before


@pytest.mark.parametrize(
    "change",
    [
        {"matrix": [[1, 0, 0], [0, 2, 0]]},
        {"matrix": [[1, 0], [0, 1]]},
        {"matrix": [[float("nan"), 0, 0], [0, float("nan"), 0]]},
        {"photo_size": [0, 5]},
        {"photo_size": 5},
        {"resolution": "64"},
        {"photo": None},
    ],
)
def test_a_damaged_placement_is_refused_in_one_line(tmp_path, change):
    path = tmp_path / "placement.json"
    placement().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"Expected the placement\.json of projector\.py"):
        Placement.load(path)


def test_a_file_that_is_no_json_is_refused_in_one_line(tmp_path):
    path = tmp_path / "placement.json"
    path.write_bytes(b"\x00\xff")
    with pytest.raises(UserError, match=r"Cannot read the placement"):
        Placement.load(path)


def test_the_crop_shows_what_the_matrix_says():
    place = placement()
    crop = place.crop(smooth(300, 260))
    for u, v in ((4, 6), (16, 16), (27, 11)):
        (a, c, tx), (b, d, ty) = place.matrix
        x, y = a * (u + 0.5) + c * (v + 0.5) + tx, b * (u + 0.5) + d * (v + 0.5) + ty
        expected = [math.sin(x / 25), math.cos(y / 20), math.sin((x + y) / 40)]
        assert crop[:, v, u].tolist() == pytest.approx(expected, abs=0.03)


def test_a_centred_crop_equals_the_picture_resized():
    pixels = np.random.default_rng(0).integers(0, 256, [128, 128], np.uint8)
    found = Placement.centered("a", (128, 128), 32).crop(torch.from_numpy(pixels)[None])[0]
    resized = np.asarray(PIL.Image.fromarray(pixels).convert("F").resize((32, 32), PIL.Image.BICUBIC))
    assert np.abs(found.numpy() - resized.clip(0, 255)).max() < 2


def test_a_crop_of_the_photo_at_its_own_size_is_the_photo():
    photo = torch.rand(3, 32, 32)
    crop = Placement.centered("a", (32, 32), 32).crop(photo)
    assert torch.allclose(crop, photo, atol=1e-5)


def test_what_is_put_back_lies_where_it_was_taken_from():
    place = placement(scale=2.0, shift=(100.0, 60.0))
    photo = smooth(300, 260)
    back, cover = place.to_photo(place.crop(photo))
    inner = cover[0] == 1
    assert inner.sum() > 0.9 * (32 * 2) ** 2
    assert (back - photo)[:, inner].abs().max() < 0.08
    assert (back[:, cover[0] == 0] == 0).all()
    assert cover.sum().item() == pytest.approx((32 * 2) ** 2, rel=0.01)


def test_a_crop_that_leaves_the_photo_is_continued_and_put_back_in_part():
    place = placement(shift=(-60.0, 200.0))
    photo = smooth(300, 260)
    assert place.crop(photo).isfinite().all()
    _, cover = place.to_photo(torch.ones(1, 32, 32))
    assert 0 < cover.mean() < 0.5


def test_a_photo_of_another_size_is_refused():
    with pytest.raises(UserError, match="Name that photo"):
        placement().crop(torch.zeros(3, 10, 10))
