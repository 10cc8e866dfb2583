"""Directions in the codes of one region, and their files."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dnnlib import UserError, atomic_open
from torch_utils.arrays import read_arrays

ROLES = ("base", "shape", "texture")
"""Codes of a region that a direction may move; base codes are those that the layers of this region see."""
METHODS = ("sefa", "pca", "boundary")
TEXTS = ("names", "methods", "regions", "parts", "measured")
DIRECTION_FILE = "a .npz file that edit.py --find wrote"
SAME_AVERAGE = 0.5
"""Correlation of two networks' average codes from which on their codes mean the same."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the codes of one region."""

    name: str
    """Such as 'hair/area'."""
    method: str
    """One of `METHODS`."""
    region: str
    part: str
    """'shape', 'texture', 'both' or 'whole'."""
    measured: str
    """What it was found by, and how well."""
    codes: torch.Tensor
    """float32 [3, D], what one standard deviation adds to codes of each of `ROLES`."""


def save_directions(path: str | os.PathLike, directions: Iterable[Direction], G: torch.nn.Module) -> None:
    """Write directions as .npz, completely or not at all. The file also describes the networks that it fits.

    Raises:
        UserError: a direction has numbers that are not finite.
    """
    directions = list(directions)
    wrong = next((d for d in directions if not bool(d.codes.isfinite().all())), None)
    if wrong is not None:
        raise UserError(f"Direction {wrong.name} has numbers that are not finite, so {path} stays as it is.")
    with atomic_open(path, "wb") as file:
        np.savez(file, **direction_arrays(directions, G))


def direction_arrays(directions: Iterable[Direction], G: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of directions, see `save_directions`."""
    found = list(directions)
    columns = {
        "names": [d.name for d in found],
        "methods": [d.method for d in found],
        "regions": [d.region for d in found],
        "parts": [d.part for d in found],
        "measured": [d.measured for d in found],
        "network_regions": G.regions.names,
    }
    return {
        "codes": torch.stack([d.codes for d in found]).float().cpu().numpy(),
        "average": G.mapping.w_avg.float().cpu().numpy(),
        **{name: np.array(column, np.str_) for name, column in columns.items()},
    }


def read_directions(path: str | os.PathLike) -> tuple[dict[str, Direction], dict[str, np.ndarray]]:
    """Returns the directions of a file by name, and its data about the network: 'network_regions' and 'average'.

    Raises:
        UserError: the file is missing or has another format.
    """
    arrays = read_arrays(path, [*TEXTS, "network_regions", "codes", "average"], DIRECTION_FILE)
    texts = [arrays.get(name) for name in (*TEXTS, "network_regions")]
    codes, average = arrays.get("codes"), arrays.get("average")
    right = (
        all(text is not None and text.dtype.kind == "U" and text.ndim == 1 for text in texts)
        and all(array is not None and array.dtype.kind == "f" for array in (codes, average))
        and codes.ndim == 3
        and codes.shape == (len(texts[0]), len(ROLES), *average.shape)
        and all(len(text) == len(codes) for text in texts[:-1])
        and bool(np.isfinite(codes).all())
    )
    if not right:
        raise UserError(f"Cannot read {path}. Expected {DIRECTION_FILE}.")
    rows = zip(*(text.tolist() for text in texts[:-1]), torch.from_numpy(codes.astype(np.float32)), strict=True)
    return {row[0]: Direction(*row) for row in rows}, {"network_regions": texts[-1], "average": average}


def load_directions(path: str | os.PathLike, G: torch.nn.Module) -> dict[str, Direction]:
    """Returns the directions of a file by name, for this network.

    Networks with a common ancestor may share a file. Their regions, the width of their codes and their average code
    must fit.

    Raises:
        UserError: the file is missing, has another format, or belongs to another network.
    """
    directions, network = read_directions(path)
    names, average = network["network_regions"].tolist(), network["average"]
    ours = G.mapping.w_avg.float().cpu().numpy()
    why = None
    if names != list(G.regions.names):
        why = f"their regions are {', '.join(names)}, those of this network {', '.join(G.regions.names)}"
    elif average.shape != ours.shape:
        why = f"their codes have {average.size} numbers, those of this network {ours.size}"
    elif _correlation(average, ours) < SAME_AVERAGE:
        why = "the average codes of both networks differ"
    if why is not None:
        raise UserError(
            f"The directions in {path} belong to another network: {why}. Find directions with edit.py --find."
        )
    wrong = next((d for d in directions.values() if d.region not in names), None)
    if wrong is not None:
        raise UserError(f"Direction {wrong.name} in {path} names no region of the network. Name another file.")
    return directions


def directions_beside(network: str | os.PathLike, G: torch.nn.Module) -> dict[str, Direction]:
    """Returns the directions in the file beside a network, by name. Returns none where there is no file.

    The file of NAME.pkl is NAME-directions.npz. In the folder of a run, directions.npz serves all snapshots.

    Args:
        network: path or address of the network file.
        G: the network.

    Raises:
        UserError: the file cannot be read, or belongs to another network.
    """
    path = Path(network)
    candidates = [path.with_name(f"{path.stem}-directions.npz")]
    if path.with_name("training_options.json").is_file():
        candidates.append(path.with_name("directions.npz"))
    found = next((file for file in candidates if file.is_file()), None)
    return {} if found is None else load_directions(found, G)


def list_directions(path: str | os.PathLike) -> str:
    """Returns a table of the directions in a file: names, methods, regions, parts and measurements."""
    directions, _ = read_directions(path)
    rows = [("name", "method", "region", "part", "measured")]
    rows += [(d.name, d.method, d.region, d.part, d.measured) for d in directions.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)] + [0]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the cosine of the angle between two codes. It is 1 if one code is zero, as before training."""
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 0 else 1.0
