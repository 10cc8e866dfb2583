"""Small network files, .npz: eight bits or less per weight. They open without any extra."""

import json
import os
import zipfile
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

import numpy as np
import torch

from dnnlib import UserError, atomic_open
from torch_utils.arrays import read_open_arrays
from torch_utils.network_files import rebuild
from training.formats import FORMAT, NETWORKS, damaged, describe, rebuild_networks

METADATA, STEPS = "metadata", ":steps"
"""Names of the array of metadata, and of the ending of arrays with step sizes."""
BITS = {"D": 6}
"""Bits per weight, if not `MOST_BITS`. D only serves to train on."""
MOST_BITS = 8
LEAST_ROW = 32
LEAST_NUMBERS = 1024
"""Smaller tensors are not rounded."""


def save_compact(data: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write networks as a small .npz. G is stored as a copy of G_ema, and weights are rounded.

    Each row of a large weight has its own step size: the largest number divided by the largest integer. A row is what
    the last dimensions hold, as few as give `LEAST_ROW` numbers. Other tensors stay as they are.

    Args:
        data: G, D, G_ema, augment_pipe (each a persistent network or None) and training_set_kwargs.
        path: file to write. It appears only when it is complete.

    Raises:
        UserError: a weight is not finite.
    """
    data = {**data, "G": data["G_ema"]}
    arrays = {METADATA: np.array(json.dumps(describe(data)))}
    for key in NETWORKS:
        if data.get(key) is None or key == "G":
            continue
        weights = dict(data[key].named_parameters())
        for name, tensor in rebuild.named_tensors(data[key]).items():
            full, tensor = f"{key}.{name}", tensor.detach().cpu()
            if name in weights and tensor.ndim > 1 and tensor.numel() >= LEAST_NUMBERS and tensor.is_floating_point():
                rounded, steps = quantize(tensor, BITS.get(key, MOST_BITS), full)
                arrays[full], arrays[full + STEPS] = rounded.numpy(), steps.numpy()
            else:
                arrays[full] = tensor.numpy()
    with atomic_open(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # without the time of writing
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def quantize(weight: torch.Tensor, bits: int, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns integers, int8 of the weight's shape, and step sizes, float32, one per row.

    Raises:
        UserError: the weight is not finite.
    """
    if not bool(weight.isfinite().all()):
        raise UserError(f"{name} has numbers that are not finite, so it cannot be rounded.")
    dims = next((n for n in range(1, weight.ndim) if weight.shape[-n:].numel() >= LEAST_ROW), weight.ndim - 1)
    rows = weight.float().flatten(-dims)
    steps = rows.abs().amax(dim=-1) / (2 ** (bits - 1) - 1)
    rounded = (rows / steps.clamp_min(torch.finfo(torch.float32).tiny)[..., None]).round()
    return rounded.to(torch.int8).reshape(weight.shape), steps


def dequantize(rounded: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Returns the weight, float32, from the results of `quantize`.

    Raises:
        ValueError: the step sizes do not fit.
    """
    if not 0 < steps.ndim < rounded.ndim or rounded.shape[: steps.ndim] != steps.shape:
        raise ValueError(f"steps {list(steps.shape)} do not fit a weight {list(rounded.shape)}")
    return rounded.float() * steps.float().reshape(*steps.shape, *[1] * (rounded.ndim - steps.ndim))


def is_compact(file: BinaryIO) -> bool:
    """Returns whether an open zip archive is one of `save_compact`. The position in the file does not change."""
    start = file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            return f"{METADATA}.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    finally:
        file.seek(start)


def load_compact(file: BinaryIO, packages: Collection[str], where: str) -> dict[str, Any]:
    """Read networks that `save_compact` wrote.

    Args:
        file: file object, open for binary reading.
        packages: top-level packages in which the file may name network classes.
        where: name of the file in messages.

    Raises:
        UserError: the file is damaged or holds other networks, or its tensors do not fit.
    """
    arrays = read_open_arrays(file, None, where, "a small network file (.npz) of this project")
    try:
        metadata = json.loads(str(arrays.pop(METADATA)))
        if metadata["format"] != FORMAT:
            raise UserError(f"{where} does not name its network. Only .npz files of this project can be read.")
        steps = {name: arrays.pop(name) for name in list(arrays) if name.endswith(STEPS)}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        for name, size in steps.items():
            weight = name.removesuffix(STEPS)
            tensors[weight] = dequantize(tensors[weight], torch.from_numpy(size.copy()))
        tensors |= {"G" + name.removeprefix("G_ema"): t for name, t in tensors.items() if name.startswith("G_ema.")}
    except UserError:
        raise
    except Exception as error:
        raise damaged(where, ".npz", error) from error
    return rebuild_networks(metadata, tensors, packages, where, ".npz")
