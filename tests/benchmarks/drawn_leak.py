"""`python -m tests.benchmarks.drawn_leak`: how local edits of the drawn faces' own parameters are, region by region.

Faces are drawn twice, the second time with some parameters of one region from another face. What changes outside the
region's mask is antialiasing, shadows, what lies beneath, and what else in the drawing depends on a parameter: hair
colour is also that of brows, lashes and beards, lip colour that of eye shadow, and a smile moves the brows. A network
may separate these; so this is something to compare with, region by region, and no bound.
"""

import dataclasses

import click
import numpy as np
import torch

from semantic.masks import is_present
from semantic.metrics.region_leak import outside_share
from semantic.procedural import ProceduralFaces, draw_portrait

EDITS = {
    "texture": {
        "eye": ("iris",),
        "mouth": ("lip_color", "lip_strength"),
        "hair": ("hair_color",),
        "cloth": ("cloth_color", "cloth_second"),
        "glasses": ("frame_color", "lens_color", "lens_tint"),
        "hat": ("hat_color", "hat_second"),
    },
    "shape": {
        "eye": ("eye_width", "eye_height", "eye_tilt", "eye_lower", "lid"),
        "eyebrow": ("brow_height", "brow_thickness", "brow_arch", "brow_tilt"),
        "mouth": ("mouth_width", "smile", "gape", "upper_lip", "lower_lip"),
        "nose": ("nose_length", "nose_width", "nose_height"),
        "ear": ("ear_size",),
        "hair": ("volume", "length", "parting", "curl"),
        "cloth": ("clothes", "shoulders"),
        "glasses": ("glasses_size",),
    },
}
"""Parameters of `FaceParameters` that belong to one region first of all."""
DONORS = 100_000
"""Number of the first face from which parameters are taken."""


def drawn(face, resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image [1, 3, R, R] in [-1, 1] and class indices [1, R, R] of a face."""
    image, mask = draw_portrait(face, resolution)
    return torch.from_numpy(image.transpose(2, 0, 1)[None] / 127.5 - 1), torch.from_numpy(mask[None])


def leak(faces: ProceduralFaces, region: str, parameters: tuple[str, ...], count: int) -> tuple[float, float]:
    """Share of the change outside, in pixels and in the Laplacian pyramid, over `count` faces that have the region."""
    index, sums, found = faces.regions.index(region), np.zeros(4), 0
    for number in range(min(DONORS, len(faces) - DONORS)):
        if found == count:
            break
        face, donor = faces.parameters(number), faces.parameters(DONORS + number)
        image, mask = drawn(face, faces.resolution)
        if not is_present((mask == index).float().mean()):
            continue
        taken = {name: getattr(donor, name) for name in parameters}
        other, other_mask = drawn(dataclasses.replace(face, **taken), faces.resolution)
        sums += outside_share(image, other, (mask == index) | (other_mask == index))[0].numpy()
        found += 1
    return sums[0] / max(sums[1], 1e-9), sums[2] / max(sums[3], 1e-9)


@click.command(context_settings={"show_default": True})
@click.option("--resolution", default=64, help="Side of the pictures")
@click.option("--count", default=100, help="Faces for each edit")
def main(resolution: int, count: int) -> None:
    """Measure how local edits are in the drawn faces themselves."""
    faces = ProceduralFaces(resolution=resolution)
    print("| part | region | region_leak | at a distance |\n|---|---|---|---|")
    for part, edits in EDITS.items():
        rows = {region: leak(faces, region, parameters, count) for region, parameters in edits.items()}
        rows["mean"] = tuple(np.mean(list(rows.values()), axis=0))
        for region, (pixels, pyramid) in rows.items():
            print(f"| {part} | {region} | {pixels:.2f} | {pyramid:.2f} |")


if __name__ == "__main__":
    main()
