"""Hair on the skull: the styles, the cap with its hairline and fringe, curls, and how strands are lit."""

from dataclasses import dataclass

import numpy as np

from semantic.procedural.draw import Normal, Window, unit
from semantic.procedural.head import HAIR, Sitter
from semantic.procedural.sdf import clouds, coverage, length, profile, smoothstep, waves
from semantic.procedural.space import Ellipsoid, Solid

Array = np.ndarray

# Height of the hairline (head space) by the angle around the head, degrees from the middle of the face.
ANGLES = (0, 22, 42, 58, 70, 80, 90, 104, 125, 180)
HAIRLINES = {
    "short": (-0.37, -0.37, -0.335, -0.19, -0.06, 0.07, -0.06, 0.06, 0.36, 0.38),
    "open": (-0.38, -0.37, -0.325, -0.20, -0.09, 0.02, 0.08, 0.20, 0.40, 0.42),
    "cover": (-0.38, -0.365, -0.31, -0.17, -0.02, 0.16, 0.30, 0.36, 0.42, 0.45),
}
TEMPLE = ANGLES.index(80)


@dataclass(frozen=True)
class Style:
    """The parts of a hair style.

    Args:
        hairline: name of the hairline, a key of `HAIRLINES`.
        thick: smallest and largest thickness of the hair. The volume of the face's hair chooses between them.
        ends: highest and lowest y of the ends of falling hair. The face's hair length chooses. None: no hair falls.
        locks: distances of the inner and outer edge of the locks beside the face. None: no locks.
        wave: size of the waves of falling hair.
        fringe: whether the style may have a fringe.
        loose: whether hair covers the ears. Hair that is tucked behind the ears does not.
        curls: size and depth of the curls. None: combed hair.
    """

    hairline: str
    thick: tuple[float, float]
    ends: tuple[float, float] | None = None
    locks: tuple[float, float] | None = None
    wave: float = 0.0
    fringe: bool = False
    loose: bool = False
    curls: tuple[float, float] | None = None


STYLES = {
    "bald": Style("short", (0.0, 0.0)),
    "buzz": Style("short", (0.008, 0.016)),
    "short": Style("short", (0.035, 0.075), fringe=True),
    "quiff": Style("short", (0.04, 0.07)),
    "bob": Style("cover", (0.05, 0.09), (0.40, 0.64), (0.30, 0.47), 0.1, True, True),
    "long": Style("cover", (0.045, 0.08), (0.85, 1.3), (0.27, 0.50), 0.15, True, True),
    "wavy": Style("cover", (0.06, 0.11), (0.68, 1.3), (0.30, 0.58), 1.0, True, True),
    "curly": Style("cover", (0.09, 0.14), fringe=True, loose=True, curls=(9.5, 0.024)),
    "afro": Style("cover", (0.15, 0.24), loose=True, curls=(15.0, 0.016)),
    "bun": Style("open", (0.025, 0.045), fringe=True),
    "ponytail": Style("open", (0.025, 0.045), fringe=True),
}


@dataclass
class Hair:
    """The hair of one sitter: its style, its thickness, and its cap."""

    s: Sitter
    style: Style
    thick: float
    cap: Solid

    @classmethod
    def of(cls, s: Sitter) -> "Hair":
        style = STYLES[s.face.hair]
        low, high = style.thick
        thick = low + (high - low) * s.face.volume
        if s.face.hat != "none":
            thick = min(thick, 0.05)
        return cls(s, style, thick, cap_solid(s, thick))

    @property
    def covers_ears(self) -> bool:
        return self.style.loose and not self.s.face.tucked


def cap_solid(s: Sitter, thick: float) -> Solid:
    """Returns the skull under a layer of hair, `thick` units thick."""
    w, t = s.face.width, thick
    parts = [
        ((0, -0.13 - 0.3 * t, -0.11), (0.425 * w + t, 0.47 + t, 0.475 + t)),
        ((0, 0.0, 0.02), (0.385 * w + 0.8 * t, 0.44 + 0.9 * t, 0.375 + 0.6 * t)),
    ]
    if s.face.hair == "quiff":
        parts.append(((0.05 * s.face.parting, -0.43 - 0.6 * t, 0.22), (0.27, 0.14 + t, 0.20)))
    return Solid([Ellipsoid(s.pose, c, r) for c, r in parts], blend=0.06)


