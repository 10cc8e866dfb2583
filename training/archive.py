"""Archives of images: zip files or folders, read by many processes at once and written completely or not at all."""

import contextlib
import functools
import io
import json
import os
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from dnnlib import UserError, atomic_path, open_url
from training.layout import usual_names

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_IMAGE_PIXELS = 1 << 26  # 8192 x 8192; larger images are refused before memory is allocated
MAX_MEMBER_BYTES = 1 << 28
PACKED_AT_ONCE = 16 << 20
PNG_END = b"IEND\xaeB`\x82"
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"


warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # this module refuses images that are too large


class DataError(UserError):
    """A `UserError` about data. It stays one line when a loader process hands it to its parent.

    PyTorch rebuilds the exception of a worker with the worker's traceback as its text. This class keeps only the line
    after the last mention of its name.
    """

    def __init__(self, message: str):
        super().__init__(str(message).rpartition("DataError: ")[2])


class Archive:
    """The files of a zip or a folder, by the relative names that dataset_tool.py writes.

    An archive that was packed again in another layout is read as well, see `training.layout.usual_names`. An archive
    can be pickled, forked and used from threads. Each process opens the zip once, at its first read.

    Args:
        path: a zip file or a folder. A zip at an ``http(s)://`` address is downloaded into the cache.

    Raises:
        DataError: the path does not exist, or the zip is damaged, or one of its names leads outside of it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = local_path(path)
        self.is_zip = os.path.isfile(self.path)
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        if self.is_zip:
            stored = self._zip_names()
        elif os.path.isdir(self.path):
            stored = sorted(_walk(self.path))
        else:
            raise DataError(f"File or folder {self.path} does not exist. Check the path.")
        self._stored = usual_names(stored)
        self.names = sorted(self._stored)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def images(self, skip: tuple[str, ...] = ()) -> list[str]:
        """Returns the sorted names of the image files, except files in the top folders named by `skip`."""
        found = [name for name in self.names if name.lower().endswith(IMAGE_SUFFIXES)]
        return [name for name in found if name.split("/", 1)[0] not in skip] if skip else found

    def where(self, name: str) -> str:
        """Returns the name of a file for messages."""
        return f"{name} in {self.path}"

    def read(self, name: str) -> bytes:
        """Returns the content of one file.

        Raises:
            DataError: the file is missing, damaged, encrypted or far too large.
        """
        stored = self._stored.get(name)
        if stored is None:
            raise DataError(f"The archive has no {self.where(name)}. Make the archive again with dataset_tool.py.")
        try:
            if self.is_zip:
                return _read_member(self._zip(), stored)
            path = os.path.join(self.path, stored)
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
                raise ValueError("it is not a regular file")
            _check_bytes(status.st_size)
            with open(path, "rb") as file:
                return file.read(status.st_size)
        except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as e:
            reason = getattr(e, "strerror", None) or e
            raise DataError(f"Cannot read {self.where(name)}: {reason}. Copy the archive or make it again.") from e

    def read_json(self, name: str) -> Any:
        """Returns the content of one JSON file."""
        return parse_json(self.read(name), self.where(name))

    def close(self) -> None:
        """Close the zip. The next read opens it again."""
        if self._handle is not None:
            self._handle[1].close()
            self._handle = None

    def _zip(self) -> zipfile.ZipFile:
        """Returns this process's own handle. A forked handle would share its file position with the parent process.

        Two threads may both open the file at the same time. Both work, and one handle is kept.
        """
        handle = self._handle
        if handle is None or handle[0] != os.getpid():
            self._handle = handle = (os.getpid(), zipfile.ZipFile(self.path))
        return handle[1]

    def _zip_names(self) -> list[str]:
        try:
            names = self._zip().namelist()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.path} is not a zip archive, or it is incomplete ({error}). Copy it or make it again."
            ) from error
        for name in names:
            if name.startswith(("/", "\\")) or ":" in name.split("/")[0] or ".." in name.replace("\\", "/").split("/"):
                raise DataError(f"{self.path} holds {name!r}, a name that leads outside the archive. Do not use it.")
        return sorted({name for name in names if not name.endswith("/") and not _is_hidden(name)})


@contextlib.contextmanager
def create_archive(dest: str | os.PathLike) -> Iterator[Callable[[str, bytes], None]]:
    """Write a new archive, completely or not at all: ``with create_archive(dest) as add: add(name, data)``.

    If `dest` ends in ``.zip``, writes a zip of uncompressed members with fixed dates: equal content gives equal
    bytes. An older zip is replaced. Any other `dest` becomes a folder, which must be new or empty. All files are
    written under a temporary name beside `dest`, which is renamed at the end.

    Raises:
        UserError: `dest` exists already or cannot be written, or the disk is full.
    """
    dest = Path(dest)
    check_dest(dest)
    if dest.suffix.lower() == ".zip":
        with atomic_path(dest) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            yield lambda name, data: archive.writestr(zipfile.ZipInfo(name), data)
        return
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=dest.parent, prefix=f".{dest.name}-", suffix=".tmp"))
    except OSError as error:
        raise UserError(f"Cannot write {dest}: {error.strerror or error}. Choose another --dest.") from error

    def add(name: str, data: bytes) -> None:
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    try:
        yield add
        (temporary / ".mode").mkdir()  # has the user's usual permissions, unlike a folder from mkdtemp
        temporary.chmod((temporary / ".mode").stat().st_mode)
        (temporary / ".mode").rmdir()
        if dest.exists():
            dest.rmdir()
        os.rename(temporary, dest)
    except OSError as error:
        raise UserError(
            f"Cannot write {dest}: {error.strerror or error}. Free some space or choose another --dest."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_dest(dest: str | os.PathLike) -> None:
    """Refuse every destination that `create_archive` would refuse, before any work is done.

    Raises:
        UserError: `dest` is a folder with files, or a file instead of a folder, or has another archive format.
    """
    dest = Path(dest)
    if dest.suffix.lower() in (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tfrecords"):
        raise UserError(f"Cannot write {dest}. --dest must be a folder or a file that ends in .zip.")
    if dest.suffix.lower() == ".zip":
        if dest.is_dir():
            raise UserError(f"{dest} is a folder. Name a zip file, or a folder without .zip in its name.")
    elif dest.is_dir() and any(dest.iterdir()):
        raise UserError(f"The folder {dest} is not empty. Name a new folder, or a file that ends in .zip.")
    elif dest.exists() and not dest.is_dir():
        raise UserError(f"{dest} is a file. Name a folder, or a file that ends in .zip.")


def image_name(index: int, suffix: str = ".png") -> str:
    """Returns the name of image `index` in an archive, ``00000/img00000000.png``. A folder holds a thousand images."""
    return f"{index // 1000:05d}/img{index:08d}{suffix}"


def encode_png(pixels: np.ndarray, compress_level: int = 0) -> bytes:
    """Returns the PNG file of uint8 [H, W] (grey or class indices) or [H, W, 3].

    Rows are stored without PNG's row filters. At level 0, writing and reading are then plain copies. This is several
    times faster than filtered rows, which image libraries write even without compression.
    """
    height, width = pixels.shape[:2]
    rows = np.zeros([height, 1 + width * (3 if pixels.ndim == 3 else 1)], np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    step = max(PACKED_AT_ONCE // rows.shape[1], 1)
    if height <= step:
        body = [zlib.compress(rows, compress_level)]
    else:  # avoid further copies of a huge picture
        packer = zlib.compressobj(compress_level)
        body = [*(packer.compress(rows[start : start + step]) for start in range(0, height, step)), packer.flush()]
    del rows
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"".join([PNG_START[:8], *_chunk(b"IHDR", [header]), *_chunk(b"IDAT", body), *_chunk(b"IEND", [])])


def _chunk(kind: bytes, body: list[bytes]) -> list[bytes]:
    """Returns the parts of one chunk of a PNG file."""
    checksum = functools.reduce(lambda crc, part: zlib.crc32(part, crc), body, zlib.crc32(kind))
    return [struct.pack(">I", sum(map(len, body))), kind, *body, struct.pack(">I", checksum)]


def decode_image(data: bytes, where: str, header: bool = False) -> PIL.Image.Image:
    """Decode one image file, or its header alone. Messages call the file `where`.

    Raises:
        DataError: the file is not an image, is damaged or incomplete, or has more than MAX_IMAGE_PIXELS pixels.
    """
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP"))
        if image.width * image.height <= MAX_IMAGE_PIXELS:
            if not header:
                image.load()
            return image
    except Exception as error:  # decoders can raise almost any error on damaged files
        reason = str(error).rstrip(".")
        if isinstance(error, PIL.UnidentifiedImageError):
            reason = "it is not a PNG, JPEG, WebP or BMP image"
        if isinstance(error, PIL.Image.DecompressionBombError):
            reason = f"it has more than the {MAX_IMAGE_PIXELS} pixels allowed"
        raise DataError(f"Cannot read {where}: {reason}. Remove or replace the file.") from error
    raise DataError(
        f"{where} has {image.width}x{image.height} pixels, more than the {MAX_IMAGE_PIXELS} allowed. Shrink the image."
    )


def decode_pixels(data: bytes, where: str) -> np.ndarray:
    """Decode one image file to uint8 [H, W] (grey) or [H, W, 3]. See `decode_image`."""
    pixels = decode_plain_png(data)
    if pixels is None:
        image = decode_image(data, where)
        pixels = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return pixels


def decode_plain_png(data: bytes) -> np.ndarray | None:
    """Decode a file of `encode_png` with little more than a copy. Returns None for any other or damaged file."""
    if data[:16] != PNG_START or data[37:41] != b"IDAT":
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", data, 16)
    channels = {(8, 0, 0, 0, 0): 1, (8, 2, 0, 0, 0): 3}.get(tuple(kind))
    end = 41 + int.from_bytes(data[33:37], "big")
    if channels is None or width * height > MAX_IMAGE_PIXELS or data[end + 8 : end + 16] != PNG_END:
        return None
    size = height * (1 + width * channels)
    decoder = zlib.decompressobj()
    try:
        rows = decoder.decompress(memoryview(data)[41:end], size + 1)  # one more byte, to check the checksum at the end
    except zlib.error:
        return None
    if len(rows) != size or not decoder.eof:
        return None
    table = np.frombuffer(rows, np.uint8).reshape(height, -1)
    if table[:, 0].any():
        return None  # rows are filtered
    pixels = table[:, 1:].copy()
    return pixels if channels == 1 else pixels.reshape(height, width, 3)


def parse_json(data: bytes, where: str) -> Any:
    """Returns the value of JSON bytes. Messages call the file `where`.

    Raises:
        DataError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {where}: it is not valid JSON ({error}). Correct or remove the file.") from error


def local_path(path: str | os.PathLike) -> str:
    """Returns a local path for a path or an address. A file behind an address is downloaded into the cache."""
    return os.path.expanduser(open_url(path, return_filename=True))


def _walk(folder: str) -> Iterator[str]:
    """Returns the names of all files below `folder`. Follows links to folders, but enters each folder only once."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        relative = os.path.relpath(parent, folder).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (prefix + name for name in files if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns the content of one member. Refuses a member that unpacks to more than its size in the zip's directory."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # other methods unpack without a bound
        raise ValueError("it has a compression method that image archives do not use")
    _check_bytes(info.file_size)
    with archive.open(info) as member:
        return member.read(info.file_size + 1)  # one more byte, to check the checksum


def _check_bytes(size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"it is {size >> 20} MB large, more than the {MAX_MEMBER_BYTES >> 20} MB allowed")
