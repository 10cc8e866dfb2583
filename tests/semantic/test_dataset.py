"""Images with masks: pairs, mirrored pairs, regions, and what is said about archives that do not fit."""

import io
import json
import pickle

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib import UserError
from semantic.dataset import MaskedImageDataset, mask_name
from semantic.regions import Regions
from training.archive import create_archive, encode_png, image_name

REGIONS = {"names": ["background", "skin", "hair"], "colors": [[0, 0, 0], [255, 200, 0], [9, 8, 7]], "transparent": [2]}


def write(dest, masks, metadata=None, masks_as=encode_png, side=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [len(masks), side, side, 3], np.uint8)
    with create_archive(dest) as add:
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            add(image_name(i), encode_png(image))
            if mask is not None:
                add(mask_name(image_name(i)), masks_as(mask))
        add("dataset.json", json.dumps({"labels": None, "regions": REGIONS} if metadata is None else metadata).encode())
    return images


def index_masks(count=3, classes=3, side=8):
    masks = np.random.default_rng(1).integers(0, classes, [count, side, side], np.uint8)
    masks[:, 0, 0] = classes - 1
    return masks


@pytest.fixture(params=["a.zip", "a"])
def dest(tmp_path, request):
    return tmp_path / request.param


def test_gives_pairs(dest):
    masks = index_masks()
    images = write(dest, masks)
    dataset = MaskedImageDataset(dest)
    assert len(dataset) == 3
    assert dataset.regions == Regions.from_dict(REGIONS)
    for i in range(3):
        item = dataset[i]
        image, label = item  # as items of every data set
        assert image is item.image
        assert label is item.label
        assert (item.image == images[i].transpose(2, 0, 1)).all()
        assert item.mask.dtype == np.uint8
        assert (item.mask == masks[i]).all()


def test_mirroring_turns_both(dest):
    masks = index_masks()
    images = write(dest, masks)
    item = MaskedImageDataset(dest, xflip=True)[4]
    assert (item.image == images[1][:, ::-1].transpose(2, 0, 1)).all()
    assert (item.mask == masks[1][:, ::-1]).all()


def test_previews_paint_masks_in_the_regions_colours(dest):
    masks = index_masks()
    images = write(dest, masks)
    preview = MaskedImageDataset(dest).preview([2, 0])
    assert list(preview) == ["", "_mask"]
    assert (preview[""] == images[[2, 0]].transpose(0, 3, 1, 2)).all()
    for row, i in enumerate([2, 0]):
        for y in range(8):
            for x in range(8):
                assert preview["_mask"][row, :, y, x].tolist() == REGIONS["colors"][masks[i, y, x]]


def test_reads_masks_of_every_index_kind(tmp_path):
    masks = index_masks()

    def palette_png(mask):
        image = PIL.Image.fromarray(mask, "L").convert("P")
        image = PIL.Image.frombytes("P", image.size, mask.tobytes())
        image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
        return saved(image)

    def sixteen_bits(mask):
        return saved(PIL.Image.fromarray(mask.astype(np.uint16)))

    for name, kind in (
        ("p.zip", palette_png),
        ("16.zip", sixteen_bits),
        ("l.zip", lambda m: saved(PIL.Image.fromarray(m))),
    ):
        write(tmp_path / name, masks, masks_as=kind)
        assert (MaskedImageDataset(tmp_path / name)[1].mask == masks[1]).all(), name


def saved(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_regions_can_be_replaced(tmp_path):
    path = tmp_path / "a.zip"
    write(path, index_masks(), {"labels": None})
    with pytest.raises(UserError, match=r"does not name its regions. Set --regions"):
        MaskedImageDataset(path)
    other = {"names": ["background", "one", "two", "three"]}
    (tmp_path / "r.json").write_text(json.dumps(other))
    (tmp_path / "d.json").write_text(json.dumps({"labels": None, "regions": other}))
    for regions in (other, Regions(other["names"]), tmp_path / "r.json", str(tmp_path / "d.json")):
        assert MaskedImageDataset(path, regions=regions).regions.names == other["names"]
    with pytest.raises(UserError, match=r"Cannot open .*nothing\.json"):
        MaskedImageDataset(path, regions=tmp_path / "nothing.json")
    (tmp_path / "r.json").write_text("[1]")
    with pytest.raises(UserError, match="Cannot read the regions in"):
        MaskedImageDataset(path, regions=tmp_path / "r.json")


def test_pairs_reach_loader_processes(dest):
    masks = index_masks(6)
    write(dest, masks)
    dataset = pickle.loads(pickle.dumps(MaskedImageDataset(dest)))
    batches = list(torch.utils.data.DataLoader(dataset, batch_size=3, num_workers=2))
    assert batches[0].image.shape == (3, 3, 8, 8)
    assert (torch.cat([batch.mask for batch in batches]).numpy() == masks).all()


def refuse(message, path, **options):
    def read():
        dataset = MaskedImageDataset(path, **options)
        for i in range(len(dataset)):
            dataset[i]

    with pytest.raises(UserError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_archives_that_do_not_fit_are_refused(tmp_path):
    masks = list(index_masks())
    write(tmp_path / "none.zip", [None] * 3)
    refuse("no masks in .*none.zip.*--masks.*--cfg=auto", tmp_path / "none.zip")
    write(tmp_path / "some.zip", [masks[0], None, masks[2]])
    refuse(r"1 of 3 images have no mask, such as masks/00000/img00000001\.png", tmp_path / "some.zip")
    write(tmp_path / "size.zip", [masks[0], index_masks(1, side=4)[0], masks[2]])
    refuse("masks/00000/img00000001.png in .* is 4x4, but its image is 8x8", tmp_path / "size.zip")
    write(tmp_path / "index.zip", [masks[0], masks[1], index_masks(1, 5)[0]])
    refuse(r"img00000002.png in .* holds the class index 4, but there are 3 regions", tmp_path / "index.zip")
    colours = np.random.default_rng(0).integers(0, 256, [8, 8, 3], np.uint8)
    write(tmp_path / "colours.zip", [masks[0], colours, masks[2]])
    refuse("img00000001.png in .* not a single-channel image", tmp_path / "colours.zip")
    write(tmp_path / "broken.zip", masks, masks_as=lambda mask: encode_png(mask)[:50])
    refuse("Cannot read masks/00000/img00000000.png", tmp_path / "broken.zip")


@pytest.mark.parametrize("paired", [True, False])
def test_left_and_right_change_places_in_mirror_images(dest, paired):
    masks = index_masks(classes=4)
    regions = {"names": ["background", "left_eye", "nose", "right_eye"], **({} if paired else {"mirror": []})}
    write(dest, masks, {"labels": None, "regions": regions})
    dataset = MaskedImageDataset(dest, xflip=True)
    swapped = np.array([0, 3, 2, 1] if paired else [0, 1, 2, 3])
    assert (dataset[4].mask == swapped[masks[1][:, ::-1]]).all()
    assert (dataset[1].mask == masks[1]).all()
    assert dataset[4].mask.dtype == np.uint8
    assert any("left_eye and right_eye" in note for note in dataset.notes) == paired
    assert not MaskedImageDataset(dest).notes
