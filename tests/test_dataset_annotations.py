"""dataset_tool.py: labelled polygons and published layouts of masks, as people have them."""

import base64
import json
import zipfile

import numpy as np
import PIL.Image
import pytest

from semantic.dataset import MaskedImageDataset
from semantic.sources.coco import decode_runs
from semantic.sources.shapes import circle, fill_polygon
from tests.sources import encoded, make, mask, picture, refuse, run, save

SIDE = 16


def inside(x, y, points):
    """Ray casting, pixel by pixel."""
    result = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            result = not result
    return result


def drawn(points, side=SIDE):
    return np.array([[inside(x + 0.5, y + 0.5, points) for x in range(side)] for y in range(side)])


@pytest.mark.parametrize("seed", range(8))
def test_polygons_cover_the_pixels_whose_centres_they_hold(seed):
    points = np.random.default_rng(seed).uniform(-6, SIDE + 6, [3 + seed, 2])
    assert (fill_polygon(points, SIDE, SIDE) == drawn(points.tolist())).all()


def test_circles_are_round():
    found = fill_polygon(circle(np.array([8.0, 8.0]), np.array([13.0, 8.0])), SIDE, SIDE)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    assert (found == (np.hypot(x - 8, y - 8) < 5)).mean() > 0.98


def runs(plane):
    """Lengths of runs down the columns, the first outside."""
    counts, value = [], False
    length = 0
    for pixel in plane.T.ravel():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


