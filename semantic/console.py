"""What the command lines share: seeds, devices, and which network is meant."""

import re
from pathlib import Path
from typing import Any

import click
import torch

import semantic
from dnnlib import UserError

MAX_SEEDS = 1_000_000
BUNDLED = Path(semantic.__file__).parent / "bundled"


class SeedList(click.ParamType):
    """Seeds as ``0-7``, ``1,3,5`` or a mixture of both."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        seeds: list[int] = []
        for part in filter(None, (p.strip() for p in value.split(","))):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if match is None:
                self.fail(f"{part!r} is not a seed or a range of seeds: write 0-7 or 1,3,5.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first or last >= 2**32:
                self.fail(f"{part!r} is not a range from a smaller to a larger seed below 2^32.", param, ctx)
            if last - first >= MAX_SEEDS - len(seeds):
                self.fail(f"{value[:100]!r} names more than {MAX_SEEDS} seeds.", param, ctx)
            seeds += range(first, last + 1)
        if not seeds:
            self.fail("there is no seed in it: write 0-7 or 1,3,5.", param, ctx)
        return seeds


def find_network() -> Path:
    """The network to use when none is named: the bundled one, else the newest snapshot under training-runs.

    Raises:
        UserError: there is neither.
    """
    bundled = sorted(path for path in BUNDLED.glob("*") if path.suffix in (".pkl", ".safetensors"))
    return bundled[0] if bundled else newest_snapshot("training-runs")


def newest_snapshot(folder: str | Path) -> Path:
    """The network snapshot anywhere under `folder` that was written last.

    Raises:
        UserError: there is none.
    """
    snapshots = list(Path(folder).glob("**/network-snapshot-*.pkl"))
    if not snapshots:
        raise UserError(
            f"There is no network-snapshot-*.pkl under {folder}: train a network with "
            "`python train.py --cfg=semantic --data=ZIP`, or name one with --network."
        )
    return max(snapshots, key=lambda path: (path.stat().st_mtime, path.name))


def select_device(name: str) -> torch.device:
    """The device behind 'auto', 'cpu', 'cuda' or 'mps'; auto takes a GPU where there is one.

    Raises:
        UserError: the device that is asked for is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[name]:
        raise UserError(f"This PyTorch finds no {name} device: use --device=cpu or --device=auto.")
    return torch.device(name)


def check_class(G: torch.nn.Module, class_index: int | None, drawn: bool) -> int | None:
    """The class to generate; None where the network knows no classes, or where they are `drawn` at random."""
    if not G.c_dim:
        if class_index is not None:
            click.echo("Note: --class is ignored, this network knows no classes.")
        return None
    if class_index is None and not drawn:
        raise UserError(f"This network is conditional: choose one of its classes with --class=0 .. {G.c_dim - 1}.")
    if class_index is not None and not 0 <= class_index < G.c_dim:
        raise UserError(f"There is no class {class_index}: this network knows 0 to {G.c_dim - 1}.")
    return class_index
