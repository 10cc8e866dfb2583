"""Makes pictures, masks, sheets, videos and labelled data with a trained network."""

from pathlib import Path
from typing import Any

import click
import torch

import legacy
from dnnlib import Command, EasyDict
from dnnlib.option_types import Label, Number, SeedList, kernels_option
from semantic.adaptation.layer_swap import blend_option
from semantic.editing.codes import PARTS
from semantic.inversion.label import write_labels
from semantic.inversion.parse import build_parser
from semantic.inversion.photos import find_photos
from semantic.labels import choose_labels
from semantic.pictures import factory, modes
from semantic.studio import Studio, endings_in_a_line, open_networks
from torch_utils.devices import select_device

SHOW_PSI = 0.7
SHOWN = {modes.write_mixing, modes.write_loops, modes.write_components}
"""Modes whose default is truncation. Plain images and data sets default to the full variety."""


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--network", metavar="FILE|URL|DIR", help="Network, or run directory. [default: the bundled or newest one]"
)
@click.option("--tuned", metavar="NPZ", help="File of projector.py --pti-steps with its changes to the network.")
@blend_option
@click.option("--compare", metavar="FILE", help="Sheet that compares images of two networks.")
@click.option("--seeds", type=SeedList(), help="Seeds of the images. [default: a few that suit the mode]")
@click.option(
    "--outdir", type=click.Path(path_type=Path, file_okay=False), default="out", help="Folder for the results."
)
@click.option("--trunc", "psi", type=Number(), help="Truncation psi. [default: 0.7 for sheets and loops, else 1]")
@click.option("--class", "label", type=Label(), help="Class, or vector as 0.5,1,-2, for conditional networks.")
@click.option(
    "--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", help="Noise of the fine details."
)
@click.option("--projected-w", metavar="NPZ", help="Codes from projector.py or --save-latents, in place of seeds.")
@click.option(
    "--mix-regions", is_flag=True, help="Sheet of region mixing: one source per row, one region and donor per column."
)
@click.option("--rows", type=SeedList(), help="Source seeds of the mixing sheet. [default: --seeds, else 0-3]")
@click.option("--cols", type=SeedList(), help="Donor seeds of mixing sheet and loops. [default: 100, 101, ...]")
@click.option("--regions", metavar="A,B", help="Regions of the sheets and loops. [default: all]")
@click.option("--part", type=click.Choice(PARTS), default="both", help="Codes of a region to mix or to loop.")
@click.option(
    "--interpolate-regions", is_flag=True, help="One mp4 per region: a closed loop through codes of the region."
)
@click.option("--frames", type=click.IntRange(min=2), default=120, help="Frames per loop.")
@click.option("--fps", type=click.IntRange(min=1), default=30, help="Frames per second.")
@click.option("--components", is_flag=True, help="Sheet: the image built up region by region.")
@click.option("--transform", multiple=True, metavar="REGION:SETTINGS", help="Move a region, see above. Repeatable.")
@click.option("--dataset", type=click.IntRange(min=1), metavar="N", help="Archive of N images with masks.")
@click.option(
    "--filter",
    type=Number(0, 1, min_open=True),
    metavar="SHARE",
    help="Fraction of the generated pairs to keep with --dataset: pairs with fitting masks, unlike other pairs.",
)
@click.option("--balance", is_flag=True, help="With --dataset: prefer pairs with rare regions.  [--filter: 0.5]")
@click.option("--save-masks", is_flag=True, help="Also write masks, coloured and as class indices.")
@click.option("--save-latents", is_flag=True, help="Also write the codes of every image as .npz.")
@click.option("--parse", metavar="PHOTO|FOLDER", help="Label photos with the network's own parser, and write masks.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
@kernels_option
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Images at a time.")
def main(**options: Any) -> None:
    """Make pictures with a trained network.

    Without a mode it writes one picture per seed, with any network. Modes and masks need a network with regions. Modes
    can be combined. Without --network it uses the bundled network, else the newest snapshot under training-runs.

    \b
    Pictures of eight seeds, truncated:
      python generate.py --network=snapshot.pkl --seeds=0-7 --trunc=0.7
    Masks and codes as well:
      python generate.py --network=snapshot.pkl --seeds=0-7 --save-masks --save-latents
    Projected photo of projector.py:
      python generate.py --network=snapshot.pkl --projected-w=projected_w.npz
    Sheet with regions of other images:
      python generate.py --mix-regions
      python generate.py --mix-regions --rows=1,5,9 --regions=hair,eye --cols=20-23 --part=texture
    Hats and glasses appear and disappear with base codes, which --part=whole also takes from the donor:
      python generate.py --mix-regions --regions=hat,glasses --part=whole
    Video in which only the hair changes:
      python generate.py --interpolate-regions --regions=hair --seeds=3
    Build-up of an image, region by region:
      python generate.py --components --seeds=3
    Hair moved up and enlarged, mouth rotated:
      python generate.py --transform=hair:dy=-0.05,scale=1.2 --transform=mouth:rotate=10
    Labelled data for segmentation, starting at seed 1000:
      python generate.py --dataset=5000 --seeds=1000 --outdir=data
    The better half of twice as many pairs, with rare regions more often, and a report on the dropped pairs:
      python generate.py --dataset=5000 --filter=0.5 --balance --outdir=data

    Comparison with an adapted network; face of one network with hair of the other:
      python generate.py --network=faces64 --compare=network-best.pkl
      python generate.py --network=faces64 --blend=hair:network-best.pkl

    \b
    --transform accepts, in any order:
      dx, dy   shift to the right and downwards; the picture is 2 wide and high, so 0.1 is 5% of it
      scale    factor of the size, about the centre of the region
      rotate   degrees counter-clockwise, about the centre of the region
    """
    opts = EasyDict(options)
    with endings_in_a_line(opts.outdir, opts.batch):
        run(opts)


@torch.no_grad()
def run(opts: EasyDict) -> None:
    """Load the network and run the selected modes."""
    switches = {
        modes.write_mixing: opts.mix_regions,
        modes.write_loops: opts.interpolate_regions,
        modes.write_components: opts.components,
        modes.write_transforms: opts.transform,
        modes.write_comparison: opts.compare,
        factory.write_dataset: opts.dataset,
    }
    if (opts.filter is not None or opts.balance) and not opts.dataset:
        raise click.UsageError("--filter and --balance need --dataset=N: they select from its pairs.")
    asked = [mode for mode, wanted in switches.items() if wanted] or [modes.write_images]
    device = select_device(opts.device)
    path = legacy.choose_network(opts.network)
    networks = open_networks(path, legacy.load_network, opts.tuned, opts.blend)
    if opts.parse is not None:
        write_labels(networks, device, find_photos(opts.parse), opts.outdir, click.echo)
        return
    G = networks["G_ema"].eval().requires_grad_(False).to(device)
    opts.judge = lambda: build_parser(networks, device)
    drawn = asked == [factory.write_dataset]
    labels = choose_labels(G, opts.label, drawn, networks.get("training_set_kwargs"))
    if opts.psi is None:  # one value for the whole call, so that a seed is the same image in all modes
        opts.psi = SHOW_PSI if SHOWN & set(asked) else 1.0
    if opts.compare is not None:
        opts.other = legacy.load_network(opts.compare)["G_ema"].eval().requires_grad_(False).to(device)
    studio = Studio(G, device, opts.outdir, opts.psi, labels, opts.noise_mode, opts.batch)
    for mode in asked:
        mode(studio, opts)


if __name__ == "__main__":
    main()
