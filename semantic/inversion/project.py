"""Turns photo files into folders of results: crops, labels, codes, pictures and measurements."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib import UserError, atomic_open, write_json
from metrics.structural_similarity import ms_ssim, num_scales
from semantic.inversion.align import align
from semantic.inversion.distance import Distance, Targets, mask_iou, psnr
from semantic.inversion.layout import Layout, network_layout
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.parse import Parser, build_parser
from semantic.inversion.photos import PhotoFile, crop_mask
from semantic.inversion.space import SAMPLES, CodeSpace, code_space
from semantic.inversion.tuning import TuningSchedule, save_tuned, tune
from semantic.masks import mask_to_indices
from semantic.pictures.video import write_video
from semantic.placement import Placement
from training.images import image_grid, save_image, to_uint8

VIDEO_FRAMES, VIDEO_SIDE, FPS = 120, 256, 30
LEAST_KNOWN = 0.05
"""Smallest share of a crop that is not background."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options of a projection.

    Attributes:
        schedule: schedule of the search.
        pti_steps: steps of pivotal tuning. 0 skips pivotal tuning.
        use_masks: use masks, either given masks or masks of the parser.
        use_alignment: find the crop. Otherwise take the largest central square.
        video: write a video of the search.
        seed: seed of all random numbers.
    """

    schedule: Schedule = field(default_factory=Schedule)
    pti_steps: int = 0
    use_masks: bool = True
    use_alignment: bool = True
    video: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Ready:
    """A cropped and labelled photo.

    Attributes:
        file: file of the photo.
        image: [3, R, R] in [-1, 1].
        mask: class indices int64 [R, R], or None.
        placement: place of the crop.
    """

    file: PhotoFile
    image: torch.Tensor
    mask: torch.Tensor | None
    placement: Placement


class Projector:
    """A network with all tools that find photos in its latent space.

    Args:
        networks: G_ema and D, as from ``legacy.load_network``.
        device: device of the computation.
        plan: options of the projection.
        distance: see `Distance`.
        start: returns the first codes [N, num_ws, D] of images [N, 3, R, R] and masks [N, R, R] or None. The default
            is `mean_start`.
        samples: see `code_space`.
        hide_progress: True hides bars, None shows them on terminals.
    """

    def __init__(
        self,
        networks: Mapping[str, Any],
        device: torch.device,
        plan: Plan,
        distance: Distance,
        start: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None = None,
        samples: int = SAMPLES,
        hide_progress: bool | None = None,
    ):
        self.G = networks["G_ema"].eval().requires_grad_(False).to(device)
        if self.G.img_channels != 3:
            raise UserError(f"Photos have 3 channels, but this network makes images of {self.G.img_channels}.")
        self.device, self.plan, self.distance, self.hide_progress = device, plan, distance, hide_progress
        self.regions = getattr(self.G, "regions", None)
        self.space: CodeSpace = code_space(self.G, device, samples, seed=plan.seed)
        self.start = start or self.mean_start
        self.networks = networks

    @functools.cached_property
    def parser(self) -> Parser:
        """Returns the network's parser. Builds it for the first photo that needs it."""
        return build_parser(self.networks, self.device, hide_progress=self.hide_progress)

    @functools.cached_property
    def layout(self) -> Layout:
        """Returns the layout of the network's samples. Measures it for the first photo that needs it."""
        return network_layout(self.G, self.device, hide_progress=self.hide_progress)

    def mean_start(self, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        """Returns the mean codes of the mapping, [N, num_ws, D]."""
        return self.space.mean.expand(len(images), self.G.num_ws, -1).clone()

    def prepare(self, file: PhotoFile) -> Ready:
        """Read, crop and label a photo.

        Raises:
            UserError: the photo or its mask cannot be used.
        """
        photo = file.read()
        size = (photo.shape[2], photo.shape[1])
        with_masks = self.regions is not None and self.plan.use_masks
        given = file.read_mask(self.regions, size) if with_masks else None
        photo = photo.to(self.device)
        if self.regions is not None and self.plan.use_alignment:
            placement = replace(align(photo, file.where, self.parser, self.layout), photo=file.path)
        else:
            placement = Placement.centered(file.path, size, self.G.img_resolution)
        image = placement.crop(photo)
        mask = None
        if given is not None:
            mask = crop_mask(given, placement, len(self.regions)).to(self.device)
        elif with_masks:
            mask = self.parser.masks(image[None])[0]
        if mask is not None and (mask != 0).float().mean() < LEAST_KNOWN:
            names = ", ".join(self.regions.names[1:6])
            raise UserError(f"{file.where}: No region of this network ({names}, ...) was found in this photo.")
        return Ready(file, image, mask, placement)

    def project(self, photos: Sequence[Ready], outdir: Callable[[PhotoFile], Path]) -> Iterator[dict[str, Any]]:
        """Find the codes of photos together, write their folders, and yield a row of figures per photo.

        Args:
            photos: the photos of a batch.
            outdir: function that returns the folder of a photo.
        """
        since = time.monotonic()
        images = torch.stack([photo.image for photo in photos])
        masks = None if photos[0].mask is None else torch.stack([photo.mask for photo in photos])
        targets = Targets(images, masks)
        every = max(self.plan.schedule.num_steps // VIDEO_FRAMES, 1) if self.plan.video else 0
        with torch.no_grad():
            start = self.start(images, masks)
        found = invert(
            self.G,
            self.space,
            self.distance,
            targets,
            start,
            self.plan.schedule,
            record_every=every,
            text="Search",
            hide_progress=self.hide_progress,
        )
        shared = (time.monotonic() - since) / len(photos)
        for i, photo in enumerate(photos):
            began = time.monotonic()
            one, ws, folder = targets[i : i + 1], found.ws[i : i + 1], outdir(photo.file)
            G = self.G
            if self.plan.pti_steps:
                schedule = TuningSchedule(num_steps=self.plan.pti_steps)
                G = tune(
                    self.G,
                    self.space,
                    self.distance,
                    one,
                    ws,
                    schedule,
                    seed=self.plan.seed,
                    text=f"Tuning to {photo.file.name}",
                    hide_progress=self.hide_progress,
                )
                save_tuned(folder / "tuned.npz", self.G, G)
            row = self._write(G, photo, one, ws, folder)
            if self.plan.video:
                write_video(folder / "proj.mp4", self._frames(photo, [x[i : i + 1] for x in found.way] + [ws]), FPS)
            seconds = shared + time.monotonic() - began
            yield {"name": photo.file.name} | row | {"steps": int(found.steps[i]), "seconds": round(seconds, 2)}

    @torch.no_grad()
    def _write(
        self, G: torch.nn.Module, photo: Ready, target: Targets, ws: torch.Tensor, folder: Path
    ) -> dict[str, float | None]:
        """Write the pictures, codes and placement of a photo. Returns the measurements."""
        image, mask = render(G, ws)
        save_image(folder / "target.png", image_grid(target.images, (1, 1)))
        save_image(folder / "proj.png", image_grid(image, (1, 1)))
        row: dict[str, float | None] = {"psnr": round(float(psnr(image, target.images)), 3)}
        if num_scales(image.shape[-1]):
            shown = [torch.from_numpy(to_uint8(x)).float() for x in (image, target.images)]
            row["ssim"] = round(float(ms_ssim(*shown)), 4)
        if mask is not None:
            save_image(folder / "proj_mask.png", mask_to_indices(mask)[0])
            if target.masks is not None:
                save_image(folder / "target_mask.png", target.masks[0].byte().cpu().numpy())
                iou = mask_iou(mask.argmax(dim=1), target.masks, len(self.regions))
                row["mask_iou"] = round(float(iou), 4)
        if self.distance.perceptual is not None:
            row["lpips"] = round(float(self.distance.perceptual_distance(image, target.images)), 4)
        with atomic_open(folder / "projected_w.npz", "wb") as file:
            np.savez(file, w=ws.cpu().numpy())
        photo.placement.save(folder / "placement.json")
        return row

    @torch.no_grad()
    def _frames(self, photo: Ready, way: Sequence[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yields frames of a video: the photo beside each picture of the search, and its mask."""
        side = max(self.G.img_resolution, VIDEO_SIDE)
        for ws in way:
            image, mask = render(self.G, ws)
            cells = [photo.image[None], image] + ([self.regions.paint(mask)] if mask is not None else [])
            cells = [torch.nn.functional.interpolate(cell.float(), side, mode="nearest") for cell in cells]
            yield image_grid(torch.cat(cells), (len(cells), 1))


def render(G: torch.nn.Module, ws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns image and mask of codes. A network without regions has no mask."""
    if not hasattr(G, "regions"):
        return G.synthesis(ws, noise_mode="const"), None
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    return out.image, out.mask


def project_all(
    projector: Projector,
    files: Sequence[PhotoFile],
    outdir: Path,
    batch: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Find the codes of all photos. An unusable photo gets a row with its error, and the work continues.

    Args:
        projector: see `Projector`.
        files: the photos.
        outdir: folder for the results of a single photo, or for one folder per photo.
        batch: number of photos that are searched together.
        say: function that prints a line for the user.

    Returns:
        Rows of projections.json, which is written after each batch.

    Raises:
        UserError: no photo could be used.
    """
    rows: list[dict[str, Any]] = []
    alone = len(files) == 1 and files[0].archive is None
    ready: list[Ready] = []

    def folder(file: PhotoFile) -> Path:
        return outdir if alone else outdir / file.name

    for number, file in enumerate(files):
        try:
            ready.append(projector.prepare(file))
        except UserError as error:
            if len(files) == 1:
                raise
            say(f"Skipped: {error.message}")
            rows.append({"name": file.name, "error": error.message})
        if ready and (len(ready) == batch or number == len(files) - 1):
            for row in projector.project(ready, folder):
                rows.append(row)
                figures = ", ".join(f"{key} {value}" for key, value in row.items() if key != "name")
                say(f"{row['name']}: {figures}")
            ready = []
            write_json(outdir / "projections.json", rows)
    order = {file.name: i for i, file in enumerate(files)}
    rows.sort(key=lambda row: order[row["name"]])
    write_json(outdir / "projections.json", rows)
    if all("error" in row for row in rows):
        raise UserError(
            f"None of the {len(files)} photos could be used. The reasons are in {outdir / 'projections.json'}."
        )
    return rows
