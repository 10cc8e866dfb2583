"""dataset_tool.py: masks of every kind become class indices, or end in one plain line."""

import json
import zipfile

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from semantic.adaptation.data import masks_in
from semantic.dataset import MaskedImageDataset
from semantic.regions import CELEBAMASK, Regions
from semantic.sources.celebamask import PARTS
from semantic.sources.geometry import resize_mask
from semantic.sources.palette import Palette
from tests.helpers import shared_file
from tests.sources import celebamask, make, mask, pairs, picture, refuse, run, save
from training.dataset import ImageFolderDataset


@pytest.mark.parametrize(("old", "new"), [((12, 16), (4, 4)), ((10, 10), (4, 4)), ((30, 20), (7, 5))])
def test_shrinking_masks_vote_by_area(old, new):
    index = mask(side=old[1], height=old[0], classes=4)
    result = resize_mask(index, (new[1], new[0]))
    for y in range(new[0]):
        for x in range(new[1]):
            area = np.zeros(4)
            for row in range(old[0]):
                high = min((y + 1) * old[0] / new[0], row + 1) - max(y * old[0] / new[0], row)
                for column in range(old[1]):
                    wide = min((x + 1) * old[1] / new[1], column + 1) - max(x * old[1] / new[1], column)
                    area[index[row, column]] += max(high, 0) * max(wide, 0)
            assert area[result[y, x]] > area.max() - 1e-3


def test_equal_areas_go_to_the_lowest_class():
    index = np.kron(np.array([[2, 1], [1, 2]], np.uint8), np.ones([3, 3], np.uint8))
    assert resize_mask(index, (3, 3)).tolist() == [[2, 1, 1], [1, 1, 1], [1, 1, 2]]


def test_growing_masks_repeat_pixels():
    index = mask(4)
    assert (resize_mask(index, (16, 16)) == index.repeat(4, 0).repeat(4, 1)).all()


def test_palette_png_keeps_its_indices(tmp_path):
    index = mask(classes=4)
    image = PIL.Image.fromarray(index, "L")
    image = PIL.Image.frombytes("P", image.size, index.tobytes())
    image.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 0, 200])
    save(tmp_path / "images" / "a.png", picture())
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    assert (MaskedImageDataset(tmp_path / "a.zip")[0].mask == index).all()


def test_some_images_may_have_no_mask_where_asked(tmp_path):
    pairs(tmp_path)
    (tmp_path / "masks" / "1.png").unlink()
    folders = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    refuse("--some-masks keeps images without a mask", tmp_path / "a.zip", **folders)
    result = run("--some-masks", dest=tmp_path / "a.zip", **folders)
    assert (result.exit_code, "3 images of 16x16, 2 of them with masks" in result.output) == (0, True)
    held, regions = masks_in(ImageFolderDataset(tmp_path / "a.zip"))
    assert (held, len(regions)) == (2, 3)
    again = run("--some-masks", dest=tmp_path / "b.zip", source=tmp_path / "a.zip", width=8)
    assert (again.exit_code, "3 images of 8x8, 2 of them with masks" in again.output) == (0, True)
    for name in ("0", "2"):
        (tmp_path / "masks" / f"{name}.png").rename(tmp_path / "masks" / f"other{name}.png")
    for options, message in (
        (folders, "3 of 3 images have no mask"),
        ({"source": tmp_path / "images"}, "--some-masks is for masks, but"),
        ({"source": "procedural"}, "has its own masks. Remove --some-masks."),
        (
            {"source": tmp_path / "a.zip", "images_only": None},
            "--images-only omits masks, but --some-masks is for masks",
        ),
    ):
        flags = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is None]
        values = {name: value for name, value in options.items() if value is not None}
        result = run("--some-masks", *flags, dest=tmp_path / "c.zip", **values)
        assert (result.exit_code, message in result.output) == (1, True), result.output


def test_a_mask_at_the_path_of_an_image_is_of_no_other(tmp_path):
    for name in ("cat/1", "dog/1"):
        save(tmp_path / "images" / f"{name}.png", picture())
    save(tmp_path / "masks" / "cat" / "1.png", mask())
    folders = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    refuse("1 of 2 images have no mask. For example, dog/1.png", tmp_path / "a.zip", **folders)
    result = run("--some-masks", dest=tmp_path / "a.zip", **folders)
    assert "2 images of 16x16, 1 of them with masks" in result.output
    held = [name for name in zipfile.ZipFile(tmp_path / "a.zip").namelist() if name.startswith("masks/")]
    assert held == ["masks/00000/img00000000.png"]  # of cat/1, the first image
    for folder in "ab":
        save(tmp_path / "masks" / folder / "2.png", mask())
    save(tmp_path / "images" / "2.png", picture())
    result = run("--some-masks", dest=tmp_path / "b.zip", **folders)
    assert (result.exit_code, "Save the right one as 2.png in" in result.output) == (1, True)


COLORS = {"background": [255, 0, 0], "skin": [255, 255, 0], "hair": [127, 0, 0], "eyes": [0, 0, 255]}


