"""The folder for downloads and other cached results. If the folder cannot be written, work continues without it."""

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
    """Returns a path inside the cache: ``$DNNLIB_CACHE_DIR``, else ``~/.cache/dnnlib``. Does not create it.

    Without a home, as in many containers, the cache is in the folder of temporary files.
    """
    root = os.environ.get(CACHE_VARIABLE)
    if not root:
        try:
            root = Path.home() / ".cache" / "dnnlib"
        except RuntimeError:
            root = Path(tempfile.gettempdir(), ".cache", "dnnlib")
    return Path(root, *paths)


def cached_path(url: str, folder: str | os.PathLike | None = None) -> Path:
    """Returns the cache path of the download of `url`: the MD5 of the address, then its file name.

    Args:
        url: address of the file.
        folder: folder to use instead of the cache.
    """
    name = urllib.parse.unquote(urllib.parse.urlparse(url).path).rsplit("/", 1)[-1] or "download"
    name = re.sub(r"[^0-9A-Za-z._-]", "_", name)[-120:]
    folder = make_cache_dir_path("downloads") if folder is None else Path(folder)
    return folder / f"{hashlib.md5(url.encode()).hexdigest()}_{name}"


def find_kept(path: Path) -> Path | None:
    """Returns the cached file `path`, or its replacement of this process, or None."""
    for candidate in (path, _stand_in(path)):
        with contextlib.suppress(OSError):  # the folder may not be readable
            if candidate is not None and candidate.is_file() and os.access(candidate, os.R_OK):
                return candidate
    return None


def keep(path: Path, write: Callable[[IO[Any]], Any]) -> Path:
    """Write a file of the cache, completely or not at all, and return its path.

    If the cache cannot be written, one line on stderr says so. The file is then in a temporary folder, which is deleted
    at the end of this process.

    Args:
        path: path of the file, from `make_cache_dir_path`.
        write: function that writes to the file, open for binary writing.

    Raises:
        UserError: the temporary folder cannot be written either, or `write` raised it.
    """
    reason = _write(path, write)
    if reason is None:
        return path
    _report_once(path.parent, reason)
    other = _stand_in(path, make=True)
    if other is not None and _write(other, write) is None:
        return other
    raise UserError(f"Cannot write the cache {path}: {reason}. Set {CACHE_VARIABLE} to a writable folder.")


def _write(path: Path, write: Callable[[IO[Any]], Any]) -> str | None:
    """Write a file. Returns the system's reason for a failure, or None. Raises other errors."""
    try:
        with atomic_open(path, "wb") as file:
            write(file)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        return error.__cause__.strerror or str(error.__cause__)
    return None


@functools.cache
def _report_once(folder: Path, reason: str) -> None:
    line = f"Cannot write the cache {folder}: {reason}. Set {CACHE_VARIABLE} to a writable folder."
    tqdm.write(line, file=sys.stderr)


def _stand_in(path: Path, make: bool = False) -> Path | None:
    """Returns the path of a cached file in the temporary folder of this process, or None without such a folder."""
    if _temporary.cache_info().currsize == 0 and not make:
        return None
    folder, name = _temporary(), hashlib.md5(os.fsencode(path.parent)).hexdigest()
    return None if folder is None else Path(folder.name, name, path.name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory | None:
    """Returns a folder that is removed when the process ends, or None."""
    with contextlib.suppress(OSError):
        return tempfile.TemporaryDirectory(prefix="dnnlib-", ignore_cleanup_errors=True)
    return None
