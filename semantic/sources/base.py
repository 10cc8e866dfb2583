"""The interface of every source: images with masks, by number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image

from semantic.regions import Regions
from semantic.sources.coding import numbered_regions


@dataclass
class Sample:
    """One image, upright, and its mask.

    Attributes:
        image: the picture, mode RGB or L.
        jpeg: content of the JPEG file, if it can be kept unchanged.
        mask: region indices, uint8 [H, W], not always of the image's size. None for images without masks.
        where: the image file, for messages.
        orientation: EXIF number of the turn of the image.
        changes: changes to the files, see `semantic.sources.images`.
    """

    image: PIL.Image.Image
    jpeg: bytes | None
    mask: np.ndarray | None
    where: str
    orientation: int = 1
    changes: tuple[str, ...] = field(default=())


class Source:
    """Samples by number. A source can be pickled, and is read in several processes at once.

    Attributes:
        labels: one label per image, as in dataset.json, or None.
        regions: regions of the mask indices. None for images without masks, or if `regions_of` must find them.
        grey: whether all images are grey and get one channel.
        left_out: number of ignored files, by kind.
        notes: lines about the source that the user reads.
    """

    labels: list[Any] | None = None
    regions: Regions | None = None
    grey: bool = False

    def __init__(self):
        self.left_out: Counter[str] = Counter()
        self.notes: list[str] = []

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Sample:
        """Returns one sample.

        Raises:
            DataError: a file of the sample cannot be used.
        """
        raise NotImplementedError

    def regions_of(self, used: Sequence[int]) -> Regions:
        """Returns the regions of all masks of the source. `used` holds the indices of these masks, in order.

        Raises:
            DataError: the classes have no names, and the indices can hardly be class indices.
        """
        return self.regions if self.regions is not None else numbered_regions(used)
