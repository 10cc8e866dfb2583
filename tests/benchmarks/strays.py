"""`python -m tests.benchmarks.strays NETWORK..`: how much of eyes, mouths and noses stands beside the head.

Counted are pixels of the mask that are further than three pixels from face, neck, hair and hat and what these
enclose, over 200 samples without truncation.
"""

import click
import numpy as np
import torch
from scipy import ndimage

import legacy

HEAD = ("face", "neck", "hair", "hat")
PARTS = ("eye", "mouth", "nose")
REACH = 3
"""Pixels that a part may be away from the head."""
SEEN = 3
"""Pixels from which on one sees a piece."""


@torch.no_grad()
def strays(G: torch.nn.Module, count: int) -> np.ndarray:
    """Pixels beside the head, for each sample and part: [count, 4]."""
    head, found = [G.regions.index(name) for name in HEAD], []
    torch.manual_seed(2)
    for start in range(0, count, 8):
        z = torch.randn(min(8, count - start), G.z_dim)
        for mask in G(z, None, noise_mode="const", return_mask=True).mask.argmax(dim=1).numpy():
            whole = ndimage.binary_fill_holes(np.isin(mask, head))
            beside = ~ndimage.binary_dilation(whole, iterations=REACH)
            found.append([(beside & (mask == G.regions.index(name))).sum() for name in PARTS])
    return np.array(found)


@click.command(context_settings={"show_default": True})
@click.argument("networks", nargs=-1, required=True)
@click.option("--count", default=200, help="Samples")
def main(networks: tuple[str, ...], count: int) -> None:
    """Measure networks that were trained on drawn faces."""
    print("| network | pixels a sample | " + " | ".join(f"samples with {name}" for name in PARTS) + " |")
    print("|---" * (len(PARTS) + 2) + "|")
    for network in networks:
        pixels = strays(legacy.load_network(network)["G_ema"].eval(), count)
        shares = " | ".join(f"{share:.0%}" for share in (pixels >= SEEN).mean(axis=0))
        print(f"| {network} | {pixels.sum(axis=1).mean():.1f} | {shares} |")


if __name__ == "__main__":
    main()
