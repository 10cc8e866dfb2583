"""Files that appear only when they are complete, and logs that grow by whole lines."""

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dnnlib.errors import UserError

HELD_OPEN_PAUSES = (0.1, 0.2, 0.5, 1.0)  # seconds; virus scanners and viewers keep files open briefly
TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}\.tmp(\..+)?")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success, flush it to disk and rename it to `path`.

    The temporary name keeps the suffix of `path`, since some writers choose a format by the suffix. If the body raises
    an error, the temporary file is removed and `path` does not change.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=f".tmp{path.suffix}")
        os.close(handle)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}. Choose another output folder.") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        _replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or choose another output folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing, completely or not at all. See `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write `data` as indented JSON, completely or not at all."""
    with atomic_open(path) as file:
        json.dump(data, file, indent=2)
        file.write("\n")


def remove_temporary(folder: str | os.PathLike) -> None:
    """Delete unfinished files of killed processes in `folder`. No process may be writing there."""
    for path in Path(folder).iterdir():
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


class LineFile:
    """A text file to which whole lines are appended. A line that does not fit on the disk is removed again.

    Args:
        path: file, created if missing.
        mode: 'a' appends to the file, 'w' empties it first.

    Raises:
        UserError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike, mode: str = "a"):
        self.path = os.fspath(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if mode.startswith("w") else 0)
        flags |= getattr(os, "O_BINARY", 0)  # otherwise Windows changes line breaks
        try:
            self._handle = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror}. Choose another output folder.") from error

    def write(self, text: str, sync: bool = False) -> None:
        """Append lines.

        Args:
            text: lines, ending in a line break.
            sync: wait until the lines are on the disk.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        size = os.fstat(self._handle).st_size
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            if sync:
                os.fsync(self._handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, size)
            raise UserError(f"Cannot write {self.path}: {error.strerror}. Free some space and try again.") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def append_line(path: str | os.PathLike, line: str) -> None:
    """Append one line to a file, and wait until it is on the disk. See `LineFile`."""
    with contextlib.closing(LineFile(path)) as file:
        file.write(line + "\n", sync=True)


def _replace(source: Path, target: Path) -> None:
    """Rename a file over another file. On Windows, waits for programs that have the other file open."""
    for pause in HELD_OPEN_PAUSES:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
