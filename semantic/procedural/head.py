"""Neck, head and ears: the skin under everything else."""

from dataclasses import dataclass

import numpy as np

from semantic.procedural.draw import Canvas, Light, Window, facing, unit
from semantic.procedural.face import FaceParameters, mix
from semantic.procedural.sdf import (
    bump,
    circle,
    clouds,
    coverage,
    ellipse,
    gradient,
    length,
    line,
    profile,
    smooth_min,
    smoothstep,
)
from semantic.procedural.space import Ellipsoid, Plane, Pose, Solid
from semantic.regions import CELEBAMASK

BACKGROUND, FACE, EYE, EYEBROW, MOUTH, NOSE, EAR, HAIR, NECK, CLOTH, GLASSES, HAT, EARRING = range(len(CELEBAMASK))
BLEED = (0.10, 0.025, 0.01)  # light that skin lets through, red
BODY = 1.12  # scale of the head at which the measures of the body hold


@dataclass
class Sitter:
    """A face about to be drawn: the canvas, the measures, how the head is turned, its outline, and the light."""

    canvas: Canvas
    face: FaceParameters
    pose: Pose
    light: Light
    head: Solid

    @property
    def near(self) -> int:
        """Returns the side of the face turned to the viewer: +1 right of the picture, -1 left."""
        return -1 if self.pose.yaw > 0 else 1


def head_solid(f: FaceParameters, pose: Pose) -> Solid:
    """Returns the solid of cranium, face, jaw, chin and cheeks. It gives the head its outline."""
    w, jaw, low = f.width, f.jaw, f.chin
    parts = [
        ((0, -0.13, -0.11), (0.415 * w, 0.46, 0.465)),
        ((0, 0.01, 0.06), (0.385 * w, 0.42, 0.345)),
        ((-0.105 * jaw, 0.215, 0.05), (0.20 * jaw, 0.235, 0.27)),
        ((0.105 * jaw, 0.215, 0.05), (0.20 * jaw, 0.235, 0.27)),
        ((0, 0.385 + low, 0.16), (0.125 * jaw, 0.135, 0.18)),
        ((-0.175 * w, 0.12, 0.17), (0.18 + 0.02 * f.cheeks, 0.17, 0.19)),
        ((0.175 * w, 0.12, 0.17), (0.18 + 0.02 * f.cheeks, 0.17, 0.19)),
    ]
    return Solid([Ellipsoid(pose, c, r) for c, r in parts], blend=0.05)


def relief(f: FaceParameters) -> list[tuple[float, float, float, float, float]]:
    """Returns the hills and hollows of the face as (x, y, rx, ry, height), in head space seen from the front."""
    hills = [
        (0, 0.43 + f.chin, 0.085, 0.075, 0.015),
        (0, 0.30, 0.15, 0.09, 0.012),
        (0, -0.14, 0.24, 0.05, 0.004 + 0.010 * f.structure),
        (0, 0.385 + 0.5 * f.chin, 0.07, 0.022, -0.006),
    ]
    for side in (-1, 1):
        hills.append((side * 0.20, 0.115, 0.12, 0.11, 0.022 + 0.016 * f.cheeks))
        hills.append((side * (f.eye_gap - 0.01), -0.005, 0.10, 0.06, -0.020))
        hills.append((side * 0.27, 0.26, 0.09, 0.12, -0.006 - 0.012 * f.structure))
    return hills


@dataclass
class HeadSurface:
    """The head on the pixels of its window: coverage, normal, and head-space coordinates (x, y)."""

    window: Window
    alpha: np.ndarray
    normal: tuple[np.ndarray, np.ndarray, np.ndarray]
    local: tuple[np.ndarray, np.ndarray]

    def on(self, w: Window) -> np.ndarray:
        """Returns the coverage of the head on another window. Features end at the edge of the head."""
        found = np.zeros((w.rows.stop - w.rows.start, w.cols.stop - w.cols.start), dtype=np.float32)
        mine = self.window
        rows = slice(max(w.rows.start, mine.rows.start), min(w.rows.stop, mine.rows.stop))
        cols = slice(max(w.cols.start, mine.cols.start), min(w.cols.stop, mine.cols.stop))
        if rows.start < rows.stop and cols.start < cols.stop:
            found[_inside(rows, w.rows), _inside(cols, w.cols)] = self.alpha[
                _inside(rows, mine.rows), _inside(cols, mine.cols)
            ]
        return found

    @classmethod
    def of(cls, s: Sitter) -> "HeadSurface":
        x0, y0, x1, y1 = s.head.bounds
        w = s.canvas.window(x0 - 0.04, y0 - 0.04, x1 + 0.04, y1 + 0.04)
        d = s.head.distance(w.x, w.y)
        # One egg carries the shading and the features, so the face has no seams. The outline bends its border, and
        # the relief bends its front.
        egg = Ellipsoid(s.pose, (0, -0.02, -0.06), (0.45 * s.face.width, 0.60, 0.46))
        _, z, nx, ny, nz = egg.surface(w.x, w.y)
        x, y, _ = s.pose.unproject(w.x, w.y, z)
        gx = gy = 0.0
        for cx, cy, rx, ry, high in relief(s.face):
            hill = bump(x - cx, y - cy, rx, ry)
            gx = gx + hill * (x - cx) * (2 * high / rx**2)
            gy = gy + hill * (y - cy) * (2 * high / ry**2)
        across, down = s.pose.direction((1, 0, 0)), s.pose.direction((0, 1, 0))
        border = smoothstep(-0.13, 0.01, d)
        dy, dx = gradient(d)
        slope = border / (length(dx, dy) + 1e-6)
        front = (1 - border) ** 0.5
        nx = nx * front + gx * across[0] + gy * down[0] + dx * slope
        ny = ny * front + gx * across[1] + gy * down[1] + dy * slope
        nz = np.maximum(nz * front + gx * across[2] + gy * down[2], 0.03)
        return cls(w, coverage(d), unit(nx, ny, nz), (x, y))


