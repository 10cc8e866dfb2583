"""The placement of the square crop of a network in a photo."""

import json
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from dnnlib import UserError, open_url, write_json

MAX_JSON_BYTES = 1 << 20
MAX_SIDE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The similarity transform from a square crop to its photo.

    Coordinates are continuous, in pixels, x first. (0, 0) is the upper left corner of the first pixel, and (0.5, 0.5)
    its centre.

    Attributes:
        photo: path of the photo, as the user gave it.
        photo_size: (width, height) of the photo after the rotation in its EXIF data.
        resolution: R, side of the crop.
        matrix: ((a, -b, tx), (b, a, ty)), which maps points of the crop to points of the photo.
    """

    photo: str
    photo_size: tuple[int, int]
    resolution: int
    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]

    @classmethod
    def centered(cls, photo: str, photo_size: tuple[int, int], resolution: int) -> "Placement":
        """Returns the largest square in the middle of a photo."""
        width, height = photo_size
        side = min(width, height)
        scale = side / resolution
        matrix = ((scale, -0.0, (width - side) / 2), (0.0, scale, (height - side) / 2))
        return cls(photo=photo, photo_size=(width, height), resolution=resolution, matrix=matrix)

    @property
    def scale(self) -> float:
        """Photo pixels per crop pixel."""
        return math.hypot(self.matrix[0][0], self.matrix[1][0])

    def corners(self) -> torch.Tensor:
        """Returns the corners of the crop in the photo, float64 [4, 2]: upper left and right, lower right and left."""
        side = float(self.resolution)
        points = torch.tensor([[0, 0, 1], [side, 0, 1], [side, side, 1], [0, side, 1]], dtype=torch.float64)
        return points @ torch.tensor(self.matrix, dtype=torch.float64).T

    def save(self, path: str | os.PathLike) -> None:
        """Write the placement as JSON, completely or not at all."""
        write_json(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Returns the placement as numbers, lists and texts."""
        size, matrix = list(self.photo_size), [list(row) for row in self.matrix]
        return {"photo": self.photo, "photo_size": size, "resolution": self.resolution, "matrix": matrix}

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Placement":
        """Read a placement that `save` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        with open_url(path) as file:
            data = file.read(MAX_JSON_BYTES + 1)
        try:
            return cls.from_json(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"Cannot read the placement of a crop from {path}. Expected the placement.json of projector.py. "
                "Run projector.py again."
            ) from error

    @classmethod
    def from_json(cls, data: Any) -> "Placement":
        """Returns the placement that `as_json` gave.

        Raises:
            ValueError: the data hold none.
        """
        try:
            return cls._parse(data)
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError("no placement") from error

    @classmethod
    def _parse(cls, data: dict) -> "Placement":
        width, height = (_whole(value) for value in data["photo_size"])
        (a, minus_b, tx), (b, a_again, ty) = [[float(value) for value in row] for row in data["matrix"]]
        numbers = (a, b, tx, ty)
        similar = math.isclose(a, a_again, abs_tol=1e-9) and math.isclose(b, -minus_b, abs_tol=1e-9)
        if not isinstance(data["photo"], str) or not similar or not 1e-6 < math.hypot(a, b) < MAX_SIDE:
            raise ValueError("no similarity transform")
        if not all(math.isfinite(value) and abs(value) < 1e9 for value in numbers):
            raise ValueError("numbers out of range")
        matrix = ((a, minus_b, tx), (b, a_again, ty))
        return cls(
            photo=data["photo"], photo_size=(width, height), resolution=_whole(data["resolution"]), matrix=matrix
        )

    def crop(self, photo: torch.Tensor) -> torch.Tensor:
        """Returns the crop, [C, R, R] float32. Beyond the photo's edges the photo is mirrored.

        A photo with more pixels than the crop is averaged down first, to avoid aliasing.

        Args:
            photo: [C, H, W], of `photo_size`, in any range.

        Raises:
            UserError: the photo has another size.
        """
        self._check(photo.shape[2], photo.shape[1])
        side = self.resolution
        points = self._map(self.matrix, *_centers(side, side, photo.device))
        return _sample(photo.float(), points, 1 / self.scale, "reflection")

    def to_photo(self, planes: torch.Tensor, size: tuple[int, int] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns planes of the crop, resampled to the photo's frame.

        Args:
            planes: [C, R, R], in any range.
            size: (width, height) of the frame. `photo_size` by default.

        Returns:
            Planes [C, H, W] float32, 0 outside of the crop, and the share [1, H, W] of each pixel that the crop covers,
            in [0, 1].
        """
        width, height = size or self.photo_size
        found = planes.new_zeros([planes.shape[0], height, width], dtype=torch.float32)
        cover = planes.new_zeros([1, height, width], dtype=torch.float32)
        low, high = self.corners().min(dim=0).values - 1, self.corners().max(dim=0).values + 1
        (left, right), (top, bottom) = (
            (max(math.floor(a), 0), min(math.ceil(b), limit))
            for a, b, limit in zip(low.tolist(), high.tolist(), (width, height), strict=True)
        )
        if left >= right or top >= bottom:
            return found, cover
        x, y = _centers(right - left, bottom - top, planes.device)
        points = self._map(self._inverse(), x + left, y + top)
        edge = torch.minimum(points, self.resolution - points).amin(dim=-1) * self.scale
        inside = (edge + 0.5).clamp(0, 1).float()  # a pixel that an edge divides counts partly
        box = (slice(None), slice(top, bottom), slice(left, right))
        found[box] = _sample(planes.float(), points, self.scale, "border") * (inside > 0)
        cover[box] = inside
        return found, cover

    def _inverse(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        (a, _, tx), (b, _, ty) = self.matrix
        square = a * a + b * b
        return (a / square, b / square, -(a * tx + b * ty) / square), (
            -b / square,
            a / square,
            (b * tx - a * ty) / square,
        )

    def _check(self, width: int, height: int) -> None:
        if (width, height) != tuple(self.photo_size):
            raise UserError(
                f"The photo has {width} x {height} pixels, but the crop belongs to {self.photo} of "
                f"{self.photo_size[0]} x {self.photo_size[1]}. Name that photo."
            )

    @staticmethod
    def _map(matrix: tuple, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Returns points [H, W, 2], float64."""
        return torch.stack([row[0] * x + row[1] * y + row[2] for row in matrix], dim=-1)


def _centers(width: int, height: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns x and y of the centres of pixels, each float64 [height, width]."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    x = torch.arange(width, dtype=dtype, device=device) + 0.5
    y = torch.arange(height, dtype=dtype, device=device) + 0.5
    return x.expand(height, width), y[:, None].expand(height, width)


def _sample(planes: torch.Tensor, points: torch.Tensor, density: float, padding: str) -> torch.Tensor:
    """Returns values of planes [C, H, W] at points [h, w, 2]. `density` is the number of points per pixel side."""
    height, width = planes.shape[1:]
    planes = planes[None]
    if density < 1:
        size = [max(round(height * density), 1), max(round(width * density), 1)]
        planes = F.interpolate(planes, size, mode="bicubic", antialias=True, align_corners=False)
    grid = points / points.new_tensor([width, height]) * 2 - 1
    grid = grid[None].to(planes.dtype)
    low, high = planes.amin(dim=(2, 3), keepdim=True), planes.amax(dim=(2, 3), keepdim=True)
    found = F.grid_sample(planes, grid, mode="bicubic", padding_mode=padding, align_corners=False)
    return found.clamp(low, high)[0]  # bicubic weights overshoot


def _whole(value: object) -> int:
    if type(value) is not int or not 1 <= value < MAX_SIDE:
        raise ValueError(f"{value!r} is not a number of pixels")
    return value
