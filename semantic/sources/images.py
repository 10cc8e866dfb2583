"""Reads image files as upright 8-bit pictures, and names the changes."""

from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from training.archive import DataError, decode_image

ORIENTATION = 0x0112  # the EXIF tag
DARKEST = 1 << 12  # 16-bit files that stay below hold fewer bits, and would come out black
TRANSPARENT = "images with transparent pixels: these pixels became white"
SIXTEEN_BITS = "images of 16 bits per channel: 8 bits were kept"
ANIMATED = "animations: the first picture was taken"
CMYK = "images in printing colours (CMYK): they became RGB"


class Picture(NamedTuple):
    """An image file, read.

    Attributes:
        image: upright, mode L where the file is grey, else RGB.
        jpeg: the file itself, if it is a JPEG that needs no change.
        orientation: EXIF number of the turn. 1 is no turn.
        changes: changes to report to the user.
    """

    image: PIL.Image.Image
    jpeg: bytes | None
    orientation: int
    changes: tuple[str, ...]


def read_image(data: bytes, where: str) -> Picture:
    """Returns the picture of an image file. `where` names it in messages.

    Raises:
        DataError: the file is damaged, or has 16 bits with values so small that the picture would be black.
    """
    image = decode_image(data, where)
    changes = [ANIMATED] if getattr(image, "n_frames", 1) > 1 else []
    orientation = int(image.getexif().get(ORIENTATION, 1))
    keep = data if image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1 else None
    deep = image.mode.startswith("I") or (image.format == "PNG" and data[24] == 16)  # the bit depth in the header
    if orientation != 1:
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image, where)
    elif deep and 0 < max(high for _, high in _extremes(image)[:3]) < DARKEST >> 8:
        raise _too_dark(where)
    if deep:
        changes.append(SIXTEEN_BITS)
    if image.mode == "CMYK":
        changes.append(CMYK)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        colors = image.convert("RGBA")
        if colors.getchannel("A").getextrema()[0] < 255:
            changes.append(TRANSPARENT)
            image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", colors.size, "white"), colors)
    mode = "L" if grey else "RGB"
    return Picture(image if image.mode == mode else image.convert(mode), keep, orientation, tuple(changes))


def is_grey(data: bytes, where: str) -> bool:
    """Returns True if the header of an image file says that the image is grey."""
    image = decode_image(data, where, header=True)
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def _eight_bits(image: PIL.Image.Image, where: str) -> PIL.Image.Image:
    pixels = np.asarray(image)
    if 0 < pixels.max() < DARKEST:
        raise _too_dark(where, int(pixels.max()))
    return PIL.Image.fromarray((pixels.clip(0, 65535) >> 8).astype(np.uint8))


def _extremes(image: PIL.Image.Image) -> tuple[tuple[int, int], ...]:
    found = image.getextrema()
    return found if isinstance(found[0], tuple) else (found,)


def _too_dark(where: str, largest: int | None = None) -> DataError:
    held = f"values up to {largest}" if largest else "very small values"
    return DataError(
        f"{where} has 16 bits but holds {held}, and would become black. Multiply its values, so that white is 65535."
    )
