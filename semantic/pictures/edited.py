"""Writes the results of edit.py: pictures, masks, codes, photos, sheets and videos."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dnnlib import UserError, open_url
from semantic.editing.blend import Render, blend
from semantic.editing.edits import Apply, Edit, apply_edits, options_of
from semantic.editing.state import EditState, load_state, save_state
from semantic.editing.text import settle_texts
from semantic.pictures import sheets
from semantic.pictures.modes import progress, title
from semantic.pictures.video import grid_frames, write_video
from semantic.placement import Placement
from semantic.sources.images import read_image
from semantic.studio import Studio
from training.archive import Archive
from training.images import image_grid, save_image

CODES = "projected_w.npz"
PLACEMENT = "placement.json"
BOTH_WAYS, ONE_WAY = (-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1), (0, 0.25, 0.5, 0.75, 1)
"""Amounts of the edits on a sheet: along directions, and for edits without a direction."""


@dataclass(frozen=True)
class Subject:
    """An image to edit."""

    name: str
    """Number in its file names: '' for a single image, else for example '0003'."""
    source: str
    """Origin of the image, for titles and messages."""
    state: EditState
    photo: Path | None = None
    """A projector's output folder with the photo for the edit, or None."""


def render_one(studio: Studio, state: EditState) -> Render:
    """Returns image and mask of the state of one image."""
    (out,) = render_states(studio, state)
    return Render(out.image[0], out.mask[0])


def render_states(studio: Studio, state: EditState) -> Iterator:
    """Yields the rendered states in batches."""
    inputs = state.inputs(studio.G.synthesis.grid)
    return studio.render(inputs["ws"], inputs["keep_regions"], inputs["coords"])


def read_photo(folder: Path) -> tuple[np.ndarray, Placement]:
    """Returns the photo of a projector's output folder, uint8 [H, W, 3], upright, and the placement of its crop.

    Raises:
        UserError: a file is missing or damaged, or the photo has changed.
    """
    data, placement = read_photo_file(folder)
    path = Path(placement.photo)
    photo = read_image(data, str(path)).image.convert("RGB")
    if photo.size != tuple(placement.photo_size):
        width, height = placement.photo_size
        raise UserError(f"{path} no longer has {width} x {height} pixels. Run projector.py on it again.")
    return np.asarray(photo), placement


def read_photo_file(folder: Path) -> tuple[bytes, Placement]:
    """Returns the content of the photo file of a projector's output folder, and the placement of its crop.

    Raises:
        UserError: a file is missing, or the placement is damaged.
    """
    placement = Placement.load(folder / PLACEMENT)
    path = Path(placement.photo)
    data = _photo_bytes(path, folder / path.name)
    if data is None:
        raise UserError(f"The photo {placement.photo} of {folder} does not exist. Put it back, or into {folder}.")
    return data, placement


def _photo_bytes(*paths: Path) -> bytes | None:
    """Returns the content of the first path that exists, or None. A path may lead into a zip."""
    for path in paths:
        if path.is_file():
            with open_url(path) as file:
                return file.read()
        for above in path.parents:
            member = path.relative_to(above).as_posix()
            if above.suffix.lower() == ".zip" and above.is_file() and member in (archive := Archive(above)):
                return archive.read(member)
    return None


def write_edits(studio: Studio, subjects: Sequence[Subject], edits: Sequence[Edit], blended: bool) -> None:
    """Write picture, mask and codes of every edited image, and its photo with the edit."""
    options = options_of(studio.G, edits)
    with progress("Edits", len(subjects)) as bar:
        for subject in subjects:
            state = apply_edits(studio.G, subject.state, edits)
            after = render_one(studio, state)
            name = f"edit{subject.name}"
            save_image(studio.outdir / f"{name}.png", image_grid(after.image[None], (1, 1)))
            save_image(studio.outdir / f"{name}_mask.png", image_grid(studio.G.regions.paint(after.mask[None]), (1, 1)))
            save_state(studio.outdir / f"{name}.npz", state, options)
            studio.saved(f"{name}.png, {name}_mask.png, {name}.npz")
            if subject.photo is not None:
                write_photo(studio, subject, state, after, blended)
            bar.update()


