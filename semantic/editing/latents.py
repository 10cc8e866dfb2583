"""Latents from seeds and from files."""

import os
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from dnnlib import UserError
from torch_utils.arrays import read_arrays

LATENT_FILE = "a .npz file that holds `w`"


def seed_latents(seeds: Iterable[int], z_dim: int) -> torch.Tensor:
    """Returns the z of seeds, as other StyleGAN tools draw it: float32 [N, z_dim]. Each row has its own generator."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, z_dim))


def read_latents(path: str | os.PathLike, G: torch.nn.Module) -> torch.Tensor:
    """Returns the codes `w` of a .npz file, as projector.py and ``generate.py --save-latents`` write it.

    Args:
        path: file or address.
        G: the network that renders the codes.

    Returns:
        float32 [N, num_ws, D]. A network with regions also accepts expanded latents [N, K·L, D].

    Raises:
        UserError: no such file, nothing of that kind in it, or codes of another network.
    """
    return check_latents(read_arrays(path, ["w"], LATENT_FILE), path, G)


def check_latents(arrays: Mapping[str, np.ndarray], path: str | os.PathLike, G: torch.nn.Module) -> torch.Tensor:
    """Returns the checked codes `w` among arrays from `path`, see `read_latents`.

    Raises:
        UserError: there are none, or they are codes of another network.
    """
    w = arrays.get("w")
    if w is None or w.dtype.kind not in "fiu":
        raise UserError(f"Cannot read {path}. Expected {LATENT_FILE}.")
    expanded = G.synthesis.local.num_expanded if hasattr(G, "regions") else G.num_ws
    if w.ndim != 3 or w.shape[1] not in (G.num_ws, expanded) or w.shape[2] != G.w_dim:
        raise UserError(
            f"The latents in {path} have the shape {list(w.shape)}, but this network takes [N, {G.num_ws}, {G.w_dim}]."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(w.astype(np.float32))
