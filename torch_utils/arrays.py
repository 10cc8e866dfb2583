"""Reads arrays from foreign .npz files without unpickling."""

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from dnnlib import UserError, open_url

MAX_ARRAY_BYTES = 1 << 28
MAX_TEXTS = 1 << 16
KINDS = "biufU"
"""Truth values, numbers and text; everything else would need unpickling."""
DAMAGED = (
    ValueError, OSError, EOFError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What damaged archives and headers of arrays raise."""


def read_arrays(path: str | os.PathLike, names: Iterable[str], expected: str) -> dict[str, np.ndarray]:
    """Returns named arrays of a .npz file. The result lacks arrays that the file lacks.

    Args:
        path: file or address.
        names: names of the arrays to read.
        expected: description of the right file for messages, such as 'a .npz file that holds `w`'.

    Returns:
        Arrays of truth values, numbers or text, as they were stored.

    Raises:
        UserError: no such file, another format, too large, or arrays of other objects.
    """
    with open_url(path) as file:
        return read_open_arrays(file, names, os.fspath(path), expected)


def read_open_arrays(
    file: BinaryIO, names: Iterable[str] | None, where: str, expected: str, most: int = MAX_ARRAY_BYTES
) -> dict[str, np.ndarray]:
    """Returns named arrays, or all arrays, of a .npz file that is open. See `read_arrays`.

    Args:
        file: file object, open for binary reading.
        names: names of the arrays to read. None reads all arrays.
        where: name of the file in messages.
        expected: description of the right file for messages.
        most: limit of all arrays together, in bytes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            stored = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            wanted = sorted(stored) if names is None else [name for name in names if name in stored]
            members = {name: archive.getinfo(f"{name}.npy") for name in wanted}
            if sum(info.file_size for info in members.values()) > most:
                raise ValueError("the arrays are too large")
            return {name: _read_member(archive, info) for name, info in members.items()}
    except DAMAGED as error:
        raise UserError(f"Cannot read {where}. Expected {expected}.") from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > MAX_ARRAY_BYTES or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("the array is too large, or has an unknown compression")
    with archive.open(info) as member:
        return _array_of(io.BytesIO(member.read(info.file_size + 1)))


def _array_of(stream: BinaryIO) -> np.ndarray:
    """Returns one array, after a check of the size in its header."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("the array has another version of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    data = stream.read()
    if dtype.kind not in KINDS or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("the array has other content or another size than its header says")
    if not dtype.itemsize:  # an array of empty texts
        if math.prod(shape) > MAX_TEXTS:
            raise ValueError("the array has too many texts")
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
