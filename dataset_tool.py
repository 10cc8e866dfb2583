"""Makes an archive of images, with or without masks."""

import click

from dnnlib import Command
from semantic.sources.catalog import PROCEDURAL, PROCEDURAL_SIDE, open_source
from semantic.sources.convert import convert, default_workers
from semantic.sources.geometry import FILTERS, TRANSFORMS, Geometry
from training.archive import check_dest

EPILOG = """
\b
SOURCES
  a folder or zip of images       png, jpg, webp, bmp, in any sub-folders
  ... with --masks                a folder or zip of masks with the same base names, as in
                                  Pascal VOC and Cityscapes; a COCO JSON; LabelMe's JSON files
  an archive of this tool         to resize it or to merge its classes
  raw CelebAMask-HQ               the folder or zip with CelebA-HQ-img
  CIFAR-10, MNIST                 cifar-10-python.tar.gz, train-images-idx3-ubyte.gz
  SemanticStyleGAN's LMDB         needs: pip install 'semantic-stylegan[lmdb]'
  procedural                      drawn faces with exact masks, without a download

\b
EXAMPLES
  Drawn faces, for first experiments:
    python dataset_tool.py --source=procedural --max-images=2000 --width=64 --height=64 --dest=faces64.zip

\b
  CelebAMask-HQ as in the paper:
    python dataset_tool.py --source=CelebAMask-HQ.zip --split=train --width=256 --height=256 --dest=celeba256.zip

\b
  Photos with colour-coded masks; palette.json is {"background": [255, 0, 0], "skin": [255, 255, 0]}:
    python dataset_tool.py --source=photos --masks=labels --palette=palette.json --transform=center-crop
      --width=256 --height=256 --dest=mine.zip

\b
  Photos with index masks; map.json is {"classes": {"background": ["null"], "clothes": ["shirt", "skirt"]}}:
    python dataset_tool.py --source=photos --masks=masks --mask-map=map.json --transform=center-crop
      --width=256 --height=256 --dest=mine.zip

\b
  Images only, for StyleGAN2 or for adaptation:
    python dataset_tool.py --source=paintings --transform=center-crop --width=256 --height=256 --dest=paintings.zip

\b
  Photos with polygons, drawn in LabelMe beside them or exported as COCO:
    python dataset_tool.py --source=photos --masks=photos --transform=center-crop --width=256 --height=256
      --dest=mine.zip
    python dataset_tool.py --source=photos --masks=annotations.json --transform=center-crop --width=256 --height=256
      --dest=mine.zip

\b
  Drawings of which only some have a mask, for adaptation:
    python dataset_tool.py --source=drawings --masks=labels --some-masks --mask-map=map.json --width=64 --height=64
      --dest=drawings.zip

\b
  A smaller copy of an archive:
    python dataset_tool.py --source=celeba256.zip --width=64 --height=64 --dest=celeba64.zip
"""


@click.command(cls=Command, epilog=EPILOG, context_settings={"max_content_width": 120})
@click.option("--source", required=True, metavar="PATH", help="Folder, zip, LMDB, address of a zip, or 'procedural'.")
@click.option("--dest", required=True, metavar="PATH", help="Archive to write: a file ending in .zip, or a new folder.")
@click.option(
    "--max-images", type=click.IntRange(min=1), metavar="N", help="Use the first N images [procedural: 10000]."
)
@click.option(
    "--skip-images", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N images [0]."
)
@click.option(
    "--resize-filter",
    type=click.Choice(list(FILTERS)),
    default="lanczos",
    show_default=True,
    help="Filter for images. Masks are always reduced by majority of area and enlarged by repetition.",
)
@click.option(
    "--transform",
    type=click.Choice(TRANSFORMS),
    help="center-crop: the central square. center-crop-wide: the central part with the shape width:height, padded to a "
    "square with black bars.",
)
@click.option(
    "--width", type=click.IntRange(min=1), metavar="PIXELS", help="Width of the results [unchanged; procedural: 128]."
)
@click.option("--height", type=click.IntRange(min=1), metavar="PIXELS", help="Height of the results [as --width].")
@click.option(
    "--masks",
    metavar="PATH",
    help="Folder or zip of masks with the same base names as the images, a COCO JSON file, or LabelMe files.",
)
@click.option("--some-masks", is_flag=True, help="Keep images without a mask, for --cfg=semantic-adapt.")
@click.option("--images-only", is_flag=True, help="Omit masks, for tools that would count masks as images.")
@click.option("--palette", metavar="JSON", help='Colours of the classes: {"background": [r, g, b], ...}, in order.')
@click.option("--mask-map", metavar="JSON", help='Merge classes: {"classes": {region: [names or indices], ...}}.')
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    help="CelebAMask-HQ: the first 28,000 or the rest. Other sources: nine tenths or a tenth. [all]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of procedural data and of --split."
)
@click.option(
    "--workers", type=click.IntRange(min=0), default=None, metavar="N", help="Number of processes [one per core]."
)
def main(
    source,
    dest,
    max_images,
    skip_images,
    resize_filter,
    transform,
    width,
    height,
    masks,
    some_masks,
    images_only,
    palette,
    mask_map,
    split,
    seed,
    workers,
):
    """Make an archive of images, with or without masks.

    The archive holds square PNG images of one power-of-two size, and masks of class indices. dataset.json has labels
    and region names. JPEG files are copied unchanged without --transform, --width and --height.
    """
    if source == PROCEDURAL:
        width = max(width or 0, height or 0) or PROCEDURAL_SIDE
    geometry = Geometry(width, height, transform, resize_filter)
    check_dest(dest)
    opened = open_source(
        source,
        masks,
        palette,
        mask_map,
        split,
        seed,
        max_images,
        resolution=width,
        images_only=images_only,
        skip_images=skip_images,
        some_masks=some_masks,
    )
    summary = convert(opened, dest, geometry, default_workers() if workers is None else workers)
    for note in (*opened.notes, summary.regions and summary.regions.mirror_note()):
        if note:
            click.echo(note)
    click.echo(f"Wrote {dest}: {summary}.")


if __name__ == "__main__":
    main()