def write_photo(studio: Studio, subject: Subject, state: EditState, after: Render, blended: bool) -> None:
    """Write the photo with the edit. If `blended` is off, the whole edited crop replaces the photo's crop."""
    photo, placement = read_photo(subject.photo)
    if placement.resolution != studio.G.img_resolution:
        side = studio.G.img_resolution
        raise UserError(
            f"The crop in {subject.photo} has {placement.resolution} pixels, but this network makes {side}."
        )
    if blended:
        before = render_one(studio, load_state(subject.photo / CODES, studio.G))
        regions = state.touched[0].nonzero().flatten().tolist()
        picture = blend(photo, placement, before, after, regions)
    else:
        crop = (after.image.clamp(-1, 1).cpu() + 1) * 127.5
        drawn, cover = placement.to_photo(crop.expand(3, -1, -1))
        whole = torch.from_numpy(photo.copy()).permute(2, 0, 1)
        picture = torch.lerp(whole.float(), drawn, cover).round().to(torch.uint8).permute(1, 2, 0).numpy()
    save_image(studio.outdir / f"photo{subject.name}.png", picture)
    studio.saved(f"photo{subject.name}.png")


def amounts_of(edits: Sequence[Edit]) -> tuple[float, ...]:
    """Returns the amounts of the edits in the columns of a sheet."""
    return BOTH_WAYS if all(isinstance(edit, Apply) for edit in edits) else ONE_WAY


def write_sheet(studio: Studio, subjects: Sequence[Subject], edits: Sequence[Edit]) -> None:
    """Write a sheet with growing amounts of the edits: an image per row, or image above mask for a single image."""
    size = sheets.cell_size(studio.G.img_resolution)
    amounts, rows, labels = amounts_of(edits), [], []
    with progress("Sheet", len(amounts) * len(subjects)) as bar:
        for subject in subjects:
            outs, settled = [], settle_texts(studio.G, subject.state, edits)
            for amount in amounts:
                state = apply_edits(studio.G, subject.state, [edit.scaled(amount) for edit in settled])
                outs.append(render_one(studio, state))
                bar.update()
            rows.append(sheets.image_cells(torch.stack([out.image for out in outs]), size))
            labels.append(sheets.Label(title(subject.source)))
            if len(subjects) == 1:
                rows.append(sheets.mask_cells(torch.stack([out.mask for out in outs]), studio.G.regions, size))
                labels.append(sheets.Label("mask"))
    columns = [column_label(studio, edits, amount) for amount in amounts]
    save_image(studio.outdir / "edit-sheet.png", sheets.draw_sheet(rows, columns, labels))
    studio.saved("edit-sheet.png")


def column_label(studio: Studio, edits: Sequence[Edit], amount: float) -> sheets.Label:
    """Returns the strength of a single direction, else the amount of all edits."""
    color = studio.G.regions.colors[edits[0].region]
    if len(edits) == 1 and isinstance(edits[0], Apply):
        strength = edits[0].strength * amount
        return sheets.Label(f"{strength:+.3g}" if strength else "0", edits[0].direction.name, color)
    names = ", ".join(dict.fromkeys(studio.G.regions.names[edit.region] for edit in edits))
    return sheets.Label(f"{amount:.0%}", names, color)


def write_edit_video(studio: Studio, subjects: Sequence[Subject], edits: Sequence[Edit], frames: int, fps: int) -> None:
    """Write edit.mp4: images beside masks while the edits grow and shrink, a closed loop."""
    turns = [2 * math.pi * frame / frames for frame in range(frames)]
    both = amounts_of(edits) == BOTH_WAYS
    amounts = [math.sin(turn) if both else (1 - math.cos(turn)) / 2 for turn in turns]
    side = max(studio.G.img_resolution, sheets.LARGEST_CELL)
    settled = [settle_texts(studio.G, subject.state, edits) for subject in subjects]

    def pairs() -> Iterator[np.ndarray]:
        for amount in amounts:
            for subject, of_subject in zip(subjects, settled, strict=True):
                state = apply_edits(studio.G, subject.state, [edit.scaled(amount) for edit in of_subject])
                out = render_one(studio, state)
                image = sheets.image_cells(out.image[None], side)[0]
                mask = sheets.mask_cells(out.mask[None], studio.G.regions, side)[0]
                yield np.concatenate([image, mask], axis=1).transpose(2, 0, 1)
                bar.update()

    with progress("Video", frames * len(subjects)) as bar:
        write_video(studio.outdir / "edit.mp4", grid_frames(pairs(), len(subjects)), fps)
    studio.saved("edit.mp4")
