"""Attribute dictionaries, objects by name, the log file, downloads and their cache."""

import contextlib
import importlib
import io
import os
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, BinaryIO

import requests
from tqdm import tqdm

from dnnlib.cache import cached_path, find_kept, keep
from dnnlib.cache import make_cache_dir_path as make_cache_dir_path  # also known by this name
from dnnlib.errors import UserError
from dnnlib.files import LineFile
from dnnlib.streams import SteadyStream

DOWNLOAD_ATTEMPTS = 4


class EasyDict(dict):
    """A dictionary whose string keys can be read, set and deleted as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(name)
        del self[name]


class Logger:
    """Copies everything printed to stdout and stderr into a file, between `with` and its end.

    Progress bars redraw a line with carriage returns; only what follows the last one reaches the file.

    Raises:
        UserError: the file cannot be written; while it is written to, once, from the call that printed.
    """

    def __init__(self, file_name: str | os.PathLike, mode: str = "a"):
        self._file = LineFile(file_name, mode)
        self._streams = (sys.stdout, sys.stderr)

    def __enter__(self) -> "Logger":
        sys.stdout, sys.stderr = (_Tee(SteadyStream(stream), self._file) for stream in self._streams)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        self._file.close()


class _Tee(io.TextIOBase):
    def __init__(self, stream: Any, file: LineFile):
        self._stream, self._line = stream, ""
        self._file: LineFile | None = file

    def write(self, text: str) -> int:
        self._stream.write(text)
        *done, last = (self._line + text).split("\n")
        self._line = last.rsplit("\r", 1)[-1]  # a bar may redraw for days before its line ends
        lines = [line.rsplit("\r", 1)[-1] for line in done]
        kept = "".join(line + "\n" for line in lines if line.strip("\x1b[A ") or not line)
        if kept and self._file is not None:
            try:
                self._file.write(kept)
            except UserError:
                self._file = None  # said once
                raise
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def format_time(seconds: float) -> str:
    """Seconds as a short text: ``7s``, ``3m 05s``, ``2h 01m 09s``, ``1d 04h 00m``."""
    total = round(seconds)
    days, hours, minutes, rest = total // 86400, total // 3600 % 24, total // 60 % 60, total % 60
    if days:
        return f"{days}d {hours:02d}h {minutes:02d}m"
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def get_obj_by_name(name: str) -> Any:
    """Import the object behind a dotted name, such as ``'training.networks.Generator'``.

    Raises:
        UserError: no module or attribute of that name exists.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        parts = []
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                raise  # the module exists, but something that it needs does not
            continue
        for attribute in parts[split:]:
            if not hasattr(found, attribute):
                raise UserError(f"There is no {attribute!r} in {module_name}: check the class name {name!r}.")
            found = getattr(found, attribute)
        return found
    raise UserError(f"Nothing is named {name!r}: expected a dotted path such as 'training.networks.Generator'.")


def call_func_by_name(*args: Any, func_name: str, **kwargs: Any) -> Any:
    """Call the function named `func_name` with the remaining arguments."""
    target: Callable = get_obj_by_name(func_name)
    if not callable(target):
        raise UserError(f"{func_name!r} is not callable: name a function or a class.")
    return target(*args, **kwargs)


def construct_class_by_name(*args: Any, class_name: str, **kwargs: Any) -> Any:
    """Build an instance of the class named `class_name` with the remaining arguments."""
    return call_func_by_name(*args, func_name=class_name, **kwargs)


def is_url(name: Any) -> bool:
    """True for http, https and file addresses."""
    return isinstance(name, str) and re.match(r"(https?|file)://", name) is not None


def open_url(url: str | os.PathLike, cache: bool = True, verbose: bool = True) -> BinaryIO:
    """Open a local path, a ``file://`` address or a web address for binary reading.

    Web files are downloaded once and kept in the cache under the checksum of their address. A download
    that breaks off is continued, then tried again; it never enters the cache half-finished. Where the cache cannot be
    written, the file is kept for this process only.

    Raises:
        UserError: there is no such file, or the address cannot be reached.
    """
    name = os.fspath(url)
    if not is_url(name) or name.startswith("file://"):
        path = urllib.request.url2pathname(urllib.parse.urlparse(name).path) if name.startswith("file://") else name
        try:
            return open(path, "rb")
        except OSError as error:
            raise UserError(f"Cannot open {path}: {error.strerror or error}. Check the path.") from error
    if not cache:
        buffer = io.BytesIO()
        _download(name, buffer, verbose)
        buffer.seek(0)
        return buffer
    target = cached_path(name)
    found = find_kept(target) or keep(target, lambda file: _download(name, file, verbose))
    return open(found, "rb")


def _download(url: str, file: Any, verbose: bool) -> None:
    """Fetch `url` into `file`; after an interruption ask for the rest, or start over where that is refused."""
    reason: object = "no answer"
    for attempt in range(DOWNLOAD_ATTEMPTS):
        if attempt:
            time.sleep(2.0**attempt / 2)
        offset = file.tell()
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        try:
            with requests.get(url, stream=True, timeout=30, headers=headers) as answer:
                answer.raise_for_status()
                if offset and answer.status_code != 206:
                    file.seek(0)
                    file.truncate()
                    offset = 0
                length = int(answer.headers.get("Content-Length", 0))
                bar = tqdm(
                    total=(offset + length) or None,
                    initial=offset,
                    unit="B",
                    unit_scale=True,
                    desc=f"Downloading {url.rsplit('/', 1)[-1]}",
                    disable=not verbose,
                )
                with contextlib.closing(bar):
                    for block in answer.iter_content(1 << 18):
                        file.write(block)
                        bar.update(len(block))
                if not length or file.tell() >= offset + length:
                    return
                reason = f"broke off after {file.tell()} bytes"
        except requests.HTTPError as error:
            reason = f"the server answered {error.response.status_code}"
            if 400 <= error.response.status_code < 500:
                break
        except requests.RequestException as error:
            reason = type(error).__name__
    raise UserError(
        f"Cannot download {url}: {reason}. Check the connection, or place the file at {cached_path(url)} by hand."
    )
