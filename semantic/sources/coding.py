"""Converts the mask files of a source to region indices."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from dnnlib import open_url
from semantic.mask_files import NO_CLASS, image_indices
from semantic.regions import Regions
from semantic.sources.mask_map import MaskMap
from semantic.sources.palette import Palette, read_palette
from training.archive import DataError, decode_image, parse_json

UNLABELLED = "masks with unlabelled pixels (255): these pixels became background"


class Decoded(NamedTuple):
    """Region indices of a mask, uint8 [H, W], and the changes to report to the user. None without a mask."""

    indices: np.ndarray | None
    changes: tuple[str, ...] = ()


NONE = Decoded(None)
"""Stands for the mask of an image that has none."""


class MaskCoding:
    """A conversion from the content of a mask file to region indices.

    Args:
        palette: colours of the classes. None expects indices in the files. With a palette, grey masks of small
            values still count as indices, unless the palette itself is grey.
        mask_map: merges classes after decoding.
        regions: the classes of the files where the source knows them.
        void: whether 255 stands for unlabelled pixels in any file. In palette files it always stands for them.

    Attributes:
        regions: regions of the indices. None if they are unknown, see `numbered_regions`.
    """

    def __init__(
        self,
        palette: Palette | None = None,
        mask_map: MaskMap | None = None,
        regions: Regions | None = None,
        void: bool = False,
    ):
        self._palette = palette
        self._void = void
        self._mask_map = mask_map
        self.regions = mask_map.regions if mask_map else palette.regions if palette else regions

    def decode(self, data: bytes, where: str) -> "Decoded":
        """Returns the region indices of a mask file, and the changes to the file.

        Raises:
            DataError: the file is damaged, or has classes that are in no region, or has colours without a palette.
        """
        image = decode_image(data, where)
        indices = self._classes(image, data, where)
        unlabelled = indices == NO_CLASS
        if not (unlabelled.any() and (image.mode == "P" or self._void)) or self._names_void():
            return Decoded(self.merge(indices, where))
        return Decoded(self.merge(np.where(unlabelled, np.uint8(0), indices), where), (UNLABELLED,))

    def merge(self, indices: np.ndarray, where: str) -> np.ndarray:
        """Returns the regions of class indices. The indices need no decoding."""
        if self._mask_map:
            return self._mask_map.apply(indices, where)
        largest = int(indices.max())
        if largest == NO_CLASS:
            raise DataError(
                f"{where} holds the value 255. For black and white masks, use --palette with "
                f'{{"background": [0, 0, 0], "object": [255, 255, 255]}}. For unlabelled pixels, put 255 into a region '
                f"with --mask-map."
            )
        if self.regions is not None and largest >= len(self.regions):
            raise DataError(
                f"{where} holds the class index {largest}, but only {len(self.regions)} classes have names. "
                f"Name all classes, or merge classes with --mask-map."
            )
        return indices

    def _names_void(self) -> bool:
        return self._mask_map is not None and self._mask_map.knows(NO_CLASS)

    def _classes(self, image: PIL.Image.Image, data: bytes, where: str) -> np.ndarray:
        if image.mode in ("LA", "RGBA"):
            return self._without_alpha(image, where)
        if self._palette is not None and image.mode.startswith("I"):
            image = _eight_bits(image)
        if self._palette is not None and (image.mode != "L" or self._palette.is_grey):
            image = image if image.mode == "RGB" else image.convert("RGB")
            return self._palette.indices(np.asarray(image), where)
        if image.format == "JPEG":
            raise DataError(f"{where} is a JPEG, and JPEG blurs class indices. Save masks as PNG, or use --palette.")
        if image.mode == "RGB":
            return _single_channel(image, where)
        return image_indices(image, data, where)

    def _without_alpha(self, image: PIL.Image.Image, where: str) -> np.ndarray:
        """Returns the classes of a mask with an alpha channel: transparent pixels are background."""
        alpha = np.asarray(image.getchannel("A"))
        colors = image.convert("RGB")
        flat = all(low == high for low, high in colors.getextrema())
        drawn = flat and alpha.min() < alpha.max()  # the object is drawn in the alpha channel alone
        if self._palette is None and drawn:
            raise DataError(
                f"{where} has one colour: only its alpha channel shows the object. Use --palette with "
                f'{{"background": [0, 0, 0], "object": [255, 255, 255]}}.'
            )
        if self._palette is None:
            return np.where(alpha < 128, np.uint8(0), _single_channel(colors, where))
        if drawn and len(self._palette.regions) == 2:
            return (alpha >= 128).astype(np.uint8)
        ground = PIL.Image.new("RGB", image.size, tuple(self._palette.regions.colors[0]))
        ground.paste(colors, mask=image.getchannel("A"))
        return self._palette.indices(np.asarray(ground), where)


def make_coding(
    palette: str | None,
    mask_map: str | None,
    regions: Regions | None = None,
    names: Sequence[str] | None = None,
    void: bool = False,
) -> MaskCoding:
    """Returns the coding that options ask for.

    Args:
        palette: JSON file with colours, path or address.
        mask_map: JSON file that merges classes, path or address.
        regions: the classes of the source where known.
        names: names of the classes, if only names are known.
        void: see `MaskCoding`.

    Raises:
        UserError: a file is missing or has other content.
    """
    colors = None
    if palette is not None:
        colors = read_palette(read_json(palette), str(palette))
        regions, names = colors.regions, None
    if mask_map is not None:
        known = list(regions.names) if regions is not None else names
        return MaskCoding(colors, MaskMap(read_json(mask_map), known, str(mask_map)), void=void)
    if regions is None and names is not None:
        regions = Regions(names)
    return MaskCoding(colors, None, regions, void)


def read_json(path: str) -> Any:
    """Parse a JSON file given by path or address."""
    with open_url(path) as file:
        return parse_json(file.read(), str(path))


def numbered_regions(used: Sequence[int]) -> Regions:
    """Returns regions with numbered names: background, region1, ... up to the largest index.

    Masks without any names get these regions.

    Args:
        used: the indices that masks hold, in order.

    Raises:
        DataError: all pixels are background, or most indices up to the largest are missing, as in grey pictures.
    """
    largest = max(used)
    if largest == 0:
        raise DataError(
            "All masks hold only 0, so all pixels are background. Check --masks, or name the colours with --palette."
        )
    if largest > 2 and 2 * len(used) <= largest + 1:
        shown = ", ".join(map(str, used[:8])) + ", ..." * (len(used) > 8)
        groups = {("background" if i == 0 else f"region{i}"): [int(k)] for i, k in enumerate(used[:8])}
        raise DataError(
            f"The masks hold {shown} and no values between. For grey values, name their classes with "
            f"--palette. For class indices, use --mask-map with {json.dumps({'classes': groups})}."
        )
    return Regions(["background", *(f"region{k}" for k in range(1, max(largest, 1) + 1))])


def _single_channel(image: PIL.Image.Image, where: str) -> np.ndarray:
    """Returns the indices of an RGB mask whose three channels are equal."""
    first = np.array(image.getchannel(0))
    if all((np.asarray(image.getchannel(i)) == first).all() for i in (1, 2)):
        return first
    raise DataError(f"{where} is colour-coded. Name the class of each colour with --palette=JSON.")


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns a grey mask of 16 bits as a mask of 8 bits. Small values stay as they are."""
    pixels = np.asarray(image).clip(0, 65535)
    return PIL.Image.fromarray((pixels if pixels.max() <= NO_CLASS else pixels >> 8).astype(np.uint8))
