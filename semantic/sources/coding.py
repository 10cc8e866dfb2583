"""How the mask files of a source become region indices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnnlib import open_url
from semantic.mask_files import NO_CLASS, image_indices
from semantic.regions import Regions
from semantic.sources.mask_map import MaskMap
from semantic.sources.palette import Palette, read_palette
from training.archive import DataError, decode_image, parse_json


class MaskCoding:
    """From the content of a mask file to region indices.

    Args:
        palette: colours of the classes; None expects indices in the files. With a palette, grey masks of small
            values still count as indices, unless the palette itself is grey.
        mask_map: merges classes after decoding.
        regions: the classes of the files where the source knows them.

    Attributes:
        regions: what the indices mean; None if nothing says so, see `numbered_regions`.
    """

    def __init__(self, palette: Palette | None = None, mask_map: MaskMap | None = None, regions: Regions | None = None):
        self._palette = palette
        self._mask_map = mask_map
        self.regions = mask_map.regions if mask_map else palette.regions if palette else regions

    def decode(self, data: bytes, where: str) -> np.ndarray:
        """Region indices, uint8 [H, W].

        Raises:
            DataError: the file is damaged, has colours and there is no palette, or has classes that are in no region.
        """
        return self.merge(self._classes(data, where), where)

    def merge(self, indices: np.ndarray, where: str) -> np.ndarray:
        """Regions of class indices that need no decoding."""
        if self._mask_map:
            return self._mask_map.apply(indices, where)
        largest = int(indices.max())
        if largest == NO_CLASS:
            raise DataError(
                f"{where} holds the value 255: for black and white masks give --palette with "
                f'{{"background": [0, 0, 0], "object": [255, 255, 255]}}, for unlabelled pixels put 255 into a region '
                f"with --mask-map."
            )
        if self.regions is not None and largest >= len(self.regions):
            raise DataError(
                f"{where} holds the class index {largest}, but {len(self.regions)} classes are named: name them all, "
                f"or merge them with --mask-map."
            )
        return indices

    def _classes(self, data: bytes, where: str) -> np.ndarray:
        image = decode_image(data, where)
        if image.mode == "LA":
            return np.array(image.getchannel(0))
        if self._palette is not None and (image.mode != "L" or self._palette.is_grey):
            image = image if image.mode == "RGB" else image.convert("RGB")
            return self._palette.indices(np.asarray(image), where)
        if image.format == "JPEG":
            raise DataError(f"{where} is a JPEG, which blurs class indices: save masks as PNG, or give --palette.")
        if image.mode in ("RGB", "RGBA"):
            first = np.array(image.getchannel(0))
            if all((np.asarray(image.getchannel(i)) == first).all() for i in (1, 2)):
                return first
            raise DataError(f"{where} is colour-coded: say which colour is which class with --palette=JSON.")
        return image_indices(image, data, where)


def make_coding(
    palette: str | None, mask_map: str | None, regions: Regions | None = None, names: Sequence[str] | None = None
) -> MaskCoding:
    """The coding that options ask for.

    Args:
        palette: JSON file with colours, path or address.
        mask_map: JSON file that merges classes, path or address.
        regions: the classes of the source where known.
        names: their names alone, where no more is known.

    Raises:
        UserError: a file is missing or does not hold what it should.
    """
    colors = None
    if palette is not None:
        colors = read_palette(read_json(palette), str(palette))
        regions, names = colors.regions, None
    if mask_map is not None:
        known = list(regions.names) if regions is not None else names
        return MaskCoding(colors, MaskMap(read_json(mask_map), known, str(mask_map)))
    if regions is None and names is not None:
        regions = Regions(names)
    return MaskCoding(colors, None, regions)


def read_json(path: str) -> Any:
    """Parse a JSON file given by path or address."""
    with open_url(path) as file:
        return parse_json(file.read(), str(path))


def numbered_regions(largest: int) -> Regions:
    """Regions named by number, where nothing names them: background, region1, ... up to the largest index."""
    return Regions(["background", *(f"region{k}" for k in range(1, max(largest, 1) + 1))])
