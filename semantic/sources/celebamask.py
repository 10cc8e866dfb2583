"""CelebAMask-HQ as it is published: one mask file a part of a face."""

import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from dnnlib import UserError
from semantic.regions import CELEBAMASK, Regions
from semantic.sources.base import Sample, Source, read_image
from semantic.sources.coding import MaskCoding, make_coding, read_json
from semantic.sources.mask_map import class_groups
from training.archive import Archive, DataError, decode_image

TRAIN_IMAGES = 28000  # the first ones; the paper trains on these
PARTS = {
    "skin": "face", "eye_g": "glasses", "l_eye": "eye", "r_eye": "eye", "l_brow": "eyebrow", "r_brow": "eyebrow",
    "mouth": "mouth", "l_lip": "mouth", "u_lip": "mouth", "nose": "nose", "hair": "hair", "l_ear": "ear",
    "r_ear": "ear", "neck": "neck", "neck_l": "neck", "cloth": "cloth", "hat": "hat", "ear_r": "earring",
}  # fmt: skip
"""The region of each part, in the order of painting: later parts cover earlier ones."""

_IMAGE = re.compile(r"(?:^|/)CelebA-HQ-img/(\d+)\.(?:jpg|png)$")
_PART = re.compile(r"(?:^|/)CelebAMask-HQ-mask-anno/\d+/(\d+)_(\w+)\.png$")


def is_celebamask(archive: Archive) -> bool:
    """True for the raw layout, folder or zip, whatever folder it lies in."""
    return any(_IMAGE.search(name) for name in archive.names) and any(_PART.search(name) for name in archive.names)


class CelebAMaskSource(Source):
    """The 30,000 faces with the masks of their parts painted into one.

    Args:
        archive: folder or zip that holds ``CelebA-HQ-img`` and ``CelebAMask-HQ-mask-anno``.
        split: 'train' for the first 28,000, 'test' for the rest, None for all.
        mask_map: JSON file that merges classes, in place of the usual 13 regions. It names either these regions, or
            "background" and the parts as the files call them (``l_eye``, ``u_lip``, ...).

    Raises:
        UserError: an image has no part at all, nothing is in the split, or the map does not fit.
    """

    def __init__(self, archive: Archive, split: str | None = None, mask_map: str | None = None):
        super().__init__()
        self._archive = archive
        self._coding, self._index = _coding(mask_map)
        self.regions = self._coding.regions
        images = {int(found[1]): found.string for name in archive.names if (found := _IMAGE.search(name))}
        chosen = sorted(i for i in images if split is None or (i < TRAIN_IMAGES) == (split == "train"))
        if not chosen:
            raise UserError(
                f"There is no image of the {split} split in {archive.path}: the first {TRAIN_IMAGES} are for training."
            )
        self._images = [images[i] for i in chosen]
        parts: dict[int, dict[str, str]] = {i: {} for i in chosen}
        for name in archive.names:
            found = _PART.search(name)
            if found and int(found[1]) in parts:
                parts[int(found[1])][found[2]] = name
        bare = next((i for i in chosen if not any(part in PARTS for part in parts[i])), None)
        if bare is not None:
            raise DataError(
                f"{archive.where(images[bare])} has no mask: {bare // 2000}/{bare:05d}_*.png in "
                f"CelebAMask-HQ-mask-anno is missing. Unpack the data set again."
            )
        self._parts = [[(part, parts[i][part]) for part in PARTS if part in parts[i]] for i in chosen]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Sample:
        name = self._images[index]
        where = self._archive.where(name)
        image, jpeg = read_image(self._archive.read(name), where)
        return Sample(image, jpeg, self._coding.merge(self._paint(self._parts[index]), where), where)

    def _paint(self, parts: Sequence[tuple[str, str]]) -> np.ndarray:
        mask = None
        for part, name in parts:
            plane = decode_image(self._archive.read(name), self._archive.where(name)).convert("L")
            if mask is None:
                mask = np.zeros((plane.height, plane.width), np.uint8)
            if (plane.height, plane.width) != mask.shape:
                plane = plane.resize(mask.shape[::-1], PIL.Image.Resampling.NEAREST)
            mask[np.asarray(plane) > 127] = self._index[part]
        return mask


def _coding(mask_map: str | None) -> tuple[MaskCoding, dict[str, int]]:
    """How painted indices become regions, and the index to paint each part with."""
    if mask_map is not None:
        named = {name for names in class_groups(read_json(mask_map), mask_map).values() for name in names}
        if named & (PARTS.keys() - set(CELEBAMASK.names)):
            names = ["background", *PARTS]
            return make_coding(None, mask_map, names=names), {part: names.index(part) for part in PARTS}
    regions: Regions = CELEBAMASK
    return make_coding(None, mask_map, regions), {part: regions.index(region) for part, region in PARTS.items()}
