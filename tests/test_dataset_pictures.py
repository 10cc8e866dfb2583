"""dataset_tool.py: what cannot be taken as it is, is counted in the closing line, or refused."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest

from semantic.dataset import MaskedImageDataset
from semantic.regions import CELEBAMASK
from tests.sources import celebamask, make, mask, pairs, picture, refuse, run, save
from training.dataset import ImageFolderDataset


def closing(output):
    return output.strip().splitlines()[-1]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path, mode):
    """Their hidden colour must not show."""
    pixels = np.zeros([16, 16, 4], np.uint8)
    pixels[...] = (255, 0, 255, 0)
    pixels[:8] = (40, 40, 40, 255)
    image = PIL.Image.fromarray(pixels)
    if mode == "P":
        image = PIL.Image.frombytes("P", (16, 16), (pixels[..., 3] > 0).astype(np.uint8).tobytes())
        image.putpalette([255, 0, 255, 40, 40, 40])
        image.info["transparency"] = 0
    elif mode == "LA":
        image = image.convert("LA")
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "a.png")
    save(tmp_path / "images" / "b.png", picture())
    output = make(tmp_path / "a.zip", source=tmp_path / "images")
    found = ImageFolderDataset(tmp_path / "a.zip")[0].image
    assert (found[:, :8] == 40).all()
    assert (found[:, 8:] == 255).all()
    assert "1 images with transparent pixels" in closing(output)


def test_opaque_images_with_alpha_are_not_counted(tmp_path):
    save(tmp_path / "images" / "a.png", np.full([16, 16, 4], 255, np.uint8))
    assert "transparent" not in make(tmp_path / "a.zip", source=tmp_path / "images")


def test_files_that_are_not_read_are_counted(tmp_path):
    pairs(tmp_path)
    for name in ("a.tif", "b.tif", "x/c.gif", "notes.txt", "dataset.json"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_text("{}")
    line = closing(make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks"))
    for part in ("2 .tif files left out", "1 .gif files left out", "1 .txt files left out"):
        assert part in line
    assert "json" not in line
    animated = [PIL.Image.fromarray(picture(seed=i)) for i in range(2)]
    animated[0].save(tmp_path / "images" / "0.webp", save_all=True, append_images=animated[1:], lossless=True)
    (tmp_path / "images" / "0.png").unlink()
    assert "1 animations" in closing(make(tmp_path / "b.zip", source=tmp_path / "images", masks=tmp_path / "masks"))


@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_in_a_file_of_sixteen_are_refused(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 4096, [16, 16]).astype(np.uint16)
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "a.png"
    path.write_bytes(png16(values, channels))
    refuse("would become black. Multiply", tmp_path / "a.zip", source=tmp_path / "images")
    path.write_bytes(png16(values * 16, channels))
    output = make(tmp_path / "a.zip", source=tmp_path / "images")
    assert (ImageFolderDataset(tmp_path / "a.zip")[0].image[0] == values >> 4).all()
    assert "1 images of 16 bits" in closing(output)
    path.write_bytes(png16(values * 0, channels))
    make(tmp_path / "b.zip", source=tmp_path / "images")


def png16(values, channels):
    """A PNG of 16 bits, which PIL cannot write in colour."""
    rows = np.repeat(values[..., None], channels, 2).astype(">u2")
    body = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2 if channels == 3 else 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


BLACK_WHITE = {"background": [0, 0, 0], "object": [255, 255, 255]}


@pytest.mark.parametrize("kind", ["L", "LA", "RGBA", "1", "alpha", "black alpha", "I;16", "LA opaque", "RGBA opaque"])
def test_black_and_white_masks_of_every_mode(tmp_path, kind):
    drawn = np.zeros([16, 16], np.uint8)
    drawn[4:12, 3:9] = 255
    full, white, black = np.full_like(drawn, 255), np.full_like(drawn, 255), np.zeros_like(drawn)
    image = {
        "L": lambda: PIL.Image.fromarray(drawn),
        "1": lambda: PIL.Image.fromarray(drawn).convert("1"),
        "LA": lambda: PIL.Image.fromarray(np.stack([drawn, drawn], -1)),
        "LA opaque": lambda: PIL.Image.fromarray(np.stack([drawn, full], -1)),
        "RGBA": lambda: PIL.Image.fromarray(np.stack([drawn, drawn, drawn, drawn], -1)),
        "RGBA opaque": lambda: PIL.Image.fromarray(np.stack([drawn, drawn, drawn, full], -1)),
        "alpha": lambda: PIL.Image.fromarray(np.stack([white, white, white, drawn], -1)),
        "black alpha": lambda: PIL.Image.fromarray(np.stack([black, black, black, drawn], -1)),
        "I;16": lambda: PIL.Image.fromarray(drawn.astype(np.uint16) * 257),
    }[kind]()
    save(tmp_path / "images" / "a.png", picture())
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    (tmp_path / "p.json").write_text(json.dumps(BLACK_WHITE))
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    make(tmp_path / "a.zip", palette=tmp_path / "p.json", **options)
    assert (MaskedImageDataset(tmp_path / "a.zip")[0].mask == (drawn > 0)).all()
    if kind != "1":
        refuse("--palette", tmp_path / "b.zip", **options)


def test_transparent_pixels_of_index_masks_are_background(tmp_path):
    index = mask(classes=3)
    alpha = np.where(np.arange(16) < 8, 255, 0)[None].repeat(16, 0).astype(np.uint8)
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", np.stack([index, alpha], -1))
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    assert (MaskedImageDataset(tmp_path / "a.zip")[0].mask == np.where(alpha > 0, index, 0)).all()


def test_grey_values_are_not_taken_for_classes(tmp_path):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", mask(classes=3) * 50)
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    refuse("The masks hold 0, 50, 100 and no values between", tmp_path / "a.zip", **options)
    palette = {"background": [0, 0, 0], "skin": [50, 50, 50], "hair": [100, 100, 100]}
    (tmp_path / "p.json").write_text(json.dumps(palette))
    make(tmp_path / "a.zip", palette=tmp_path / "p.json", **options)
    assert (MaskedImageDataset(tmp_path / "a.zip")[0].mask == mask(classes=3)).all()


def test_masks_of_nothing_but_background_are_refused(tmp_path):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", mask(classes=3) * 0)
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    refuse("all pixels are background", tmp_path / "a.zip", **options)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_drawn_on_unturned_photos_are_turned_with_them(tmp_path, orientation):
    raw = np.zeros([24, 16, 3], np.uint8)
    raw[:8, :4] = 255  # a corner, so that every turn is told apart
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "images" / "a.png", raw, exif=exif)
    drawn = (raw[..., 0] > 0).astype(np.uint8)
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "images" / "a.png")))[..., 0] > 0
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks", "transform": "center-crop", "width": 16}
    if orientation >= 5:
        save(tmp_path / "masks" / "a.png", drawn)
        assert "1 masks turned upright" in closing(make(tmp_path / "a.zip", **options))
        item = MaskedImageDataset(tmp_path / "a.zip")[0]
        assert (item.mask == (item.image[0] > 127)).all()
    save(tmp_path / "masks" / "a.png", upright.astype(np.uint8))
    assert "masks turned" not in make(tmp_path / "b.zip", **options)
    item = MaskedImageDataset(tmp_path / "b.zip")[0]
    assert (item.mask == (item.image[0] > 127)).all()
    save(tmp_path / "masks" / "a.png", mask(16, height=40))
    refuse("EXIF" if orientation != 1 else "another shape", tmp_path / "c.zip", **options)


def test_grey_images_keep_one_channel_for_plain_networks(tmp_path):
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", picture(seed=i)[..., 0])
        save(tmp_path / "masks" / f"{i}.png", mask(seed=i))
    make(tmp_path / "a.zip", source=tmp_path / "images", width=8)
    assert ImageFolderDataset(tmp_path / "a.zip").image_shape == [1, 8, 8]
    assert ImageFolderDataset(tmp_path / "a.zip", num_channels=3)[0].image.shape == (3, 8, 8)
    make(tmp_path / "b.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    assert MaskedImageDataset(tmp_path / "b.zip").image_shape == [3, 16, 16]
    save(tmp_path / "images" / "3.png", picture())
    make(tmp_path / "c.zip", source=tmp_path / "images")
    assert ImageFolderDataset(tmp_path / "c.zip").image_shape == [3, 16, 16]


@pytest.mark.parametrize("source", ["archive", "procedural"])
def test_masks_are_left_out_where_asked(tmp_path, source):
    options = {"max_images": 2, "width": 16, "height": 16} if source == "procedural" else {}
    if source == "archive":
        pairs(tmp_path)
        make(tmp_path / "with.zip", source=tmp_path / "images", masks=tmp_path / "masks")
        source = tmp_path / "with.zip"
    result = run("--images-only", source=source, dest=tmp_path / "a.zip", **options)
    assert result.exit_code == 0, result.output
    assert "without masks" in result.output
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert not any(name.startswith("masks/") for name in names)
    result = run("--images-only", source=source, dest=tmp_path / "b.zip", masks=tmp_path, **options)
    assert (result.exit_code, "but --masks is for masks" in result.output) == (1, True)


def test_a_folder_of_masks_beside_the_images_is_not_taken_for_images(tmp_path):
    pairs(tmp_path / "set")
    (tmp_path / "set" / "masks").rename(tmp_path / "set" / "annotations")
    refuse("seems to hold masks of the other images. Add --masks=", tmp_path / "a.zip", source=tmp_path / "set")
    make(tmp_path / "a.zip", source=tmp_path / "set", masks=tmp_path / "set" / "annotations")
    assert len(MaskedImageDataset(tmp_path / "a.zip")) == 3


def python2_batch(rows, labels):
    """A pickle as Python 2 wrote it: short byte strings, numpy's old module names."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    kind = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    data = rows.tobytes()
    shape = b"".join(b"J" + struct.pack("<i", n) for n in rows.shape)
    state = b"(K\x01(" + shape + b"t" + kind + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + numbers + b"u."


