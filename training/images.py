"""Arrays of pictures: convert to bytes, arrange side by side, and save to a file."""

import os
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch

from dnnlib import UserError, atomic_path
from torch_utils.images import to_bytes


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Returns images in [-1, 1] as a uint8 array, see `to_bytes`."""
    return to_bytes(images).cpu().numpy()


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images row by row. An incomplete last row is filled with black.

    Args:
        images: uint8 [N, C, H, W], C = 1 (grey) or 3.
        columns: images per row.

    Returns:
        uint8 [rows * H, columns * W, 3], rows = ceil(N / columns).
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    if channels == 1:
        images = np.repeat(images, 3, axis=1)
    cells = np.zeros([rows * columns, 3, height, width], np.uint8)
    cells[:count] = images
    cells = cells.reshape(rows, columns, 3, height, width)
    return cells.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)


def image_grid(images: torch.Tensor | np.ndarray, grid_size: Sequence[int]) -> np.ndarray:
    """Arrange the first columns * rows images as one picture.

    Args:
        images: uint8 array [N, C, H, W], or a tensor in [-1, 1] of that shape.
        grid_size: (columns, rows).

    Returns:
        uint8 [rows * H, columns * W, 3]. Cells without an image are black.
    """
    columns, rows = grid_size
    pixels = to_uint8(images) if isinstance(images, torch.Tensor) and images.is_floating_point() else np.asarray(images)
    picture = tile(pixels[: columns * rows], columns)
    missing = rows * pixels.shape[2] - picture.shape[0]
    return np.pad(picture, [(0, missing), (0, 0), (0, 0)])


def save_image(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write a picture, completely or not at all. The suffix of `path` sets the format.

    Args:
        path: file to write.
        array: uint8 [H, W] or [H, W, 1] (grey or class indices) or [H, W, 3].

    Raises:
        UserError: the folder cannot be written, the disk is full, or the suffix names no image format.
    """
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    extension = os.path.splitext(os.fspath(path))[1].lower()
    if extension not in PIL.Image.registered_extensions():
        raise UserError(f"Cannot write {path}: {extension or 'no suffix'} is not an image format. Name it .png.")
    with atomic_path(path) as temporary:
        PIL.Image.fromarray(np.ascontiguousarray(array)).save(temporary)