def compressed(counts):
    """COCO's text for runs, written from its description."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits = value & 31
            value >>= 5
            last = value == (-1 if bits & 16 else 0)
            text += chr(48 + (bits if last else bits | 32))
            if last:
                break
    return text


@pytest.mark.parametrize("seed", range(4))
def test_compressed_runs_are_read(seed):
    counts = np.random.default_rng(seed).integers(0, 10 ** (1 + seed), 40).tolist()
    assert decode_runs(compressed(counts)) == counts


SKIN = [[1.0, 1.0], [15.0, 1.0], [15.0, 15.0], [1.0, 15.0]]
EYE = [[4.0, 4.0], [8.0, 4.0], [8.0, 8.0]]
EYE2 = [[10.0, 4.0], [13.0, 4.0], [13.0, 7.0]]


def flat(points):
    return [value for point in points for value in point]


def blob(seed):
    return np.random.default_rng(seed).random([SIDE, SIDE]) < 0.1


def coco(tmp_path, ground="background"):
    """A COCO file of three images with all kinds of segmentation, and the masks that it means."""
    categories = [{"id": 7, "name": "eye"}, {"id": 3, "name": "skin"}, {"id": 9, "name": ground}]
    if ground is None:
        categories = categories[:2]
    names = ["a.png", "x/b.jpg", "c.png", "unlisted.png"]
    for name in names:
        save(tmp_path / "images" / name, picture())
    size = {"height": SIDE, "width": SIDE}
    plane, crowd = blob(0), blob(1)
    annotations = [
        {"id": 1, "image_id": 10, "category_id": 7, "segmentation": [flat(EYE), flat(EYE2)]},
        {"id": 2, "image_id": 10, "category_id": 3, "segmentation": [flat(SKIN)]},
        {"id": 3, "image_id": 11, "category_id": 7, "segmentation": {"counts": runs(plane), "size": [SIDE, SIDE]}},
        {"id": 4, "image_id": 11, "category_id": 3, "iscrowd": 1,
         "segmentation": {"counts": compressed(runs(crowd)), "size": [SIDE, SIDE]}},
    ]  # fmt: skip
    listed = [(10, "a.png"), (11, "train/b.jpg"), (12, "c.png"), (13, "gone.png")]
    images = [{"id": key, "file_name": name, **size} for key, name in listed]
    data = {"images": images, "annotations": annotations, "categories": categories}
    first = np.where(drawn(SKIN), 2, 0)
    first[drawn(EYE) | drawn(EYE2)] = 1
    order = sorted([(plane, 1), (crowd, 2)], key=lambda pair: -pair[0].sum())
    second = np.zeros([SIDE, SIDE], int)
    for area, index in order:
        second[area] = index
    return data, [first, np.zeros([SIDE, SIDE]), second]  # in the order of the names: a.png, c.png, x/b.jpg


@pytest.mark.parametrize("ground", ["background", "_background_", None])
def test_coco_annotations_become_masks(tmp_path, ground):
    data, expected = coco(tmp_path, ground)
    (tmp_path / "annotations.json").write_text(json.dumps(data))
    output = make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "annotations.json")
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions.names == [ground or "background", "eye", "skin"]
    assert len(dataset) == 3
    for i in range(3):
        assert (dataset[i].mask == expected[i]).all()
    line = output.strip().splitlines()[-1]
    for part in ("the annotations do not list", "1 images without annotations", "1 images of the annotations without"):
        assert part in line
    options = {"source": tmp_path / "images", "masks": tmp_path / "annotations.json"}
    result = run("--some-masks", dest=tmp_path / "b.zip", **options)
    names = zipfile.ZipFile(tmp_path / "b.zip").namelist()
    assert "4 images of 16x16, 2 of them with masks" in result.output  # one is not listed, one has no shape
    assert sum(name.startswith("masks/") for name in names) == 2
    assert sum(name.startswith("0") for name in names) == 4


def test_coco_classes_can_be_merged_and_the_file_may_lie_in_a_folder(tmp_path):
    data, expected = coco(tmp_path)
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "instances.json").write_text(json.dumps(data))
    (tmp_path / "map.json").write_text(json.dumps({"background": ["background"], "face": ["eye", "skin"]}))
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "ann", mask_map=tmp_path / "map.json")
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions.names == ["background", "face"]
    assert (dataset[0].mask == (expected[0] > 0)).all()


def test_broken_coco_annotations_are_one_line(tmp_path):
    data, _ = coco(tmp_path)

    def changed(number, **values):
        return {**data, "annotations": [*data["annotations"][:number], {**data["annotations"][number], **values}]}

    size = [SIDE, SIDE]
    cases = [
        (changed(0, segmentation=[[1, 2, 3, 4, 5]]), "Annotation 1 .*broken polygon"),
        (changed(0, segmentation=[[1, 2, 3, 4, 5, "6"]]), "broken polygon"),
        (changed(0, segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "broken polygon"),
        (changed(0, category_id=4), "the file lists no such category"),
        (changed(0, image_id=[1]), "names image [1], but the file lists no such image"),
        (changed(2, segmentation={"counts": [1, 2], "size": size}), "runs of 3 pixels"),
        (changed(2, segmentation={"counts": [SIDE * SIDE + 1, -1], "size": size}), "neither polygons nor runs"),
        (changed(2, segmentation={"counts": "é", "size": size}), "wrong character"),
        (changed(2, segmentation={"counts": "o", "size": size}), "incomplete"),
        (changed(2, segmentation="x"), "neither polygons nor runs"),
        ({**data, "categories": []}, "has no categories"),
        ({**data, "images": [{"id": 1}]}, "needs a file_name"),
        ({**data, "images": [{**data["images"][3]}], "annotations": []}, "gone.png is not in"),
        ({**data, "annotations": [{"segments_info": []}]}, "panoptic"),
        ({"a": 1}, "has no 'images', 'annotations' and 'categories'"),
    ]
    for content, message in cases:
        (tmp_path / "a.json").write_text(json.dumps(content))
        part = message.split(".*")[-1]
        refuse(part, tmp_path / "out.zip", source=tmp_path / "images", masks=tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(data))
    refuse("Remove --palette", tmp_path / "out.zip", source=tmp_path / "images", masks=tmp_path / "a.json",
           palette=tmp_path / "a.json")  # fmt: skip


def labelme(name, shapes):
    return {"imagePath": f"..\\somewhere\\{name}", "imageHeight": SIDE, "imageWidth": SIDE, "imageData": "x" * 1000,
            "shapes": shapes}  # fmt: skip


@pytest.mark.parametrize("beside", [True, False])
def test_labelme_files_become_masks(tmp_path, beside):
    folder = tmp_path / ("images" if beside else "json")
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "images" / name, picture())
    patch = np.array([[1, 0, 1], [1, 1, 1]], np.uint8) * 255
    text = base64.b64encode(encoded(patch)).decode()
    shapes = [
        {"label": "mouth", "shape_type": "mask", "points": [[4, 10], [6, 11]], "mask": text},
        {"label": "eye", "points": EYE, "shape_type": "polygon"},
        {"label": "skin", "points": [[15, 15], [1, 1]], "shape_type": "rectangle"},
    ]
    (folder / "a.json").write_text(json.dumps(labelme("a.png", shapes)))
    round_one = [{"label": "skin", "points": [[8, 8], [8, 13]], "shape_type": "circle"}]
    ignored = [{"label": "_background_", "points": EYE}]
    (folder / "b.json").write_text(json.dumps(labelme("b.png", round_one + ignored)))
    output = make(tmp_path / "a.zip", source=tmp_path / "images", masks=folder)
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions.names == ["background", "eye", "mouth", "skin"]
    expected = np.where(drawn(SKIN), 3, 0)
    expected[drawn(EYE)] = 1
    expected[10:12, 4:7][patch > 0] = 2
    assert (dataset[0].mask == expected).all()
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    disc = (np.hypot(x - 8, y - 8) < 5) & ~drawn(EYE)
    assert (dataset[1].mask == np.where(disc, 3, 0)).mean() > 0.98
    assert "1 images left out, since the annotations do not list them" in output
    for wrong, message in (
        ({"label": "eye", "points": EYE[:2]}, "a polygon of 2 points"),
        ({"label": "eye", "points": [[1, 2], [3], [4, 5]]}, "broken outline"),
        ({"label": "eye", "points": [[1, 2], [3, "4"], [4, 5]]}, "broken outline"),
        ({"label": "", "points": EYE}, "has no label"),
        ({"label": "eye", "points": [[1, 2]], "shape_type": "point"}, "without an area"),
        ({"label": "eye", "points": EYE, "shape_type": "cube"}, "unknown type"),
        ({"label": "eye", "points": EYE[:2], "shape_type": "mask", "mask": "?"}, "without a picture"),
    ):
        (folder / "b.json").write_text(json.dumps(labelme("b.png", [wrong])))
        refuse(message, tmp_path / "b.zip", source=tmp_path / "images", masks=folder)


def test_voc_masks_leave_unlabelled_pixels_to_the_background(tmp_path):
    index = mask(classes=4)
    drawn = index.copy()
    drawn[3:5] = 255
    image = PIL.Image.frombytes("P", (16, 16), drawn.tobytes())
    image.putpalette([value for k in range(256) for value in (k, 255 - k, 7 * k % 256)])
    save(tmp_path / "images" / "a.jpg", picture())
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    output = make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    index[3:5] = 0
    assert (MaskedImageDataset(tmp_path / "a.zip")[0].mask == index).all()
    assert "1 masks with unlabelled pixels (255)" in output
    (tmp_path / "map.json").write_text(json.dumps({"background": [0, 1, 2, 3], "edge": [255]}))
    make(tmp_path / "b.zip", source=tmp_path / "images", masks=tmp_path / "masks", mask_map=tmp_path / "map.json")
    assert (MaskedImageDataset(tmp_path / "b.zip")[0].mask == (drawn == 255)).all()


def test_cityscapes_names_find_their_masks(tmp_path):
    for i, town in enumerate(("aachen", "bremen")):
        stem = f"{town}_00000{i}_000019"
        save(tmp_path / "leftImg8bit" / "train" / town / f"{stem}_leftImg8bit.png", picture(seed=i))
        save(tmp_path / "gtFine" / "train" / town / f"{stem}_gtFine_labelIds.png", mask(classes=34, seed=i))
        save(tmp_path / "gtFine" / "train" / town / f"{stem}_gtFine_instanceIds.png", mask(classes=200))
        save(tmp_path / "gtFine" / "train" / town / f"{stem}_gtFine_color.png", picture())
    make(tmp_path / "a.zip", source=tmp_path / "leftImg8bit", masks=tmp_path / "gtFine")
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions.names[7] == "road"
    assert dataset.regions.names[-1] == "bicycle"
    for i in range(2):
        assert (dataset[i].mask == mask(classes=34, seed=i)).all()


@pytest.mark.parametrize("suffix", ["_mask", "-seg", "_labels", "_gt"])
def test_words_at_the_end_of_mask_names_are_known(tmp_path, suffix):
    save(tmp_path / "images" / "a_img.png", picture())
    save(tmp_path / "images" / "b.jpg", picture())
    for i, name in enumerate("ab"):
        save(tmp_path / "masks" / f"{name}{suffix}.png", mask(seed=i))
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert all((dataset[i].mask == mask(seed=i)).all() for i in range(2))