@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar10_is_read_as_it_is_published(tmp_path, form):
    path = tmp_path / f"cifar-10-{form}.tar.gz"
    rows = np.random.default_rng(0).integers(0, 256, [12, 3072], np.uint8)
    labels = [i % 10 for i in range(12)]
    with tarfile.open(path, "w:gz") as archive:
        for batch in range(1, 7):
            part = slice(2 * batch - 2, 2 * batch)
            name = "test_batch" if batch == 6 else f"data_batch_{batch}"
            if form == "binary":
                data = b"".join(bytes([k]) + row.tobytes() for k, row in zip(labels[part], rows[part], strict=True))
                name += ".bin"
            else:
                data = python2_batch(rows[part], labels[part])
            info = tarfile.TarInfo(f"cifar-10-batches/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for split, numbers in ((None, range(10)), ("train", range(10)), ("test", range(10, 12))):
        make(tmp_path / f"{split}.zip", source=path, **({"split": split} if split else {}))
        dataset = ImageFolderDataset(tmp_path / f"{split}.zip", use_labels=True)
        assert len(dataset) == len(numbers)
        for item, i in zip((dataset[k] for k in range(len(numbers))), numbers, strict=True):
            assert (item.image == rows[i].reshape(3, 32, 32)).all()
            assert item.label.argmax() == labels[i]
    refuse("holds images only", tmp_path / "x.zip", source=path, masks=tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    refuse("Download it again", tmp_path / "x.zip", source=path)


def test_mnist_is_read_as_it_is_published(tmp_path):
    digits = np.random.default_rng(0).integers(0, 256, [5, 28, 28], np.uint8)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 5, 28, 28) + digits.tobytes()))
    refuse("Put train-labels-idx1-ubyte.gz beside it", tmp_path / "x.zip", source=path)
    beside = tmp_path / "train-labels-idx1-ubyte.gz"
    beside.write_bytes(gzip.compress(struct.pack(">2I", 0x801, 5) + bytes([3, 1, 4, 1, 5])))
    make(tmp_path / "a.zip", source=path)
    dataset = ImageFolderDataset(tmp_path / "a.zip", use_labels=True)
    assert dataset.image_shape == [1, 32, 32]
    assert (dataset[2].image[0, 2:30, 2:30] == digits[2]).all()
    assert dataset[2].image.astype(int).sum() == digits[2].astype(int).sum()
    assert [int(dataset[i].label.argmax()) for i in range(5)] == [3, 1, 4, 1, 5]
    path.write_bytes(gzip.compress(b"\0" * 50))
    refuse("is not a complete IDX file", tmp_path / "x.zip", source=path)
    (tmp_path / "other.gz").write_bytes(b"x")
    refuse("Expected train-images-idx3-ubyte.gz", tmp_path / "x.zip", source=tmp_path / "other.gz")