def draw_cap(h: Hair) -> None:
    """Draw the hair on the skull down to the hairline."""
    s, f = h.s, h.s.face
    if f.hair == "bald":
        return
    if f.hair == "bun":
        _draw_bun(h)
    if h.style.curls:
        draw_curls(h, h.cap, behind=False)
        return
    x0, y0, x1, y1 = h.cap.bounds
    w = s.canvas.window(x0 - 0.05, y0 - 0.05, x1 + 0.05, y1 + 0.05)
    d, depth, *normal = h.cap.surface(w.x, w.y)
    x, y, z = s.pose.unproject(w.x, w.y, depth)
    angle = np.arctan2(x, z + 0.10) * 57.3
    edge = hairline(h, angle)
    # The hair of the far side is visible beyond the edge of the forehead.
    beyond = smoothstep(-0.012, 0.0, s.head.distance(w.x, w.y))
    edge = edge + beyond * np.maximum(HAIRLINES[h.style.hairline][TEMPLE] - edge, 0)
    if not h.style.locks:
        d = d + (h.thick + 0.012) * smoothstep(-0.36, 0.02, y)  # short hair lies close at the temples
    d = d + 0.12 * smoothstep(0.08, 0.25, y)
    if f.hair in ("short", "quiff"):
        around = np.arctan2(w.x - h.cap.parts[0].cx, h.cap.parts[0].cy - w.y)
        tufts = waves(around * 5.5, f.noise(38), (1.0, 2.3)) * smoothstep(-0.1, -0.4, y)
        d = d - (0.004 + 0.016 * f.curl * f.curl) * tufts
    inside = np.maximum(d, y - edge)
    alpha = coverage(inside)
    gap = np.clip(edge - y, 0, 1)
    if f.hair == "buzz":
        grain = clouds(x * 24 + 3 * np.sin(y * 9), y * 24 + 3 * np.sin(x * 8), f.noise(33), 2)
        albedo = (np.float32(f.hair_color) * 0.78 + np.float32(f.skin) * 0.16) * (1 + 0.16 * grain)[..., None]
        # The shaved edge lets skin through.
        s.canvas.paint(w, alpha * (0.35 + 0.6 * smoothstep(0.0, 0.035, gap)), s.light.shade(albedo, normal, wrap=0.3))
        s.canvas.mask[w.rows, w.cols][alpha > 0.5] = HAIR
        return
    color = strands(h, comb(h, x, y, z), normal, 1 - 0.25 * np.exp(-22 * gap))
    cast_shadow(h, w, inside + 0.3 * smoothstep(0.1, 0.3, y))
    s.canvas.paint(w, alpha, color, HAIR)


def hairline(h: Hair, angle: Array) -> Array:
    """Returns the lowest height of the cap (head-space y) at each angle around the head, degrees, with the fringe."""
    f = h.s.face
    aside = np.abs(angle)
    edge = profile(aside, ANGLES, HAIRLINES[h.style.hairline])
    # Locks end round, with notches between them.
    bent = angle * 0.12 + 0.8 * np.sin(angle * 0.07 + 6 * f.phases[34]) + f.phases[35]
    tips = np.abs(np.sin(bent)) - 0.6 + 0.3 * np.sin(bent * 0.43 + 5 * f.phases[36])
    fringe = f.fringe if h.style.fringe else "none"
    if fringe == "straight":
        low, share, rough = -0.165 + 0.02 * f.curl, smoothstep(58, 40, aside), 0.020
    elif fringe == "side":
        turned = -angle if f.parting >= 0 else angle
        low, share, rough = -0.36 + 0.22 * smoothstep(-30, 55, turned), smoothstep(68, 52, aside), 0.028
    elif fringe == "curtain":
        turned = np.abs(angle - 22 * f.parting)
        low, share, rough = -0.375 + 0.34 * smoothstep(8, 66, turned), smoothstep(76, 62, aside), 0.012
    elif f.hair in ("short", "quiff"):
        low, share, rough = edge, smoothstep(60, 40, aside), 0.014
    else:
        return edge
    return edge + (low - edge + rough * tips) * share


def comb(h: Hair, x: Array, y: Array, z: Array) -> Array:
    """Returns the coordinate across the strands of the cap. One unit is one strand."""
    f = h.s.face
    # Behind the ears x falls again: unfold it, so that no strand turns back.
    behind = z + 0.11
    reach = 2 * length(x, 0.9 * behind)
    x = np.where(behind < 0, np.copysign(reach - np.abs(x), x), x)
    if f.hair == "quiff":  # brushed back from the face
        return np.arctan2(x, 0.1 - y) * 11 + 0.5 * np.sin(9 * y)
    if f.hair in ("bun", "ponytail"):
        return np.arctan2(x, 0.9 - y) * 16 + x * 8
    if f.fringe == "straight":
        return x * 28
    return np.arctan2(x - 0.16 * f.parting, y + 0.68 + h.thick) * 9  # down from the parting


