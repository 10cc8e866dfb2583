"""The state of an edited image: codes, kept regions, and the coordinates of each region."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from dnnlib import UserError, atomic_open
from semantic.editing.latents import LATENT_FILE, check_latents
from semantic.editing.transforms import warp_grid
from semantic.regions import Regions
from torch_utils.arrays import read_arrays

BESIDE_CODES = ("keep", "frames", "centers", "touched")
"""What a file of edited codes holds beside `w`."""


@dataclass(frozen=True, eq=False)
class EditState:
    """The complete state of an edited image. A state never changes: an edit returns a new state.

    Codes and frames are kept in double precision, on the CPU. So a move and its reverse give the same numbers in
    single precision, and the same picture bit for bit.
    """

    ws: torch.Tensor
    """float64 [N, b+2K, D], or expanded [N, K·L, D] once a whole region was taken from elsewhere."""
    keep: torch.Tensor
    """float64 [N, K]: 1 where a region is drawn, 0 where it is left out."""
    frames: torch.Tensor
    """float64 [N, K, 2, 3]: from a place in the picture (x, y, 1) to the place at which a region is evaluated."""
    centers: torch.Tensor
    """float64 [N, K, 2]: point about which a region is scaled and turned; NaN until its first transform."""
    touched: torch.Tensor
    """bool [N, K]: regions that some edit changed."""

    @classmethod
    def of(cls, ws: torch.Tensor, regions: Regions) -> "EditState":
        """Returns the unedited state of codes [N, b+2K, D], or of expanded codes."""
        count, num_regions = len(ws), len(regions)
        return cls(
            ws=ws.detach().cpu().double(),
            keep=torch.ones(count, num_regions, dtype=torch.float64),
            frames=torch.eye(2, 3, dtype=torch.float64).repeat(count, num_regions, 1, 1),
            centers=torch.full([count, num_regions, 2], torch.nan, dtype=torch.float64),
            touched=torch.zeros(count, num_regions, dtype=torch.bool),
        )

    def __len__(self) -> int:
        return len(self.ws)

    def __getitem__(self, which: slice) -> "EditState":
        """Returns the states of some images."""
        return EditState(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def changed(self, region: int, **values: torch.Tensor) -> "EditState":
        """Returns a new state. An edit of this region has replaced some fields."""
        touched = self.touched.clone()
        touched[:, region] = True
        return replace(self, touched=touched, **values)

    def inputs(self, grid: torch.Tensor) -> dict[str, Any]:
        """Returns the inputs of the synthesis network: `ws`, and `keep_regions` and `coords` if they differ from the
        defaults.

        Args:
            grid: the pixel grid of the network, [2, H, H]. The result is on its device.
        """
        found: dict[str, Any] = {"ws": self.ws.float().to(grid.device), "keep_regions": None, "coords": None}
        if not bool((self.keep == 1).all()):
            found["keep_regions"] = self.keep.float().to(grid.device)
        if not torch.equal(self.frames, torch.eye(2, 3).to(self.frames).expand_as(self.frames)):
            found["coords"] = warp_grid(grid.cpu(), self.frames).float().to(grid.device)
        return found

    def same_as(self, other: "EditState") -> bool:
        """Returns whether both states render the same picture: equal numbers in the precision of networks."""
        pairs = ((self.ws, other.ws), (self.keep, other.keep), (self.frames, other.frames))
        return all(torch.equal(a.float(), b.float()) for a, b in pairs)


def join_states(states: Sequence[EditState]) -> EditState:
    """Returns the states of several images as one state. All must have W+ codes, or all must have expanded codes."""
    return EditState(**{f.name: torch.cat([getattr(s, f.name) for s in states]) for f in fields(EditState)})


def save_state(path: str | os.PathLike, state: EditState, options: Sequence[str] = ()) -> None:
    """Write a state and its options as .npz: `w` in upstream's layout, and all other arrays of the state.

    Args:
        options: as on the command line, such as ``--drop=glasses``.
    """
    with atomic_open(path, "wb") as file:
        np.savez(file, **state_arrays(state, options))


def state_arrays(state: EditState, options: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Returns the arrays of a state's file, see `save_state`."""
    arrays = {"w": state.ws.float()} | {name: getattr(state, name) for name in BESIDE_CODES}
    return {"edits": np.array(list(options), np.str_), **{name: array.cpu().numpy() for name, array in arrays.items()}}


def load_state(path: str | os.PathLike, G: torch.nn.Module) -> EditState:
    """Returns the state in a file from ``edit.py``, ``projector.py`` or ``generate.py --save-latents``.

    Raises:
        UserError: no such file, or codes, regions or frames of another network.
    """
    arrays = read_arrays(path, ["w", *BESIDE_CODES], LATENT_FILE)
    state = EditState.of(check_latents(arrays, path, G), G.regions)
    found = {"ws": state.ws}
    for name in BESIDE_CODES:
        usual = getattr(state, name).numpy()
        array = arrays.get(name, usual)
        if array.shape != usual.shape or array.dtype.kind not in "bfiu":
            raise UserError(f"{path} belongs to a network with other regions: {name} has the shape {array.shape}.")
        found[name] = torch.from_numpy(array.astype(usual.dtype))
    if not all(bool(found[name].isfinite().all()) for name in ("ws", "keep", "frames")):
        raise UserError(f"{path} is damaged: it holds numbers that are not finite. Edit the images again.")
    return EditState(**found)
