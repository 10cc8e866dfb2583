"""Images and masks as files: folders and zips of any layout, and archives of our own."""

import os
import re
from collections.abc import Sequence
from typing import Any

from semantic.mask_files import MASKS, mask_name
from semantic.regions import Regions
from semantic.sources.base import Sample, Source, read_image
from semantic.sources.coding import MaskCoding, make_coding, read_json
from semantic.sources.mask_map import parse_class_names
from training.archive import IMAGE_SUFFIXES, Archive, DataError
from training.dataset import COMPANIONS
from training.labels import label_array, read_labels, read_metadata
from training.layout import METADATA

CLASSES = "classes.json"


class FileSource(Source):
    """Image files, each with a mask file.

    Args:
        images: where the images are.
        image_names: which of its files they are.
        masks: where the masks are; None for images alone.
        mask_names: the mask file of each image.
        coding: how to read the masks.
        labels: one an image.
    """

    def __init__(
        self,
        images: Archive,
        image_names: Sequence[str],
        masks: Archive | None = None,
        mask_names: Sequence[str] = (),
        coding: MaskCoding | None = None,
        labels: list[Any] | None = None,
    ):
        super().__init__()
        self.labels = labels
        self.regions = coding.regions if coding else None
        self._images, self._image_names = images, list(image_names)
        self._masks, self._mask_names, self._coding = masks, list(mask_names), coding

    def __len__(self) -> int:
        return len(self._image_names)

    def read(self, index: int) -> Sample:
        mask = None
        if self._masks is not None:  # first, while no image takes memory: colours take the most
            name = self._mask_names[index]
            mask = self._coding.decode(self._masks.read(name), self._masks.where(name))
        name = self._image_names[index]
        where = self._images.where(name)
        image, jpeg = read_image(self._images.read(name), where)
        return Sample(image, jpeg, mask, where)


def open_files(images: Archive, masks: str | None, palette: str | None, mask_map: str | None) -> FileSource:
    """A folder or zip of images, with masks in a second one or under ``masks/`` of the first, or without.

    dataset.json beside the images gives labels, and regions for masks under ``masks/``.

    Raises:
        UserError: there are no images, an image has no mask, two images have one base name, a label is missing.
    """
    names = images.images(skip=COMPANIONS)
    if not names:
        raise DataError(f"There is no image ({', '.join(IMAGE_SUFFIXES)}) in {images.path}: check --source.")
    metadata = read_metadata(images)
    own_masks = [name for name in images.images() if name.startswith(MASKS)]
    if masks is not None:
        mask_archive = Archive(masks)
        names = _outside(names, images, mask_archive)
        if not names:
            raise DataError(f"There is no image outside {masks} in {images.path}: name the images' folder as --source.")
        mask_files = mask_archive.images()
        coding = make_coding(palette, mask_map, names=_class_names(mask_archive))
    elif own_masks:
        mask_archive, mask_files = images, own_masks
        regions = metadata.get("regions")
        known = Regions.from_dict(regions, where=f"the regions in {images.where(METADATA)}") if regions else None
        coding = make_coding(palette, mask_map, known, None if known else _class_names(images))
    elif palette or mask_map:
        option = "--palette" if palette else "--mask-map"
        raise DataError(f"{option} is for masks, but there are none in {images.path}: add --masks=PATH.")
    else:
        return FileSource(images, names, labels=_labels(images, names))
    partners, unused = _match(images, names, mask_archive, mask_files)
    source = FileSource(images, names, mask_archive, partners, coding, _labels(images, names))
    if unused:
        source.notes.append(f"{unused} masks without an image were left out.")
    return source


def _match(images: Archive, names: Sequence[str], masks: Archive, mask_files: Sequence[str]) -> tuple[list[str], int]:
    """The mask file of each image, and the number of masks that are left over.

    A mask belongs to the image of the same path up to the suffix; failing that, to the image of the same base name
    wherever it lies, if only one mask has that name.
    """
    by_path: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    for file in mask_files:
        relative = file[len(MASKS) :] if masks is images else file
        by_path[_stem(relative)] = file
        by_name.setdefault(_stem(relative).rsplit("/", 1)[-1], []).append(file)
    partners: list[str] = []
    owner: dict[str, str] = {}
    missing: list[str] = []
    for name in names:
        same_name = by_name.get(_stem(name).rsplit("/", 1)[-1], [])
        partner = by_path.get(_stem(name)) or (same_name[0] if len(same_name) == 1 else None)
        if partner is None:
            missing.append(name)
            continue
        if partner in owner:
            raise DataError(
                f"{owner[partner]} and {name} in {images.path} have the same base name, so both would get the mask "
                f"{partner}: rename or remove one."
            )
        owner[partner] = name
        partners.append(partner)
    if missing:
        expected = mask_name(missing[0]) if masks is images else _stem(missing[0]) + ".png"
        raise DataError(
            f"{len(missing)} of {len(names)} images have no mask: {images.where(missing[0])} needs "
            f"{masks.where(expected)}. Masks are matched by base name."
        )
    return partners, len(mask_files) - len(partners)


def _outside(names: list[str], images: Archive, masks: Archive) -> list[str]:
    """Image names without those in a masks folder that lies below the images' folder."""
    inner = os.path.relpath(os.path.realpath(masks.path), os.path.realpath(images.path)).replace(os.sep, "/")
    if images.is_zip or masks.is_zip or inner.startswith(".."):
        return names
    return [name for name in names if not name.startswith(inner + "/")]


def _class_names(masks: Archive) -> list[str] | None:
    """Names from a classes.json in the masks' archive or beside it."""
    inside = next((name for name in masks.names if name.rsplit("/", 1)[-1] == CLASSES), None)
    if inside is not None:
        return parse_class_names(masks.read_json(inside), masks.where(inside))
    beside = os.path.join(os.path.dirname(os.path.abspath(masks.path)), CLASSES)
    return parse_class_names(read_json(beside), beside) if os.path.isfile(beside) else None


def _labels(images: Archive, names: Sequence[str]) -> list[Any] | None:
    """Labels of the images from dataset.json, such as training accepts."""
    labels = read_labels(images, names)
    if labels is not None:
        label_array(labels, images.where(METADATA))
    return labels


def _stem(name: str) -> str:
    return re.sub(r"\.[^./]+$", "", name)
