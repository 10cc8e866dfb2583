"""What every source gives: images with masks, by number."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from semantic.regions import Regions
from semantic.sources.coding import numbered_regions
from training.archive import decode_image

ORIENTATION = 0x0112  # the EXIF tag


@dataclass
class Sample:
    """One image, upright and RGB, and its mask.

    Attributes:
        image: the picture.
        jpeg: the file it came from, where that is a JPEG which may be kept as it is.
        mask: region indices, uint8 [H, W], not always of the image's size; None for images alone.
        where: the image file, for messages.
    """

    image: PIL.Image.Image
    jpeg: bytes | None
    mask: np.ndarray | None
    where: str


class Source:
    """Samples by number. A source can be pickled, and is read in several processes at once.

    Attributes:
        labels: one label an image, as in dataset.json; None without.
        regions: what the masks' indices mean; None for images alone, or if it has to follow from the masks.
        notes: what the user should know about what was found, a sentence each.
    """

    labels: list[Any] | None = None
    regions: Regions | None = None

    def __init__(self):
        self.notes: list[str] = []

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Sample:
        """One sample.

        Raises:
            DataError: a file of it cannot be used.
        """
        raise NotImplementedError

    def regions_up_to(self, largest: int) -> Regions:
        """The regions of masks whose largest index is `largest`, once all are read."""
        return self.regions if self.regions is not None else numbered_regions(largest)


def read_image(data: bytes, where: str) -> tuple[PIL.Image.Image, bytes | None]:
    """An image file as an upright RGB picture, and the file itself if it is a JPEG that needs neither change."""
    image = decode_image(data, where)
    turned = image.getexif().get(ORIENTATION, 1) != 1
    keep = data if image.format == "JPEG" and image.mode == "RGB" and not turned else None
    if turned:
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = PIL.Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return (image if image.mode == "RGB" else image.convert("RGB")), keep
