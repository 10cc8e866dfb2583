"""Reads and names mask files of class indices."""

import os

import numpy as np
import PIL.Image

from training.archive import DataError, decode_image, decode_plain_png

MASKS = "masks/"
COUNTED_AT_ONCE = 1 << 20
NO_CLASS = 255  # never a class index: there are at most 255 regions
_GREY_STEP = {2: 85, 4: 17}  # decoders multiply grey values of fewer than 8 bits by this factor


def class_areas(mask: np.ndarray) -> np.ndarray:
    """Returns the number of pixels of each class: uint8 [H, W] -> int64 [256]."""
    step = max(COUNTED_AT_ONCE // mask.shape[1], 1)  # counting takes eight times the memory of its input
    parts = (mask[start : start + step] for start in range(0, len(mask), step))
    return sum((np.bincount(part.ravel(), minlength=256) for part in parts), np.zeros(256, np.int64))


def decode_indices(data: bytes, where: str) -> np.ndarray:
    """Returns the class indices of a single-channel mask file, uint8 [H, W].

    Accepts grey PNG of 1 to 16 bits, and palette PNG, whose indices are the classes.

    Raises:
        DataError: the file is damaged, or has colours instead of indices.
    """
    pixels = decode_plain_png(data)
    if pixels is not None and pixels.ndim == 2:
        return pixels
    return image_indices(decode_image(data, where), data, where)


def image_indices(image: PIL.Image.Image, data: bytes, where: str) -> np.ndarray:
    """Same as `decode_indices`, for a decoded file."""
    if image.mode == "L" and image.format == "PNG":
        pixels = np.array(image)
        bits = data[24]  # bit depth in the PNG header
        return pixels // _GREY_STEP[bits] if bits in _GREY_STEP else pixels
    if image.mode in ("L", "P", "1"):
        return np.array(image, dtype=np.uint8)
    if image.mode.startswith("I"):
        pixels = np.array(image)
        if pixels.min() >= 0 and pixels.max() <= NO_CLASS:
            return pixels.astype(np.uint8)
        raise DataError(
            f"{where} holds the value {pixels.max()}, but class indices are 0 to {NO_CLASS - 1}. For grey values, "
            f'use dataset_tool.py --palette with {{"background": [0, 0, 0], "object": [255, 255, 255]}}.'
        )
    raise DataError(
        f"{where} is a {image.mode} image, not a single-channel image of class indices. Convert colour masks with "
        f"dataset_tool.py --palette."
    )


def mask_name(image_name: str) -> str:
    """Returns the name of an image's mask in an archive: the same name under ``masks/``, always PNG."""
    return MASKS + os.path.splitext(image_name)[0] + ".png"
