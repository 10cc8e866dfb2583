"""Masks of photos, as files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from dnnlib import UserError
from semantic.inversion.parse import build_parser
from semantic.inversion.photos import PhotoFile
from training.images import image_grid, save_image


def write_labels(
    networks: Mapping[str, Any],
    device: torch.device,
    files: Sequence[PhotoFile],
    outdir: Path,
    say: Callable[[str], None],
) -> None:
    """Label whole photos and write NAME_mask.png in the regions' colours and NAME_mask_index.png, in the photos' sizes.

    A photo that cannot be read is left out with a line.

    Args:
        networks: G_ema and D, as from ``legacy.load_network``.
        device: where to compute.
        files: the photos.
        outdir: where to write.
        say: tells a line to the user.

    Raises:
        UserError: none of the photos can be read, or the network has no regions.
    """
    parser = build_parser(networks, device)
    written = 0
    for file in files:
        try:
            photo = file.read().to(device)
        except UserError as error:
            if len(files) == 1:
                raise
            say(f"Left out: {error.message}")
            continue
        scores = F.interpolate(parser(photo[None]), photo.shape[1:], mode="bilinear", align_corners=False)
        indices = scores.argmax(dim=1).byte()
        save_image(outdir / f"{file.name}_mask.png", image_grid(parser.regions.paint(indices), (1, 1)))
        save_image(outdir / f"{file.name}_mask_index.png", indices[0].cpu().numpy())
        say(f"Wrote {outdir / file.name}_mask.png, {file.name}_mask_index.png")
        written += 1
    if not written:
        raise UserError(f"None of the {len(files)} photos could be read.")
