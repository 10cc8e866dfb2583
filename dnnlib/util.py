"""Attribute dictionaries, objects by name, the log file, and downloads."""

import contextlib
import functools
import importlib
import io
import os
import re
import sys
import time
import types
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click
import requests
from tqdm import tqdm

from dnnlib.cache import cached_path, find_kept, keep
from dnnlib.cache import make_cache_dir_path as make_cache_dir_path  # upstream's name for it
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
    """Copies all output on stdout and stderr to a file, until `close` or the end of `with`.

    Progress bars redraw a line with carriage returns. Only the text after the last carriage return reaches the file.

    Args:
        file_name: log file, or None.
        file_mode: 'w' empties the file first, 'a' appends.
        should_flush: flush the streams after every text. The file is always flushed.

    Raises:
        UserError: the file cannot be written. While logging, the first print that fails raises it.
    """

    def __init__(self, file_name: str | os.PathLike | None = None, file_mode: str = "w", should_flush: bool = True):
        self._file = None if file_name is None else LineFile(file_name, file_mode)
        self._streams = (sys.stdout, sys.stderr)
        self._tees = tuple(_Tee(SteadyStream(stream), self._file, should_flush) for stream in self._streams)
        sys.stdout, sys.stderr = self._tees

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, text: str | bytes) -> None:
        """Write text to stdout and to the file. Bytes are decoded as UTF-8."""
        self._tees[0].write(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)

    def flush(self) -> None:
        """Flush stdout and stderr."""
        for tee in self._tees:
            tee.flush()

    def close(self) -> None:
        """Restore stdout and stderr, and close the file. Further calls do nothing."""
        for name, tee, stream in zip(("stdout", "stderr"), self._tees, self._streams, strict=True):
            if getattr(sys, name) is tee:
                setattr(sys, name, stream)
        file, self._file = self._file, None
        if file is not None:
            with contextlib.closing(file):
                for tee in self._tees:
                    tee.finish()


class _Tee(io.TextIOBase):
    def __init__(self, stream: Any, file: LineFile | None, should_flush: bool):
        self._stream, self._file, self._should_flush = stream, file, should_flush
        self._line = ""

    def write(self, text: str) -> int:
        self._stream.write(text)
        *done, last = (self._line + text).split("\n")
        self._line = last.rsplit("\r", 1)[-1]  # a bar may redraw for days before its line ends
        lines = [line.rsplit("\r", 1)[-1] for line in done]
        kept = "".join(line + "\n" for line in lines if line.strip("\x1b[A ") or not line)
        if self._should_flush:
            self._stream.flush()
        self._keep(kept)
        return len(text)

    def finish(self) -> None:
        """Write the unfinished line to the file, and stop logging."""
        rest, self._line = self._line, ""
        if rest.strip():
            self._keep(rest + "\n")
        self._file = None

    def _keep(self, text: str) -> None:
        if text and self._file is not None:
            try:
                self._file.write(text)
            except UserError:
                self._file = None  # report the failure once
                raise

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
    """Returns seconds as a short text: ``7s``, ``3m 05s``, ``2h 01m 09s``, ``1d 04h 00m``."""
    total = round(seconds)
    days, hours, minutes, rest = total // 86400, total // 3600 % 24, total // 60 % 60, total % 60
    if days:
        return f"{days}d {hours:02d}h {minutes:02d}m"
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def ask_yes_no(question: str) -> bool:
    """Returns whether the user answers yes. Asks again until the answer is yes or no.

    Raises:
        click.Abort: standard input ended.
    """
    return click.prompt(f"{question} [y/n]", type=click.BOOL)


