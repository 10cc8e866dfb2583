"""Find photos in the latent space of a network."""

from pathlib import Path
from typing import Any

import click

import legacy
from dnnlib import Command, EasyDict, UserError
from semantic.adaptation.layer_swap import blend_option
from semantic.encoder import start_of
from semantic.inversion.distance import Distance, find_perceptual
from semantic.inversion.optimize import NEAR_STEPS, Schedule
from semantic.inversion.photos import find_photos
from semantic.inversion.project import Plan, Projector, project_all
from semantic.studio import endings_in_a_line, open_networks
from torch_utils.devices import select_device

CODES = 10_000
"""Samples of the mapping that whiten the codes."""


@click.command(cls=Command, context_settings={"show_default": True}, no_args_is_help=True)
@click.option(
    "--network", metavar="FILE|URL|DIR", help="Network, or run directory.  [default: the bundled or newest one]"
)
@click.option("--tuned", metavar="NPZ", help="File of an earlier --pti-steps with its changes to the network.")
@blend_option
@click.option("--target", required=True, metavar="PHOTO|FOLDER|ARCHIVE", help="Photos to invert.")
@click.option(
    "--outdir", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the results."
)
@click.option(
    "--num-steps",
    type=click.IntRange(min=1),
    help=f"Steps of the search.  [default: {NEAR_STEPS} from an encoder's codes, {Schedule.num_steps} from the mean]",
)
@click.option("--seed", type=int, default=0, help="Seed of all random numbers.")
@click.option("--save-video", type=bool, is_flag=False, flag_value="1", default=False, help="Also write proj.mp4.")
@click.option("--target-mask", metavar="PNG|FOLDER", help="Masks of the photos: class indices, or regions' colours.")
@click.option("--mask", type=click.Choice(["auto", "none"]), default="auto", help="Label photos that have no mask.")
@click.option(
    "--align", type=click.Choice(["auto", "none"]), default="auto", help="Find the crop, or take the central square."
)
@click.option(
    "--init", type=click.Choice(["encoder", "mean"]), help="Codes to start from.  [default: encoder, if there is one]"
)
@click.option("--encoder", metavar="FILE", help="Encoder of this network, from train_encoder.py.")
@click.option("--pti-steps", type=click.IntRange(min=0), default=0, help="Steps of tuning the network to each photo.")
@click.option("--perceptual", metavar="FILE", help="vgg16.pt, for LPIPS.  [default: the file in the cache, if any]")
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Photos at a time.")
@click.option("--max-images", type=click.IntRange(min=1), help="Largest number of photos.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
def main(**options: Any) -> None:
    """Invert photos: find codes in W+ whose picture and mask match a photo.

    First the crop of the photo is found and its regions are labelled. Then an optimization searches the codes. With
    --pti-steps the network is also tuned to each photo.

    The results of one photo are in --outdir: target.png, target_mask.png, proj.png, proj_mask.png, projected_w.npz,
    placement.json, tuned.npz (with --pti-steps) and proj.mp4 (with --save-video). A folder or archive gives one folder
    per photo. projections.json holds the figures of each photo.

    \b
    One photo, then pictures of its codes:
      python projector.py --network=snapshot.pkl --target=me.jpg --outdir=me
      python generate.py --network=snapshot.pkl --projected-w=me/projected_w.npz
    A folder of photos, with tuning:
      python projector.py --network=snapshot.pkl --target=photos --outdir=found --pti-steps=100
    Cropped photos with masks:
      python projector.py --network=snapshot.pkl --target=crops.zip --align=none --outdir=found
      python projector.py --network=snapshot.pkl --target=crops --target-mask=masks --align=none --outdir=found
    """
    opts = EasyDict(options)
    with endings_in_a_line(opts.outdir, opts.batch):
        run(opts)


def run(opts: EasyDict) -> None:
    """Load the network and invert all photos."""
    if opts.init == "mean" and opts.encoder is not None:
        raise click.UsageError("--init=mean uses no encoder. Remove --encoder or --init.")
    files = find_photos(opts.target, opts.target_mask, opts.max_images)
    device = select_device(opts.device)
    path = legacy.choose_network(opts.network)
    networks = open_networks(path, legacy.load_network, opts.tuned, opts.blend)
    D = networks["D"]
    perceptual = find_perceptual(opts.perceptual, device)
    distance = Distance(None if D is None else D.eval().to(device), perceptual)
    start = None if opts.init == "mean" else start_of(networks, path, opts.encoder)
    if opts.init == "encoder" and start is None:
        raise UserError(f"There is no encoder for {path}. Train one with train_encoder.py, or use --init=mean.")
    usual = Schedule.num_steps if start is None else NEAR_STEPS
    plan = Plan(
        schedule=Schedule(num_steps=opts.num_steps or usual),
        pti_steps=opts.pti_steps,
        use_masks=opts.mask == "auto",
        use_alignment=opts.align == "auto",
        video=opts.save_video,
        seed=opts.seed,
    )
    click.echo("Start: the encoder" if start is not None else "Start: the mean")
    projector = Projector(networks, device, plan, distance, start, samples=CODES)
    project_all(projector, files, opts.outdir, opts.batch, click.echo)
    click.echo(f"Wrote {opts.outdir}")


if __name__ == "__main__":
    main()
