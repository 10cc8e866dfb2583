"""Datasets of images: what they give, how they are read, and what they say about damaged archives."""

import io
import json
import math
import pickle
import threading
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from torch._utils import ExceptionWrapper

from dnnlib import UserError
from training.archive import (
    Archive,
    create_archive,
    decode_image,
    decode_plain_png,
    encode_png,
    image_name,
)
from training.dataset import ImageFolderDataset


def pictures(count=4, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [count, side, side, 3], np.uint8)


def write(dest, images, metadata=None, extra=()):
    with create_archive(dest) as add:
        for i, image in enumerate(images):
            add(image_name(i), encode_png(image))
        for name, data in extra:
            add(name, data)
        if metadata is not None:
            add("dataset.json", json.dumps(metadata).encode())
    return str(dest)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dest", ["set.zip", "folder"])
def test_gives_the_images_that_were_written(tmp_path, dest):
    images = pictures()
    dataset = ImageFolderDataset(write(tmp_path / dest, images))
    assert (dataset.name, len(dataset), dataset.resolution, dataset.num_channels) == (dest.split(".")[0], 4, 8, 3)
    assert dataset.image_shape == [3, 8, 8]
    for item, expected in zip(dataset, images, strict=False):
        image, label = item  # as upstream's data sets
        assert (image == expected.transpose(2, 0, 1)).all()
        assert label.shape == (0,)
    for item, image in zip(dataset, images, strict=False):
        assert item.image.dtype == np.uint8
        assert (item.image == image.transpose(2, 0, 1)).all()
        assert item.label.shape == (0,)
        assert item.label.dtype == np.float32


@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("shape", [(5, 7, 3), (6, 3)])
def test_png_is_what_other_programs_read(level, shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    data = encode_png(pixels, level)
    assert (np.asarray(PIL.Image.open(io.BytesIO(data))) == pixels).all()
    assert (decode_plain_png(data) == pixels).all()


def test_fast_png_reading_leaves_everything_else_to_the_decoder():
    pixels = pictures(1)[0]
    data = encode_png(pixels)
    assert decode_plain_png(encoded(np.tile(np.arange(64, dtype=np.uint8), [64, 1]))) is None, "filtered rows"
    assert decode_plain_png(encoded(pixels, "JPEG")) is None
    for end in range(0, len(data), 7):
        assert decode_plain_png(data[:end]) is None, "broken off"
    damaged = bytearray(data)
    damaged[60] ^= 1
    assert decode_plain_png(bytes(damaged)) is None, "checksum"


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp"])
def test_reads_other_formats(tmp_path, suffix):
    image = np.full([8, 8, 3], (200, 100, 50), np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / f"a.{suffix}")
    item = ImageFolderDataset(tmp_path)[0]
    assert np.abs(item.image.astype(int) - image.transpose(2, 0, 1)).max() < 8


def test_grey_images_have_one_channel_and_three_in_previews(tmp_path):
    grey = pictures(2)[..., 0]
    dataset = ImageFolderDataset(write(tmp_path / "a.zip", grey))
    assert dataset.image_shape == [1, 8, 8]
    assert (dataset[1].image[0] == grey[1]).all()
    assert dataset.preview([0, 1])[""].shape == (2, 3, 8, 8)


def test_masks_are_not_images(tmp_path):
    images = pictures(2)
    dataset = ImageFolderDataset(
        write(tmp_path / "a.zip", images, extra=[("masks/" + image_name(0), encode_png(images[0]))])
    )
    assert len(dataset) == 2
    assert list(dataset.preview([1, 0])) == [""]
    assert (dataset.preview([1, 0])[""] == images[[1, 0]].transpose(0, 3, 1, 2)).all()


def test_mirrored_half_follows_the_originals(tmp_path):
    images = pictures(3)
    dataset = ImageFolderDataset(write(tmp_path / "a.zip", images), xflip=True)
    assert len(dataset) == 6
    for i, image in enumerate(images):
        assert (dataset[i].image == image.transpose(2, 0, 1)).all()
        assert (dataset[3 + i].image == image[:, ::-1].transpose(2, 0, 1)).all()
        assert dataset.get_details(3 + i).xflip
        assert dataset.get_details(3 + i).raw_idx == i


def test_subset_follows_from_the_seed(tmp_path):
    path = write(tmp_path / "a.zip", pictures(30))

    def chosen(**options):
        dataset = ImageFolderDataset(path, max_size=10, **options)
        return [dataset.get_details(i).raw_idx for i in range(len(dataset))]

    assert len(set(chosen())) == 10
    assert chosen() == chosen(random_seed=0) != chosen(random_seed=1)
    assert chosen(xflip=True) == chosen() * 2
    assert len(ImageFolderDataset(path, max_size=100)) == 30


def test_class_labels_become_one_hot(tmp_path):
    labels = [[image_name(i), k] for i, k in enumerate([2, 0, 1])][::-1]
    path = write(tmp_path / "a.zip", pictures(3), {"labels": labels})
    dataset = ImageFolderDataset(path, use_labels=True, xflip=True)
    assert (dataset.label_shape, dataset.label_dim, dataset.has_labels, dataset.has_onehot_labels) == (
        [3],
        3,
        True,
        True,
    )
    assert [dataset[i].label.tolist() for i in (0, 1, 5)] == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert dataset.get_details(0).raw_label == 2
    assert ImageFolderDataset(path).label_dim == 0


def test_vector_labels_are_given_as_they_are(tmp_path):
    labels = [[image_name(i), [0.5 * i, -1.0]] for i in range(3)]
    dataset = ImageFolderDataset(write(tmp_path / "a", pictures(3), {"labels": labels}), use_labels=True)
    assert not dataset.has_onehot_labels
    assert dataset.get_label(2).tolist() == [1.0, -1.0]
    assert dataset.get_label(2).dtype == np.float32


def test_asking_for_labels_that_are_not_there_gives_none(tmp_path):
    dataset = ImageFolderDataset(write(tmp_path / "a.zip", pictures(2), {"labels": None}), use_labels=True)
    assert not dataset.has_labels


def test_a_pickled_dataset_reads_on(tmp_path):
    images = pictures()
    dataset = ImageFolderDataset(write(tmp_path / "a.zip", images))
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy[2].image == images[2].transpose(2, 0, 1)).all()


