"""Images of the target domain: a part for training, a held-out part, and masks if there are any."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semantic.dataset import MaskedImageDataset, MaskedItem
from semantic.mask_files import mask_name
from semantic.regions import Regions
from training.dataset import ImageFolderDataset, Item

FEWEST = 5
"""Smallest number of images for an adaptation."""
HELD_OUT_SHARE = 10
"""One image in this many is held out."""
NO_MASK = 255
"""Class index at all pixels of an image without a mask."""
UNKNOWN_COLOR = (128, 128, 128)


class TargetDataset(MaskedImageDataset):
    """Images. Some or all of them may have masks.

    If any image has a mask, all items have a mask. It is all `NO_MASK` for images without a mask.

    Args:
        path, options: see `training.dataset.ImageFolderDataset`.
        held_out: take the held-out images instead of the training images.
        regions: names and colours of the classes in the masks. Without regions, masks are not used.
        random_seed: seed that chooses the held-out images.

    Attributes:
        masked: number of images with a mask.
        images_in_all: number of images of both parts, without mirrored images.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        held_out: bool = False,
        regions: Mapping[str, Any] | None = None,
        random_seed: int = 0,
        **options: Any,
    ):
        ImageFolderDataset.__init__(self, path, random_seed=random_seed, **options)
        self._keep_part(held_out, random_seed)
        self._mask_names = [mask_name(name) for name in self._image_names]
        self.masked = 0
        if regions is None:
            self.item_type = Item
            return
        self._set_regions(Regions.from_dict(regions))
        colors = np.full([NO_MASK + 1, 3], UNKNOWN_COLOR, np.uint8)
        colors[: len(self.regions)] = self._region_colors
        self._region_colors = colors
        self.masked = sum(self._mask_names[index] in self._archive for index in self._raw_index)

    def _keep_part(self, held_out: bool, random_seed: int) -> None:
        """Remove the images of the other part, and their mirror images."""
        images = np.unique(self._raw_index)
        self.images_in_all = len(images)
        count = max(round(len(images) / HELD_OUT_SHARE), 1)
        aside = np.random.default_rng(random_seed).permutation(images)[:count]
        kept = np.isin(self._raw_index, aside) == held_out
        self._raw_index, self._flipped = self._raw_index[kept], self._flipped[kept]

    def _load_item(self, raw_index: int) -> dict[str, np.ndarray]:
        if self.item_type is not MaskedItem:
            return ImageFolderDataset._load_item(self, raw_index)
        return super()._load_item(raw_index)

    def _load_raw_mask(self, raw_index: int) -> np.ndarray:
        if self._mask_names[raw_index] not in self._archive:
            return np.full([self.resolution] * 2, NO_MASK, np.uint8)
        return super()._load_raw_mask(raw_index)

    def summary(self) -> dict[str, Any]:
        if self.item_type is MaskedItem:
            return super().summary()
        masked, named = masks_in(self)  # a run with masks compares their regions with those of its network
        found = ImageFolderDataset.summary(self)
        return {**found, "regions": list(named.names)} if masked and named is not None else found

    def _mirror(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.item_type is not MaskedItem:
            return ImageFolderDataset._mirror(self, arrays)
        return super()._mirror(arrays)

    def _draw(self, items: Sequence[Any]) -> dict[str, np.ndarray]:
        if self.item_type is not MaskedItem:
            return ImageFolderDataset._draw(self, items)
        return super()._draw(items)


def masks_in(training_set: ImageFolderDataset) -> tuple[int, Regions | None]:
    """Returns the number of masks in the archive of a data set, and the regions that the archive names."""
    held = sum(mask_name(name) in training_set._archive for name in training_set._image_names)
    named = training_set._metadata.get("regions")
    return held, None if named is None else Regions.from_dict(named)
