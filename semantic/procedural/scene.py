"""What is around the head: backdrop, clothes, and the light."""

import math

import numpy as np

from semantic.procedural.draw import Canvas, Light, Window, facing
from semantic.procedural.face import FaceParameters, mix
from semantic.procedural.head import BODY, CLOTH, Sitter
from semantic.procedural.sdf import bump, circle, clouds, coverage, ellipse, length, line, polygon, smoothstep, waves


def make_light(f: FaceParameters) -> Light:
    """Returns the key light from the face's side, fill in the colour of the backdrop, and a rim light opposite."""
    size = math.hypot(f.light_side, f.light_height, 0.78)
    key = (f.light_side / size, -f.light_height / size, 0.78 / size)
    rim = (math.copysign(0.92, -f.light_side), -0.38, 0.0)
    warm = (1 + 0.06 * f.warmth, 1.0, 1 - 0.08 * f.warmth)
    level = 0.66 + 0.14 * f.contrast
    ambient = mix((1, 1, 1), f.back_color, 0.35)
    fill = 0.66 - 0.13 * f.contrast
    return Light(
        key=key,
        rim=rim,
        key_color=tuple(level * v for v in warm),
        sky_color=tuple(fill * v * c for v, c in zip(ambient, (0.97, 1.0, 1.06), strict=True)),
        ground_color=tuple(0.78 * fill * v * c for v, c in zip(ambient, (1.06, 0.97, 0.95), strict=True)),
        rim_color=mix((0.75, 0.75, 0.75), f.rim_color, 0.35),
    )


def draw_background(canvas: Canvas, f: FaceParameters, light: Light) -> None:
    """Draw a gradient, lights out of focus, or a two-tone wall."""
    w = canvas.window()
    first, second = f.back_color, mix(f.back_color, f.back_second, 0.55)
    tilt = 1.2 * (f.phases[40] - 0.5)
    glow = 1.12 - 0.20 * length(w.x - 0.6 * f.light_side, w.y + 0.3)
    if f.backdrop == "wall":
        share = coverage(0.55 * (f.phases[41] - 0.4) + 0.25 * tilt * w.x - w.y)
        second = mix(second, (0, 0, 0), 0.28)
    else:
        share = smoothstep(-1.3, 1.3, w.y + tilt * w.x)
    if f.backdrop == "bokeh":
        glow = glow * 0.72
    for c in range(3):
        level = 0.85 + 0.21 * light.key_color[c]
        canvas.image[..., c] = (first[c] + (second[c] - first[c]) * share) * glow * level
    if f.backdrop == "bokeh":
        for i in range(9):
            _draw_disc(canvas, f, i)


def _draw_disc(canvas: Canvas, f: FaceParameters, i: int) -> None:
    """Draw one light out of focus: a disc that is brighter at its rim."""
    px, py, pr, level = (f.phases[(4 * i + j) % 47] for j in range(4))
    x, y, r = 2.2 * px - 1.1, 1.8 * py - 1.05, 0.10 + 0.20 * pr
    w = canvas.window(x - r - 0.04, y - r - 0.04, x + r + 0.04, y + r + 0.04)
    d = circle(w.x, w.y, x, y, r)
    disc = smoothstep(0.02, -0.02, d) * (0.14 + 0.16 * level) * (1 + 0.25 * line(d + 0.02, 0.02))
    canvas.image[w.rows, w.cols] += disc[..., None] * np.float32(mix((1, 0.95, 0.85), f.back_second, 0.5))


