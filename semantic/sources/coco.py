"""Masks from a COCO JSON file: polygons, and runs of pixels as numbers or as text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from semantic.sources.shapes import FARTHEST, Drawing, Shape
from training.archive import MAX_IMAGE_PIXELS, DataError

BACKGROUND = ("background", "_background_")


def is_coco(data: Any) -> bool:
    """Returns True for parsed JSON with the three tables of COCO."""
    return isinstance(data, Mapping) and all(isinstance(data.get(key), list) for key in ("images", "annotations"))


def read_coco(data: Mapping[str, Any], where: str) -> tuple[list[str], list[Drawing]]:
    """Returns the names of the classes, background first, and one drawing for each image.

    Categories become classes in the order of the file. A category background or ``_background_`` is class 0.

    Raises:
        DataError: an entry is missing or broken. The message names the annotation.
    """
    try:
        categories = {entry["id"]: str(entry["name"]).strip() for entry in data.get("categories", [])}
        images = {entry["id"]: entry for entry in data["images"]}
    except (TypeError, KeyError) as error:
        raise DataError(f"An image or category in {where} lacks its {error}. Export the annotations again.") from error
    if not categories:
        raise DataError(f"{where} has no categories. Export the annotations with categories: they become regions.")
    others = [name for name in categories.values() if name.lower() not in BACKGROUND]
    ground = next((name for name in categories.values() if name.lower() in BACKGROUND), BACKGROUND[0])
    names = [ground, *dict.fromkeys(others)]
    drawings = {key: _drawing(entry, where) for key, entry in images.items()}
    for number, entry in enumerate(data["annotations"]):
        if not isinstance(entry, Mapping):
            raise DataError(f"Annotation {number} in {where} is not a JSON object. Export the annotations again.")
        label = f"Annotation {entry.get('id', number)} in {where}"
        drawing = _look_up(drawings, entry, "image_id", label)
        category = _look_up(categories, entry, "category_id", label)
        index = names.index(category) if category in names else 0
        if "segmentation" not in entry:
            raise DataError(f"{label} has a box but no segmentation. Export polygons or masks.")
        drawing.shapes.append(_shape(entry["segmentation"], index, drawing, label))
    return names, list(drawings.values())


def _drawing(entry: Mapping[str, Any], where: str) -> Drawing:
    name = str(entry.get("file_name", ""))
    size = [entry.get("height"), entry.get("width")]
    good = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in size)
    if not name or not good or size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise DataError(
            f"Image {entry['id']} in {where} needs a file_name and a valid height and width. Correct the entry."
        )
    return Drawing(name.replace("\\", "/"), *size, where)


def _look_up(table: Mapping[Any, Any], entry: Mapping[str, Any], key: str, label: str) -> Any:
    found = entry.get(key)
    if isinstance(found, (list, dict)) or found not in table:
        kind = "image" if key == "image_id" else "category"
        raise DataError(f"{label} names {kind} {found}, but the file lists no such {kind}. Correct its {key}.")
    return table[found]


def _shape(segmentation: Any, index: int, drawing: Drawing, label: str) -> Shape:
    label = f"{label} (image {drawing.name})"
    if isinstance(segmentation, list):
        return Shape(index, [_polygon(numbers, label) for numbers in segmentation])
    counts = segmentation.get("counts") if isinstance(segmentation, Mapping) else None
    if isinstance(counts, str):
        counts = decode_runs(counts, label)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise DataError(f"{label} has a segmentation that is neither polygons nor runs of pixels. Export it again.")
    height, width = segmentation.get("size", [drawing.height, drawing.width])
    if [height, width] != [drawing.height, drawing.width] or sum(counts) != height * width:
        raise DataError(
            f"{label} has runs of {sum(counts)} pixels, but its image is {drawing.width}x{drawing.height}. "
            f"Export it again."
        )
    return Shape(index, runs=np.array(counts, np.int64))


def _polygon(numbers: Any, label: str) -> np.ndarray:
    good = isinstance(numbers, list) and all(isinstance(n, (int, float)) and abs(n) < FARTHEST for n in numbers)
    if not good or len(numbers) < 6 or len(numbers) % 2:
        raise DataError(f"{label} has a broken polygon. A polygon needs 3 or more pairs of finite x and y.")
    return np.array(numbers, np.float64).reshape(-1, 2)


def decode_runs(text: str, label: str = "the mask") -> list[int]:
    """Returns the lengths of runs from COCO's compressed text.

    Each number takes characters of 6 bits from '0' on, the lowest 5 bits first. Bit 5 says that more
    characters follow. Bit 4 of the last character is the sign. From the fourth number on, the text stores the
    difference from the number two places before.

    Raises:
        DataError: the text has a wrong character, or is incomplete.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise DataError(f"{label} has a wrong character {character!r} in its compressed mask. Export it again.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise DataError(f"{label} has an incomplete compressed mask. Export it again.")
    return counts
