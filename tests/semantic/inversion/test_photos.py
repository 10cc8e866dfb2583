"""Photos and masks from files, folders and archives, and what is said of bad ones."""

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib import UserError
from semantic.inversion.photos import crop_mask, find_photos
from semantic.placement import Placement
from tests.runs import make_archive
from tests.semantic.inversion.doll import REGIONS


def picture(path, size=(40, 30), exif=None):
    pixels = np.random.default_rng(0).integers(0, 256, [size[1], size[0], 3], np.uint8)
    path.parent.mkdir(exist_ok=True, parents=True)
    PIL.Image.fromarray(pixels).save(path, **({"exif": exif} if exif else {}))
    return path


def mask(path, values, size=(40, 30)):
    path.parent.mkdir(exist_ok=True, parents=True)
    PIL.Image.fromarray(np.resize(np.array(values, np.uint8), [size[1], size[0]])).save(path)
    return path


def test_a_photo_is_turned_as_its_exif_data_ask(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    (file,) = find_photos(str(picture(tmp_path / "a.jpg", exif=exif)))
    assert file.read().shape == (3, 40, 30)


def test_all_photos_of_a_folder_are_found_with_their_masks(tmp_path):
    for name in ("a.png", "b.jpg", "deeper/a.png"):
        picture(tmp_path / "photos" / name)
    mask(tmp_path / "masks" / "b.png", [1])
    files = find_photos(str(tmp_path / "photos"), str(tmp_path / "masks"))
    assert [file.name for file in files] == ["a", "b", "deeper-a"]
    assert files[0].read_mask(REGIONS, (40, 30)) is None
    assert files[1].read_mask(REGIONS, (80, 60)).shape == (60, 80)
    assert len(find_photos(str(tmp_path / "photos"), limit=2)) == 2


def test_an_archive_brings_its_own_masks(tmp_path):
    files = find_photos(make_archive(tmp_path / "faces.zip", count=3))
    assert len(files) == 3
    assert files[0].read_mask(REGIONS, (32, 32)).max() < 3


def test_masks_in_the_colours_of_the_regions_are_read(tmp_path):
    path = picture(tmp_path / "a.png")
    colors = np.array(REGIONS.colors, np.uint8)
    PIL.Image.fromarray(np.broadcast_to(colors[2], [30, 40, 3])).save(tmp_path / "m.png")
    (file,) = find_photos(str(path), str(tmp_path / "m.png"))
    assert (file.read_mask(REGIONS, (40, 30)) == 2).all()


@pytest.mark.parametrize(
    ("values", "size", "message"),
    [
        ([9], (40, 30), "class index 9, but this network has reg"),
        ([1], (30, 30), "30 x 30 pixels, but its photo has 40"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_one_line(tmp_path, values, size, message):
    path = picture(tmp_path / "a.png")
    (file,) = find_photos(str(path), str(mask(tmp_path / "m.png", values, size)))
    with pytest.raises(UserError, match=message):
        file.read_mask(REGIONS, (40, 30))


def test_folders_without_photos_and_missing_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no photo"):
        find_photos(str(tmp_path))
    with pytest.raises(UserError, match="File or folder"):
        find_photos(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="Cannot open"):
        find_photos(str(tmp_path / "nothing.jpg"))[0].read()


def test_tiny_and_broken_photos_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="Each side needs 8 or more"):
        find_photos(str(picture(tmp_path / "a.png", size=(4, 40))))[0].read()
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="Cannot read"):
        find_photos(str(tmp_path / "b.png"))[0].read()


def test_the_crop_of_a_mask_takes_what_most_points_show():
    indices = torch.zeros(64, 64, dtype=torch.uint8)
    indices[:, 30:] = 3  # the seventh of sixteen columns of four pixels is half and half, the eighth all 3
    found = crop_mask(indices, Placement.centered("a", (64, 64), 16), 4)
    assert found[0].tolist()[:7] == [0] * 7
    assert found[0].tolist()[8:] == [3] * 8


@pytest.mark.parametrize("target", ["photos", "photos/a.png"])
def test_masks_of_other_photos_are_refused(tmp_path, target):
    for folder, name in (("photos", "a.png"), ("masks", "b.png")):
        picture(tmp_path / folder / name)
    with pytest.raises(UserError, match=r"No mask in .*masks has the base name of a photo"):
        find_photos(str(tmp_path / target), str(tmp_path / "masks"))
