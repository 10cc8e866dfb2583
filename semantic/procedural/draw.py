"""The canvas: layers laid over each other with soft edges, a mask kept in step, and the light that shades them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Color = Sequence[float]
Normal = Sequence[Array]  # x right, y down, z to the viewer


def unit(nx: Array, ny: Array, nz: Array) -> Normal:
    """Returns the normal scaled to length 1."""
    size = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-9)
    return nx * size, ny * size, nz * size


def facing(nx: Array, ny: Array, least: float = 0.06) -> Normal:
    """Returns the normal that faces the viewer and has these x and y. Its square of z is at least `least`."""
    return nx, ny, np.sqrt(np.maximum(1 - nx * nx - ny * ny, least))


@dataclass
class Window:
    """A rectangle of the canvas: slices into it, and the picture coordinates of its pixels ([1, W] and [H, 1])."""

    rows: slice
    cols: slice
    x: Array
    y: Array


@dataclass(frozen=True)
class Light:
    """One key light, a sky above and a rim light behind.

    Args:
        key, rim: unit directions towards the lights (x right, y down, z to the viewer).
        key_color, sky_color, ground_color, rim_color: intensities, RGB.
    """

    key: tuple[float, float, float]
    rim: tuple[float, float, float]
    key_color: tuple[float, float, float]
    sky_color: tuple[float, float, float]
    ground_color: tuple[float, float, float]
    rim_color: tuple[float, float, float]

    def shade(
        self,
        albedo: Array | Color,
        normal: Normal,
        occlusion: Array | float = 1.0,
        bleed: Color = (0.0, 0.0, 0.0),
        wrap: float = 0.25,
        rim: float = 1.0,
    ) -> Array:
        """Returns the colour of a matt surface.

        Args:
            albedo: [3] or [H, W, 3].
            normal: three arrays [H, W] (or broadcastable).
            occlusion: share of the light that arrives.
            bleed: colour that light takes on along the border of shadow, as in skin.
            wrap: reach of light around the surface.
            rim: strength of the light from behind.

        Returns:
            float32 [H, W, 3].
        """
        nx, ny, nz = normal
        lit = (nx * self.key[0] + ny * self.key[1] + nz * self.key[2] + wrap) * (1 / (1 + wrap))
        lit = np.clip(lit, 0, 1)
        lit = lit * (0.5 + 0.5 * lit) * occlusion
        up = (0.5 - 0.5 * ny) * (0.35 + 0.65 * np.asarray(occlusion, dtype=np.float32))
        edge = 1 - np.clip(nz, 0, 1)
        edge = edge * edge * edge * np.clip(nx * self.rim[0] + ny * self.rim[1] - 0.1, 0, 1) * (rim * occlusion)
        border = (1 - lit) * (0.5 + 4 * lit)
        albedo = np.asarray(albedo, dtype=np.float32)
        out = np.empty((*np.broadcast_shapes(np.shape(lit), np.shape(up)), 3), dtype=np.float32)
        for c in range(3):
            ambient = self.ground_color[c] + (self.sky_color[c] - self.ground_color[c]) * up
            light = self.key_color[c] * lit + ambient + bleed[c] * border
            out[..., c] = albedo[..., c] * light + self.rim_color[c] * edge
        return out

    def gloss(self, normal: Normal, power: float) -> Array:
        """Returns the highlight of the key light on a smooth surface, [H, W] in [0, 1]."""
        hx, hy, hz = self.key[0], self.key[1], self.key[2] + 1
        size = (hx * hx + hy * hy + hz * hz) ** -0.5
        facing = (normal[0] * hx + normal[1] * hy + normal[2] * hz) * size
        return np.clip(facing, 0, 1) ** power


class Canvas:
    """A picture float32 [R, R, 3] (0..1) and its mask uint8 [R, R]. The picture spans [-1, 1] both ways, y down."""

    def __init__(self, resolution: int):
        self.resolution = resolution
        self.pixel = 2 / resolution
        self.centers = ((np.arange(resolution) + 0.5) * self.pixel - 1).astype(np.float32)
        self.image = np.zeros((resolution, resolution, 3), dtype=np.float32)
        self.mask = np.zeros((resolution, resolution), dtype=np.uint8)

    def window(self, x0: float = -1, y0: float = -1, x1: float = 1, y1: float = 1) -> Window:
        """Returns the pixels of a box with a margin of two pixels. A window has at least 4 x 4 pixels."""
        spans = []
        for low, high in ((y0, y1), (x0, x1)):
            first = min(max(int((low + 1) / self.pixel) - 2, 0), self.resolution - 4)
            last = max(min(int((high + 1) / self.pixel) + 3, self.resolution), first + 4)
            spans.append(slice(first, last))
        rows, cols = spans
        return Window(rows, cols, self.centers[None, cols], self.centers[rows, None])

    def paint(self, window: Window, alpha: Array, color: Array | Color, region: int | None = None) -> None:
        """Lay a colour over a window.

        Args:
            alpha: [H, W] in [0, 1].
            color: [3] or [H, W, 3].
            region: new value of the mask where alpha > 0.5. None leaves the mask.
        """
        image = self.image[window.rows, window.cols]
        step = np.asarray(color, dtype=np.float32) - image
        step *= alpha[..., None]
        image += step
        if region is not None:
            self.mask[window.rows, window.cols][alpha > 0.5] = region

    def darken(self, window: Window, amount: Array, tint: Color = (1.0, 1.0, 1.0)) -> None:
        """Multiply by 1 - amount·tint. Shadows of one layer darken the layers below."""
        image = self.image[window.rows, window.cols]
        amount = amount * (self.mask[window.rows, window.cols] > 0)  # the backdrop is too far away for shadows
        for c in range(3):
            image[..., c] *= 1 - amount * tint[c]

    def finish(self) -> Array:
        """Returns the picture as uint8 [R, R, 3]. Values above white are compressed."""
        bright = np.maximum(self.image - 0.8, 0)
        image = np.clip(self.image, 0, 0.8)
        image += bright * 0.2 / (bright + 0.2)
        image *= 255
        image += 0.5
        return image.astype(np.uint8)
