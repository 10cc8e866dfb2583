"""Labelled shapes and their masks: polygons, runs of pixels, rectangles, circles."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

CIRCLE_POINTS = 72
FARTHEST = 1e6  # pixels; larger than any picture


@dataclass
class Shape:
    """An area with a class.

    Attributes:
        index: index of the class.
        polygons: corners, float64 [n, 2] each, x first, in pixels. (0, 0) is the upper left corner of the picture.
        runs: lengths of runs outside and inside in turn, down the columns, of the whole picture, or None.
        patch: bool [h, w], a mask of a part of the picture, or None.
        corner: (x, y) of the upper left pixel of the patch.
    """

    index: int
    polygons: Sequence[np.ndarray] = ()
    runs: np.ndarray | None = None
    patch: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)

    @property
    def area(self) -> float:
        """Returns the area in pixels. It includes parts outside the picture."""
        inside = 0 if self.runs is None else int(self.runs[1::2].sum())
        inside += 0 if self.patch is None else int(self.patch.sum())
        return inside + sum(_polygon_area(points) for points in self.polygons)

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Returns whether each pixel lies inside: bool [H, W]."""
        inside = np.zeros((height, width), bool)
        if self.runs is not None:
            values = np.arange(len(self.runs)) % 2 == 1
            inside |= np.repeat(values, self.runs).reshape(width, height).T
        if self.patch is not None:
            x, y = self.corner
            part = self.patch[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
            top, left = max(y, 0), max(x, 0)
            inside[top : top + part.shape[0], left : left + part.shape[1]] |= part
        for points in self.polygons:
            inside |= fill_polygon(points, height, width)
        return inside


@dataclass
class Drawing:
    """The shapes of one image.

    Attributes:
        name: the image file that the annotations name.
        height, width: size of the annotated picture.
        where: the annotations, for messages.
    """

    name: str
    height: int
    width: int
    where: str
    shapes: list[Shape] = field(default_factory=list)

    def paint(self) -> np.ndarray:
        """Returns class indices, uint8 [H, W].

        Larger shapes are painted first, so smaller shapes stay visible. Other pixels are 0.
        """
        mask = np.zeros((self.height, self.width), np.uint8)
        for shape in sorted(self.shapes, key=lambda shape: -shape.area):
            mask[shape.pixels(self.height, self.width)] = shape.index
        return mask


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the pixels whose centre lies inside a polygon, by the even-odd rule: float64 [n, 2] -> bool [H, W]."""
    first, second = points, np.roll(points, -1, axis=0)
    low, high = np.minimum(first[:, 1], second[:, 1]), np.maximum(first[:, 1], second[:, 1])
    start = np.ceil(low - 0.5).clip(0, height).astype(int)  # rows whose centre the edge passes
    count = np.ceil(high - 0.5).clip(0, height).astype(int) - start
    edge = np.repeat(np.arange(len(points)), count)
    row = start[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    x0, y0, x1, y1 = first[edge, 0], first[edge, 1], second[edge, 0], second[edge, 1]
    crossing = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    column = np.ceil(crossing - 0.5).clip(0, width).astype(int)  # from here on, the row is on the other side
    turns = np.zeros((height, width + 1), np.int32)
    np.add.at(turns, (row, column), 1)
    return np.cumsum(turns, axis=1)[:, :width] % 2 == 1


def circle(center: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Returns a polygon for a circle, given by its centre and a point on it, [2] each."""
    angles = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
    return center + np.hypot(*(edge - center)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def rectangle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns a polygon for a rectangle, given by two opposite corners, [2] each."""
    return np.array([one, [other[0], one[1]], other, [one[0], other[1]]])


def _polygon_area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
