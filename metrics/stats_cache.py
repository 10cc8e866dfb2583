"""A cache of statistics of real data, by data set, options and feature network."""

import contextlib
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dnnlib import UserError, make_cache_dir_path
from dnnlib.cache import find_kept, keep
from metrics.options import MetricOptions
from torch_utils import distributed


def cached_arrays(
    opts: MetricOptions, kind: str, key: Mapping[str, Any], compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray] | None:
    """Returns the result of `compute`, from the cache if possible.

    All processes must call this alike. `compute` runs on all processes or on none.

    Args:
        kind: kind of the result, a word for the file name.
        key: JSON values on which the result depends besides the data: options, checksum of the feature network.
        compute: returns arrays by name. Only the arrays of process 0 count.

    Returns:
        The arrays on process 0, None on other processes.
    """
    first = distributed.get_rank() == 0
    path = cache_path(opts, kind, key)
    found = read_arrays(find_kept(path) or path) if first and opts.cache else None
    flag = torch.tensor([int(found is not None)], device=opts.device)
    if int(distributed.all_reduce(flag)):
        return found
    arrays = dict(compute())
    if not first:
        return None
    if opts.cache:
        with contextlib.suppress(UserError):  # a line on stderr has reported it
            keep(path, lambda file: np.savez(file, **arrays))
    return arrays


def cache_path(opts: MetricOptions, kind: str, key: Mapping[str, Any]) -> Any:
    """Returns the path of the cache file for these options."""
    kwargs = {name: value for name, value in opts.dataset_kwargs.items() if name != "path"}
    content = {"data": fingerprint(opts.dataset_kwargs.get("path")), "dataset": kwargs, "kind": kind, "key": dict(key)}
    digest = hashlib.md5(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    stem = os.path.splitext(os.path.basename(os.path.normpath(str(opts.dataset_kwargs.get("path", "data")))))[0]
    return make_cache_dir_path("metrics", f"{re.sub(r'[^0-9A-Za-z_-]', '_', stem)[:60]}-{kind}-{digest}.npz")


def fingerprint(path: Any) -> list[Any]:
    """Returns values that identify an archive: names, sizes and checksums of a zip, or sizes and dates of a folder."""
    path = str(path)
    digest = hashlib.md5()
    if os.path.isfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    digest.update(f"{info.filename}\0{info.file_size}\0{info.CRC}\n".encode())
            return ["zip", digest.hexdigest()]
        except zipfile.BadZipFile:
            status = os.stat(path)
            return [path, status.st_size, status.st_mtime_ns]
    if os.path.isdir(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                status = os.stat(os.path.join(folder, name))
                relative = os.path.relpath(os.path.join(folder, name), path)
                digest.update(f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return ["folder", digest.hexdigest()]
    return [path]


def read_arrays(path: Any) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an .npz file. Returns None if the file is missing or damaged, or holds other objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
