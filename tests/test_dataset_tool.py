"""dataset_tool.py: every kind of source ends in the same kind of archive, or in one plain line."""

import io
import json
import pickle
import zipfile

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import dataset_tool
from semantic.dataset import MaskedImageDataset
from semantic.regions import CELEBAMASK, Regions
from semantic.sources.geometry import resize_mask
from tests.sources import encoded, make, mask, pairs, picture, refuse, run, save
from training.dataset import ImageFolderDataset


def test_layout_of_the_archive(tmp_path):
    images, masks = pairs(tmp_path)
    output = make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    archive = zipfile.ZipFile(tmp_path / "a.zip")
    names = [f"00000/img{i:08d}.png" for i in range(3)]
    assert sorted(archive.namelist()) == sorted([*names, *("masks/" + name for name in names), "dataset.json"])
    for i, name in enumerate(names):
        image = PIL.Image.open(io.BytesIO(archive.read(name)))
        index = PIL.Image.open(io.BytesIO(archive.read("masks/" + name)))
        assert (image.mode, index.mode) == ("RGB", "L")
        assert (np.asarray(image) == images[i]).all()
        assert (np.asarray(index) == masks[i]).all()
        assert len(archive.read(name)) > 16 * 16 * 3, "PNG is stored, not compressed"
    metadata = json.loads(archive.read("dataset.json"))
    assert metadata["labels"] is None
    assert metadata["regions"]["names"] == ["background", "region1", "region2"]
    assert len(metadata["regions"]["colors"]) == 3
    share = 100 * np.mean([m == 1 for m in masks])
    assert "3 images of 16x16 with masks of 3 regions: background" in output
    assert f"region1 {share:.1f}%" in output


def test_a_folder_is_the_same_as_a_zip(tmp_path):
    pairs(tmp_path)
    for dest in ("a.zip", "b"):
        make(tmp_path / dest, source=tmp_path / "images", masks=tmp_path / "masks")
    for one, other in zip(MaskedImageDataset(tmp_path / "a.zip"), MaskedImageDataset(tmp_path / "b"), strict=False):
        assert (one.image == other.image).all()
        assert (one.mask == other.mask).all()


def test_several_processes_keep_the_order(tmp_path):
    images, masks = pairs(tmp_path, count=21)
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks", workers=2)
    order = sorted(range(21), key=str)
    for i, item in zip(order, MaskedImageDataset(tmp_path / "a.zip"), strict=False):
        assert (item.image == images[i].transpose(2, 0, 1)).all()
        assert (item.mask == masks[i]).all()


def test_formats_and_nested_folders_are_mixed(tmp_path):
    flat = np.full([16, 16, 3], (200, 60, 20), np.uint8)
    for i, name in enumerate(["x/a.jpg", "x/b.jpeg", "c.webp", "d.bmp", "y/a.png"]):
        save(tmp_path / "images" / name, flat)
        index = np.full([16, 16], i, np.uint8)
        save(tmp_path / "masks" / (name.rsplit(".", 1)[0] + (".bmp" if i % 2 else ".png")), index)
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        for path in (tmp_path / "masks").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "masks"))
    for masks in ("masks", "masks.zip"):
        make(tmp_path / f"{masks}-out", source=tmp_path / "images", masks=tmp_path / masks)
        dataset = MaskedImageDataset(tmp_path / f"{masks}-out")
        assert [int(item.mask.max()) for item in (dataset[i] for i in range(5))] == [2, 3, 0, 1, 4]
        assert all(np.abs(dataset[i].image[:, 8, 8].astype(int) - (200, 60, 20)).max() < 6 for i in range(5))


def test_masks_in_a_flat_folder_match_by_base_name_alone(tmp_path):
    save(tmp_path / "images" / "x" / "a.png", picture())
    save(tmp_path / "images" / "masks_of_mine" / "a.png", mask())
    save(tmp_path / "images" / "masks_of_mine" / "other.png", mask())
    output = make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "images" / "masks_of_mine")
    assert "1 masks left out, since they have no image" in output
    assert len(MaskedImageDataset(tmp_path / "a.zip")) == 1


