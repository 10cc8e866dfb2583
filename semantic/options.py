"""What the user may say of the regions on the command line."""

import json
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
