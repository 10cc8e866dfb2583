"""Keeps results for a network in the cache, under the checksum of its weights."""

import zipfile
from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from dnnlib import UserError, atomic_open, make_cache_dir_path
from semantic.tuned import network_digest


def kept_arrays(
    G: torch.nn.Module, kind: str, build: Callable[[], dict[str, np.ndarray]], cache: bool = True
) -> dict[str, np.ndarray]:
    """Returns arrays from the cache, or from `build` if the cache lacks them. A damaged file is ignored.

    If the cache cannot be written, the work continues, and a line says so.

    Args:
        G: the network that the arrays belong to.
        kind: kind of the arrays, with all their dependencies besides the network.
        build: function that makes the arrays.
        cache: read and write the cache.
    """
    if not cache:
        return build()
    path = make_cache_dir_path("networks", f"{network_digest(G)}-{kind}.npz")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # the file is missing or damaged
    found = build()
    try:
        with atomic_open(path, "wb") as file:
            np.savez(file, **found)
    except UserError as error:
        tqdm.write(f"The result is not in the cache: {error.message}")
    return found
