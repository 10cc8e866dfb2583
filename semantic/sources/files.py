"""Images and masks as files: folders and zips of any layout, and archives of our own."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from semantic.mask_files import MASKS
from semantic.regions import Regions
from semantic.sources.annotations import CLASSES, DrawnMasks, open_drawn, read_annotations
from semantic.sources.base import Sample, Source
from semantic.sources.coding import NONE, Decoded, MaskCoding, make_coding, read_json
from semantic.sources.images import is_grey, read_image
from semantic.sources.mask_map import parse_class_names
from semantic.sources.matching import mask_candidates, match
from training.archive import IMAGE_SUFFIXES, Archive, DataError
from training.dataset import COMPANIONS
from training.labels import label_array, read_labels, read_metadata
from training.layout import METADATA, folder_of_masks


class MaskFiles:
    """Masks from files.

    Args:
        archive: folder or zip of the masks.
        names: mask file of each image, or None.
        coding: coding of the masks.
    """

    def __init__(self, archive: Archive, names: Sequence[str | None], coding: MaskCoding):
        self._archive, self._names, self._coding = archive, list(names), coding
        self.regions = coding.regions

    def read(self, index: int) -> Decoded:
        """Returns the mask of one image."""
        name = self._names[index]
        return NONE if name is None else self._coding.decode(self._archive.read(name), self._archive.where(name))


class FileSource(Source):
    """Image files with masks, or some of them with masks, or without.

    Args:
        images: folder or zip of the images.
        image_names: names of the image files.
        masks: masks of the images, or None.
        labels: one label per image.
    """

    def __init__(
        self,
        images: Archive,
        image_names: Sequence[str],
        masks: MaskFiles | DrawnMasks | None = None,
        labels: list[Any] | None = None,
    ):
        super().__init__()
        self.labels = labels
        self.regions = masks.regions if masks else None
        self._images, self._image_names, self._masks = images, list(image_names), masks
        if masks is None:
            self.grey = all(is_grey(images.read(name), images.where(name)) for name in image_names)

    def __len__(self) -> int:
        return len(self._image_names)

    def read(self, index: int) -> Sample:
        mask, changed = None, ()
        if self._masks is not None:  # first, while no image takes memory: colours take the most
            mask, changed = self._masks.read(index)
        name = self._image_names[index]
        where = self._images.where(name)
        image, jpeg, orientation, changes = read_image(self._images.read(name), where)
        return Sample(image, jpeg, mask, where, orientation, changes + changed)


def open_files(
    images: Archive,
    masks: str | None,
    palette: str | None,
    mask_map: str | None,
    images_only: bool = False,
    some_masks: bool = False,
) -> FileSource:
    """Returns the source of a folder or zip of images.

    Masks are in a second folder or zip, under ``masks/`` of the first, or absent.

    dataset.json beside the images gives labels, and regions for masks under ``masks/``. `masks` may be annotations,
    see `read_annotations`. With `some_masks`, images without a mask are kept.

    Raises:
        UserError: there are no images, an image has no mask, two images have one base name, a label is missing.
    """
    names = images.images(skip=COMPANIONS)
    if not names:
        raise DataError(f"{images.path} holds no image ({', '.join(IMAGE_SUFFIXES)}). Check --source.")
    own_masks = [name for name in images.images() if name.startswith(MASKS)]
    left_out = _no_images(images)
    if masks is not None:
        found = read_annotations(masks, images)
        if found is not None:
            names, drawn, counts = open_drawn(found, names, images, palette, mask_map, some_masks)
            return _counted(FileSource(images, names, drawn, _labels(images, names)), left_out + Counter(counts))
        mask_archive = Archive(masks)
        names = _outside(names, images, mask_archive)
        if not names:
            raise DataError(f"{images.path} holds no image outside {masks}. Name the images with --source.")
        mask_files, classes = mask_candidates(mask_archive.images())
        coding = make_coding(palette, mask_map, names=_class_names(mask_archive) or classes, void=classes is not None)
    elif own_masks and not images_only:
        mask_archive, mask_files = images, own_masks
        regions = read_metadata(images).get("regions")
        known = Regions.from_dict(regions, where=f"the regions in {images.where(METADATA)}") if regions else None
        coding = make_coding(palette, mask_map, known, None if known else _class_names(images))
    elif palette or mask_map or some_masks:
        option = "--palette" if palette else "--mask-map" if mask_map else "--some-masks"
        raise DataError(f"{option} is for masks, but {images.path} has none. Add --masks=PATH.")
    else:
        folder = folder_of_masks(names)
        if folder is not None and not images_only:
            raise DataError(
                f"{folder} in {images.path} seems to hold masks of the other images. Add "
                f"--masks={images.path}/{folder}, or --images-only to omit the masks."
            )
        names = [name for name in names if folder is None or not name.startswith(folder + "/")]
        return _counted(FileSource(images, names, labels=_labels(images, names)), left_out)
    partners, unused = match(images, names, mask_archive, mask_files, some_masks)
    source = FileSource(images, names, MaskFiles(mask_archive, partners, coding), _labels(images, names))
    return _counted(source, left_out + Counter({"masks left out, since they have no image": unused}))


def _counted(source: FileSource, left_out: Counter[str]) -> FileSource:
    source.left_out = +left_out
    return source


def _no_images(images: Archive) -> Counter[str]:
    """Returns how many files have no suffix of an image, by suffix. JSON files are not counted."""
    suffixes = [os.path.splitext(name)[1].lower() or "nameless" for name in images.names]
    others = Counter(suffix for suffix in suffixes if suffix not in (*IMAGE_SUFFIXES, ".json"))
    return Counter({f"{suffix} files left out": number for suffix, number in others.most_common(5)})


def _outside(names: list[str], images: Archive, masks: Archive) -> list[str]:
    """Returns the image names, without the names in a masks folder below the folder of the images."""
    inner = os.path.relpath(os.path.realpath(masks.path), os.path.realpath(images.path)).replace(os.sep, "/")
    if images.is_zip or masks.is_zip or inner.startswith(".."):
        return names
    return [name for name in names if not name.startswith(inner + "/")]


def _class_names(masks: Archive) -> list[str] | None:
    """Returns the names from a classes.json in the masks' archive or beside it."""
    inside = next((name for name in masks.names if name.rsplit("/", 1)[-1] == CLASSES), None)
    if inside is not None:
        return parse_class_names(masks.read_json(inside), masks.where(inside))
    beside = os.path.join(os.path.dirname(os.path.abspath(masks.path)), CLASSES)
    return parse_class_names(read_json(beside), beside) if os.path.isfile(beside) else None


def _labels(images: Archive, names: Sequence[str]) -> list[Any] | None:
    """Returns the labels of the images from dataset.json, in the form for training."""
    labels = read_labels(images, names)
    if labels is not None:
        label_array(labels, images.where(METADATA))
    return labels
