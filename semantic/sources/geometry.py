"""Crops and resizes an image and its mask in the same way."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import scipy.sparse

from dnnlib import UserError
from semantic.mask_files import class_areas
from semantic.sources.base import Sample
from training.archive import DataError

FILTERS = {"box": PIL.Image.Resampling.BOX, "lanczos": PIL.Image.Resampling.LANCZOS}
TRANSFORMS = ("center-crop", "center-crop-wide")
ASPECT_TOLERANCE = 0.02

_WAYS = PIL.Image.Transpose
TURNS = {
    2: _WAYS.FLIP_LEFT_RIGHT, 3: _WAYS.ROTATE_180, 4: _WAYS.FLIP_TOP_BOTTOM, 5: _WAYS.TRANSPOSE, 6: _WAYS.ROTATE_270,
    7: _WAYS.TRANSVERSE, 8: _WAYS.ROTATE_90,
}  # fmt: skip
"""How EXIF numbers turn the raw pixels."""

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Geometry:
    """A conversion of images of any size to squares with a power-of-two side.

    Args:
        width, height: size of the result. None keeps the size of the (cropped) image.
        transform: None takes square images whole. 'center-crop' takes the largest central square.
            'center-crop-wide' takes the largest central part of the shape width:height, and resizes it. Black bars make
            it a square, with background in the mask.
        resize_filter: 'box' or 'lanczos', for images. Masks shrink by area vote and grow by repetition.

    Raises:
        UserError: the result would not be square with a power-of-two side.
    """

    width: int | None = None
    height: int | None = None
    transform: str | None = None
    resize_filter: str = "lanczos"

    def __post_init__(self):
        width, height = self.width, self.height
        if self.transform == "center-crop-wide":
            if width is None or height is None:
                raise UserError("--transform=center-crop-wide needs both --width and --height.")
        elif width is not None and height is not None and width != height:
            raise UserError(
                f"Images must become square, but --width={width} and --height={height}. Use equal numbers, or add "
                f"--transform=center-crop-wide."
            )
        side = max(width or 0, height or 0)
        if side & (side - 1):
            raise UserError(f"The side of the images must be a power of two, such as 128 or 256, but is {side}.")

    def apply(self, sample: Sample) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Returns the image, uint8 [S, S, 3], and the mask, uint8 [S, S].

        The image is None if the JPEG of the sample is kept unchanged.

        Raises:
            DataError: the cropped image is not square, or its mask has another shape, or the side of the result is
                not a power of two.
        """
        image, mask = sample.image, sample.mask
        if mask is not None and turn_with_image(sample):
            mask = upright(mask, sample.orientation)
        box = self._crop(image, sample.where)
        width, height = self._size(box, sample.where)
        whole = box == (0, 0, *image.size) and (width, height) == image.size
        pixels = None
        if sample.jpeg is None or not whole:
            pixels = _pad(np.asarray(_resize_image(image, box, (width, height), FILTERS[self.resize_filter])))
        if mask is None:
            return pixels, None
        shape = mask.shape[1] / image.width, mask.shape[0] / image.height
        if abs(shape[0] / shape[1] - 1) > ASPECT_TOLERANCE:
            turned = f", after its EXIF tag turned it (orientation {sample.orientation})" * (sample.orientation != 1)
            raise DataError(
                f"{sample.where} is {image.width}x{image.height}{turned}, but its mask is "
                f"{mask.shape[1]}x{mask.shape[0]}, which is another shape. Correct the mask."
            )
        right, bottom = min(box[2] * shape[0], mask.shape[1]), min(box[3] * shape[1], mask.shape[0])
        mask_box = (box[0] * shape[0], box[1] * shape[1], right, bottom)
        return pixels, _pad(resize_mask(mask, (width, height), mask_box))

    def _crop(self, image: PIL.Image.Image, where: str) -> Box:
        """Returns the part of an image to take."""
        width, height = image.size
        if self.transform is None:
            if width != height:
                raise DataError(
                    f"{where} is {width}x{height}, not square. Add --transform=center-crop to take the central square."
                )
            return 0, 0, width, height
        aspect = self.width / self.height if self.transform == "center-crop-wide" else 1.0
        part = min(width, round(height * aspect)), min(height, round(width / aspect))
        left, top = (width - part[0]) // 2, (height - part[1]) // 2
        return left, top, left + part[0], top + part[1]

    def _size(self, box: Box, where: str) -> tuple[int, int]:
        """Returns the width and height after resizing the box."""
        if self.transform == "center-crop-wide":
            return self.width, self.height
        side = self.width or self.height or round(box[2] - box[0])
        if side & (side - 1):
            raise DataError(
                f"{where} gives {side}x{side} pixels, but the side must be a power of two. Add, for example, "
                f"--width=256 --height=256."
            )
        return side, side


