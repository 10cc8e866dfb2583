"""Small network files, .npz, with rounded weights. They open without any extra."""

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
"""Numbers that share a step size, at least."""
LEAST_NUMBERS = 1024
"""Smaller tensors are not rounded."""
MOST_BYTES = 1 << 27
"""Limit of all arrays of a file together, before they become float32."""


def save_compact(data: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write networks as a small .npz. Weights are rounded, and G_ema is stored for G as well.

    Each row of a large weight has its own step size: the largest number divided by the largest integer. A row spans the
    last dimensions: as few as hold `LEAST_ROW` numbers. Weights with shorter rows and other tensors stay as they are.

    Args:
        data: G, D, G_ema, augment_pipe (each a persistent network or None) and training_set_kwargs.
        path: file to write. It appears only when it is complete.

    Raises:
        UserError: a weight is not finite, or the networks are too large for such a file.
    """
    data = {**data, "G": None if data.get("G") is None else data["G_ema"]}
    arrays = {METADATA: np.array(json.dumps(describe(data)))}
    for key in NETWORKS:
        if data.get(key) is None or key == "G":
            continue
        weights = dict(data[key].named_parameters())
        for name, tensor in rebuild.named_tensors(data[key]).items():
            full, tensor = f"{key}.{name}", tensor.detach().cpu()
            if name in weights and row_dims(tensor) and tensor.numel() >= LEAST_NUMBERS:
                rounded, steps = quantize(tensor, BITS.get(key, MOST_BITS), full)
                arrays[full], arrays[full + STEPS] = rounded.numpy(), steps.numpy()
            else:
                arrays[full] = tensor.numpy()
    if sum(array.nbytes for array in arrays.values()) > MOST_BYTES:
        raise UserError(f"The networks are too large for .npz. Write {os.fspath(path)} as .pkl with --half.")
    with atomic_open(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # without the time of writing
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def row_dims(weight: torch.Tensor) -> int:
    """Returns how many of the last dimensions a row of the weight spans. 0 if rows would be too short."""
    if not weight.is_floating_point():
        return 0
    return next((n for n in range(1, weight.ndim) if weight.shape[-n:].numel() >= LEAST_ROW), 0)


def quantize(weight: torch.Tensor, bits: int, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns integers, int8 of the weight's shape, and step sizes, float32, one per row.

    Raises:
        UserError: the weight is not finite.
    """
    if not bool(weight.isfinite().all()):
        raise UserError(f"{name} has numbers that are not finite, so it cannot be rounded.")
    rows = weight.float().flatten(-row_dims(weight))
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
    arrays = read_open_arrays(file, None, where, "a small network file (.npz) of this project", MOST_BYTES)
    try:
        metadata = json.loads(str(arrays.pop(METADATA)))
        if metadata["format"] != FORMAT:
            raise UserError(f"{where} does not name its network. Only .npz files of this project can be read.")
        steps = {name: arrays.pop(name) for name in list(arrays) if name.endswith(STEPS)}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        for name, size in steps.items():
            weight = name.removesuffix(STEPS)
            tensors[weight] = dequantize(tensors[weight], torch.from_numpy(size.copy()))
        if json.loads(metadata["networks"])["G"] is not None:
            tensors |= {"G" + name.removeprefix("G_ema"): t for name, t in tensors.items() if name.startswith("G_ema.")}
    except UserError:
        raise
    except Exception as error:
        raise damaged(where, ".npz", error) from error
    return rebuild_networks(metadata, tensors, packages, where, ".npz")
