"""Colour-coded masks: from colours to class indices."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from semantic.mask_files import NO_CLASS
from semantic.regions import Regions
from training.archive import DataError

REACH = 3  # antialiasing spreads an edge over this many pixels to each side
MAX_CLEAR_DISTANCE = 32
FOREIGN_DISTANCE = 64
PIXELS_AT_ONCE = 1 << 18  # each takes hundreds of bytes while it is unclear


class Palette:
    """Colours of classes, and the rule by which pixels of other colours belong to one.

    A pixel is *clear* if a palette colour is near: within a quarter of the smallest distance between palette colours,
    at most 32. It takes the class of this colour. Unclear pixels lie on antialiased edges. They mix the colours of the
    neighbouring classes. Their nearest palette colour often belongs to a third class: halfway from yellow to blue is
    grey, nearest to dark red. This would draw a thin seam along the edge. So an unclear pixel takes the nearest colour
    among the classes of clear pixels up to 3 pixels away. A blend of two of these classes must explain its colour at
    least as well as the nearest palette colour. Otherwise the nearest palette colour decides.

    Args:
        regions: the classes with their colours.

    Raises:
        DataError: two classes have the same colour.
    """

    def __init__(self, regions: Regions):
        self.regions = regions
        self._colors = np.array(regions.colors, np.int64)
        self._codes = _pack(self._colors)
        distances = ((self._colors[:, None] - self._colors) ** 2).sum(-1)
        np.fill_diagonal(distances, distances.max())
        if distances.min() == 0:
            one, other = np.unravel_index(distances.argmin(), distances.shape)
            raise DataError(
                f"{regions.names[one]} and {regions.names[other]} have the same colour in the palette. Change one."
            )
        self._clear_squared = min(MAX_CLEAR_DISTANCE**2, distances.min() / 16)

    @property
    def is_grey(self) -> bool:
        """Returns True if every colour is a grey value, so that grey masks may be colour-coded."""
        return bool((self._colors == self._colors[:, :1]).all())

    def indices(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Returns the class of every pixel: uint8 [H, W, 3] -> uint8 [H, W].

        Raises:
            DataError: most of the pixels have colours far from all of the palette's.
        """
        height, width = pixels.shape[:2]
        classes = np.empty((height, width), np.uint8)
        count, example = 0, None
        step = max(PIXELS_AT_ONCE // width, 1)
        for start in range(0, height, step):
            stop, above = min(start + step, height), min(start, REACH)
            part, foreign = self._decode(pixels[start - above : stop + REACH])
            kept = slice(above, above + stop - start)
            classes[start:stop] = part[kept]
            if foreign[kept].any():
                count += np.count_nonzero(foreign[kept])
                example = example or tuple(int(v) for v in pixels[start:stop][foreign[kept]][0])
        if 2 * count > classes.size:
            raise DataError(
                f"Most of {where} has colours that are not in the palette, such as {example}. Correct the palette."
            )
        return classes

    def _decode(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the class of every pixel, uint8 [H, W], and bool [H, W]: whether all palette colours are far."""
        codes = _pack(pixels)
        classes = np.full(codes.shape, NO_CLASS, np.uint8)
        foreign = np.zeros(codes.shape, bool)
        for k, code in enumerate(self._codes):
            classes[codes == code] = k
        rows, columns = np.nonzero(classes == NO_CLASS)
        if not len(rows):
            return classes, foreign
        others = pixels[rows, columns].astype(np.int64)
        squared = self._squared_distances(others)
        nearest, least = squared.argmin(1), squared.min(1)
        foreign[rows, columns] = least > FOREIGN_DISTANCE**2
        unclear = least > self._clear_squared
        classes[rows[~unclear], columns[~unclear]] = nearest[~unclear]
        rows, columns = rows[unclear], columns[unclear]
        classes[rows, columns] = self._resolve(
            others[unclear], squared[unclear], nearest[unclear], _classes_around(classes, rows, columns)
        )
        return classes, foreign

    def _squared_distances(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the squared distance to each palette colour: int64 [M, 3] -> int64 [M, K]."""
        return (pixels**2).sum(1)[:, None] - 2 * pixels @ self._colors.T + (self._colors**2).sum(1)

    def _resolve(self, pixels: np.ndarray, squared: np.ndarray, nearest: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Returns the classes [M] of unclear pixels.

        Its inputs are the colours [M, 3], and the classes around each pixel, bool [M, 256].
        """
        result = nearest.astype(np.uint8)
        if not len(pixels):
            return result
        kinds, kind_of = np.unique(np.packbits(around, axis=1), axis=0, return_inverse=True)
        for kind, bits in enumerate(kinds):
            candidates = np.flatnonzero(np.unpackbits(bits))
            if not len(candidates):
                continue
            members = np.flatnonzero(kind_of.ravel() == kind)
            blend = self._blend_error(pixels[members], candidates)
            blended = members[blend <= squared[members].min(1)]
            result[blended] = candidates[squared[blended][:, candidates].argmin(1)]
        return result

    def _blend_error(self, pixels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns the squared distance [M] of colours [M, 3] from the nearest blend of two candidate classes."""
        error = self._squared_distances(pixels)[:, candidates].min(1).astype(np.float64)
        for i, first in enumerate(candidates):
            for second in candidates[:i]:
                start, span = self._colors[first], self._colors[second] - self._colors[first]
                share = np.clip((pixels - start) @ span / (span @ span), 0, 1)
                error = np.minimum(error, ((pixels - start - share[:, None] * span) ** 2).sum(1))
        return error


def read_palette(data: Any, where: str) -> Palette:
    """Returns a palette from parsed JSON.

    Either ``{"names": [...], "colors": [[r, g, b], ...], "transparent": [...]}``, also as the "regions" of a
    dataset.json, or names with their colours in order: ``{"background": [255, 0, 0], "skin": [255, 255, 0]}``.

    Raises:
        UserError: it has another form.
    """
    if isinstance(data, Mapping) and isinstance(data.get("regions"), Mapping):
        data = data["regions"]
    if isinstance(data, Mapping) and "names" not in data:
        extra = ("transparent", "mirror")
        colors = {name: color for name, color in data.items() if name not in extra or _is_color(color)}
        more = {name: data.get(name) for name in extra if name not in colors}
        data = {"names": list(colors), "colors": list(colors.values()), **more}
    colors = data.get("colors") if isinstance(data, Mapping) else None
    if not isinstance(colors, list) or not all(_is_color(color) for color in colors):
        raise DataError(
            f'Cannot read the palette {where}. Expected {{"background": [r, g, b], "skin": [r, g, b], ...}}.'
        )
    return Palette(Regions.from_dict(data, where=f"the palette {where}"))


def _is_color(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(isinstance(v, int) for v in value)


def _pack(colors: np.ndarray) -> np.ndarray:
    """Returns one number for each colour: [..., 3] -> int32 [...]."""
    colors = colors.astype(np.int32)
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def _classes_around(classes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns which classes the clear pixels near each of M places have: bool [M, 256]."""
    padded = np.pad(classes, REACH, constant_values=NO_CLASS)
    around = np.zeros([len(rows), 256], bool)
    places = np.arange(len(rows))
    for dy in range(2 * REACH + 1):
        for dx in range(2 * REACH + 1):
            around[places, padded[rows + dy, columns + dx]] = True
    around[:, NO_CLASS] = False
    return around
