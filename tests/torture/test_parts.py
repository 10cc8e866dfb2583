"""What works in parts, so that huge pictures do not fill the memory, gives the same as it would in one piece."""

from types import SimpleNamespace

import numpy as np
import pytest

from dnnlib import UserError
from semantic import mask_files
from semantic.editing import latents
from semantic.regions import Regions
from semantic.sources import palette
from training import archive


@pytest.mark.parametrize("shape", [(9, 7, 3), (64, 64), (1, 300, 3), (300, 1)])
@pytest.mark.parametrize("level", [0, 1])
def test_png_packed_in_parts_reads_back(monkeypatch, shape, level):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    monkeypatch.setattr(archive, "PACKED_AT_ONCE", 50)
    data = archive.encode_png(pixels, level)
    assert (archive.decode_plain_png(data) == pixels).all()
    assert (np.array(archive.decode_image(data, "x")) == pixels).all()


def test_colours_decoded_in_parts_give_the_same_classes(monkeypatch):
    """Antialiased edges are the hard part: they look at the pixels around them, across the parts' borders."""
    random = np.random.default_rng(0)
    colors = np.array([(0, 0, 0), (255, 255, 0), (0, 0, 255), (120, 10, 20)], np.uint8)
    blocks = colors[random.integers(0, 4, [6, 7])].repeat(8, 0).repeat(8, 1).astype(np.float32)
    smooth = (blocks + np.roll(blocks, 1, 0) + np.roll(blocks, 1, 1) + np.roll(blocks, 2, 1)) / 4
    pixels = smooth.astype(np.uint8)
    coder = palette.Palette(Regions(["background", "a", "b", "c"], colors.tolist()))
    whole = coder.indices(pixels, "mask")
    for size in (1, 56, 200, 1000):
        monkeypatch.setattr(palette, "PIXELS_AT_ONCE", size)
        assert (coder.indices(pixels, "mask") == whole).all(), size
    with pytest.raises(UserError, match=r"colours that are not in the palette, such as \(10, 250, 10\)"):
        coder.indices(np.full([40, 40, 3], (10, 250, 10), np.uint8), "mask")


def test_areas_counted_in_parts(monkeypatch):
    mask = np.random.default_rng(0).integers(0, 256, [37, 11], np.uint8)
    monkeypatch.setattr(mask_files, "COUNTED_AT_ONCE", 23)
    assert (mask_files.class_areas(mask) == np.bincount(mask.ravel(), minlength=256)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_codes_of_every_kind_of_numbers_are_read(tmp_path, dtype, order, save):
    codes = np.asarray(np.arange(24).reshape(1, 4, 6), dtype, order=order)
    save(tmp_path / "w.npz", w=codes)
    found = latents.read_latents(tmp_path / "w.npz", SimpleNamespace(num_ws=4, w_dim=6)).numpy()
    assert found.dtype == np.float32
    assert (found == codes).all()