@pytest.mark.parametrize("form", ["names", "pairs", "regions"])
def test_colours_become_classes(tmp_path, form):
    index = mask(classes=4)
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", np.array(list(COLORS.values()), np.uint8)[index])
    table = {"names": list(COLORS), "colors": list(COLORS.values()), "transparent": ["eyes"]}
    palette = {"names": table, "pairs": {**COLORS, "transparent": ["eyes"]}, "regions": {"regions": table}}[form]
    (tmp_path / "p.json").write_text(json.dumps(palette))
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    make(tmp_path / "a.zip", palette=tmp_path / "p.json", **options)
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert (dataset[0].mask == index).all()
    assert dataset.regions == Regions(list(COLORS), list(COLORS.values()), [3])
    refuse("a.png in", tmp_path / "b.zip", **options)
    refuse("Name the class of each colour with --palette", tmp_path / "b.zip", **options)


def test_antialiased_edges_have_no_seam_of_a_third_class():
    """Halfway from yellow (skin) to blue (eyes) the nearest colour is that of hair."""
    palette = Palette(Regions(list(COLORS), list(COLORS.values())))
    skin, eyes = np.array(COLORS["skin"], float), np.array(COLORS["eyes"], float)
    share = np.array([1, 1, 1, 0.8, 0.55, 0.45, 0.2, 0, 0, 0])[None, :, None]
    pixels = np.repeat(share * skin + (1 - share) * eyes, 5, 0).round().astype(np.uint8)
    blend = pixels[0, 5].astype(int)
    assert np.argmin([((blend - color) ** 2).sum() for color in COLORS.values()]) == 2, "a seam to avoid"
    assert palette.indices(pixels, "edge")[2].tolist() == [1, 1, 1, 1, 1, 3, 3, 3, 3, 3]


def test_blurred_colours_take_the_nearest_of_the_palette():
    palette = Palette(Regions(list(COLORS), list(COLORS.values())))
    index = np.random.default_rng(0).integers(0, 4, [32, 32])
    noise = np.random.default_rng(1).integers(-20, 21, [32, 32, 3])
    pixels = (np.array(list(COLORS.values()))[index] + noise).clip(0, 255).astype(np.uint8)
    distance = [((pixels.astype(int) - color) ** 2).sum(-1) for color in COLORS.values()]
    assert (palette.indices(pixels, "noise") == np.argmin(distance, 0)).all()
    thin = np.full([9, 9, 3], COLORS["skin"], np.uint8)
    thin[4] = (40, 40, 215)  # a line of eyes that never reaches its pure colour
    assert (palette.indices(thin, "thin")[4] == 3).all()


def test_real_colour_coded_masks_keep_their_classes_apart():
    folder = shared_file("data", "fasseg", "labels")
    colors = [[255, 0, 0], [255, 255, 0], [127, 0, 0], [0, 0, 255], [0, 255, 255], [0, 255, 0]]
    palette = Palette(Regions(["background", "skin", "hair", "eyes", "nose", "mouth"], colors))
    pixels = np.asarray(PIL.Image.open(folder / "frontal_test_1.png").convert("RGB"))
    index = palette.indices(pixels, "face")
    for k, color in enumerate(colors):
        assert (index[(pixels == color).all(-1)] == k).all()
    distance = [((pixels.astype(int) - color) ** 2).sum(-1) for color in colors]
    assert specks(index) < specks(np.argmin(distance, 0)) / 2


def specks(index):
    """Number of patches of one class that have at most 4 pixels."""
    sizes = [np.bincount(scipy.ndimage.label(index == k)[0].ravel())[1:] for k in range(index.max() + 1)]
    return sum(int((size <= 4).sum()) for size in sizes)


def test_a_palette_that_does_not_fit_is_refused(tmp_path):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", np.full([16, 16, 3], (0, 200, 200), np.uint8))
    palette = tmp_path / "p.json"
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks", "palette": palette}
    refuse("Cannot open", tmp_path / "a.zip", **options)
    for content, message in (
        (json.dumps(COLORS), "colours that are not in the palette, such as (0, 200, 200)"),
        (json.dumps({"a": [1, 2, 3], "b": [1, 2, 3]}), "the same colour"),
        (json.dumps({"a": 1}), "Cannot read the palette"),
        ("[", "not valid JSON"),
    ):
        palette.write_text(content)
        refuse(message, tmp_path / "a.zip", **options)


MAP = {"classes": {"background": ["null"], "clothes": ["shirt", "skirt"], "skin": ["skin"]}, "transparent": ["skin"]}


CLASSES = ["null", "skirt", "skin", "shirt"]


@pytest.mark.parametrize("place", ["beside", "inside", "map", "numbers"])
def test_classes_are_merged(tmp_path, place):
    index = mask(classes=4)
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", index)
    mask_map = dict(MAP)
    if place == "map":
        mask_map["source_classes"] = CLASSES
    elif place == "numbers":
        mask_map["classes"] = {"background": [0], "clothes": [3, 1], "skin": 2}
    else:
        path = tmp_path / "classes.json" if place == "beside" else tmp_path / "masks" / "classes.json"
        path.write_text(json.dumps({"classes": CLASSES}))
    (tmp_path / "map.json").write_text(json.dumps(mask_map))
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks", mask_map=tmp_path / "map.json")
    dataset = MaskedImageDataset(tmp_path / "a.zip")
    assert dataset.regions.names == ["background", "clothes", "skin"]
    assert dataset.regions.transparent == [2]
    assert (dataset[0].mask == np.array([0, 1, 2, 1])[index]).all()


