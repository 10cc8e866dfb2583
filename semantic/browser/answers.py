"""Encodes pictures and files for the page."""

import base64
import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch

from semantic.generator import SynthesisOutput
from semantic.masks import mask_to_indices
from training.images import to_uint8


def png(pixels: np.ndarray) -> bytes:
    """Returns a PNG of uint8 [H, W], [H, W, 1] or [H, W, 3]."""
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def image_png(image: torch.Tensor) -> bytes:
    """Returns a PNG of one image [C, R, R] in [-1, 1]."""
    return png(to_uint8(image).transpose(1, 2, 0))


def text(data: bytes) -> str:
    """Returns bytes as text for JSON."""
    return base64.b64encode(data).decode()


def picture(out: SynthesisOutput, command: str) -> dict[str, Any]:
    """Returns an image with its mask: a PNG, and packed class indices row by row."""
    indices = mask_to_indices(out.mask)[0]
    packed = zlib.compress(indices.tobytes(), 1)
    return {"image": text(image_png(out.image[0])), "mask": text(packed), "size": len(indices), "command": command}


def arrays_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns arrays as .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
