"""Masks from the JSON files of LabelMe, one beside each image."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semantic.sources.shapes import FARTHEST, Drawing, Shape, circle, rectangle
from training.archive import MAX_IMAGE_PIXELS, DataError, decode_image

BACKGROUND = ("background", "_background_", "__ignore__")
NO_AREA = ("point", "points", "line", "linestrip")


def is_labelme(data: Any) -> bool:
    """Returns True for parsed JSON that holds shapes of one image."""
    return isinstance(data, Mapping) and isinstance(data.get("shapes"), list)


def read_labelme(data: Mapping[str, Any], file: str, where: str, names: list[str]) -> Drawing:
    """Returns the drawing of one file.

    Args:
        data: parsed JSON. A copy of the image in it is ignored.
        file: name of the file in its folder. The image is in the same folder, under the name in the file.
        where: the file, for messages.
        names: names of the classes, background first. New ones are added.

    Raises:
        DataError: a shape is broken. The message names it.
    """
    size = [data.get("imageHeight"), data.get("imageWidth")]
    if not all(isinstance(v, int) and v > 0 for v in size) or size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise DataError(f"{where} needs a valid imageHeight and imageWidth. Save it again with LabelMe.")
    image = str(data.get("imagePath") or file.removesuffix(".json")).replace("\\", "/").rsplit("/", 1)[-1]
    drawing = Drawing(file[: file.rfind("/") + 1] + image, *size, where)
    for number, entry in enumerate(data["shapes"]):
        label = f"Shape {number} in {where}"
        if not isinstance(entry, Mapping) or not str(entry.get("label") or "").strip():
            raise DataError(f"{label} has no label. Name its class.")
        name, kind = str(entry["label"]).strip(), str(entry.get("shape_type") or "polygon")
        if kind in NO_AREA:
            raise DataError(f"{label} is a {kind} without an area. Draw a polygon, or delete it.")
        if name.lower() in BACKGROUND:
            index = 0
        else:
            if name not in names:
                names.append(name)
            index = names.index(name)
        drawing.shapes.append(_shape(kind, entry, index, label))
    return drawing


def _shape(kind: str, entry: Mapping[str, Any], index: int, label: str) -> Shape:
    points = _points(entry.get("points"), label)
    needed = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}.get(kind)
    if needed is None:
        raise DataError(f"{label} is of the unknown type {kind!r}. Draw a polygon, rectangle, circle or mask.")
    corners = kind == "rectangle" and len(points) == 4
    if len(points) < needed or (kind != "polygon" and len(points) != needed and not corners):
        raise DataError(f"{label} is a {kind} of {len(points)} points. Draw it again.")
    if kind == "mask":
        return Shape(index, patch=_patch(entry.get("mask"), label), corner=tuple(int(v) for v in points[0].round()))
    if kind == "circle":
        points = circle(*points)
    elif kind == "rectangle" and len(points) == 2:
        points = rectangle(*points)
    return Shape(index, [points])


def _points(points: Any, label: str) -> np.ndarray:
    """Returns the corners as float64 [n, 2]."""
    try:
        found = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.ndim != 2 or found.shape[1] != 2 or not (abs(found) < FARTHEST).all() or _holds_words(points):
        raise DataError(f"{label} has a broken outline. An outline needs pairs of finite x and y. Draw it again.")
    return found


def _holds_words(points: Sequence[Sequence[Any]]) -> bool:
    return any(isinstance(value, (str, bool)) for point in points for value in point)


def _patch(text: Any, label: str) -> np.ndarray:
    """Returns a mask stored as the text of a PNG file: bool [h, w]."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"{label} is a mask without a picture. Draw it again.") from error
    return np.asarray(decode_image(data, f"the mask of {label}").convert("L")) > 0