def _body(s: Sitter, w: Window) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates of the body in units of the body. (0, 0) is the foot of the neck.

    The body does not turn with the head.
    """
    x, y = s.pose.xy(s.pose.PIVOT)
    k = BODY / s.pose.scale
    return (w.x - x) * k, (w.y - y) * k - 0.26


def draw_hood(s: Sitter) -> None:
    """Draw the part of a hood behind the neck."""
    if s.face.clothes != "hoodie":
        return
    w = s.canvas.window(-1, 0.2, 1, 1)
    x, y = _body(s, w)
    d = ellipse(x, y, 0, 0.10, 0.40, 0.30)
    normal = facing(x * (1 / 0.42), (y - 0.1) * 2.2)
    inner = smoothstep(0.0, -0.10, d)
    s.canvas.paint(w, coverage(d), s.light.shade(s.face.cloth_color, normal, 1 - 0.62 * inner), CLOTH)


def draw_clothes(s: Sitter) -> None:
    """Draw shoulders and chest in cloth, open at the neck."""
    f, canvas = s.face, s.canvas
    w = canvas.window(-1, 0.4, 1, 1)
    x, y = _body(s, w)
    ax, half = np.abs(x), 0.84 * f.shoulders
    round_off = np.maximum(ax - 0.68 * half, 0)
    shoulder = 0.16 * np.clip(ax * (1 / half), 0, 1) ** 1.15 - 0.03 + 2.6 * round_off * round_off
    d = shoulder - y
    if f.clothes == "turtleneck":
        d = np.minimum(d, np.maximum(ax - 0.235, -0.155 - 0.02 * np.cos(x * 8) - y))
    hole = _neckline(f.clothes, x, y)
    d = np.maximum(d, -hole)
    nx = np.clip(x * (0.75 / half), -0.9, 0.9)
    ny = -0.75 * np.exp(-7 * np.maximum(y - shoulder, 0)) - 0.05
    folds = clouds(x * 1.7 + 0.5 * y, y * 1.2 - x * 0.4, f.noise(12), 2)
    nx, ny = nx + 0.16 * folds, ny + 0.10 * folds
    if f.clothes == "turtleneck":
        roll = smoothstep(0.02, -0.02, y) * smoothstep(0.26, 0.22, ax)
        nx = nx + roll * np.clip(x * 3.2, -0.9, 0.9)
        ny = ny * (1 - roll)
    albedo = np.broadcast_to(np.float32(f.cloth_color), (*d.shape, 3)).copy()
    if f.stripes and f.clothes in ("crew", "vneck", "turtleneck"):
        band = coverage(np.sin((y - 0.35 * shoulder) * 50))
        albedo += (np.float32(f.cloth_second) - albedo) * band[..., None]
    weave = 1 + 0.02 * waves(x * 30 + y * 4, f.noise(20), (1.3,)) + 0.02 * waves(y * 30 - x * 3, f.noise(24), (1.3,))
    albedo *= weave[..., None]
    if f.clothes in ("crew", "vneck"):
        rib = coverage(hole - 0.0425)
        albedo += (np.float32(mix(f.cloth_color, f.cloth_second, 0.25)) * 0.85 - albedo) * (0.7 * rib)[..., None]
    # The head throws a shadow on the chest, and the edge of the cloth throws a shadow on the skin.
    occlusion = 1 - 0.42 * bump(x + 0.18 * s.light.key[0], y - 0.02, 0.34, 0.15)
    occlusion = occlusion * (1 - 0.12 * line(np.maximum(hole, 0), 0.02))
    canvas.darken(w, coverage(hole) * 0.3 * smoothstep(-0.05, 0.0, hole) * smoothstep(-0.06, 0.02, y))
    canvas.paint(w, coverage(d), s.light.shade(albedo, facing(nx, ny), occlusion, wrap=0.3), CLOTH)
    if f.clothes == "collar":
        _draw_collar(s, w, x, y)
    elif f.clothes == "hoodie":
        _draw_hoodie(s, w, x, y, hole)


def _neckline(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the signed distance to the opening of the clothes at the neck."""
    if kind == "vneck":
        return polygon(x, y, [(-0.25, -0.2), (0.25, -0.2), (0.22, -0.01), (0.0, 0.26), (-0.22, -0.01)])
    if kind == "collar":
        return polygon(x, y, [(-0.22, -0.2), (0.22, -0.2), (0.19, 0.0), (0.0, 0.20), (-0.19, 0.0)])
    if kind == "turtleneck":
        return ellipse(x, y, 0.0, -0.19, 0.20, 0.055)
    if kind == "hoodie":
        return ellipse(x, y, 0.0, -0.06, 0.25, 0.19)
    return ellipse(x, y, 0.0, -0.06, 0.25, 0.165)


def _draw_collar(s: Sitter, w: Window, x: np.ndarray, y: np.ndarray) -> None:
    """Draw the two flaps of a shirt's collar, and buttons."""
    f = s.face
    for side in (-1, 1):
        px = x * side
        flap = polygon(px, y, [(0.215, -0.085), (0.275, -0.01), (0.17, 0.20), (-0.005, 0.175), (0.15, 0.05)])
        d = flap - 0.012
        s.canvas.darken(w, 0.30 * np.exp(-np.maximum(d, 0) * 30) * (d > 0) * (y > -0.03))
        normal = (side * 0.35 + 0.2 * px, np.float32(-0.35), np.float32(0.85))
        color = s.light.shade(mix(f.cloth_color, (1, 1, 1), 0.12), normal, 1 - 0.12 * smoothstep(-0.035, 0.0, d))
        s.canvas.paint(w, coverage(d), color, CLOTH)
    buttons = np.minimum(circle(x, y, 0, 0.245, 0.014), circle(x, y, 0, 0.34, 0.014))
    s.canvas.paint(w, coverage(buttons), mix(f.cloth_second, (0.95, 0.95, 0.95), 0.6), CLOTH)


def _draw_hoodie(s: Sitter, w: Window, x: np.ndarray, y: np.ndarray, hole: np.ndarray) -> None:
    """Draw the rolled edge of a hood around the neck, and its strings."""
    f = s.face
    ring = np.maximum(np.abs(hole - 0.03) - 0.045, -0.13 - y)
    normal = facing(np.clip(x * 2.2, -0.8, 0.8) * 0.6, (hole - 0.03) * (0.75 / 0.045))
    s.canvas.darken(w, 0.3 * np.exp(-np.maximum(ring, 0) * 22) * (hole > 0.03))
    s.canvas.paint(w, coverage(ring), s.light.shade(f.cloth_color, normal), CLOTH)
    for side in (-1, 1):
        string = np.abs(x - side * 0.10 - 0.02 * np.sin(y * 9 + side)) - 0.011
        d = np.maximum(string, np.maximum(0.10 - y, y - 0.30))
        s.canvas.paint(w, coverage(d), mix(f.cloth_second, (0.9, 0.9, 0.9), 0.5), CLOTH)
