"""Writes masks of photos as files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dnnlib import UserError
from semantic.inversion.align import align
from semantic.inversion.layout import Layout, network_layout
from semantic.inversion.parse import Parser, build_parser
from semantic.inversion.photos import PhotoFile
from semantic.placement import Placement
from training.images import image_grid, save_image


def write_labels(
    networks: Mapping[str, Any],
    device: torch.device,
    files: Sequence[PhotoFile],
    outdir: Path,
    say: Callable[[str], None],
) -> None:
    """Label photos. Write NAME_mask.png with region colours and NAME_mask_index.png, in the photos' sizes.

    A square photo is labelled as a whole. In other photos a crop is found first. Outside the crop is background. A
    photo that cannot be read is left out, with a line for the user.

    Args:
        networks: G_ema and D, as from ``legacy.load_network``.
        device: device of the computation.
        files: the photos.
        outdir: folder of the results.
        say: function that prints a line for the user.

    Raises:
        UserError: none of the photos can be read, or the network has no regions.
    """
    parser = build_parser(networks, device)
    layout = functools.cache(lambda: network_layout(networks["G_ema"].eval().to(device), device))
    written = 0
    for file in files:
        try:
            photo = file.read().to(device)
        except UserError as error:
            if len(files) == 1:
                raise
            say(f"Skipped: {error.message}")
            continue
        indices = labelled(parser, photo, find_crop(parser, layout, photo, file.where, say))
        save_image(outdir / f"{file.name}_mask.png", image_grid(parser.regions.paint(indices[None]), (1, 1)))
        save_image(outdir / f"{file.name}_mask_index.png", indices.cpu().numpy())
        say(f"Wrote {outdir / file.name}_mask.png, {file.name}_mask_index.png")
        written += 1
    if not written:
        raise UserError(f"None of the {len(files)} photos could be read. The lines above say why.")


def find_crop(
    parser: Parser, layout: Callable[[], Layout], photo: torch.Tensor, name: str, say: Callable[[str], None]
) -> Placement:
    """Returns the crop of a photo: all of a square photo, else the crop of `align`, else the central square."""
    height, width = photo.shape[1:]
    middle = Placement.centered(name, (width, height), parser.resolution)
    if width == height:
        return middle
    try:
        return align(photo, name, parser, layout())
    except UserError:
        say(f"{name}: No crop fits the network's samples. The central square is labelled.")
        return middle


def labelled(parser: Parser, photo: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Returns class indices, uint8 [H, W], of a photo [3, H, W] in [-1, 1]. Outside the crop they are 0, the
    background.
    """
    found = torch.zeros(photo.shape[1:], dtype=torch.uint8, device=photo.device)
    best = torch.full(photo.shape[1:], -torch.inf, device=photo.device)
    for number, plane in enumerate(parser(placement.crop(photo)[None])[0]):  # one at a time: photos may be large
        drawn, cover = placement.to_photo(plane[None])
        better = (drawn[0] > best) & (cover[0] >= 0.5)
        found[better], best[better] = number, drawn[0][better]
    return found
