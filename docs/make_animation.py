"""Draw docs/edit.webp: a face whose regions change one after the other, each from the bundled network.

python docs/make_animation.py
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import PIL.Image
import torch

import legacy
from dnnlib import atomic_path
from semantic.editing.codes import mix_regions
from semantic.editing.latents import seed_latents
from semantic.pictures.sheets import image_cells, mask_cells

SIDE, STEPS, HOLD, PSI = 256, 12, 5, 0.7
FACE = 2
EDITS = [("hair", 12), ("cloth", 16), ("hair", 24), ("background", 22), ("cloth", 9), ("hair", 10)]
"""Region and donor seed of each edit."""


@torch.no_grad()
def main() -> None:
    G = legacy.load_network(str(legacy.find_network()))["G_ema"].eval()

    def codes(seed: int) -> torch.Tensor:
        return G.mapping(seed_latents([seed], G.z_dim), None, truncation_psi=PSI)

    stops = [codes(FACE)]
    for region, seed in EDITS:
        stops.append(mix_regions(stops[-1], codes(seed), G.regions, [region]))
    stops.append(stops[0])
    frames = []
    for before, after in itertools.pairwise(stops):
        times = [0.0] * HOLD + list((1 - np.cos(np.linspace(0, np.pi, STEPS, endpoint=False))) / 2)
        frames += [torch.lerp(before, after, float(t)) for t in times]
    pictures = []
    for ws in frames:
        out = G.synthesis(ws, noise_mode="const", return_mask=True)
        cells = image_cells(out.image, SIDE)[0], mask_cells(out.mask, G.regions, SIDE)[0]
        pictures.append(PIL.Image.fromarray(np.concatenate(cells, axis=1)))
    path = Path(__file__).with_name("edit.webp")
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary, save_all=True, append_images=pictures[1:], duration=60, loop=0, quality=70, method=4
        )
    print(f"Wrote {path}: {len(pictures)} frames, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
