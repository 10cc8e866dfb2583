"""Mixes styles: images take some of their style codes from other images."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

import legacy
from dnnlib import Command, EasyDict, UserError
from dnnlib.option_types import Label, Number, SeedList
from semantic.adaptation.layer_swap import blend_option
from semantic.labels import choose_labels
from semantic.studio import Studio, endings_in_a_line, open_networks
from torch_utils.devices import select_device
from training.images import save_image, tile, to_uint8


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--network", metavar="FILE|URL|DIR", help="Network, or run directory. [default: the bundled or newest one]"
)
@click.option("--tuned", metavar="NPZ", help="File of projector.py --pti-steps with its changes to the network.")
@blend_option
@click.option("--rows", "row_seeds", type=SeedList(), default="85,100,75,458,1500", help="Seeds of the images.")
@click.option("--cols", "col_seeds", type=SeedList(), default="55,821,1789,293", help="Seeds of the style donors.")
@click.option("--styles", "col_styles", type=SeedList(), default="0-6", help="Style codes to take from --cols.")
@click.option("--trunc", "psi", type=Number(), default=1.0, help="Truncation psi.")
@click.option("--class", "label", type=Label(), help="Class, or vector as 0.5,1,-2, for conditional networks.")
@click.option(
    "--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", help="Noise of the fine details."
)
@click.option(
    "--outdir", type=click.Path(path_type=Path, file_okay=False), default="out", help="Folder for the results."
)
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Images at a time.")
def main(**options: Any) -> None:
    """Mix styles of whole images, with any network.

    Every image of --rows takes the style codes --styles from every image of --cols. Each result is ROW-COL.png.
    Unmixed images are SEED-SEED.png. In grid.png, the images of --rows are on the left, the images of --cols on top.

    In a network with regions the codes are the slots of W+. Slots 0 and 1 are base codes. Each region then has a slot
    for shape and a slot for texture. generate.py --mix-regions mixes regions by name.

    \b
    Coarse styles of four images:
      python style_mixing.py --network=ffhq256 --rows=85,100,75 --cols=55,821,1789,293 --styles=0-6
    Pose of the bundled network's faces:
      python style_mixing.py --rows=1-4 --cols=20-23 --styles=0,1 --trunc=0.7
    """
    opts = EasyDict(options)
    with endings_in_a_line(opts.outdir, opts.batch):
        run(opts)


@torch.no_grad()
def run(opts: EasyDict) -> None:
    """Load the network, mix, and write pairs and grid."""
    device = select_device(opts.device)
    networks = open_networks(legacy.choose_network(opts.network), legacy.load_network, opts.tuned, opts.blend)
    G = networks["G_ema"].eval().requires_grad_(False).to(device)
    if max(opts.col_styles) >= G.num_ws:
        raise UserError(f"There is no style {max(opts.col_styles)}. This network has styles 0 to {G.num_ws - 1}.")
    labels = choose_labels(G, opts.label, drawn=False, training_set=networks.get("training_set_kwargs"))
    studio = Studio(G, device, opts.outdir, opts.psi, labels, opts.noise_mode, opts.batch)

    seeds = list(dict.fromkeys(opts.row_seeds + opts.col_seeds))
    codes = dict(zip(seeds, studio.codes(seeds), strict=True))
    pairs = [(seed, seed) for seed in seeds] + [(row, col) for row in opts.row_seeds for col in opts.col_seeds]
    ws = torch.stack([codes[row] for row, _ in pairs])
    donors = torch.stack([codes[col] for _, col in pairs])
    ws[:, opts.col_styles] = donors[:, opts.col_styles]

    pictures: dict[tuple[int, int], np.ndarray] = {}
    rest = iter(pairs)
    with tqdm(total=len(pairs), desc="Mixing", unit="img", leave=False, dynamic_ncols=True) as bar:
        for out in studio.render(ws):
            for pixels, pair in zip(to_uint8(out.image), rest, strict=False):
                pictures[pair] = pixels
                save_image(opts.outdir / f"{pair[0]}-{pair[1]}.png", tile(pixels[None], 1))
            bar.update(len(out.image))
    save_image(opts.outdir / "grid.png", grid(pictures, opts.row_seeds, opts.col_seeds))
    studio.saved(f"grid.png, and {len(pictures)} images")


def grid(pictures: dict[tuple[int, int], np.ndarray], rows: list[int], columns: list[int]) -> np.ndarray:
    """Returns a sheet, uint8 [H, W, 3], of pictures [C, R, R] by pair of seeds. Unmixed ones are at top and left."""
    corner = np.zeros_like(next(iter(pictures.values())))
    cells = [corner, *(pictures[column, column] for column in columns)]
    for row in rows:
        cells += [pictures[row, row], *(pictures[row, column] for column in columns)]
    return tile(np.stack(cells), len(columns) + 1)


if __name__ == "__main__":
    main()