def strands(h: Hair, across: Array, normal: Normal, occlusion: Array | float = 1.0) -> Array:
    """Returns the colour [H, W, 3] of combed hair: light and dark strands, with gloss at bends towards the light."""
    light, color = h.s.light, np.float32(h.s.face.hair_color)
    nx, ny, nz = normal
    locks = waves(across, h.s.face.noise(25), (1.0, 2.6, 5.9))
    albedo = color * (1 + 0.24 * locks)[..., None]
    out = light.shade(albedo, (nx + 0.10 * locks, ny, nz), occlusion * (0.90 + 0.12 * locks), wrap=0.30)
    tilt = (ny - 0.55 * light.key[1]) * (1 / 0.22)
    band = np.exp(-tilt * tilt) * np.clip(nx * light.key[0] + nz * light.key[2] + 0.1, 0, 1)
    band = np.clip(band * (0.55 + 0.45 * locks), 0, 1) * (0.42 * occlusion)
    out += band[..., None] * ((0.30 + 0.70 * color) * np.float32(light.key_color))
    return np.maximum(out, 0)


def cast_shadow(h: Hair, w: Window, distance: Array) -> None:
    """Darken the skin beside the hair."""
    soft = np.exp(np.maximum(distance, 0) * (-1 / 0.035)) * (distance > -0.01)
    h.s.canvas.darken(w, 0.34 * soft, (0.8, 1.0, 1.05))


def draw_curls(h: Hair, solid: Solid, behind: bool) -> None:
    """Draw a mass of curls: behind the head, or on the skull down to the hairline."""
    s, f = h.s, h.s.face
    size, deep = h.style.curls
    size *= 0.85 + 0.3 * f.curl
    x0, y0, x1, y1 = solid.bounds
    w = s.canvas.window(x0 - 0.09, y0 - 0.09, x1 + 0.09, y1 + 0.09)
    d, depth, nx, ny, nz = solid.surface(w.x, w.y)
    u, v = (w.x - solid.parts[0].cx) * size, (w.y - solid.parts[0].cy) * size
    a, b = 6.28 * f.phases[34], 6.28 * f.phases[35]
    p, q = u * 2.2 + 1.1 * np.sin(1.3 * v + a), v * 2.2 + 1.1 * np.sin(1.3 * u + b)
    sin_p, sin_q = np.sin(p), np.sin(q)
    curls = sin_p * sin_q + 0.35 * np.sin(2.3 * p + q + a) * np.sin(2.1 * q - 0.5 * p)
    d = d - deep * curls
    normal = unit(nx * 0.9 + 0.38 * np.cos(p) * sin_q, ny * 0.9 + 0.38 * sin_p * np.cos(q), nz)
    occlusion = np.clip(0.80 + 0.26 * curls, 0.35, 1.1)
    if behind:
        occlusion = occlusion * (1 - 0.35 * smoothstep(-0.10, -0.35, d))
    else:
        x, y, z = s.pose.unproject(w.x, w.y, depth)
        aside = np.abs(np.arctan2(x, z + 0.10) * 57.3)
        edge = profile(aside, ANGLES, HAIRLINES["open" if f.tucked else "cover"])
        if h.style.fringe and f.fringe != "none":
            edge = edge + 0.15 * smoothstep(55, 30, aside)
        d = np.maximum(d, y - np.minimum(edge, 0.14) - 0.022 * curls)
        cast_shadow(h, w, d)
    color = s.light.shade(f.hair_color, normal, occlusion, wrap=0.35)
    gloss = s.light.gloss(normal, 14) * (0.16 * occlusion)
    color += gloss[..., None] * (0.35 + 0.65 * np.float32(f.hair_color))
    s.canvas.paint(w, coverage(d), color, HAIR)


def _draw_bun(h: Hair) -> None:
    s, f = h.s, h.s.face
    r, cx = 0.15 + 0.05 * f.volume, 0.05 * f.parting
    cy = -0.64 - 0.5 * r
    ball = Ellipsoid(s.pose, (cx, cy, -0.22), (r * 1.15, r, r))
    x0, y0, x1, y1 = ball.bounds
    w = s.canvas.window(x0 - 0.03, y0 - 0.03, x1 + 0.03, y1 + 0.03)
    d, depth, *normal = ball.surface(w.x, w.y)
    x, y, _ = s.pose.unproject(w.x, w.y, depth)
    twist = np.arctan2(y - cy, x - cx) * 2.2 + length(x, y + 0.7) * 22
    color = strands(h, twist, normal, 1 - 0.35 * smoothstep(-0.68, -0.58, y))
    s.canvas.paint(w, coverage(d), color, HAIR)
