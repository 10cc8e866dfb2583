"""Edits of regions, in images of seeds, of latents and of photographs; and directions to edit along."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

import legacy
from dnnlib import EasyDict
from dnnlib.option_types import InOrderCommand, Label, Number, SeedList, in_order
from semantic.adaptation.layer_swap import blend_option
from semantic.editing import directions, finding
from semantic.editing.codes import PARTS, check_parts
from semantic.editing.edits import PARSERS, Edit, EditTools, parse_edit
from semantic.editing.scores import SCORES, find_score
from semantic.editing.text import MODEL, STEPS, WEIGHTS, TextEdit, open_clip_model
from semantic.labels import choose_labels
from semantic.pictures import edited, subjects
from semantic.pictures.modes import chosen, progress
from semantic.studio import Studio, endings_in_a_line, open_networks
from torch_utils.devices import select_device

TUNED = "tuned.npz"


@click.command(cls=InOrderCommand, context_settings={"show_default": True})
@click.option(
    "--network", metavar="FILE|URL|DIR", help="Network, or run directory. [default: the bundled or newest one]"
)
@click.option("--tuned", metavar="NPZ", help="File of projector.py --pti-steps. [default: the one of --photo]")
@blend_option
@click.option("--latents", metavar="NPZ|DIR", help="Codes to edit: a file, or a folder of projector.py.")
@click.option("--seeds", type=SeedList(), help="Images to edit, instead of --latents.")
@click.option("--photo", metavar="DIR", help="Folder of projector.py: blend the edit into its photo.")
@click.option("--no-blend", is_flag=True, help="With --photo: paste the whole crop, without blending.")
@click.option(
    "--outdir", type=click.Path(path_type=Path, file_okay=False), default="out", help="Folder for the results."
)
@click.option("--swap", multiple=True, metavar="REGION:SEED|NPZ[:PART]", help="Take a region's codes from a donor.")
@click.option("--apply", multiple=True, metavar="NAME:STRENGTH", help="Move codes along a direction.")
@click.option("--transform", multiple=True, metavar="REGION:SETTINGS", help="Shift, scale or turn a region.")
@click.option("--drop", multiple=True, metavar="REGION", help="Remove a region.")
@click.option("--psi", multiple=True, metavar="REGION:PSI", help="Truncation psi of a region.")
@click.option("--text", multiple=True, metavar="TEXT", help="Move codes of --regions until CLIP sees this text.")
@click.option("--text-steps", type=click.IntRange(min=1), default=STEPS, help="Steps of the search for a text.")
@click.option("--text-seed", type=click.IntRange(min=0), default=0, help="Seed of the search for a text.")
@click.option("--clip", metavar="MODEL", default=MODEL, help="With --text: model of open_clip.")
@click.option("--clip-weights", metavar="FILE|NAME", default=WEIGHTS, help="With --text: file, or name to fetch.")
@click.option("--directions", "directions_file", metavar="NPZ", help="Directions. [default: file beside the network]")
@click.option("--sheet", is_flag=True, help="Also write a sheet of growing strengths.")
@click.option("--video", is_flag=True, help="Also write a video in which the edits come and go.")
@click.option("--frames", type=click.IntRange(min=2), default=60, help="Frames of the video.")
@click.option("--fps", type=click.IntRange(min=1), default=30, help="Frames per second.")
@click.option("--find", type=click.Choice(directions.METHODS), help="Find directions of --regions, without edits.")
@click.option("--regions", metavar="A,B", help="Regions of --find and --text.")
@click.option("--part", type=click.Choice(PARTS), help="Codes of a region for --find and --text.")
@click.option("--score", metavar="A,B", help=f"With --find=boundary: {', '.join(SCORES)}, or MODULE:FUNCTION.")
@click.option("--count", type=click.IntRange(min=1), help="Number of directions (5), or samples for a boundary (2000).")
@click.option("--dest", metavar="NPZ", default="directions.npz", help="File that receives the directions.")
@click.option("--list", "listed", metavar="NPZ", help="Print the directions of a file.")
@click.option("--trunc", type=Number(), default=0.7, help="Truncation psi of --seeds.")
@click.option("--class", "label", type=Label(), help="Class, or vector as 0.5,1,-2, for conditional networks.")
@click.option(
    "--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", help="Noise of the fine details."
)
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Images at a time.")
@click.pass_context
def main(ctx: click.Context, **options: Any) -> None:
    """Edit regions of generated images, or of photos that projector.py inverted.

    Edits apply in the order of the options. Each option may repeat. Every image gives edit.png, edit_mask.png and
    edit.npz, which holds codes and edits for --latents. The files of several images have numbers.

    \b
    Hair of seed 5, larger, and no glasses:
      python edit.py --seeds=3 --swap=hair:5 --transform=hair:scale=1.1 --drop=glasses
    More hair, on a sheet of seven strengths:
      python edit.py --seeds=0-3 --apply=hair/area:3 --sheet
    A photo: invert it, edit it, blend the edit into it:
      python projector.py --target=me.jpg --outdir=out/me
      python edit.py --photo=out/me --swap=hair:5:texture --outdir=out/edited
    Directions of your own, and a list of the directions of a file:
      python edit.py --find=boundary --regions=cloth --score=brightness --dest=directions.npz
      python edit.py --find=pca --regions=hair,eye --part=shape --count=10 --dest=directions.npz
      python edit.py --list=directions.npz
      python edit.py --seeds=0 --directions=directions.npz --apply=cloth/brightness:2

    \b
    An edit by words, with the extra [text]:
      python edit.py --seeds=3 --text="red hair" --regions=hair
    \b
    --swap       REGION:SEED or REGION:FILE, then :shape, :texture, :both (default) or :whole (with base codes)
    --apply      NAME:STRENGTH, in standard deviations of the codes along the direction
    --transform  REGION:dx=0.1,dy=0,scale=1.2,rotate=10. The picture is 2 wide. Degrees are counter-clockwise
    --psi        REGION:PSI. 1 keeps the codes of the region, 0 replaces them by average codes
    """
    opts = EasyDict(options)
    with endings_in_a_line(opts.outdir, opts.batch):
        run(opts, in_order(ctx))


@torch.no_grad()
def run(opts: EasyDict, order: list[tuple[str, str]]) -> None:
    """List, find or edit, whichever is asked for."""
    if opts.listed is not None:
        click.echo(directions.list_directions(opts.listed))
        return
    if opts.find is None and not opts.latents and opts.seeds is None and opts.photo is None:
        raise click.UsageError("There is nothing to edit. Name images with --seeds, --latents or --photo.")
    if opts.latents and opts.seeds is not None:
        raise click.UsageError("--latents and --seeds both name images. Choose one.")
    device = select_device(opts.device)
    path = legacy.choose_network(opts.network)
    if opts.tuned is None and opts.photo is not None and (Path(opts.photo) / TUNED).is_file():
        opts.tuned = str(Path(opts.photo) / TUNED)
        click.echo(f"Tuned: {opts.tuned}")
    networks = open_networks(path, legacy.load_network, opts.tuned, opts.blend)
    G = networks["G_ema"].eval().requires_grad_(False).to(device)
    drawn = opts.find is not None or opts.seeds is None
    labels = choose_labels(G, opts.label, drawn, networks.get("training_set_kwargs"))
    studio = Studio(G, device, opts.outdir, opts.trunc, labels, opts.noise_mode, opts.batch)
    studio.regions("edit.py")
    if opts.find is not None:
        find(studio, opts)
    else:
        edit(studio, opts, path, order)


def edit(studio: Studio, opts: EasyDict, network: str, order: list[tuple[str, str]]) -> None:
    """Edit images and write what is asked for."""
    known = (
        directions.directions_beside(network, studio.G)
        if opts.directions_file is None
        else directions.load_directions(opts.directions_file, studio.G)
    )
    tools = EditTools(studio.G, lambda seed: studio.codes([seed]), known)
    word_edit = text_edits(studio, opts)
    edits: list[Edit] = [
        word_edit(text) if name == "text" else parse_edit(name, text, tools)
        for name, text in order
        if name == "text" or name in PARSERS
    ]
    if not edits and (opts.sheet or opts.video):
        raise click.UsageError("--sheet and --video show edits. Add an edit, such as --apply=hair/area:3.")
    found = subjects.find(studio, opts.latents, opts.seeds, opts.photo)
    edited.write_edits(studio, found, edits, blended=not opts.no_blend)
    if opts.sheet:
        edited.write_sheet(studio, found, edits)
    if opts.video:
        edited.write_edit_video(studio, found, edits, opts.frames, opts.fps)


def text_edits(studio: Studio, opts: EasyDict) -> Callable[[str], TextEdit]:
    """Returns a function that makes the edit of a text. All texts of a run use the same CLIP."""
    clip = functools.cache(lambda: open_clip_model(opts.clip, opts.clip_weights, studio.device))

    def make(text: str) -> TextEdit:
        which = chosen(studio.G.regions, opts.regions)
        if which is None:
            raise click.UsageError("--text needs --regions, such as --regions=hair.")
        if not text.strip():
            raise click.UsageError('--text is empty. Describe the picture, such as --text="red hair".')
        part = opts.part or "both"
        check_parts(part)
        return TextEdit(tuple(which), part, text.strip(), clip(), opts.text_seed, opts.text_steps)

    return make


def find(studio: Studio, opts: EasyDict) -> None:
    """Find directions and add them to the file --dest."""
    which = chosen(studio.G.regions, opts.regions)
    if which is None:
        raise click.UsageError("--find needs --regions, such as --regions=hair.")
    if (opts.find == "boundary") != (opts.score is not None):
        raise click.UsageError("--find=boundary needs --score, such as --score=area; other methods take none.")
    known = directions.load_directions(opts.dest, studio.G).values() if Path(opts.dest).exists() else []
    found: list[directions.Direction] = []
    skipped: list[finding.NoDirection] = []
    for region in which:
        if opts.find == "boundary":
            found += find_boundaries(studio, opts, region, skipped)
        else:
            method = finding.factorised if opts.find == "sefa" else finding.principal
            found += method(studio.G, region, opts.part or "both", opts.count or 5)
    last = skipped.pop() if skipped and not found else None
    for reason in skipped:
        click.echo(f"Skipped: {reason}")
    if last is not None:
        raise last
    directions.save_directions(opts.dest, finding.merge(known, found), studio.G)
    for direction in found:
        click.echo(f"{direction.name}: {direction.measured}")
    click.echo(f"Wrote {opts.dest}")


def find_boundaries(
    studio: Studio, opts: EasyDict, region: int, skipped: list[finding.NoDirection]
) -> list[directions.Direction]:
    """Returns a direction of one region for each score of --score. Scores of the same part share their samples.

    Adds the reasons for scores without a direction to `skipped`.
    """
    scores = [find_score(name.strip()) for name in opts.score.split(",")]
    count, name = opts.count or 2000, studio.G.regions.names[region]
    found = []
    for part, psi in dict.fromkeys((opts.part or score.part, score.psi) for score in scores):
        chosen_scores = [score for score in scores if (opts.part or score.part, score.psi) == (part, psi)]
        with progress(f"{name}: {', '.join(score.name for score in chosen_scores)}", count) as bar:
            found += finding.boundaries(
                studio.G, region, part, chosen_scores, count, opts.batch, progress=bar.update, skipped=skipped.append
            )
    return found


if __name__ == "__main__":
    main()