def get_module_from_obj_name(obj_name: str) -> tuple[types.ModuleType, str]:
    """Imports the module of a dotted name. Returns the module and the rest of the name.

    For ``'training.networks.Generator.forward'`` returns `training.networks` and ``'Generator.forward'``.

    Raises:
        UserError: no module or attribute of that name exists.
    """
    parts = obj_name.split(".")
    if not all(part.isidentifier() for part in parts):
        parts = []
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            module = found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                raise  # the module exists, but one of its imports is missing
            continue
        for attribute in parts[split:]:
            if not hasattr(found, attribute):
                raise UserError(f"{module_name} has no {attribute!r}. Check the class name {obj_name!r}.")
            found = getattr(found, attribute)
        return module, ".".join(parts[split:])
    raise UserError(f"Cannot import {obj_name!r}. Expected a dotted path such as 'training.networks.Generator'.")


def get_obj_by_name(name: str) -> Any:
    """Import and return the object of a dotted name, such as ``'training.networks.Generator'``.

    Raises:
        UserError: no module or attribute of that name exists.
    """
    module, local_name = get_module_from_obj_name(name)
    return functools.reduce(getattr, local_name.split("."), module)


def call_func_by_name(*args: Any, func_name: str, **kwargs: Any) -> Any:
    """Call the function named `func_name` with the remaining arguments, and return its result."""
    target: Callable = get_obj_by_name(func_name)
    if not callable(target):
        raise UserError(f"{func_name!r} is not callable. Name a function or a class.")
    return target(*args, **kwargs)


def construct_class_by_name(*args: Any, class_name: str, **kwargs: Any) -> Any:
    """Returns an instance of the class named `class_name`, built with the remaining arguments."""
    return call_func_by_name(*args, func_name=class_name, **kwargs)


def is_url(obj: Any, allow_file_urls: bool = False) -> bool:
    """Whether `obj` is a web address. With `allow_file_urls`, ``file://`` addresses count too."""
    return isinstance(obj, str) and re.match("(https?|file)://" if allow_file_urls else "https?://", obj) is not None


def open_url(
    url: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    num_attempts: int = DOWNLOAD_ATTEMPTS,
    verbose: bool = True,
    return_filename: bool = False,
    cache: bool = True,
) -> Any:
    """Open a local path, a ``file://`` address or a web address for binary reading.

    Web files are downloaded once and stored in the cache under the checksum of their address. An interrupted download
    is resumed, then tried again. The cache never holds incomplete files. If the cache cannot be written, the file
    exists for this process only.

    Args:
        url: path or address.
        cache_dir: folder for the download. None uses the cache.
        num_attempts: number of attempts to download.
        verbose: show a progress bar.
        return_filename: return the path of the file as text, instead of the open file.
        cache: store the download.

    Raises:
        UserError: the file does not exist, or the address cannot be reached.
        ValueError: `return_filename` is set for a download that is not stored.
    """
    name = os.fspath(url)
    if not is_url(name):
        path = name
        if name.startswith("file://"):
            path = urllib.request.url2pathname(urllib.parse.urlparse(name).path)
        return path if return_filename else _open(path)
    if not cache:
        if return_filename:
            raise ValueError("a download without a cache has no path: remove return_filename or cache=False")
        buffer = io.BytesIO()
        _download(name, buffer, verbose, num_attempts, cached_path(name))
        buffer.seek(0)
        return buffer
    target = cached_path(name, cache_dir)
    found = find_kept(target) or keep(target, lambda file: _download(name, file, verbose, num_attempts, target))
    return os.fspath(found) if return_filename else open(found, "rb")


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"Cannot open {path}: {error.strerror or error}. Check the path.") from error


def _download(url: str, file: Any, verbose: bool, num_attempts: int, place: Path) -> None:
    """Download `url` into `file`, which will be stored at `place`.

    After an interruption, requests the rest only. If the server refuses this, downloads the whole file again.
    """
    reason: object = "no answer"
    for attempt in range(num_attempts):
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
                reason = f"the connection was lost after {file.tell()} bytes"
        except requests.HTTPError as error:
            reason = f"the server answered {error.response.status_code}"
            if 400 <= error.response.status_code < 500:
                break
        except requests.RequestException as error:
            reason = type(error).__name__
    raise UserError(f"Cannot download {url}: {reason}. Check the connection, or place the file at {place} by hand.")