def test_loader_processes_read_from_one_zip(tmp_path):
    images = pictures(16)
    dataset = ImageFolderDataset(write(tmp_path / "a.zip", images))
    dataset[0]  # the zip is open in this process already
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=2)
    assert (torch.cat([batch.image for batch in loader]).numpy() == images.transpose(0, 3, 1, 2)).all()


def test_threads_read_from_one_zip(tmp_path):
    images = pictures(8, side=64)
    dataset = ImageFolderDataset(write(tmp_path / "a.zip", images))
    wrong = []

    def read(start):
        for i in range(40):
            k = (start + i) % 8
            if (dataset[k].image != images[k].transpose(2, 0, 1)).any():
                wrong.append(k)

    threads = [threading.Thread(target=read, args=[k]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_error_in_a_loader_process_stays_one_line(tmp_path):
    write(tmp_path / "a", pictures(2))
    (tmp_path / "a" / image_name(1)).write_bytes(b"no image")
    dataset = ImageFolderDataset(tmp_path / "a")
    try:
        dataset[1]
    except UserError:
        in_worker = ExceptionWrapper(where="in DataLoader worker process 0")  # what a worker sends to its parent
    with pytest.raises(UserError) as caught:
        in_worker.reraise()
    assert str(caught.value).startswith(f"Cannot read {image_name(1)} in {tmp_path}")
    assert "Traceback" not in str(caught.value)


def iterate(*arguments, **options):
    dataset = ImageFolderDataset(*arguments, **options)
    for i in range(len(dataset)):
        yield dataset[i]


def refuse(message, *arguments, **options):
    with pytest.raises(UserError, match=message) as caught:
        list(iterate(*arguments, **options))
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files_are_told_apart(tmp_path):
    refuse("File or folder .*nothing.zip", tmp_path / "nothing.zip")
    (tmp_path / "a.tar").write_bytes(b"x" * 1000)
    refuse("a.tar is not a zip", tmp_path / "a.tar")
    refuse("holds no images", tmp_path)


def test_broken_zip_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    write(path, pictures())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse("incomplete", path)
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    refuse(r"Cannot read 00000/img00000000.png in .*a.zip: Bad CRC", path)


def test_unusable_images_are_named(tmp_path):
    refuse(
        "16x8, but must be square.*--transform=center-crop", write(tmp_path / "a.zip", [np.zeros([8, 16, 3], np.uint8)])
    )
    refuse("12x12, but must be .* power-of-two", write(tmp_path / "b.zip", pictures(1, side=12)))
    refuse(
        "img00000001.png in .* is 16x16, but the first", write(tmp_path / "c.zip", [pictures(1)[0], pictures(1, 16)[0]])
    )
    refuse("are 8x8, not 16x16", write(tmp_path / "d.zip", pictures()), resolution=16)
    refuse("img00000001.png in .* colour", write(tmp_path / "e.zip", [pictures(1)[0, ..., 0], pictures(1)[0]]))
    cut = encoded(pictures(1, 64)[0])[:2000]
    refuse("Cannot read z.png in .*", write(tmp_path / "f.zip", pictures(1, 64), extra=[("z.png", cut)]))


def test_wrong_labels_are_refused(tmp_path):
    names = [image_name(i) for i in range(2)]
    for number, (labels, message) in enumerate(
        [
            ([[names[0], 1]], "no label for 00000/img00000001.png"),
            ([[names[0], 1], [names[1], -1]], "class numbers from 0"),
            ([[names[0], [1, 2]], [names[1], [1]]], "of one length"),
            ([1, 2], r"must be a list of \[image name, label\]"),
            ([[names[0], 1], [names[0], 2], [names[1], 1]], "two labels for 00000/img00000000.png, 1 and 2"),
            *(([[names[0], 1], [names[1], wrong]], "class numbers from 0") for wrong in ("1", True, None, 0.5, [])),
            *(([[names[0], [1.0]], [names[1], [wrong]]], "finite numbers") for wrong in ("1", True, math.nan, 1e300)),
            ([[names[0], 10**30], [names[1], 1]], "Number the classes"),
            ([[names[0], 1], [names[1], [1]]], "all of one kind"),
        ]
    ):
        path = write(tmp_path / f"{number}.zip", pictures(2), {"labels": labels})
        refuse(message, path, use_labels=True)
    for number, key in enumerate(("label", "Labels", "LABEL")):
        path = write(tmp_path / f"key{number}.zip", pictures(2), {key: []})
        refuse(f"an entry '{key}', but labels must be under 'labels'", path, use_labels=True)
    refuse("must be an object", write(tmp_path / "list.zip", pictures(2), [[names[0], 1]]))
    path = write(tmp_path / "json.zip", pictures(2), extra=[("dataset.json", b"{")])
    refuse("dataset.json in .* not valid JSON", path)


def test_names_that_lead_outside_are_refused(tmp_path):
    for number, name in enumerate(["../evil.png", "/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png"]):
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, encode_png(pictures(1)[0]))
        refuse("leads outside", path)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="The archive has no"):
        Archive(tmp_path / "a").read("../0.zip")