def _inside(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def draw_neck(s: Sitter) -> None:
    """Draw the neck, the skin inside the neckline, and the shadow of the chin."""
    f, canvas = s.face, s.canvas
    (top_x, top), (foot_x, foot), chin = (s.pose.xy(p) for p in ((0, 0.33, -0.10), Pose.PIVOT, (0, 0.46, 0.15)))
    size = s.pose.scale / BODY
    foot += 0.28 * size
    w = canvas.window(-0.85, top - 0.05, 0.85, 1)
    middle = profile(w.y, [top, 0.5 * (top + foot), foot], [top_x, 0.6 * foot_x + 0.4 * top_x, foot_x])
    half = profile((w.y - foot) / size, [-0.25, -0.10, 0.0, 0.10, 0.30], [1, 0.97, 1.10, 1.75, 2.4])
    half = half * (size * (0.185 + 0.035 * f.structure))
    across = (w.x - middle) / half
    alpha = coverage(np.maximum((np.abs(across) - 1) * half, top - w.y))
    chest = smoothstep(-0.04, 0.15, w.y - foot)
    normal = facing(np.clip(across, -1, 1) * (0.85 - 0.6 * chest), -0.1 - 0.35 * chest)
    tendons = bump(np.abs(w.x - middle) - 0.05 - 0.35 * (foot + 0.02 - w.y), (w.y - foot + 0.04) * 0.5, 0.025, 0.06)
    shadow = smoothstep(0.30, -0.02, length((w.x - chin[0] + s.light.key[0] * 0.10) * 0.75, w.y - chin[1]) - 0.05)
    occlusion = 1 - 0.62 * shadow - 0.10 * tendons
    color = s.light.shade(f.skin, normal, occlusion, BLEED, wrap=0.35)
    canvas.paint(w, alpha, color, NECK)


def draw_head(s: Sitter, head: HeadSurface) -> None:
    """Draw the skin of the face with its shading, blush, freckles, wrinkles and shaved beard."""
    f, w = s.face, head.window
    x, y = head.local
    # The sockets of the eyes and the folds are too fine for the solid: they shade only.
    eyes = sum(bump(x - side * f.eye_gap, y + 0.035, 0.12, 0.065) for side in (-1, 1))
    corners = sum(bump(x - side * 0.075, y, 0.035, 0.06) for side in (-1, 1))
    fold = sum(_fold(side * x, y, f) for side in (-1, 1))
    occlusion = 1 - 0.16 * eyes - 0.16 * corners - 0.30 * (0.15 + 0.75 * f.age) * fold
    occlusion *= 1 - 0.10 * smoothstep(0.34, 0.54, y)
    if f.age > 0.45:
        occlusion = occlusion - 0.24 * (f.age - 0.45) * _wrinkles(np.abs(x), y, f)
    albedo = np.empty((*x.shape, 3), dtype=np.float32)
    cheek = sum(bump(x - side * 0.215, y - 0.155, 0.10, 0.085) for side in (-1, 1))
    pink = np.clip(cheek * 0.8 + 0.35 * bump(x, y - 0.17, 0.07, 0.06), 0, 1) * (0.20 + 0.28 * f.blush)
    flush = (f.skin[0] * 1.02, f.skin[1] * 0.72, f.skin[2] * 0.74)
    mottled = clouds(x * 4, y * 4, f.noise(0)) * 0.018
    spots = 0.0
    if f.freckles > 0:
        pattern = clouds(x * 22, y * 22, f.noise(4), 2)
        spots = smoothstep(0.35, 0.75, pattern) * bump(x, y - 0.12, 0.30, 0.11) * (0.30 * f.freckles)
    for c in range(3):
        base = f.skin[c] + (flush[c] - f.skin[c]) * pink
        albedo[..., c] = base * (1 + mottled - spots * (0.5, 0.85, 1.0)[c])
    _stubble(f, x, y, albedo)
    color = s.light.shade(albedo, head.normal, occlusion, BLEED, wrap=0.30)
    shine = s.light.gloss(head.normal, 18) * (0.10 + 0.03 * f.makeup)
    color += shine[..., None] * np.float32(s.light.key_color)
    s.canvas.paint(w, head.alpha, color, FACE)


def _fold(x: np.ndarray, y: np.ndarray, f: FaceParameters) -> np.ndarray:
    """Returns the crease from the wing of the nose to the corner of the mouth, on the side x > 0."""
    t = np.clip((y - 0.165) * (1 / 0.15), 0, 1)
    middle = 0.095 + (0.075 + 0.02 * f.smile) * np.sqrt(t)
    return line(x - middle, 0.018) * smoothstep(0.13, 0.19, y) * smoothstep(0.36, 0.27, y)


def _wrinkles(x: np.ndarray, y: np.ndarray, f: FaceParameters) -> np.ndarray:
    """Returns the lines across the forehead and at the outer corners of the eyes."""
    brow = sum(line(y + 0.215 + 0.048 * i - 0.25 * x * x, 0.006) for i in range(3)) * smoothstep(0.24, 0.12, x)
    out = x - f.eye_gap - f.eye_width
    feet = sum(line(y - 0.01 + 0.02 * i + out * (0.45 * i - 0.35), 0.005) for i in range(3))
    return brow + feet * smoothstep(0.015, 0.03, out) * smoothstep(0.085, 0.05, out)


def _stubble(f: FaceParameters, x: np.ndarray, y: np.ndarray, albedo: np.ndarray) -> None:
    """Colour the skin for a shaved or short beard. Such a beard has no edge."""
    if f.beard == "none":
        return
    ax = np.abs(x)
    lower = smoothstep(-0.02, 0.05, y - profile(ax, [0, 0.10, 0.17, 0.26, 0.34], [0.345, 0.345, 0.29, 0.19, 0.02]))
    lip = smoothstep(0.21, 0.235, y) * smoothstep(0.175, 0.13, ax) * smoothstep(0.40, 0.34, y)
    chin = smoothstep(0.17, 0.12, ax) * smoothstep(0.33, 0.36, y)
    shape, dense = {
        "stubble": (np.maximum(lower, lip), 0.38),
        "moustache": (lip * smoothstep(0.30, 0.27, y), 0.88),
        "goatee": (np.maximum(lip, chin), 0.85),
        "full": (np.maximum(lower, lip), 0.92),
    }[f.beard]
    grain = 0.5 + 0.5 * clouds(x * 16, y * 9, f.noise(9), 3)
    shape = np.clip(shape * (0.75 + 0.5 * grain) * dense, 0, 1)
    color = mix(f.hair_color, f.skin, 0.12)
    for c in range(3):
        albedo[..., c] += (color[c] * (0.8 + 0.4 * grain) - albedo[..., c]) * shape


def draw_ear(s: Sitter, side: int) -> None:
    """Draw one ear. Side +1 is on the right of the picture."""
    f = s.face
    plane = ear_plane(s, side)
    if plane.u[0] * side < 0.02:
        return
    size = f.ear_size
    w = plane.window(s.canvas, -0.06 * size, -0.16 * size, 0.16 * size, 0.19 * size)
    u, v = plane.local(w.x, w.y)
    u, v = u * (1 / size), v * (1 / size)
    d = smooth_min(ellipse(u, v, 0.045, -0.03, 0.085, 0.105), circle(u, v, 0.015, 0.095, 0.05), 0.06)
    alpha = coverage(d)
    rim = smoothstep(-0.035, -0.012, d)
    bowl = bump(u - 0.035, v - 0.01, 0.035, 0.05)
    groove = line(d + 0.032, 0.011) * smoothstep(0.07, 0.0, v)
    root = smoothstep(0.02, -0.045, u)
    normal = facing(side * (0.35 + 0.45 * rim * np.clip(u * 12, -1, 1)), 0.5 * rim * np.clip(v * 9, -1, 1))
    occlusion = 1 - 0.45 * bowl - 0.32 * groove - 0.25 * root
    skin = (f.skin[0] * 0.99, f.skin[1] * 0.93, f.skin[2] * 0.92)
    color = s.light.shade(skin, normal, occlusion, BLEED, wrap=0.4)
    s.canvas.paint(w, alpha, color, EAR)


def ear_plane(s: Sitter, side: int) -> Plane:
    """Returns the plane of an ear. The coordinate u points away from its root, v points down."""
    # Flaps stand off the head by half a right angle.
    return Plane(s.pose, (side * 0.40 * s.face.width, 0.045, -0.14), yaw=0.85 * side, mirror=side < 0)


def ear_faces_viewer(s: Sitter, side: int) -> bool:
    """Returns whether the ear lies in front of the head's outline rather than behind it."""
    return s.pose.yaw * side < 0.10
