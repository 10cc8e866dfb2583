"""Files that a run writes: picture grids, networks and training states."""

import contextlib
import copy
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize

from dnnlib import UserError, atomic_open
from torch_utils.network_files import machine
from training.images import image_grid, save_image

STATE_PATTERN = re.compile(r"training-state-(\d{6})\.pt")
NETWORK_PATTERN = re.compile(r"network-snapshot-(\d{6})\.pkl")


def grid_size(resolution: int, count: int | None = None) -> tuple[int, int]:
    """Returns columns and rows of a picture grid of about 1536×1024 pixels, with at most `count` cells."""
    columns = int(np.clip(1536 // resolution, 4, 12))
    rows = int(np.clip(1024 // resolution, 2, 8))
    if count is not None:
        columns = max(min(columns, count), 1)
        rows = max(min(rows, count // columns), 1)
    return columns, rows


class Previews:
    """Writes grids of real and generated samples. Each kind of preview of the data set and generator is one picture.

    Args:
        run_dir: folder for the pictures.
        training_set: provides the real samples and the labels, see `training.dataset.Dataset.preview`.
        z_dim: width of the latents.
        device: device of the generator.
        batch: number of samples generated at a time.
        seed: seed for the choice of samples and latents.
    """

    def __init__(
        self, run_dir: str, training_set: Any, z_dim: int, device: torch.device, batch: int = 8, seed: int = 0
    ):
        self.run_dir = run_dir
        self.batch = batch
        self.grid = grid_size(training_set.resolution, len(training_set))
        count = self.grid[0] * self.grid[1]
        self.indices = np.random.RandomState(seed).permutation(len(training_set))[:count]
        self.training_set = training_set
        self.z = torch.from_numpy(np.random.RandomState(seed).randn(count, z_dim).astype(np.float32)).to(device)
        self.c = torch.from_numpy(np.stack([training_set.get_label(i) for i in self.indices])).to(device)

    def save_reals(self) -> None:
        """Write reals.png and its companions, for example reals_mask.png."""
        for suffix, pixels in self.training_set.preview(self.indices).items():
            save_image(os.path.join(self.run_dir, f"reals{suffix}.png"), image_grid(pixels, self.grid))

    def save_fakes(self, G: torch.nn.Module, name: str) -> None:
        """Write fakes<name>.png and its companions, always from the same latents."""
        parts: dict[str, list[torch.Tensor]] = {}
        with torch.no_grad():
            for z, c in zip(self.z.split(self.batch), self.c.split(self.batch), strict=True):
                for suffix, images in G.preview(z, c, noise_mode="const").items():
                    parts.setdefault(suffix, []).append(images.cpu())
        for suffix, images in parts.items():
            save_image(os.path.join(self.run_dir, f"fakes{name}{suffix}.png"), image_grid(torch.cat(images), self.grid))


def snapshot_name(images_seen: int) -> str:
    """Returns the file name of the networks after `images_seen` images."""
    return f"network-snapshot-{images_seen // 1000:06d}.pkl"


def state_name(images_seen: int) -> str:
    """Returns the file name of the training state after `images_seen` images."""
    return f"training-state-{images_seen // 1000:06d}.pt"


def save_networks(path: str | os.PathLike, training_set_kwargs: Mapping[str, Any] | None, **networks: Any) -> None:
    """Write networks as a `.pkl` with a dictionary like StyleGAN2-ADA's. The file appears only when it is complete.

    Args:
        path: file to write.
        training_set_kwargs: options of the data set on which the networks were trained, or None.
        networks: G, D, G_ema and augment_pipe. Each may be None. The file holds copies in evaluation mode.
            Weights that are computed from others, see `torch.nn.utils.parametrize`, become ordinary weights.
    """
    data = {name: _frozen_copy(network) for name, network in networks.items()}
    data["training_set_kwargs"] = None if training_set_kwargs is None else dict(training_set_kwargs)
    with atomic_open(path, "wb") as file:
        machine.dump(data, file)


def _frozen_copy(network: torch.nn.Module | None) -> torch.nn.Module | None:
    if network is None:
        return None
    network = copy.deepcopy(network).eval().cpu()
    for module in [module for module in network.modules() if parametrize.is_parametrized(module)]:
        _compute_weights(module)
    return network.requires_grad_(False)


def _compute_weights(module: torch.nn.Module) -> None:
    """Turn computed weights into parameters.

    PyTorch's own function changes the class, which the network in training shares with its copy.
    """
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, torch.nn.Parameter(value))


def save_state(path: str | os.PathLike, state: Mapping[str, Any]) -> None:
    """Write the state of a run. The file appears only when it is complete."""
    with atomic_open(path, "wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # PyTorch's writer of archives hides why a write failed
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise (cause or error) from None


def load_state(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """Read a state written by `save_state`. Executes nothing from the file.

    Args:
        path: file to read.
        mmap: check the whole file, but load tensors only when they are used.

    Raises:
        UserError: the file is damaged, or is not a training state.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch checks neither checksums nor unpacked sizes
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("the archive is compressed")
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"its member {damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        if not isinstance(state, dict) or not isinstance(state.get("run"), dict):
            raise ValueError("it has no position of a run")
        if not all(type(size) is int and size >= 0 for size in state.get("logs", {}).values()):
            raise ValueError("it has no sizes of logs")
        return state
    except Exception as error:  # unpickling a damaged file can raise almost any error
        raise UserError(f"Cannot read the training state {path}: {str(error)[:120] or type(error).__name__}") from error


def find_states(run_dir: str | os.PathLike) -> list[Path]:
    """Returns the training states of a run, newest first."""
    found = (path for path in Path(run_dir).iterdir() if STATE_PATTERN.fullmatch(path.name) and not path.is_dir())
    return sorted(found, reverse=True)


def newest_state(run_dir: str | os.PathLike, say: Callable[[str], None]) -> Path | None:
    """Returns the newest state of a run that can be read, or None if the run has no states.

    Args:
        run_dir: folder of the run.
        say: called with a line for each state that cannot be read.

    Raises:
        UserError: the run has states, but none can be read.
    """
    failure = None
    for path in find_states(run_dir):
        try:
            load_state(path, mmap=True)
        except UserError as error:
            failure = failure or error
            say(f"Skipped: {error.message}")
            continue
        return path
    if failure is not None:
        raise failure
    return None


def remove_old_states(run_dir: str | os.PathLike, keep: int = 2) -> None:
    """Delete all but the newest `keep` training states of a run."""
    for path in find_states(run_dir)[keep:]:
        with contextlib.suppress(PermissionError):  # on Windows another program may have it open
            path.unlink(missing_ok=True)
