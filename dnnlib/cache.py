"""The folder of downloads and of other results that are kept; where it cannot be written the work goes without it."""

import contextlib
import functools
import hashlib
import os
import re
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from dnnlib.errors import UserError
from dnnlib.files import atomic_open

CACHE_VARIABLE = "DNNLIB_CACHE_DIR"


def make_cache_dir_path(*paths: str) -> Path:
    """Path inside the cache: ``$DNNLIB_CACHE_DIR``, else ``~/.cache/dnnlib``. Nothing is created.

    A user without a home, as in many containers, has the cache in the folder of temporary files.
    """
    root = os.environ.get(CACHE_VARIABLE)
    if not root:
        try:
            root = Path.home() / ".cache" / "dnnlib"
        except RuntimeError:
            root = Path(tempfile.gettempdir(), ".cache", "dnnlib")
    return Path(root, *paths)


def cached_path(url: str, folder: str | os.PathLike | None = None) -> Path:
    """Where the download of `url` is kept: the MD5 of the address, then its file name.

    Args:
        folder: keep it there instead of in the cache.
    """
    name = urllib.parse.unquote(urllib.parse.urlparse(url).path).rsplit("/", 1)[-1] or "download"
    name = re.sub(r"[^0-9A-Za-z._-]", "_", name)[-120:]
    folder = make_cache_dir_path("downloads") if folder is None else Path(folder)
    return folder / f"{hashlib.md5(url.encode()).hexdigest()}_{name}"


def find_kept(path: Path) -> Path | None:
    """The file that was kept at `path`, or its stand-in of this process; None where there is neither."""
    for candidate in (path, _stand_in(path)):
        with contextlib.suppress(OSError):  # a folder that may not be looked into
            if candidate is not None and candidate.is_file() and os.access(candidate, os.R_OK):
                return candidate
    return None


def keep(path: Path, write: Callable[[IO[Any]], Any]) -> Path:
    """Write a file of the cache, whole or not at all, and give the path where it is now.

    Where the cache cannot be written, one line on stderr says so. The file then lies in a temporary folder, which
    goes with this process.

    Args:
        path: the file, made with `make_cache_dir_path`.
        write: is given the file, open for binary writing.

    Raises:
        UserError: the temporary folder cannot be written either, or `write` raised it.
    """
    reason = _write(path, write)
    if reason is None:
        return path
    _tell(path.parent, reason)
    other = _stand_in(path, make=True)
    if other is not None and _write(other, write) is None:
        return other
    raise UserError(f"Cannot write the cache {path}: {reason}. Set {CACHE_VARIABLE} to a folder that can be written.")


def _write(path: Path, write: Callable[[IO[Any]], Any]) -> str | None:
    """Write a file; why the system refused, or None. Other mistakes are raised."""
    try:
        with atomic_open(path, "wb") as file:
            write(file)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        return error.__cause__.strerror or str(error.__cause__)
    return None


@functools.cache
def _tell(folder: Path, reason: str) -> None:
    line = f"Nothing is kept in the cache {folder}: {reason}. Set {CACHE_VARIABLE} to a folder that can be written."
    tqdm.write(line, file=sys.stderr)


def _stand_in(path: Path, make: bool = False) -> Path | None:
    """The place of a file of the cache in the temporary folder of this process; None where there is no such folder."""
    if _temporary.cache_info().currsize == 0 and not make:
        return None
    folder, name = _temporary(), hashlib.md5(os.fsencode(path.parent)).hexdigest()
    return None if folder is None else Path(folder.name, name, path.name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory | None:
    """A folder that is removed when the process ends."""
    with contextlib.suppress(OSError):
        return tempfile.TemporaryDirectory(prefix="dnnlib-", ignore_cleanup_errors=True)
    return None
