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

COMPANIONS = (MASKS,)  # top folders of an archive that hold something about the images instead of images


class Item(NamedTuple):
    """One image, uint8 [C, H, W], with its label, float32 [label_dim]; loaders stack items to batches of tensors."""

    image: Any
    label: Any


class Dataset(torch.utils.data.Dataset):
    """Images with optional labels: a subset, mirrored or not, of what a subclass can read.

    ``image, label = dataset[i]`` works with every data set, `dataset[i].image` too. A subclass supplies
    `_load_raw_image` and `_load_raw_labels`. It may name its own `item_type`, with further arrays that `_load_item`
    reads, `_mirror` turns and `_draw` draws.

    Attributes:
        notes: sentences that the user should read before training.

    Args:
        name: name of the dataset.
        raw_shape: [count, channels, height, width] of everything there is.
        max_size: use this many, chosen at random by `random_seed`; None uses all.
        use_labels: give labels; without, they are empty.
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
                f"The images of {name} are {width}x{height}, but must be square with a power-of-two side: convert "
                f"them with dataset_tool.py --transform=center-crop --width=256 --height=256."
            )
        chosen = np.arange(count)
        if max_size is not None:
            if max_size < 1:
                raise UserError(f"A dataset needs at least 1 image, but {max_size} are asked for.")
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
        """Pictures of some items for a contact sheet.

        Returns:
            uint8 [N, 3, H, W] under the suffix that the sheet's file name gets: '' is the image.
        """
        return self._draw([self[i] for i in indices])

    def get_label(self, index: int) -> np.ndarray:
        """Label of one item: float32 [label_dim], one-hot for classes."""
        label = self._raw_labels[self._raw_index[index]]
        if self.has_onehot_labels:
            return np.eye(1, self.label_dim, int(label), dtype=np.float32)[0]
        return label.copy()

    def get_details(self, index: int) -> EasyDict:
        """Where an item comes from: `raw_idx`, `xflip` and `raw_label`."""
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
        """[number of classes], or the shape of one label vector; [0] without labels."""
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
        """The classes that images have, in order; empty without classes."""
        return np.unique(self._raw_labels).tolist() if self.has_onehot_labels else []

    def summary(self) -> dict[str, Any]:
        """What a run notes about its data, to compare other data with: see `compare_data`."""
        return {"images": self._raw_shape[0], "label_dim": self.label_dim}

    @property
    def _raw_labels(self) -> np.ndarray:
        """Labels of everything there is: int64 [count] or float32 [count, label_dim]; read once, when asked for."""
        if self._labels is None:
            labels = self._load_raw_labels() if self._use_labels else None
            self._labels = np.zeros([self._raw_shape[0], 0], np.float32) if labels is None else labels
        return self._labels

    def _num_classes(self) -> int:
        return int(self._raw_labels.max()) + 1

    def _load_item(self, raw_index: int) -> dict[str, np.ndarray]:
        """Everything of one item but the label."""
        return {"image": self._load_raw_image(raw_index)}

    def _mirror(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a mirrored item: the last axis of each is reversed."""
        return {name: np.ascontiguousarray(array[..., ::-1]) for name, array in arrays.items()}

    def _draw(self, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """The pictures of `preview`."""
        images = np.stack([item.image for item in items])
        return {"": np.repeat(images, 3, axis=1) if self.num_channels == 1 else images}

    def _load_raw_image(self, raw_index: int) -> np.ndarray:
        """uint8 [C, H, W]."""
        raise NotImplementedError

    def _load_raw_labels(self) -> np.ndarray | None:
        """int64 [count] or float32 [count, label_dim], None if there are none."""
        raise NotImplementedError


def compare_data(then: Mapping[str, Any], now: Mapping[str, Any], path: str) -> str | None:
    """A sentence on data of which a run has seen others so far; None where nothing tells them apart.

    Args:
        then, now: `Dataset.summary` of the data that the run began with and of those that it is to go on with.
        path: of the latter.

    Raises:
        UserError: the run cannot go on with them.
    """
    for name, what in (("regions", "regions"), ("label_dim", "labels")):
        if name in then and then[name] != now.get(name):
            before, after = _shown(then[name]), _shown(now.get(name))
            raise UserError(f"{path} has other {what} ({after}) than the data that the run began with ({before}).")
    if then.get("images", now["images"]) != now["images"]:
        return f"{path} holds {now['images']} images, but the run began with {then['images']}: their order is another."
    return None


def _shown(value: Any) -> str:
    return f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else f"{value or 'none'}"


class ImageFolderDataset(Dataset):
    """The images of a zip or a folder, with the labels of its dataset.json.

    Only the list of files, the first image and dataset.json are read at once; every image is checked when it
    is read. Instances can be pickled and used in any number of processes.

    Args:
        path: zip or folder, as dataset_tool.py makes them, or the address of a zip.
        resolution: side that the images must have; None takes what is there.
        num_channels: 3 gives grey images three equal channels; None gives what is there.
        classes: the classes that the images may be of, in order; empty for vectors; None takes what is there. They are
            recorded with a network, so that it is known which of its classes it has seen.
        use_labels, max_size, xflip, random_seed: see `Dataset`.

    Raises:
        DataError: there is no such archive or image, or an image is damaged or of another size than the first.
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
            raise DataError(f"There is no image in {path}: make an archive with dataset_tool.py.")
        self._metadata = read_metadata(self._archive)
        masks = folder_of_masks(self._image_names)
        if masks is not None:
            raise DataError(
                f"{masks} in {path} seems to hold masks, which would count as images: make the archive with "
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
            self.notes.append(f"{path} holds labels, which are not used: add --cond=1 to train a conditional network.")
        if resolution is not None and resolution != self.resolution:
            raise DataError(
                f"The images of {path} are {self.resolution}x{self.resolution}, not {resolution}x{resolution}: "
                f"resize them with dataset_tool.py --width={resolution} --height={resolution}."
            )

    def close(self) -> None:
        """Close the archive; it opens again at the next read."""
        self._archive.close()

    def _load_raw_image(self, raw_index: int) -> np.ndarray:
        pixels = self._read_pixels(raw_index)
        channels, height, width = self.image_shape
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"{self._archive.where(self._image_names[raw_index])} is {pixels.shape[1]}x{pixels.shape[0]}, but the "
                f"first image is {width}x{height}: bring all to one size with dataset_tool.py --width and --height."
            )
        if channels == 1 and pixels.ndim == 3:
            raise DataError(
                f"{self._archive.where(self._image_names[raw_index])} is a colour image, but the first one is grey: "
                f"convert all to RGB with dataset_tool.py."
            )
        if pixels.ndim == 2:
            return np.repeat(pixels[np.newaxis], channels, axis=0)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _read_pixels(self, raw_index: int) -> np.ndarray:
        """uint8 [H, W] or [H, W, 3] of any size."""
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
                    f"{self._path} holds the class {foreign[0]}, which was not among those of the run: use the "
                    f"data that it was trained on."
                )
        return array
