"""Portraits drawn by rule, with exact masks of the 13 CelebAMask-HQ regions: data that needs no download."""

import numpy as np

from dnnlib import UserError
from semantic.procedural import accessories, features, hair, hats, head, locks, scene
from semantic.procedural.draw import Canvas
from semantic.procedural.face import FaceParameters
from semantic.procedural.space import Pose
from semantic.regions import CELEBAMASK

__all__ = ["FaceParameters", "ProceduralFaces", "draw_portrait"]

SMALLEST, LARGEST = 16, 1024


class ProceduralFaces:
    """An endless set of drawn portraits.

    A face depends on (seed, index) only, not on the order of drawing or the resolution.

    Args:
        resolution: side of the pictures in pixels, 16 to 1024.
        seed: seed of the set, 0 or more.

    Raises:
        UserError: resolution or seed out of range.
    """

    max = 2**31 - 1
    regions = CELEBAMASK

    def __init__(self, resolution: int, seed: int = 0):
        self.resolution = int(resolution)
        self.seed = int(seed)
        if not SMALLEST <= self.resolution <= LARGEST:
            raise UserError(f"Portraits are drawn at {SMALLEST} to {LARGEST} pixels, not at {resolution}.")
        if self.seed < 0:
            raise UserError(f"The seed of the procedural portraits must not be negative, but is {seed}.")

    def __len__(self) -> int:
        return self.max

    def parameters(self, index: int) -> FaceParameters:
        """Returns the measures and choices of one face. Raises IndexError for an index out of range."""
        if not 0 <= index < self.max:
            raise IndexError(f"there is no face {index}")
        return FaceParameters.sample(np.random.default_rng(np.random.SeedSequence([self.seed, int(index)])))

    def render(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one portrait.

        Returns:
            image uint8 [R, R, 3], mask uint8 [R, R] of indices of `regions`.
        """
        return draw_portrait(self.parameters(index), self.resolution)


def draw_portrait(face: FaceParameters, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a face from back to front.

    Returns:
        image uint8 [R, R, 3], mask uint8 [R, R] of CelebAMask-HQ indices.
    """
    canvas = Canvas(resolution)
    pose = Pose(face.yaw, face.pitch, face.roll, face.scale, face.shift)
    light = scene.make_light(face)
    s = head.Sitter(canvas, face, pose, light, head.head_solid(face, pose))
    h = hair.Hair.of(s)
    scene.draw_background(canvas, face, light)
    locks.draw_back(h)
    scene.draw_hood(s)
    head.draw_neck(s)
    scene.draw_clothes(s)
    behind = [side for side in (-1, 1) if not head.ear_faces_viewer(s, side)]
    before = [side for side in (-1, 1) if head.ear_faces_viewer(s, side)]
    for side in behind:
        head.draw_ear(s, side)
        accessories.draw_earring(s, side)
    surface = head.HeadSurface.of(s)
    head.draw_head(s, surface)
    for side in (-1, 1):
        features.draw_eye(s, surface, side)
        features.draw_eyebrow(s, surface, side)
    features.draw_mouth(s, surface)
    features.draw_nose(s, surface)
    if h.covers_ears:
        for side in before:
            head.draw_ear(s, side)
    accessories.draw_temples(s)
    hair.draw_cap(h)
    locks.draw_sides(h)
    if not h.covers_ears:
        for side in before:
            head.draw_ear(s, side)
            accessories.draw_earring(s, side)
    accessories.draw_glasses(s)
    hats.draw_hat(s)
    return canvas.finish(), canvas.mask
