"""Common functions of the scripts for a network: codes of seeds, pictures, region names."""

import contextlib
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import torch
from tqdm import tqdm

from dnnlib import UserError
from semantic.adaptation.layer_swap import load_blended
from semantic.editing.latents import seed_latents
from semantic.labels import Labels
from semantic.regions import Regions
from semantic.tuned import apply_tuned


@dataclass
class Studio:
    """A network with its rendering options."""

    G: torch.nn.Module
    device: torch.device
    outdir: Path
    psi: float = 1.0
    labels: Labels = field(default_factory=lambda: Labels(0))
    noise_mode: str = "const"
    batch: int = 8
    latents: set[str] = field(default_factory=set)
    """File names of the codes saved in this run."""

    def regions(self, mode: str) -> Regions:
        """Returns the regions of the network. Raises UserError if the network has none, with `mode` in the message."""
        regions = getattr(self.G, "regions", None)
        if regions is None:
            raise UserError(f"{mode}: this network has no regions. Use a network trained with --cfg=semantic.")
        return regions

    def codes(self, seeds: Sequence[int]) -> torch.Tensor:
        """Returns the codes of seeds [N, num_ws, D], with the label of each seed."""
        z = seed_latents(seeds, self.G.z_dim).to(self.device)
        return self.G.mapping(z, self.labels.rows(seeds, self.device), truncation_psi=self.psi)

    def render(
        self, ws: torch.Tensor, keep: torch.Tensor | None = None, coords: torch.Tensor | None = None
    ) -> Iterator[Any]:
        """Synthesize in batches. Yields objects with `image`, and for a network with regions also mask and depth."""
        for start in range(0, len(ws), self.batch):
            part = slice(start, start + self.batch)
            codes = ws[part].to(self.device)
            if not hasattr(self.G, "regions"):
                yield SimpleNamespace(image=self.G.synthesis(codes, noise_mode=self.noise_mode))
                continue
            yield self.G.synthesis(
                codes,
                noise_mode=self.noise_mode,
                return_mask=True,
                keep_regions=None if keep is None else keep[part].to(self.device),
                coords=None if coords is None else coords[part],
            )

    def saved(self, name: str) -> None:
        tqdm.write(f"Wrote {self.outdir / name}", file=sys.stdout)


def open_networks(
    path: str,
    load_network: Callable[[str], MutableMapping[str, Any]],
    tuned: str | None = None,
    blend: Sequence[str] = (),
) -> MutableMapping[str, Any]:
    """Returns the networks of a file, with the changes of --tuned and --blend in G_ema. Prints the name of the file.

    Args:
        path: path, address or name of the network, for `load_network`.
        load_network: returns G, D and G_ema.
        tuned: file with the changes of pivotal tuning, see `apply_tuned`.
        blend: parts of other networks, see `load_blended`.

    Raises:
        UserError: a file cannot be read, or does not belong to the network.
    """
    click.echo(f"Network: {path}")
    networks = load_network(path)
    if tuned is not None:
        apply_tuned(networks["G_ema"], tuned)
    networks["G_ema"] = load_blended(networks, blend, load_network)
    return networks


@contextlib.contextmanager
def endings_in_a_line(outdir: Path, batch: int) -> Iterator[None]:
    """Returns a context in which Ctrl-C and a GPU without memory end the script with one line.

    Args:
        outdir: the folder of the results.
        batch: the option --batch.

    Raises:
        UserError: the GPU is out of memory.
        SystemExit: with code 130, after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"Stopped. Finished results are in {outdir}.", err=True)
        sys.exit(130)
    except torch.OutOfMemoryError as error:
        raise UserError(f"The GPU is out of memory at --batch={batch}. Choose a smaller batch.") from error
