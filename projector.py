"""Find photos in the latent space of a network."""

from pathlib import Path
from typing import Any

import click

import legacy
from dnnlib import Command, EasyDict, UserError
from semantic.adaptation.layer_swap import blend_option
from semantic.encoder import start_of
from semantic.inversion.distance import Distance, find_perceptual
from semantic.inversion.optimize import Schedule
from semantic.inversion.photos import find_photos
from semantic.inversion.project import Plan, Projector, project_all
from semantic.studio import endings_in_a_line, open_networks
from torch_utils.devices import select_device

CODES = 10_000
"""Samples of the mapping by which codes are whitened."""


@click.command(cls=Command, context_settings={"show_default": True}, no_args_is_help=True)
@click.option(
    "--network", metavar="FILE|URL|DIR", help="Network, or run directory.  [default: the bundled or newest one]"
)
@click.option("--tuned", metavar="NPZ", help="What an earlier --pti-steps changed in the network.")
@blend_option
@click.option("--target", required=True, metavar="PHOTO|FOLDER|ARCHIVE", help="Photos to find.")
@click.option("--outdir", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where to write.")
@click.option("--num-steps", type=click.IntRange(min=1), default=200, help="Steps of the search.")
@click.option("--seed", type=int, default=0, help="Seed of all random numbers.")
@click.option("--save-video", type=bool, is_flag=False, flag_value="1", default=False, help="Also write proj.mp4.")
@click.option("--target-mask", metavar="PNG|FOLDER", help="Masks of the photos: class indices, or regions' colours.")
@click.option("--mask", type=click.Choice(["auto", "none"]), default="auto", help="Label photos without a mask.")
@click.option("--align", type=click.Choice(["auto", "none"]), default="auto", help="Find the crop, or take the middle.")
@click.option("--init", type=click.Choice(["encoder", "mean"]), help="Start.  [default: an encoder if there is one]")
@click.option("--encoder", metavar="FILE", help="Encoder of this network, from train_encoder.py.")
@click.option("--pti-steps", type=click.IntRange(min=0), default=0, help="Steps in which the network is tuned as well.")
@click.option("--perceptual", metavar="FILE", help="vgg16.pt, for LPIPS.  [default: the one in the cache, if any]")
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Photos at a time.")
@click.option("--max-images", type=click.IntRange(min=1), help="Take so many photos.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Where to compute.")
def main(**options: Any) -> None:
    """Find photos in the latent space of a network.

    The crop in which a photo shows what the network draws is found first, and its regions are labelled. Then codes are
    searched whose picture and mask are like them. With --pti-steps the network is tuned to each photo as well.

    A single photo's results lie in --outdir: target.png, target_mask.png, proj.png, proj_mask.png, projected_w.npz,
    placement.json, tuned.npz with --pti-steps and proj.mp4 with --save-video. A folder or archive gets a folder per
    photo. projections.json holds a row of figures per photo.

    \b
    One photo, then pictures of it:
      python projector.py --network=snapshot.pkl --target=me.jpg --outdir=me
      python generate.py --network=snapshot.pkl --projected-w=me/projected_w.npz
    A folder of photos, as near as tuning brings them:
      python projector.py --network=snapshot.pkl --target=photos --outdir=found --pti-steps=100
    Photos that are cropped already, with masks:
      python projector.py --network=snapshot.pkl --target=crops.zip --align=none --outdir=found
      python projector.py --network=snapshot.pkl --target=crops --target-mask=masks --align=none --outdir=found
    """
    opts = EasyDict(options)
    with endings_in_a_line(opts.outdir, opts.batch):
        run(opts)


def run(opts: EasyDict) -> None:
    """Load the network and find all photos."""
    if opts.init == "mean" and opts.encoder is not None:
        raise click.UsageError("--init=mean needs no encoder: leave --encoder or --init out.")
    files = find_photos(opts.target, opts.target_mask, opts.max_images)
    device = select_device(opts.device)
    path = legacy.choose_network(opts.network)
    networks = open_networks(path, legacy.load_network, opts.tuned, opts.blend)
    D = networks["D"]
    perceptual = find_perceptual(opts.perceptual, device)
    distance = Distance(None if D is None else D.eval().to(device), perceptual)
    plan = Plan(
        schedule=Schedule(num_steps=opts.num_steps),
        pti_steps=opts.pti_steps,
        use_masks=opts.mask == "auto",
        use_alignment=opts.align == "auto",
        video=opts.save_video,
        seed=opts.seed,
    )
    start = None if opts.init == "mean" else start_of(networks, path, opts.encoder)
    if opts.init == "encoder" and start is None:
        raise UserError(f"There is no encoder for {path}: train one with train_encoder.py, or give --init=mean.")
    click.echo("Start: the encoder" if start is not None else "Start: the mean")
    projector = Projector(networks, device, plan, distance, start, samples=CODES)
    project_all(projector, files, opts.outdir, opts.batch, click.echo)
    click.echo(f"Wrote {opts.outdir}")


if __name__ == "__main__":
    main()