def turn_with_image(sample: Sample) -> bool:
    """Returns True if the mask fits only the raw pixels of a photo that its EXIF tag turns."""
    if sample.orientation not in TURNS or sample.mask is None or sample.orientation < 5:
        return False
    width, height = sample.image.size
    shape = sample.mask.shape[1] / sample.mask.shape[0]
    return abs(shape * height / width - 1) > ASPECT_TOLERANCE >= abs(shape * width / height - 1)


def upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a mask, turned as the EXIF number says."""
    return np.array(PIL.Image.fromarray(mask).transpose(TURNS[orientation]))


def resize_mask(mask: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Resize class indices without mixing them.

    When shrinking, the class that covers most of a new pixel's area wins (the lowest index among equals). When
    growing, the nearest pixel is taken.

    Args:
        mask: uint8 [H, W].
        size: new (width, height).
        box: the part of the mask to take. None takes all.

    Returns:
        uint8 [height, width].
    """
    box = box or (0, 0, mask.shape[1], mask.shape[0])
    source = PIL.Image.fromarray(mask)
    part = box[2] - box[0], box[3] - box[1]
    if part == size and all(value == int(value) for value in box):
        return np.array(source.crop(tuple(int(value) for value in box)))
    if size[0] >= part[0] and size[1] >= part[1]:
        return np.array(source.resize(size, PIL.Image.Resampling.NEAREST, box=box))
    rows, columns = _overlaps(box[1], box[3], size[1], len(mask)), _overlaps(box[0], box[2], size[0], mask.shape[1])
    winner = np.zeros((size[1], size[0]), np.uint8)
    most = np.zeros(winner.shape, np.float32)
    for k in np.flatnonzero(class_areas(mask)):
        area = (columns @ (rows @ (mask == k).astype(np.float32)).T).T
        more = area > most + 1e-4 * (rows.max() * columns.max())  # rounding must not decide between equal areas
        winner[more], most[more] = k, area[more]
    return winner


def _overlaps(start: float, stop: float, new: int, old: int) -> scipy.sparse.csr_array:
    """Returns the length that each new pixel shares with each old pixel: float32 [new, old].

    The `new` pixels are equal parts of [start, stop].
    """
    edges = np.linspace(start, stop, new + 1)
    cuts = np.union1d(edges, np.arange(np.ceil(start), np.floor(stop) + 1))
    middles = (cuts[1:] + cuts[:-1]) / 2
    places = np.clip(np.searchsorted(edges, middles) - 1, 0, new - 1), np.clip(middles.astype(int), 0, old - 1)
    return scipy.sparse.csr_array((np.diff(cuts).astype(np.float32), places), shape=(new, old))


def _resize_image(
    image: PIL.Image.Image, box: Box, size: tuple[int, int], resample: PIL.Image.Resampling
) -> PIL.Image.Image:
    if (box[2] - box[0], box[3] - box[1]) == size:
        return image if size == image.size else image.crop(box)
    return image.resize(size, resample, box=box)


def _pad(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels with zeros on both sides, as a square."""
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    rows, columns = max(width - height, 0), max(height - width, 0)
    bars = [(rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)]
    return np.pad(pixels, bars + [(0, 0)] * (pixels.ndim - 2))
