"""CelebAMask-HQ as it is published: one mask file for each part of a face."""

import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from dnnlib import UserError
from semantic.regions import CELEBAMASK, Regions
from semantic.sources.base import Sample, Source
from semantic.sources.coding import MaskCoding, make_coding, read_json
from semantic.sources.images import read_image
from semantic.sources.mask_map import class_groups
from training.archive import Archive, DataError, decode_image

TRAIN_IMAGES = 28000  # the first images; the paper trains on these images
PARTS = {
    "skin": "face", "eye_g": "glasses", "l_eye": "eye", "r_eye": "eye", "l_brow": "eyebrow", "r_brow": "eyebrow",
    "mouth": "mouth", "l_lip": "mouth", "u_lip": "mouth", "nose": "nose", "hair": "hair", "l_ear": "ear",
    "r_ear": "ear", "neck": "neck", "neck_l": "neck", "cloth": "cloth", "hat": "hat", "ear_r": "earring",
}  # fmt: skip
"""The region of each part, in the order of painting: later parts cover earlier ones."""

IMAGES = "CelebA-HQ-img"
_IMAGE = re.compile(r"(?:^|/)(\d+)\.(?:jpg|png)$")
_PART = re.compile(rf"(?:^|/)(\d+)_({'|'.join(PARTS)})\.png$")


def is_celebamask(archive: Archive) -> bool:
    """Returns True if most images of a folder or zip have the names of CelebAMask-HQ's mask files, in any folder.

    Raises:
        DataError: the archive holds masks of parts, but no images.
    """
    parts = sum(_PART.search(name) is not None for name in archive.names)
    others = len(archive.images()) - parts
    if not parts or parts < others:
        return False
    if not others:
        raise DataError(
            f"{archive.path} holds the masks of CelebAMask-HQ, but no images. Name the folder that holds both."
        )
    return True


def _find_images(archive: Archive) -> dict[int, str]:
    """Returns the images by number.

    They are in the folder with the published name, else in the only folder that holds most images.

    Raises:
        DataError: no folder holds numbered images, or two folders hold equally many.
    """
    folders: dict[str, dict[int, str]] = {}
    for name in archive.names:
        found = _IMAGE.search(name)
        if found:
            folders.setdefault(name[: found.start()], {})[int(found[1])] = name
    named = {folder: images for folder, images in folders.items() if folder.rsplit("/", 1)[-1] == IMAGES}
    largest = sorted((named or folders).items(), key=lambda item: -len(item[1]))
    if not largest:
        raise DataError(f"{archive.path} holds masks of parts, but no image such as 0.jpg. Check --source.")
    if len(largest) > 1 and len(largest[0][1]) == len(largest[1][1]):
        both = " and ".join(folder or "the top folder" for folder, _ in largest[:2])
        raise DataError(f"{both} in {archive.path} hold numbered images. Name the folder of the photos {IMAGES}.")
    return largest[0][1]


class CelebAMaskSource(Source):
    """The 30,000 faces. The masks of the parts of a face are painted into one mask.

    Args:
        archive: folder or zip with images such as 0.jpg and masks such as 00000_hair.png, in any folders.
        split: 'train' for the first 28,000, 'test' for the rest, None for all.
        mask_map: JSON file that merges classes, in place of the usual 13 regions. It names either these regions, or
            "background" and the parts as the files call them (``l_eye``, ``u_lip``, ...).

    Raises:
        UserError: an image has no mask, the split has no image, or the map does not fit.
    """

    def __init__(self, archive: Archive, split: str | None = None, mask_map: str | None = None):
        super().__init__()
        self._archive = archive
        self._coding, self._index = _coding(mask_map)
        self.regions = self._coding.regions
        images = _find_images(archive)
        chosen = sorted(i for i in images if split is None or (i < TRAIN_IMAGES) == (split == "train"))
        if not chosen:
            raise UserError(
                f"{archive.path} has no image of the {split} split. The first {TRAIN_IMAGES} images are for training."
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
                f"{archive.where(images[bare])} has no mask: {bare:05d}_*.png is missing. Unpack the data set again."
            )
        self._parts = [[(part, parts[i][part]) for part in PARTS if part in parts[i]] for i in chosen]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Sample:
        name = self._images[index]
        where = self._archive.where(name)
        image, jpeg, orientation, changes = read_image(self._archive.read(name), where)
        mask = self._coding.merge(self._paint(self._parts[index]), where)
        return Sample(image, jpeg, mask, where, orientation, changes)

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
    """Returns the coding from painted indices to regions, and the index of each part."""
    if mask_map is not None:
        named = {name for names in class_groups(read_json(mask_map), mask_map).values() for name in names}
        if named & (PARTS.keys() - set(CELEBAMASK.names)):
            names = ["background", *PARTS]
            return make_coding(None, mask_map, names=names), {part: names.index(part) for part in PARTS}
    regions: Regions = CELEBAMASK
    return make_coding(None, mask_map, regions), {part: regions.index(region) for part, region in PARTS.items()}