def test_images_that_declare_huge_sizes_are_not_decoded():
    data = bytearray(encode_png(pictures(1)[0]))
    data[16:24] = (9000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    assert decode_plain_png(bytes(data)) is None
    with pytest.raises(UserError, match=r"huge\.png has 9000x9000 pixels"):
        decode_image(bytes(data), "huge.png")


@pytest.mark.parametrize("dest", ["set.zip", "folder"])
def test_an_archive_appears_whole_or_not_at_all(tmp_path, dest):
    def break_off():
        with create_archive(tmp_path / dest) as add:
            add("a.png", b"x")
            assert not (tmp_path / dest).exists()
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_overwritten(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"), create_archive(tmp_path / "full"):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "mine.txt"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", pictures(1))
    assert len(ImageFolderDataset(tmp_path / "empty")) == 1


def test_equal_content_gives_equal_zips(tmp_path):
    write(tmp_path / "a.zip", pictures(2))
    write(tmp_path / "b.zip", pictures(2))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert {info.compress_type for info in zipfile.ZipFile(tmp_path / "a.zip").infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("form", ["deeper", "two deeper", "backslashes", "capitals"])
@pytest.mark.parametrize("packed", [True, False])
def test_archives_that_were_packed_again_are_read_alike(tmp_path, form, packed):
    images = pictures(3)
    labels = {"labels": [[image_name(i), i] for i in range(3)]}
    files = {image_name(i): encode_png(image) for i, image in enumerate(images)}
    files |= {f"masks/{name}": encode_png(np.zeros([8, 8], np.uint8)) for name in files}
    files["dataset.json"] = json.dumps(labels).encode()
    rename = {
        "deeper": lambda name: f"my set/{name}",
        "two deeper": lambda name: f"a/b/{name}",
        "backslashes": lambda name: name.replace("/", "\\"),
        "capitals": lambda name: name.replace("masks", "Masks").replace("dataset", "Dataset"),
    }[form]
    path = tmp_path / "a.zip"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(rename(name), data)
    else:
        for name, data in files.items():
            (path / rename(name)).parent.mkdir(parents=True, exist_ok=True)
            (path / rename(name)).write_bytes(data)
    dataset = ImageFolderDataset(path, use_labels=True)
    assert len(dataset) == 3
    for i, (image, label) in enumerate(dataset[k] for k in range(3)):
        assert (image == images[i].transpose(2, 0, 1)).all()
        assert label.argmax() == i


def test_masks_at_another_place_are_not_taken_for_images(tmp_path):
    for number, masks in enumerate(("x/masks", "Mask", "labels", "x/my_annotations/png")):
        path = tmp_path / f"{number}.zip"
        extra = [(f"{masks}/img{i:08d}.png", encode_png(np.zeros([8, 8], np.uint8))) for i in range(2)]
        refuse("seems to hold masks", write(path, pictures(2), extra=extra))
    names = [(f"face_masks/{i}.png", encode_png(pictures(1)[0])) for i in range(2)]
    assert len(ImageFolderDataset(write(tmp_path / "a.zip", pictures(2), extra=names))) == 4


def test_labels_in_another_place_are_found(tmp_path):
    path = tmp_path / "a"
    for folder in ("x", "y"):
        (path / folder).mkdir(parents=True)
        labels = []
        for i in range(2):
            (path / folder / f"{i}.png").write_bytes(encode_png(pictures(1)[0]))
            labels.append([f"{i}.png", i + 2 * (folder == "y")])
        (path / folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    dataset = ImageFolderDataset(path, use_labels=True)
    assert [int(dataset.get_label(i).argmax()) for i in range(4)] == [0, 1, 2, 3]


def test_labels_that_are_not_used_are_told(tmp_path):
    path = write(tmp_path / "a.zip", pictures(2), {"labels": [[image_name(i), i] for i in range(2)]})
    assert "Add --cond=1" in ImageFolderDataset(path).notes[0]
    assert not ImageFolderDataset(path, use_labels=True).notes
