"""Reads annotations, and finds the annotations of each image."""

import os
from collections.abc import Sequence

from dnnlib import UserError
from semantic.sources.coco import is_coco, read_coco
from semantic.sources.coding import NONE, Decoded, MaskCoding, make_coding, read_json
from semantic.sources.labelme import is_labelme, read_labelme
from semantic.sources.matching import base_name, stem
from semantic.sources.shapes import Drawing
from training.archive import Archive, DataError, local_path
from training.layout import METADATA

UNLISTED = "images left out, since the annotations do not list them"
EMPTY = "images without annotations, all background"
ABSENT = "images of the annotations without a file"
CLASSES = "classes.json"


class DrawnMasks:
    """Masks painted from annotations, for `FileSource`.

    Args:
        drawings: one drawing per image. None for an image without a mask.
        coding: from classes to regions.
    """

    def __init__(self, drawings: Sequence[Drawing | None], coding: MaskCoding):
        self._drawings, self._coding = list(drawings), coding
        self.regions = coding.regions

    def read(self, index: int) -> Decoded:
        """Returns the mask of one image."""
        drawing = self._drawings[index]
        if drawing is None:
            return NONE
        changes = () if drawing.shapes else (EMPTY,)
        return Decoded(self._coding.merge(drawing.paint(), drawing.where), changes)


def read_annotations(path: str, images: Archive) -> tuple[list[str], list[Drawing]] | None:
    """Returns the class names and drawings of COCO or LabelMe annotations: a JSON file, or a folder or zip with such.

    Returns None without annotations, for example for a folder of mask files with JSON files beside them.

    Raises:
        DataError: a JSON file is of no known kind, or broken.
    """
    local = local_path(path)
    if os.path.isfile(local) and not local.lower().endswith(".zip") and _starts_as_json(local):
        data = read_json(local)
        if is_labelme(data):
            names = ["background"]
            return names, [read_labelme(data, os.path.basename(local), path, names)]
        if not is_coco(data):
            raise DataError(
                f"{path} has no 'images', 'annotations' and 'categories'. Export the annotations as COCO instances."
            )
        if (
            data["annotations"]
            and isinstance(data["annotations"][0], dict)
            and "segments_info" in data["annotations"][0]
        ):
            raise DataError(
                f"{path} holds panoptic annotations. Name the folder of their PNG files, or export COCO instances."
            )
        return read_coco(data, path)
    archive = Archive(local)
    files = [n for n in archive.names if n.lower().endswith(".json") and base_name(n) not in (CLASSES, METADATA)]
    same = os.path.realpath(local) == os.path.realpath(images.path)
    if not files or (archive.images() and not same):
        return None
    first = archive.read_json(files[0])
    if is_coco(first):
        return read_coco(first, archive.where(files[0]))
    if not is_labelme(first):
        return None
    names = ["background"]
    drawings = []
    for file in files:
        data = archive.read_json(file)
        if not is_labelme(data):
            raise DataError(f"{archive.where(file)} holds no shapes, unlike the other files. Remove the file.")
        drawings.append(read_labelme(data, file, archive.where(file), names))
    return _in_order(names, drawings)


def open_drawn(
    found: tuple[list[str], list[Drawing]],
    names: Sequence[str],
    images: Archive,
    palette: str | None,
    mask_map: str | None,
    some: bool = False,
) -> tuple[list[str], DrawnMasks, dict[str, int]]:
    """Returns the annotated images, their masks, and the numbers of images and annotations without a partner.

    With `some`, images that are not listed or have no shape are kept without a mask.

    Raises:
        UserError: the annotations list none of the images, or the options do not fit annotations.
    """
    if palette is not None:
        raise UserError("Annotations name their own classes. Remove --palette.")
    classes, drawings = found
    by_path = {stem(name): name for name in names}
    by_base: dict[str, list[str]] = {}
    for name in names:
        by_base.setdefault(base_name(stem(name)), []).append(name)
    partners: dict[str, Drawing] = {}
    absent = []
    for drawing in drawings:
        same_base = by_base.get(base_name(stem(drawing.name)), [])
        name = by_path.get(stem(drawing.name)) or (same_base[0] if len(same_base) == 1 else None)
        if name is None:
            absent.append(drawing)
        elif name in partners:
            raise DataError(f"{drawing.where} annotates {name} a second time. Remove one of the annotations.")
        else:
            partners[name] = drawing
    if not partners:
        example = f": {absent[0].name} is not in {images.path}" if absent else ""
        raise DataError(f"The annotations list none of the images{example}. Check --source and --masks.")
    kept = [name for name in names if some or name in partners]
    coding = make_coding(None, mask_map, names=classes)
    masks = [partners.get(name) for name in kept]
    if some:
        masks = [drawing if drawing and drawing.shapes else None for drawing in masks]
        if not any(masks):
            raise DataError("The annotations hold no shape, so no image would have a mask. Check --masks.")
    counts = {UNLISTED: len(names) - len(kept), ABSENT: len(absent)}
    return kept, DrawnMasks(masks, coding), counts


def _in_order(names: list[str], drawings: list[Drawing]) -> tuple[list[str], list[Drawing]]:
    """Returns the classes in alphabetical order, independent of the order of files."""
    ordered = [names[0], *sorted(names[1:])]
    for drawing in drawings:
        for shape in drawing.shapes:
            shape.index = ordered.index(names[shape.index])
    return ordered, drawings


def _starts_as_json(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
