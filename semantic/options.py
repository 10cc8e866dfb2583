"""What the user may say of the regions on the command line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnlib import UserError
from semantic.dataset import MaskedImageDataset
from semantic.regions import Regions


def override_regions(path: str, text: str | None, transparent: str | None) -> dict[str, Any]:
    """The regions of an archive with what the user wants to be different, as `Regions.to_dict` gives them.

    Args:
        path: the archive.
        text: regions as JSON, or the path of a file with it; None keeps the archive's names and colours.
        transparent: names of the regions that others show through; None keeps those.

    Raises:
        UserError: it cannot be read, or does not describe regions.
    """
    if text is None:
        regions = MaskedImageDataset(path).regions
    else:
        source = text
        if not text.lstrip().startswith("{"):
            try:
                text = Path(source).read_text(encoding="utf-8")
            except OSError as error:
                raise UserError(f"Cannot read --regions={source}: {error.strerror}.") from error
            except UnicodeDecodeError as error:
                raise UserError(f"--regions={source} is not a text file.") from error
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UserError(f"--regions={source} is not JSON: {error}.") from error
        regions = Regions.from_dict(data.get("regions", data) if isinstance(data, dict) else data, where="--regions")
    seen_through = regions.select(transparent) if transparent is not None else regions.transparent
    return Regions(regions.names, regions.colors, seen_through).to_dict()


def limit_octaves(kwargs: dict[str, Any], octaves: int, resolution: int, source: Mapping[str, Any] | None) -> None:
    """Let local generators have so many frequencies.

    Args:
        kwargs: of the synthesis network, changed in place.
        octaves: what the user asks for.
        resolution: of the data.
        source: networks to start from, as `legacy.load_network` gives them, or None.

    Raises:
        UserError: more than there are at the resolution, or than the network to start from has learned.
    """
    most, where = resolution.bit_length() - 1, f"at {resolution}²"
    if source is not None and hasattr(source["G_ema"], "regions"):
        most, where = source["G_ema"].synthesis.local.position.octaves, "in the network of --resume"
    if octaves > most:
        raise UserError(f"--octaves={octaves}: there are {most} frequencies {where}, choose at most as many.")
    kwargs["octaves"] = octaves
