"""Latents of seeds and of files."""

import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import torch

from dnnlib import UserError, open_url

MAX_LATENT_BYTES = 1 << 28


def seed_latents(seeds: Iterable[int], z_dim: int) -> torch.Tensor:
    """The z that StyleGAN tools give to seeds: float32 [N, z_dim], each row from its own generator."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, z_dim))


def read_latents(path: str | os.PathLike, G: torch.nn.Module) -> torch.Tensor:
    """Codes from a .npz that holds `w`, as projector.py and ``generate.py --save-latents`` write it.

    Args:
        path: file or address.
        G: the network that shall render them.

    Returns:
        float32 [N, num_ws, D]; for a network with regions also expanded latents [N, K·L, D].

    Raises:
        UserError: no such file, nothing of that kind in it, or codes of another network.
    """
    with open_url(path) as file:
        try:
            w = _array_of(file, "w")
        except (KeyError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"Cannot read latents from {path}: expected a .npz file that holds `w`.") from error
    expanded = G.synthesis.local.num_expanded if hasattr(G, "regions") else G.num_ws
    if w.ndim != 3 or w.shape[1] not in (G.num_ws, expanded) or w.shape[2] != G.w_dim:
        raise UserError(
            f"The latents in {path} have the shape {list(w.shape)}, but this network takes [N, {G.num_ws}, {G.w_dim}]."
        )
    return torch.from_numpy(w)


def _array_of(file: BinaryIO, name: str) -> np.ndarray:
    """One array of numbers of a .npz file as float32; what the file says about its size is checked first."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > MAX_LATENT_BYTES or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("too large, or compressed in an unusual way")
        with archive.open(info) as member:
            stream = io.BytesIO(member.read(info.file_size + 1))
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    data = stream.read()
    if dtype.kind not in "fiu" or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("not an array of numbers, or of another size than it says")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float32)
