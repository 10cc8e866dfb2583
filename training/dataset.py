"""Datasets of images with optional labels, read from a zip or a folder."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch.utils.data

from dnnlib import EasyDict, UserError
from training.archive import Archive, DataError, decode_pixels
from training.labels import label_array, read_labels, read_metadata
from training.layout import MASKS, METADATA, folder_of_masks

COMPANIONS = (MASKS,)  # top folders of an archive that do not hold images but data about the images


class Item(NamedTuple):
    """One image, uint8 [C, H, W], with its label, float32 [label_dim]. Loaders stack items to batches of tensors."""

    image: Any
    label: Any


class Dataset(torch.utils.data.Dataset):
    """Images with optional labels: all images of a subclass or a subset, optionally mirrored.

    ``image, label = dataset[i]`` works with every data set, as does `dataset[i].image`. A subclass supplies
    `_load_raw_image` and `_load_raw_labels`. It may set its own `item_type` with further arrays. `_load_item` reads
    these arrays, `_mirror` mirrors them and `_draw` draws them.

    Attributes:
        notes: sentences for the user to read before training.

    Args:
        name: name of the dataset.
        raw_shape: [count, channels, height, width] of all images.
        max_size: number of images to use, chosen at random by `random_seed`. None uses all images.
        use_labels: return labels. Otherwise labels are empty.
        xflip: add the mirror image of every image, after all the images.
        random_seed: seed of the choice.

    Raises:
        UserError: the images are not square with a power-of-two side, or `max_size` is not positive.
    """

    item_type: type = Item

    def __init__(
        self,
        name: str,
        raw_shape: Sequence[int],
        max_size: int | None = None,
        use_labels: bool = False,
        xflip: bool = False,
        random_seed: int = 0,
    ):
        self.name = name
        self.notes: list[str] = []
        self._raw_shape = list(raw_shape)
        self._use_labels = use_labels
        self._labels: np.ndarray | None = None
        count, _, height, width = self._raw_shape
        if height != width or height & (height - 1):
            raise DataError(
                f"The images of {name} are {width}x{height}, but must be square with a power-of-two side. Convert "
                f"them with dataset_tool.py --transform=center-crop --width=256 --height=256."
            )
        chosen = np.arange(count)
        if max_size is not None:
            if max_size < 1:
                raise UserError(f"A dataset needs at least 1 image, but max_size is {max_size}.")
            if max_size < count:
                chosen = np.sort(np.random.default_rng(random_seed).choice(count, max_size, replace=False))
        self._raw_index = np.tile(chosen, 2 if xflip else 1)
        self._flipped = np.arange(len(self._raw_index)) >= len(chosen)

    def __len__(self) -> int:
        return len(self._raw_index)

    def __getitem__(self, index: int) -> Any:
        arrays = self._load_item(int(self._raw_index[index]))
        if self._flipped[index]:
            arrays = self._mirror(arrays)
        return self.item_type(label=self.get_label(index), **arrays)

    def preview(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns pictures of some items for a contact sheet.

        Returns:
            uint8 [N, 3, H, W] by the suffix of the sheet's file name. The suffix '' is the image.
        """
        return self._draw([self[i] for i in indices])

    def get_label(self, index: int) -> np.ndarray:
        """Returns the label of one item: float32 [label_dim], one-hot for classes."""
        label = self._raw_labels[self._raw_index[index]]
        if self.has_onehot_labels:
            return np.eye(1, self.label_dim, int(label), dtype=np.float32)[0]
        return label.copy()

    def get_details(self, index: int) -> EasyDict:
        """Returns the origin of an item: `raw_idx`, `xflip` and `raw_label`."""
        raw = int(self._raw_index[index])
        return EasyDict(raw_idx=raw, xflip=bool(self._flipped[index]), raw_label=self._raw_labels[raw].copy())

    @property
    def image_shape(self) -> list[int]:
        """[channels, height, width]."""
        return self._raw_shape[1:]

    @property
    def num_channels(self) -> int:
        return self._raw_shape[1]

    @property
    def resolution(self) -> int:
        return self._raw_shape[2]

    @property
    def label_shape(self) -> list[int]:
        """[number of classes], or the shape of one label vector. [0] without labels."""
        if self.has_onehot_labels:
            return [self._num_classes()]
        return list(self._raw_labels.shape[1:])

    @property
    def label_dim(self) -> int:
        return self.label_shape[0]

    @property
    def has_labels(self) -> bool:
        return self.label_dim > 0

    @property
    def has_onehot_labels(self) -> bool:
        """True if the labels are classes, False if they are vectors or missing."""
        return self._raw_labels.dtype == np.int64

    @property
    def classes(self) -> list[int]:
        """The classes of the images, in order. Empty if the labels are not classes."""
        return np.unique(self._raw_labels).tolist() if self.has_onehot_labels else []

    def summary(self) -> dict[str, Any]:
        """Returns facts about the data that a run records, for `compare_data`."""
        return {"images": self._raw_shape[0], "label_dim": self.label_dim}

    @property
    def _raw_labels(self) -> np.ndarray:
        """Labels of all images: int64 [count] or float32 [count, label_dim]. Read once, at first use."""
        if self._labels is None:
            labels = self._load_raw_labels() if self._use_labels else None
            self._labels = np.zeros([self._raw_shape[0], 0], np.float32) if labels is None else labels
        return self._labels

    def _num_classes(self) -> int:
        return int(self._raw_labels.max()) + 1

    def _load_item(self, raw_index: int) -> dict[str, np.ndarray]:
        """Returns all arrays of one item except the label."""
        return {"image": self._load_raw_image(raw_index)}

    def _mirror(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a mirrored item: the last axis of each is reversed."""
        return {name: np.ascontiguousarray(array[..., ::-1]) for name, array in arrays.items()}

    def _draw(self, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns the pictures of `preview`."""
        images = np.stack([item.image for item in items])
        return {"": np.repeat(images, 3, axis=1) if self.num_channels == 1 else images}

    def _load_raw_image(self, raw_index: int) -> np.ndarray:
        """Returns uint8 [C, H, W]."""
        raise NotImplementedError

    def _load_raw_labels(self) -> np.ndarray | None:
        """Returns int64 [count] or float32 [count, label_dim], or None without labels."""
        raise NotImplementedError


def compare_data(then: Mapping[str, Any], now: Mapping[str, Any], path: str) -> str | None:
    """Compare the data of a run with the data for its resume. Returns a sentence if the number of images differs.

    Args:
        then, now: `Dataset.summary` of the data at the start of the run, and of the data for the resume.
        path: path of the data for the resume.

    Raises:
        UserError: the run cannot resume with these data.
    """
    for name, what in (("regions", "regions"), ("label_dim", "labels")):
        if name in then and then[name] != now.get(name):
            before, after = _shown(then[name]), _shown(now.get(name))
            raise UserError(f"{path} has other {what} ({after}) than the data at the start of the run ({before}).")
    if then.get("images", now["images"]) != now["images"]:
        return f"{path} holds {now['images']} images, but the run began with {then['images']}. The order differs."
    return None


def _shown(value: Any) -> str:
    return f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else f"{value or 'none'}"


class ImageFolderDataset(Dataset):
    """The images of a zip or a folder, with the labels of its dataset.json.

    The constructor reads only the list of files, the first image and dataset.json. Every image is checked when it is
    read. Instances can be pickled and used in any number of processes.

    Args:
        path: zip or folder of dataset_tool.py, or the address of a zip.
        resolution: required side of the images. None accepts any side.
        num_channels: 3 returns grey images as three equal channels. None returns the channels of the files.
        classes: the allowed classes of the images, in order. Empty for vectors. None uses the classes of the images.
            They are recorded with a network as the classes of its training data.
        use_labels, max_size, xflip, random_seed: see `Dataset`.

    Raises:
        DataError: the archive or its images are missing, or an image is damaged, or sizes differ.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        resolution: int | None = None,
        use_labels: bool = False,
        max_size: int | None = None,
        xflip: bool = False,
        random_seed: int = 0,
        num_channels: int | None = None,
        classes: Sequence[int] | None = None,
    ):
        self._path = os.fspath(path)
        self._archive = Archive(path)
        self._allowed_classes = classes
        self._image_names = self._archive.images(skip=COMPANIONS)
        if not self._image_names:
            raise DataError(f"{path} holds no images. Make an archive with dataset_tool.py.")
        self._metadata = read_metadata(self._archive)
        masks = folder_of_masks(self._image_names)
        if masks is not None:
            raise DataError(
                f"{masks} in {path} seems to hold masks, which would count as images. Make the archive with "
                f"dataset_tool.py, or rename the folder if it holds images."
            )
        first = self._read_pixels(0)
        channels = num_channels or (1 if first.ndim == 2 else 3)
        shape = [len(self._image_names), channels, *first.shape[:2]]
        super().__init__(
            name=os.path.splitext(os.path.basename(os.path.normpath(self._path)))[0],
            raw_shape=shape,
            max_size=max_size,
            use_labels=use_labels,
            xflip=xflip,
            random_seed=random_seed,
        )
        if self._metadata.get("labels") is not None and not use_labels:
            self.notes.append(f"{path} holds labels, which are not used. Add --cond=1 to train a conditional network.")
        if resolution is not None and resolution != self.resolution:
            raise DataError(
                f"The images of {path} are {self.resolution}x{self.resolution}, not {resolution}x{resolution}. "
                f"Resize them with dataset_tool.py --width={resolution} --height={resolution}."
            )

    def close(self) -> None:
        """Close the archive. The next read opens it again."""
        self._archive.close()

    def _load_raw_image(self, raw_index: int) -> np.ndarray:
        pixels = self._read_pixels(raw_index)
        channels, height, width = self.image_shape
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"{self._archive.where(self._image_names[raw_index])} is {pixels.shape[1]}x{pixels.shape[0]}, but the "
                f"first image is {width}x{height}. Resize all images with dataset_tool.py --width and --height."
            )
        if channels == 1 and pixels.ndim == 3:
            raise DataError(
                f"{self._archive.where(self._image_names[raw_index])} is a colour image, but the first image is grey. "
                f"Convert all images to RGB with dataset_tool.py."
            )
        if pixels.ndim == 2:
            return np.repeat(pixels[np.newaxis], channels, axis=0)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _read_pixels(self, raw_index: int) -> np.ndarray:
        """Returns uint8 [H, W] or [H, W, 3] of any size."""
        name = self._image_names[raw_index]
        return decode_pixels(self._archive.read(name), self._archive.where(name))

    def _num_classes(self) -> int:
        return max(super()._num_classes(), max(self._allowed_classes or [0]) + 1)

    def _load_raw_labels(self) -> np.ndarray | None:
        labels = read_labels(self._archive, self._image_names)
        if labels is None:
            return None
        array = label_array(labels, self._archive.where(METADATA))
        if self._allowed_classes is not None and array.ndim == 1:
            foreign = np.setdiff1d(array, self._allowed_classes)
            if len(foreign):
                raise DataError(
                    f"{self._path} holds the class {foreign[0]}, which is not a class of the run's data. Use the "
                    f"data of the run."
                )
        return array