@pytest.mark.parametrize("layout", ["renamed", "flattened", "one folder"])
def test_celebamask_is_known_in_other_folders(tmp_path, layout):
    expected = celebamask(tmp_path / "raw", [0, 2, 2001])
    for path in sorted((tmp_path / "raw").rglob("*.*g")):
        photo = path.suffix == ".jpg"
        folder = {"renamed": "CelebA-HQ-img" if photo else f"anno/{path.parent.name}",
                  "flattened": "photos" if photo else "anno", "one folder": "all"}[layout]  # fmt: skip
        (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "set" / folder / path.name)
    make(tmp_path / "a.zip", source=tmp_path / "set", width=16)
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions == CELEBAMASK
    assert [(dataset[k].mask == expected[i]).all() for k, i in enumerate(sorted(expected))] == [True] * 3
    if layout == "flattened":
        refuse("holds the masks of CelebAMask-HQ, but no images", tmp_path / "b.zip", source=tmp_path / "set" / "anno")
        for i in sorted(expected):
            save(tmp_path / "set" / "other" / f"{i}.png", mask())
        refuse("Name the folder of the photos CelebA-HQ-img", tmp_path / "b.zip", source=tmp_path / "set")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"labels": [["0.png", "1"], ["1.png", 1], ["2.png", 1]]}, "class numbers from 0"),
        ({"labels": [["0.png", True], ["1.png", 1], ["2.png", 1]]}, "class numbers from 0"),
        ({"labels": [["0.png", -1], ["1.png", 1], ["2.png", 1]]}, "class numbers from 0"),
        ({"labels": [["0.png", float("nan")], ["1.png", 1], ["2.png", 1]]}, "class numbers from 0"),
        ({"labels": [["0.png", 1], ["0.png", 2], ["1.png", 1], ["2.png", 1]]}, "two labels"),
        ({"Labels": []}, "labels must be under 'labels'"),
        ([["0.png", 1]], "must be an object"),
    ],
)
@pytest.mark.parametrize("place", ["images", "images/deeper"])
def test_labels_that_training_would_refuse_are_refused_at_once(tmp_path, metadata, message, place):
    pairs(tmp_path)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "dataset.json").write_text(json.dumps(metadata))
    refuse(message, tmp_path / "a.zip", source=tmp_path / "images")


def test_the_closing_lines_name_regions_that_change_places(tmp_path):
    pairs(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(["background", "l_eye", "r_eye"]))
    output = make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    assert "are exchanged in mirror images: l_eye and r_eye" in output
    metadata = json.loads(zipfile.ZipFile(tmp_path / "a.zip").read("dataset.json"))
    assert metadata["regions"]["mirror"] == [[1, 2]]