def test_class_names_beside_the_masks_name_the_regions(tmp_path):
    pairs(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    make(tmp_path / "a.zip", source=tmp_path / "images", masks=tmp_path / "masks")
    assert MaskedImageDataset(tmp_path / "a.zip").regions.names == CLASSES


def test_mask_maps_that_do_not_fit_are_refused(tmp_path):
    pairs(tmp_path)
    mask_map = tmp_path / "map.json"
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks", "mask_map": mask_map}
    mask_map.write_text(json.dumps(MAP))
    refuse("Place classes.json beside the masks", tmp_path / "a.zip", **options)
    mask_map.write_text(json.dumps({"classes": {"background": [0], "one": [1]}}))
    refuse("holds class 2, but the mask map", tmp_path / "a.zip", **options)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    for content, message in (
        ({"classes": {"background": ["null"], "clothes": ["shirt", "skirt"]}}, "has no region for skin"),
        ({"classes": {**MAP["classes"], "more": ["shirt"]}}, "puts class shirt into clothes and more"),
        ({"classes": {**MAP["classes"], "more": ["shoe"]}}, "names no class 'shoe'. The classes are: null, skirt"),
        ({"classes": {**MAP["classes"], "more": [9]}}, "names class 9, but the classes are 0 to 3"),
        ({"classes": [1]}, "Cannot read the mask map"),
    ):
        mask_map.write_text(json.dumps(content))
        refuse(message, tmp_path / "a.zip", **options)


def test_the_map_of_the_shared_fashion_photos_works(tmp_path):
    folder = shared_file("data", "ccp")
    options = {"transform": "center-crop", "width": 32, "height": 32, "max_images": 2}
    make(
        tmp_path / "a.zip",
        source=folder / "images",
        masks=folder / "masks",
        mask_map=folder / "groups.json",
        **options,
    )
    groups = json.loads((folder / "groups.json").read_text())
    assert MaskedImageDataset(tmp_path / "a.zip").regions.names == list(groups["classes"])


@pytest.mark.parametrize("packed", [False, True])
def test_celebamask_parts_are_painted_in_order(tmp_path, packed):
    folder = tmp_path / "CelebAMask-HQ"
    expected = celebamask(folder)
    source = folder
    if packed:
        source = tmp_path / "celeba.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in folder.rglob("*.*"):
                archive.write(path, path.relative_to(tmp_path))
    for split, numbers in ((None, [0, 2, 27999, 28000]), ("train", [0, 2, 27999]), ("test", [28000])):
        options = {"split": split} if split else {}
        make(tmp_path / f"{split}.zip", source=source, width=16, height=16, **options)
        dataset = MaskedImageDataset(tmp_path / f"{split}.zip")
        assert dataset.regions == CELEBAMASK
        assert len(dataset) == len(numbers)
        for item, i in zip(dataset, numbers, strict=False):
            assert (item.mask == expected[i]).all()


def test_celebamask_masks_grow_to_the_images(tmp_path):
    expected = celebamask(tmp_path / "c", [5])
    make(tmp_path / "a.zip", source=tmp_path / "c")
    assert (MaskedImageDataset(tmp_path / "a.zip")[0].mask == expected[5].repeat(2, 0).repeat(2, 1)).all()


def test_celebamask_parts_or_regions_can_be_merged(tmp_path):
    celebamask(tmp_path / "c", [5])
    names = ["background", *PARTS]
    sides = {"background": ["background"], "left": ["l_eye"], "right": ["r_eye"]}
    sides["rest"] = [name for name in names if not name.endswith("_eye")][1:]
    (tmp_path / "parts.json").write_text(json.dumps({"classes": sides}))
    make(tmp_path / "a.zip", source=tmp_path / "c", mask_map=tmp_path / "parts.json")
    assert MaskedImageDataset(tmp_path / "a.zip").regions.names == ["background", "left", "right", "rest"]
    simple = {"background": ["background"], "face": [name for name in CELEBAMASK.names if name != "background"]}
    (tmp_path / "regions.json").write_text(json.dumps({"classes": simple}))
    make(tmp_path / "b.zip", source=tmp_path / "c", mask_map=tmp_path / "regions.json")
    assert MaskedImageDataset(tmp_path / "b.zip").regions.names == ["background", "face"]


def test_celebamask_without_a_mask_is_refused(tmp_path):
    celebamask(tmp_path / "c", [5])
    save(tmp_path / "c" / "CelebA-HQ-img" / "7.jpg", picture())
    refuse("7.jpg in", tmp_path / "a.zip", source=tmp_path / "c")
    refuse("no image of the test split", tmp_path / "a.zip", source=tmp_path / "c", split="test")
