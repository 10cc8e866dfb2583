"""Finds the images for edit.py: from seeds, from files, or from a projector's folders."""

from collections.abc import Sequence
from pathlib import Path

from dnnlib import UserError
from semantic.editing.state import EditState, load_state
from semantic.pictures.edited import CODES, PLACEMENT, Subject
from semantic.studio import Studio


def find(studio: Studio, latents: str | None, seeds: Sequence[int] | None, photo: str | None) -> list[Subject]:
    """Returns the images to edit, each with the projector's folder of its photo if --photo names one.

    Args:
        latents: a file, a projector's folder, or a folder of files or of such folders.
        seeds: seeds of images, instead of `latents`.
        photo: a projector's folder, or a folder of such folders. Without `latents` and `seeds`, its codes are edited.

    Raises:
        UserError: there is nothing to edit, or the number of photos and images differ.
    """
    photos = None if photo is None else _photos(Path(photo))
    if seeds is not None:
        found = [
            (f"{seed:04d}", f"seed{seed:04d}", EditState.of(studio.codes([seed]), studio.G.regions)) for seed in seeds
        ]
    else:
        files = _files(latents) if latents is not None else [folder / CODES for folder in photos]
        found = []
        for file in files:
            states = load_state(file, studio.G)
            found += [(f"{len(found) + i:02d}", _source(file), states[i : i + 1]) for i in range(len(states))]
    if photos is not None and len(photos) != len(found):
        raise UserError(f"{photo} holds {len(photos)} photos for {len(found)} images. Name one photo per image.")
    return [
        Subject("" if len(found) == 1 else number, source, state, photos[i] if photos else None)
        for i, (number, source, state) in enumerate(found)
    ]


def _source(file: str | Path) -> str:
    """Returns the name of a file on a sheet: the folder's name for a projector's output."""
    return Path(file).parent.name if Path(file).name == CODES else Path(file).stem


def _files(latents: str) -> list[str | Path]:
    """Returns the files of codes for --latents."""
    folder = Path(latents)
    if not folder.is_dir():
        return [latents]
    if (folder / CODES).is_file():
        return [folder / CODES]
    found = sorted([*folder.glob("*.npz"), *folder.glob(f"*/{CODES}")])
    if not found:
        raise UserError(f"There are no latents in {latents}. Expected .npz files, or output folders of projector.py.")
    return found


def _photos(folder: Path) -> list[Path]:
    """Returns the projector's folders for --photo."""
    found = [folder] if (folder / PLACEMENT).is_file() else sorted(p.parent for p in folder.glob(f"*/{PLACEMENT}"))
    if not found:
        raise UserError(f"There is no photo in {folder}. Expected an output folder of projector.py.")
    return found
