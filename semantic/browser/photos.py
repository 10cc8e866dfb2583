"""Photos that users open: reads photos within limits, inverts photos, and draws photos with edits."""

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from dnnlib import UserError
from semantic.browser import answers
from semantic.browser.networks import LoadedNetwork, shown_path
from semantic.browser.session import Photo
from semantic.editing.blend import Render, blend
from semantic.editing.state import load_state
from semantic.encoder import start_of
from semantic.inversion.distance import Distance, Targets
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.photos import PhotoFile
from semantic.inversion.project import Plan, Projector, render
from semantic.pictures.edited import CODES, read_photo, read_photo_file
from semantic.placement import Placement
from semantic.sources.images import read_image

STEPS = 100
SHOW_EVERY = 5
SHOWN_SIDE = 1024
NAME = "photo"


@dataclass(frozen=True)
class UploadedPhoto(PhotoFile):
    """A photo in memory. The page can never name a file to read."""

    data: bytes = b""

    def pixels(self) -> np.ndarray:
        """Returns the photo, turned as its EXIF data say, uint8 [H, W, 3].

        Raises:
            UserError: it is no image, damaged, or has too many pixels.
        """
        try:
            return np.array(read_image(self.data, "the photo").image.convert("RGB"))
        except UserError as error:
            raise UserError(error.message[:1].upper() + error.message[1:]) from error

    def read(self) -> torch.Tensor:
        return torch.from_numpy(self.pixels()).permute(2, 0, 1).float() / 127.5 - 1


class Stopped(UserError):
    """The page no longer waits for the photo."""


def invert_photo(
    network: LoadedNetwork, data: bytes, report: Callable[[dict[str, Any]], None], stop: threading.Event
) -> tuple[torch.Tensor, Photo]:
    """Returns the codes of a photo, and its data for blending.

    Args:
        network: the network that shall draw it.
        data: the file.
        report: takes stages, shares of the work, and pictures on the way.
        stop: set when nobody waits any more.

    Raises:
        UserError: it is no photo, or shows nothing that the network draws.
    """

    def tell(stage: str, share: float) -> None:
        if stop.is_set():
            raise Stopped("The photo was stopped.")
        report({"stage": stage, "share": share})

    tell("Reading the photo", 0.0)
    file = UploadedPhoto(NAME, "The photo", data=data)
    file.read()
    tell("Preparing the network (slow the first time)", 0.02)
    projector = projector_of(network)
    tell("Finding the crop and its regions", 0.1)
    ready = projector.prepare(file)
    painted = network.G.regions.paint(ready.mask[None].cpu())[0]
    report({"image": answers.text(answers.image_png(painted))})

    def watch(step: int, ws: torch.Tensor) -> None:
        if step % SHOW_EVERY == 0:
            tell(f"Searching codes: step {step} of {STEPS}", 0.2 + 0.8 * step / STEPS)
            image, _ = render(network.G, ws)
            report({"image": answers.text(answers.image_png(image[0]))})

    targets = Targets(ready.image[None], ready.mask[None])
    with torch.no_grad():
        start = projector.start(targets.images, targets.masks)
    schedule = Schedule(num_steps=STEPS)
    found = invert(
        network.G, projector.space, projector.distance, targets, start, schedule, hide_progress=True, watch=watch
    )
    return found.ws, Photo(data, ready.placement)


def projected_photo(network: LoadedNetwork, folder: Path) -> tuple[torch.Tensor, Photo]:
    """Returns the codes and the photo in an output folder of projector.py.

    Raises:
        UserError: a file is missing or damaged, or belongs to another network.
    """
    read_photo(folder)  # checks the photo
    data, placement = read_photo_file(folder)
    codes = load_state(folder / CODES, network.G).ws[:1].float()
    return codes.to(next(network.G.parameters()).device), Photo(data, placement, shown_path(str(folder)))


def kept_photo(kept: Any, network: LoadedNetwork) -> Photo:
    """Returns the photo in a session file.

    Raises:
        UserError: the file is damaged, or the photo is no image, too large, or for a network of another resolution.
    """
    try:
        data, placement = base64.b64decode(kept["data"], validate=True), Placement.from_json(kept["placement"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("The session file is damaged: its photo cannot be read. Choose another file.") from error
    height, width = UploadedPhoto(NAME, "The photo", data=data).pixels().shape[:2]
    if placement.photo_size != (width, height) or placement.resolution != network.G.img_resolution:
        raise UserError("The photo in the session file does not fit its place or the network. Choose another file.")
    return Photo(data, placement)


def projector_of(network: LoadedNetwork) -> Projector:
    """Returns the projector of a network for all sessions. The first photo makes the projector."""
    with network.lock:
        projector = network.extras.get("projector")
        if projector is None:
            device = next(network.G.parameters()).device
            distance = Distance(network.networks["D"], None)
            start = start_of(network.networks, network.source)
            projector = Projector(network.networks, device, Plan(), distance, start, hide_progress=True)
            network.extras["projector"] = projector
        return projector


def blended(photo: Photo, before: Any, after: Any, edited: Sequence[int], most: int | None) -> bytes:
    """Returns a PNG of the photo with an edit in it.

    Args:
        photo: the photo.
        before, after: renderings of the photo's codes and of the edited state.
        edited: indices of the edited regions.
        most: largest side of the result, or None for the photo's own size.
    """
    pixels = UploadedPhoto(NAME, "The photo", data=photo.data).pixels()
    renders = (Render(out.image[0].cpu(), out.mask[0].cpu()) for out in (before, after))
    picture = blend(pixels, photo.placement, *renders, edited)
    if most is not None and max(picture.shape) > most:
        image = PIL.Image.fromarray(picture)
        image.thumbnail((most, most), PIL.Image.Resampling.LANCZOS)
        picture = np.asarray(image)
    return answers.png(picture)
