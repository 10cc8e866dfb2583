"""`python -m tests.benchmarks.strays NETWORK..`: how much of eyes, mouths and noses stands beside the head.

Counted are pixels of the mask that are further than three pixels from face, neck, hair and hat and what these enclose,
over 200 samples, by default without truncation; with --data over as many pairs of an archive, too. At 128² three pixels
are six long, and three of them cover twelve.
"""

from pathlib import Path

import click
import numpy as np
import torch
from scipy import ndimage

import legacy
from semantic.dataset import MaskedImageDataset
from semantic.regions import Regions

HEAD = ("face", "neck", "hair", "hat")
PARTS = ("eye", "mouth", "nose")
SIDE = 64
REACH = 3
"""Pixels that a part may be away from the head, in a picture of `SIDE`."""
SEEN = 3
"""Pixels from which on one sees a piece, in a picture of `SIDE`."""


def beside_head(mask: np.ndarray, regions: Regions) -> list[float]:
    """Pixels of `SIDE` beside the head of each part, in a mask of indices [R, R]."""
    scale = max(1, len(mask) // SIDE)
    whole = ndimage.binary_fill_holes(np.isin(mask, [regions.index(name) for name in HEAD]))
    beside = ~ndimage.binary_dilation(whole, iterations=REACH * scale)
    return [(beside & (mask == regions.index(name))).sum() / scale**2 for name in PARTS]


@torch.no_grad()
def strays(G: torch.nn.Module, count: int, psi: float = 1) -> np.ndarray:
    """Pixels beside the head, for each sample and part: [count, 3]."""
    found = []
    torch.manual_seed(2)
    for start in range(0, count, 8):
        z = torch.randn(min(8, count - start), G.z_dim)
        for mask in G(z, None, truncation_psi=psi, noise_mode="const", return_mask=True).mask.argmax(dim=1).numpy():
            found.append(beside_head(mask, G.regions))
    return np.array(found)


def drawn_strays(data: Path, count: int) -> np.ndarray:
    """The same for the first pairs of an archive of drawn faces."""
    pairs = MaskedImageDataset(path=str(data))
    return np.array([beside_head(pairs[i].mask, pairs.regions) for i in range(min(count, len(pairs)))])


@click.command(context_settings={"show_default": True})
@click.argument("networks", nargs=-1)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Archive to measure as well")
@click.option("--count", default=200, help="Samples")
@click.option("--trunc", default=1.0, help="Truncation psi of the samples")
def main(networks: tuple[str, ...], data: Path | None, count: int, trunc: float) -> None:
    """Measure networks that were trained on drawn faces, and the drawings."""
    if not networks and data is None:
        raise click.UsageError("There is nothing to measure: name networks, or --data.")
    print("| what | pixels a sample | " + " | ".join(f"samples with {name}" for name in PARTS) + " |")
    print("|---" * (len(PARTS) + 2) + "|")
    pixels = {network: strays(legacy.load_network(network)["G_ema"].eval(), count, trunc) for network in networks}
    if data is not None:
        pixels[str(data)] = drawn_strays(data, count)
    for what, found in pixels.items():
        shares = " | ".join(f"{share:.0%}" for share in (found >= SEEN).mean(axis=0))
        print(f"| {what} | {found.sum(axis=1).mean():.1f} | {shares} |")


if __name__ == "__main__":
    main()
