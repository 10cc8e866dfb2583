"""Data sets of images with segmentation masks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from dnnlib import open_url
from semantic.mask_files import decode_indices, mask_name
from semantic.regions import Regions
from training.archive import DataError, parse_json
from training.dataset import ImageFolderDataset
from training.layout import METADATA


@dataclass(frozen=True)
class MaskedItem:
    """An image with label and mask. Unpacks as ``image, label`` like items of every data set. The mask has a name.

    Scripts for images alone therefore work with masked archives without changes.

    Attributes:
        image: uint8 [C, H, W].
        label: float32 [label_dim].
        mask: class indices, uint8 [H, W].
    """

    image: Any
    label: Any
    mask: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.image, self.label))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return (self.image, self.label)[index]

    def _asdict(self) -> dict[str, Any]:
        """Returns image, label and mask by name, like a NamedTuple."""
        return {"image": self.image, "label": self.label, "mask": self.mask}

    def pin_memory(self) -> "MaskedItem":
        """Copies the batch to pinned memory, which a GPU can read directly. Loaders call this method."""
        return MaskedItem(*(tensor.pin_memory() for tensor in self._asdict().values()))


def _stack(items: Sequence[MaskedItem], *, collate_fn_map: Any = None) -> MaskedItem:
    """Returns a batch of items, for `torch.utils.data.DataLoader`."""
    return MaskedItem(**default_collate([item._asdict() for item in items]))


default_collate_fn_map[MaskedItem] = _stack  # PyTorch documents this extension point of `default_collate`


class MaskedImageDataset(ImageFolderDataset):
    """The images of an archive with their masks. Items are `MaskedItem`.

    Attributes:
        regions: names and colours of the classes.

    Args:
        regions: the classes, replacing the classes in dataset.json: `Regions`, a dictionary as in dataset.json, or
            the path of a JSON file.
        path, resolution, use_labels, max_size, xflip, random_seed, num_channels, classes: see `ImageFolderDataset`.
            A mirrored item has image and mask mirrored, and left and right regions exchanged, see `Regions.mirror`.

    Raises:
        DataError: the archive lacks masks, regions, or the mask of an image. When an item is read: its mask has
            another size than the image, does not hold class indices, or has an index without a region.
    """

    item_type = MaskedItem

    def __init__(
        self,
        path: str | os.PathLike,
        regions: Regions | Mapping[str, Any] | str | os.PathLike | None = None,
        resolution: int | None = None,
        use_labels: bool = False,
        max_size: int | None = None,
        xflip: bool = False,
        random_seed: int = 0,
        num_channels: int | None = None,
        classes: Sequence[int] | None = None,
    ):
        super().__init__(path, resolution, use_labels, max_size, xflip, random_seed, num_channels, classes)
        self._mask_names = [mask_name(name) for name in self._image_names]
        missing = [name for name in self._mask_names if name not in self._archive]
        if len(missing) == len(self._mask_names):
            raise DataError(
                f"There are no masks in {path}. Make the archive with dataset_tool.py --masks, or train on images only "
                f"with --cfg=auto."
            )
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self._mask_names)} images have no mask, such as "
                f"{self._archive.where(missing[0])}. Make the archive again without "
                f"--some-masks, or use --cfg=semantic-adapt."
            )
        if regions is None:
            regions = self._metadata.get("regions")
            if regions is None:
                raise DataError(
                    f'{path} does not name its regions. Set --regions=FILE with {{"names": ["background", ...]}}, or '
                    f"make the archive with dataset_tool.py."
                )
            regions = Regions.from_dict(regions, where=f"the regions in {self._archive.where(METADATA)}")
        self._set_regions(load_regions(regions))

    def _set_regions(self, regions: Regions) -> None:
        """Prepare what masks are painted and mirrored with."""
        self.regions = regions
        self._region_colors = np.array(self.regions.colors, np.uint8)
        self._mirror_table = np.arange(256, dtype=np.uint8)
        self._mirror_table[: len(self.regions)] = self.regions.mirror_table()
        if self._flipped.any() and self.regions.mirror:
            self.notes.append(self.regions.mirror_note())

    def summary(self) -> dict[str, Any]:
        return {**super().summary(), "regions": list(self.regions.names)}

    def _draw(self, items: Sequence[MaskedItem]) -> dict[str, np.ndarray]:
        """Returns the images under '', and under '_mask' the masks in the colours of the regions."""
        masks = np.stack([item.mask for item in items])
        painted = np.ascontiguousarray(self._region_colors[masks].transpose(0, 3, 1, 2))
        return {**super()._draw(items), "_mask": painted}

    def _mirror(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = super()._mirror(arrays)
        if self.regions.mirror:
            arrays["mask"] = self._mirror_table[arrays["mask"]]
        return arrays

    def _load_item(self, raw_index: int) -> dict[str, np.ndarray]:
        return {**super()._load_item(raw_index), "mask": self._load_raw_mask(raw_index)}

    def _load_raw_mask(self, raw_index: int) -> np.ndarray:
        """Returns uint8 [H, W]."""
        name = self._mask_names[raw_index]
        where = self._archive.where(name)
        mask = decode_indices(self._archive.read(name), where)
        if mask.shape != (self.resolution, self.resolution):
            raise DataError(
                f"{where} is {mask.shape[1]}x{mask.shape[0]}, but its image is {self.resolution}x{self.resolution}. "
                f"Make the archive again with dataset_tool.py, which brings both to one size."
            )
        largest = int(mask.max())
        if largest >= len(self.regions):
            raise DataError(
                f"{where} holds the class index {largest}, but there are {len(self.regions)} regions (0 to "
                f"{len(self.regions) - 1}). Name the missing regions with --regions, or merge classes with "
                f"dataset_tool.py --mask-map."
            )
        return mask


def load_regions(regions: Regions | Mapping[str, Any] | str | os.PathLike) -> Regions:
    """Returns regions from `Regions`, from a dictionary, or from a JSON file (path or address).

    A JSON file holds the entry "regions" of a dataset.json, or a whole dataset.json.

    Raises:
        UserError: the file is missing, is not JSON, or does not describe regions.
    """
    if isinstance(regions, Regions):
        return regions
    where = "the regions"
    if not isinstance(regions, Mapping):
        where = f"the regions in {regions}"
        with open_url(regions) as file:
            regions = parse_json(file.read(), str(regions))
    if isinstance(regions, Mapping) and isinstance(regions.get("regions"), Mapping):
        regions = regions["regions"]
    return Regions.from_dict(regions, where=where)
