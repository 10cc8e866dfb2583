"""Reads the changes of pivotal tuning to a network, and checks that they belong to the network."""

import hashlib
import os
import zipfile
import zlib

import numpy as np
import torch

from dnnlib import UserError, open_url

TUNED_DIGEST = "network"
"""Name of the array in tuned.npz with the checksum of its network."""


def network_digest(G: torch.nn.Module) -> str:
    """Returns a checksum of the weights and buffers of a network, 40 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(G.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:40]


def apply_tuned(G: torch.nn.Module, path: str | os.PathLike) -> None:
    """Apply the changes of pivotal tuning to a network: differences of its parameters, by name.

    Args:
        G: the network before tuning, changed in place.
        path: path or address of the tuned.npz of projector.py.

    Raises:
        UserError: the file is missing or damaged, or belongs to another network.
    """
    parameters = dict(G.named_parameters())
    other = f"{path} was tuned for another network. Name the network that projector.py used."
    with open_url(path) as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                if str(arrays[TUNED_DIGEST]) != network_digest(G):
                    raise UserError(other)
                changes = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != TUNED_DIGEST}
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"Cannot read {path}. Expected the tuned.npz of projector.py.") from error
    for name, change in changes.items():
        if name not in parameters or parameters[name].shape != change.shape or not change.is_floating_point():
            raise UserError(other)
    with torch.no_grad():
        for name, change in changes.items():
            parameters[name].add_(change.to(parameters[name]))
