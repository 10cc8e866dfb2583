"""CIFAR-10 and MNIST as they are published: small labelled pictures in one compressed file."""

import gzip
import io
import os
import re
import struct
import tarfile
import zlib
from typing import Any

import numpy as np
import PIL.Image

from dnnlib import UserError
from semantic.sources.base import Sample, Source
from torch_utils.network_files.machine import load_records
from training.archive import DataError

MAX_BYTES = 1 << 28  # unpacked
MNIST_PADDING = 2  # 28 pixels become 32
_CIFAR_BATCH = re.compile(r"(?:^|/)(data_batch_\d|test_batch)(\.bin)?$")
_MNIST_IMAGES = re.compile(r"images[-.]idx3-ubyte")
CIFAR_ROW = 3 * 32 * 32


class ArraySource(Source):
    """Pictures of one array, with their classes.

    Args:
        images: uint8 [N, H, W] or [N, H, W, 3].
        labels: one class per image.
        where: the file, for messages.
    """

    def __init__(self, images: np.ndarray, labels: list[int], where: str):
        super().__init__()
        self._images, self._where = images, where
        self.labels, self.grey = labels, images.ndim == 3

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Sample:
        return Sample(PIL.Image.fromarray(self._images[index]), None, None, f"image {index} of {self._where}")


def open_small_set(path: str, split: str | None = None) -> ArraySource | None:
    """Returns the source of a CIFAR-10 or MNIST file, or None for other files.

    CIFAR-10 is cifar-10-python.tar.gz or cifar-10-binary.tar.gz. MNIST is train-images-idx3-ubyte.gz. With 'test' as
    `split`, the test batch of CIFAR-10 is taken, else the five others. The file of MNIST's labels has its published
    name and lies beside the images.

    Raises:
        UserError: the file is damaged or incomplete.
    """
    name = os.path.basename(path).lower()
    try:
        if name.endswith((".tar.gz", ".tgz")):
            return _open_cifar(path, split)
        if name.endswith(".gz"):
            return _open_mnist(path)
    except (OSError, EOFError, tarfile.TarError, zlib.error, struct.error) as error:
        raise DataError(f"Cannot read {path}: {error}. Download it again.") from error
    return None


def has_split(path: str) -> bool:
    """Returns True for a file with its own split.

    A CIFAR-10 file holds both parts. MNIST has one file for each part.
    """
    return path.lower().endswith((".tar.gz", ".tgz"))


def _open_cifar(path: str, split: str | None) -> ArraySource:
    images, labels = [], []
    wanted = "test_batch" if split == "test" else "data_batch"
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            found = _CIFAR_BATCH.search(member.name)
            if not found or not found[1].startswith(wanted) or not member.isfile() or member.size > MAX_BYTES:
                continue
            data = archive.extractfile(member).read(member.size)
            one, classes = _binary_batch(data) if found[2] else _python_batch(data, f"{member.name} in {path}")
            images.append(one)
            labels += classes
    if not images:
        raise UserError(
            f"{path} holds no {wanted} of CIFAR-10. Unpack another archive, and name its folder with --source."
        )
    pixels = np.concatenate(images).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArraySource(np.ascontiguousarray(pixels), labels, path)


def _python_batch(data: bytes, where: str) -> tuple[np.ndarray, list[int]]:
    """Returns the rows uint8 [N, 3072] and classes of a pickled batch. No code of the pickle is run."""
    batch: Any = load_records(io.BytesIO(data), where)
    batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    rows, classes = batch.get("data"), batch.get("labels")
    good = isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == CIFAR_ROW
    if not good or not isinstance(classes, list) or len(classes) != len(rows):
        raise DataError(
            f"{where} is not a batch of CIFAR-10: 32x32 pixels and a label per image. Download the file again."
        )
    return rows, [int(value) for value in classes]


def _binary_batch(data: bytes) -> tuple[np.ndarray, list[int]]:
    """Returns the rows and classes of a batch of records: one byte of class, 3072 of pixels."""
    count = len(data) // (1 + CIFAR_ROW)
    table = np.frombuffer(data, np.uint8, count * (1 + CIFAR_ROW)).reshape(count, 1 + CIFAR_ROW)
    return table[:, 1:], table[:, 0].tolist()


def _open_mnist(path: str) -> ArraySource | None:
    if not _MNIST_IMAGES.search(os.path.basename(path)):
        raise UserError(f"Cannot read {path}. Expected train-images-idx3-ubyte.gz of MNIST, with its labels beside it.")
    images = _idx(path, 3)
    beside = os.path.join(
        os.path.dirname(path), os.path.basename(path).replace("images", "labels").replace("idx3", "idx1")
    )
    if not os.path.isfile(beside):
        raise UserError(f"The labels of {path} are missing. Put {os.path.basename(beside)} beside it.")
    labels = _idx(beside, 1)
    if len(labels) != len(images):
        raise DataError(f"{beside} holds {len(labels)} labels for {len(images)} images. Download both files again.")
    pad = (MNIST_PADDING, MNIST_PADDING)
    return ArraySource(np.pad(images, [(0, 0), pad, pad]), labels.tolist(), path)


def _idx(path: str, dimensions: int) -> np.ndarray:
    """Returns an array of bytes in the IDX format: two zeros, type 8, number of dimensions, sizes, values."""
    with gzip.open(path) as file:
        data = file.read(MAX_BYTES)
    sizes = struct.unpack_from(f">{dimensions}I", data, 4)
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) - start != int(np.prod(sizes, dtype=object)):
        raise DataError(f"{path} is not a complete IDX file of {dimensions} dimensions. Download it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)