def test_jpeg_files_are_kept_where_nothing_changes(tmp_path):
    save(tmp_path / "images" / "a.jpg", picture(), quality=70)
    save(tmp_path / "images" / "b.png", picture())
    source = (tmp_path / "images" / "a.jpg").read_bytes()
    make(tmp_path / "same", source=tmp_path / "images")
    make(tmp_path / "small", source=tmp_path / "images", width=8)
    assert (tmp_path / "same" / "00000" / "img00000000.jpg").read_bytes() == source
    assert (tmp_path / "same" / "00000" / "img00000001.png").is_file()
    assert (tmp_path / "small" / "00000" / "img00000000.png").is_file()


def test_photos_are_turned_upright_and_made_rgb(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    image = np.full([16, 16, 3], 250, np.uint8)
    image[:8] = 5
    save(tmp_path / "images" / "a.jpg", image, exif=exif, quality=95)
    save(tmp_path / "images" / "b.png", image[..., 0])
    save(tmp_path / "images" / "c.png", (image[..., 0].astype(np.uint16) << 8))
    make(tmp_path / "a.zip", source=tmp_path / "images")
    dataset = ImageFolderDataset(tmp_path / "a.zip")
    assert dataset.image_shape == [3, 16, 16]
    assert [int(dataset[i].image[0, 2, 2]) > 128 for i in range(3)] == [True, False, False]
    assert [int(dataset[i].image[0, 14, 2]) > 128 for i in range(3)] == [False, True, True]


def test_the_same_part_of_image_and_mask_is_cropped(tmp_path):
    image, index = np.zeros([40, 24, 3], np.uint8), np.zeros([40, 24], np.uint8)
    image[8:20, :12], index[8:20, :12] = 255, 1  # the upper left quarter of the central square
    save(tmp_path / "images" / "a.png", image)
    save(tmp_path / "masks" / "a.png", index)
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks", "resize_filter": "box"}
    make(tmp_path / "a.zip", transform="center-crop", width=8, height=8, **options)
    item = MaskedImageDataset(tmp_path / "a.zip")[0]
    expected = np.zeros([8, 8], bool)
    expected[:4, :4] = True
    assert ((item.image > 127) == expected).all()
    assert (item.mask == expected).all()


def test_wide_crop_leaves_bars(tmp_path):
    save(tmp_path / "images" / "a.png", np.full([40, 40, 3], 255, np.uint8))
    save(tmp_path / "masks" / "a.png", np.ones([40, 40], np.uint8))
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks", "transform": "center-crop-wide"}
    for name, width, height in (("wide", 16, 8), ("tall", 8, 16)):
        make(tmp_path / name, width=width, height=height, **options)
        item = MaskedImageDataset(tmp_path / name)[0]
        inside = np.zeros([16, 16], bool)
        inside[(16 - height) // 2 : (16 + height) // 2, (16 - width) // 2 : (16 + width) // 2] = True
        assert ((item.image == 255) == inside).all()
        assert (item.mask == inside).all()


def test_an_archive_is_resized_with_labels_and_regions(tmp_path):
    pairs(tmp_path)
    names = ["background", "skin", "glasses"]
    regions = {"names": names, "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "transparent": [2]}
    make(tmp_path / "a", source=tmp_path / "images", masks=tmp_path / "masks")
    labels = [[f"00000/img{i:08d}.png", i % 2] for i in range(3)]
    (tmp_path / "a" / "dataset.json").write_text(json.dumps({"labels": labels, "regions": regions}))
    make(tmp_path / "b.zip", source=tmp_path / "a", width=8, height=8, max_images=2)
    dataset = MaskedImageDataset(tmp_path / "b.zip", use_labels=True)
    assert dataset.regions == Regions.from_dict(regions)
    assert dataset.resolution == 8
    assert [dataset.get_label(i).argmax() for i in range(2)] == [0, 1]
    full = MaskedImageDataset(tmp_path / "a")
    assert (dataset[1].mask == resize_mask(full[1].mask, (8, 8))).all()
    (tmp_path / "map.json").write_text(json.dumps({"background": ["background"], "face": ["glasses", 1]}))
    make(tmp_path / "c.zip", source=tmp_path / "b.zip", mask_map=tmp_path / "map.json")
    merged = MaskedImageDataset(tmp_path / "c.zip")
    assert merged.regions.names == ["background", "face"]
    assert (merged[0].mask == (dataset[0].mask > 0)).all()


def test_two_archives_share_out_the_images_of_a_source(tmp_path):
    pairs(tmp_path)
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    for name, choice in {"all": {}, "train": {"max_images": 2}, "aside": {"skip_images": 2}}.items():
        make(tmp_path / name, **options, **choice)
    whole, train, aside = (MaskedImageDataset(tmp_path / name) for name in ("all", "train", "aside"))
    assert len(train) == 2
    assert len(aside) == len(whole) - 2
    assert (train[1].image == whole[1].image).all()
    assert (aside[0].image == whole[2].image).all()


def test_skipped_drawings_are_the_first(tmp_path):
    size = {"source": "procedural", "width": 16, "height": 16}
    make(tmp_path / "all", **size, max_images=3)
    make(tmp_path / "rest", **size, max_images=1, skip_images=2)
    whole, rest = MaskedImageDataset(tmp_path / "all"), MaskedImageDataset(tmp_path / "rest")
    assert (rest[0].image == whole[2].image).all()
    assert (rest[0].mask == whole[2].mask).all()


def test_image_only_sources_keep_their_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("x/a.png", "x/b.png"):
            archive.writestr(name, encoded(picture()))
        archive.writestr("dataset.json", json.dumps({"labels": [["x/b.png", [0.5, 1]], ["x/a.png", [2, 3]]]}))
    assert "without masks" in make(tmp_path / "out.zip", source=tmp_path / "in.zip")
    dataset = ImageFolderDataset(tmp_path / "out.zip", use_labels=True)
    assert dataset.get_label(0).tolist() == [2, 3]
    assert "regions" not in json.loads(zipfile.ZipFile(tmp_path / "out.zip").read("dataset.json"))


@pytest.mark.parametrize("workers", [1, 2])
def test_published_lmdb(tmp_path, workers):
    lmdb = pytest.importorskip("lmdb")
    images, masks = [picture(seed=i) for i in range(12)], [mask(seed=i, classes=13) for i in range(12)]
    with lmdb.open(str(tmp_path / "l"), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for i in range(12):
            transaction.put(b"image-%07d" % i, encoded(images[i], "JPEG"))
            transaction.put(b"label-%07d" % i, encoded(masks[i]))
        transaction.put(b"image-length", b"12")
    make(tmp_path / "a.zip", source=tmp_path / "l", workers=workers)
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions == CELEBAMASK
    assert all((dataset[i].mask == masks[i]).all() for i in range(12))
    assert zipfile.ZipFile(tmp_path / "a.zip").read("00000/img00000003.jpg") == encoded(images[3], "JPEG")


def test_procedural_portraits(tmp_path):
    options = {"source": "procedural", "max_images": 2, "width": 16, "height": 16}
    for name, more in (("a", {}), ("b", {}), ("other", {"seed": 1}), ("test", {"split": "test"})):
        make(tmp_path / name, **options, **more)
    content = {name: MaskedImageDataset(tmp_path / name)[0].image.tobytes() for name in ("a", "b", "other", "test")}
    assert content["a"] == content["b"]
    assert len(set(content.values())) == 3
    assert MaskedImageDataset(tmp_path / "a").regions == CELEBAMASK
    refuse("has its own masks. Remove --masks", tmp_path / "c", masks=tmp_path, **options)


def test_a_split_parts_other_sources_in_two(tmp_path):
    images, _ = pairs(tmp_path, count=20)
    contents = []
    for split in ("train", "test"):
        make(tmp_path / split, source=tmp_path / "images", split=split, seed=3)
        contents.append({item.image.tobytes() for item in pickle.loads(pickle.dumps(list_of(tmp_path / split)))})
    assert [len(part) for part in contents] == [18, 2]
    assert contents[0] | contents[1] == {image.transpose(2, 0, 1).tobytes() for image in images}


def list_of(path):
    dataset = ImageFolderDataset(path)
    return [dataset[i] for i in range(len(dataset))]


def test_errors_of_worker_processes_stay_one_line(tmp_path):
    pairs(tmp_path, count=20)
    (tmp_path / "images" / "7.png").write_bytes(b"no image")
    result = run(source=tmp_path / "images", dest=tmp_path / "out", workers=2)
    assert result.exit_code == 1
    assert "Cannot read 7.png in" in result.output.strip().rsplit("\n", 1)[-1]
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_used_are_named(tmp_path):
    dest = tmp_path / "out.zip"
    refuse("File or folder", dest, source=tmp_path / "nothing")
    (tmp_path / "images").mkdir()
    refuse("holds no image", dest, source=tmp_path / "images")
    save(tmp_path / "images" / "a.png", picture(16, height=20))
    refuse("a.png in", dest, source=tmp_path / "images")
    refuse("16x20, not square. Add --transform=center-crop", dest, source=tmp_path / "images")
    save(tmp_path / "images" / "a.png", picture(20))
    refuse("must be a power of two. Add", dest, source=tmp_path / "images")
    save(tmp_path / "images" / "a.png", picture(16))
    save(tmp_path / "images" / "b.png", picture(32))
    refuse("b.png in", dest, source=tmp_path / "images")
    refuse("gives 32x32 pixels, but the first image 16x16", dest, source=tmp_path / "images")
    (tmp_path / "images" / "b.png").write_bytes(encoded(picture(64))[:500])
    refuse("Cannot read b.png in", dest, source=tmp_path / "images")


def test_masks_that_cannot_be_used_are_named(tmp_path):
    dest = tmp_path / "out.zip"
    pairs(tmp_path)
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    refuse("--mask-map is for masks", dest, source=tmp_path / "images", mask_map=tmp_path / "m.json")
    save(tmp_path / "masks" / "1.png", np.full([16, 16], 255, np.uint8))
    refuse("1.png in", dest, **options)
    refuse("255", dest, **options)
    save(tmp_path / "masks" / "1.png", mask(16, height=24))
    refuse("but its mask is 16x24, which is another shape", dest, **options)
    (tmp_path / "masks" / "1.png").unlink()
    refuse("1 of 3 images have no mask. For example, 1.png in", dest, **options)
    save(tmp_path / "masks" / "1.jpg", mask())
    refuse("is a JPEG, and JPEG blurs class indices", dest, **options)
    save(tmp_path / "images" / "0.jpg", picture())
    refuse("have the same base name", dest, **options)


def test_sizes_and_destinations_are_checked_first(tmp_path):
    source = tmp_path / "nothing"
    refuse("--width=16 and --height=8", tmp_path / "a.zip", source=source, width=16, height=8)
    refuse("must be a power of two", tmp_path / "a.zip", source=source, width=24)
    refuse("needs both --width and --height", tmp_path / "a.zip", source=source, transform="center-crop-wide")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    result = run(source=source, dest=tmp_path / "full")
    assert "is not empty" in result.output
    refuse("ends in .zip", tmp_path / "a.tar", source=source)
    (tmp_path / "file").write_text("")
    refuse("is a file", tmp_path / "file", source=source)


@pytest.mark.parametrize("dest", ["a.zip", "folder"])
def test_ctrl_c_leaves_nothing(tmp_path, dest, monkeypatch):
    pairs(tmp_path)
    before = sorted(tmp_path.iterdir())

    def interrupted(self, sample):
        if "2.png" in sample.where:
            raise KeyboardInterrupt
        return np.asarray(sample.image), sample.mask

    monkeypatch.setattr("semantic.sources.geometry.Geometry.apply", interrupted)
    refuse(
        "Stopped by Ctrl-C after 2 of 3 images", tmp_path / dest, source=tmp_path / "images", masks=tmp_path / "masks"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_help_shows_examples():
    output = CliRunner().invoke(dataset_tool.main, ["--help"]).output
    for word in ("--palette", "--mask-map", "EXAMPLES", "--source=procedural", "CelebAMask-HQ"):
        assert word in output
