"""Beanies, caps and brimmed hats."""

import numpy as np

from semantic.procedural.draw import Normal, facing, unit
from semantic.procedural.face import mix
from semantic.procedural.head import HAT, Sitter
from semantic.procedural.sdf import circle, clouds, coverage, ellipse, length, line, smoothstep, waves
from semantic.procedural.space import Ellipsoid, Plane, Solid

Array = np.ndarray

# Of each hat: the ellipsoids of its crown (centre, radii), the height of its edge, and how it sinks to the back.
CROWNS = {
    "beanie": ([((0, -0.20, -0.12), (0.485, 0.52, 0.57)), ((0, -0.46, -0.16), (0.33, 0.32, 0.38))], -0.254, 0.22),
    "cap": ([((0, -0.22, -0.12), (0.475, 0.47, 0.565)), ((0, -0.22, 0.02), (0.42, 0.41, 0.46))], -0.312, 0.16),
    "brim": ([((0, -0.42, -0.13), (0.42, 0.36, 0.48)), ((0, -0.56, -0.13), (0.33, 0.20, 0.40))], -0.33, 0.10),
}


def draw_hat(s: Sitter) -> None:
    """Draw the hat, if there is one, with its shadow on hair and face."""
    f = s.face
    if f.hat == "none":
        return
    if f.hat == "brim":
        _draw_brim(s)
    elif f.hat == "cap":
        _draw_visor(s)
    parts, level, tilt = CROWNS[f.hat]
    crown = Solid([Ellipsoid(s.pose, c, (rx * f.width, ry, rz)) for c, (rx, ry, rz) in parts], blend=0.06)
    x0, y0, x1, y1 = crown.bounds
    w = s.canvas.window(x0 - 0.2, y0 - 0.04, x1 + 0.2, y1)
    d, depth, *normal = crown.surface(w.x, w.y)
    x, y, z = s.pose.unproject(w.x, w.y, depth)
    above = y + tilt * z - level
    d = np.maximum(d + 0.025 * smoothstep(-0.08, 0.0, above), above)
    felt = 1 + 0.025 * clouds(x * 18, y * 18, f.noise(14), 2)
    albedo, normal, occlusion = _trim(s, (x, y, z), above, normal)
    color = s.light.shade(albedo * felt[..., None], normal, occlusion, wrap=0.3)
    s.canvas.darken(w, 0.40 * np.exp(-20 * np.maximum(d, 0)) * (d > 0), (0.9, 1, 1))
    s.canvas.paint(w, coverage(d), color, HAT)
    if f.hat == "beanie" and f.volume > 0.5:
        _draw_pompom(s)


def _trim(s: Sitter, place: Normal, above: Array, normal: Normal) -> tuple[Array, Normal, Array]:
    """Returns the colour, normal and occlusion of the crown: ribs and cuff, panels and seams, or band and dent."""
    f, (x, y, z), (nx, ny, nz) = s.face, place, normal
    angle = np.arctan2(x, z + 0.12)
    second = f.hat_second
    if f.hat == "beanie":
        share = coverage(-0.147 - above)
        second = second if f.stripes else mix(f.hat_color, (1, 1, 1), 0.10)
        ribs = waves(angle * 9.5, (0.0,), (1.0,)) * (0.6 + 0.4 * share)
        occlusion = 0.92 + 0.10 * ribs - 0.30 * line(above + 0.155, 0.014)
        normal = unit(nx + 0.18 * ribs, ny + 0.35 * share * np.clip((above + 0.075) * 14, -1, 1), nz)
    elif f.hat == "cap":
        share = coverage(np.abs(angle) - 0.525) * f.stripes
        seams = line(np.abs(np.sin(angle * 3)) * (y + 0.75), 0.012)
        occlusion = 1 - 0.22 * seams - 0.25 * np.exp(18 * np.minimum(above, 0))
    else:
        share = coverage(-0.083 - above)
        second = mix(second, (0, 0, 0), 0.3)
        occlusion = 1 - 0.25 * line(x, 0.10) * smoothstep(-0.62, -0.72, y)
    base = np.float32(f.hat_color)
    return base + (np.float32(second) - base) * share[..., None], normal, occlusion


def _draw_pompom(s: Sitter) -> None:
    cx, cy = s.pose.xy((0, -0.80, -0.16))
    w = s.canvas.window(cx - 0.15, cy - 0.15, cx + 0.15, cy + 0.15)
    x, y = w.x - cx, w.y - cy
    fluff = clouds(x * 14, y * 14, s.face.noise(16), 2)
    color = s.light.shade(s.face.hat_second, facing(x * 8, y * 8), 0.85 + 0.2 * fluff)
    s.canvas.paint(w, coverage(circle(x, y, 0, 0, 0.11) - 0.010 * fluff), color, HAT)


def _draw_visor(s: Sitter) -> None:
    """Draw the peak of a cap: a bent tongue on the forehead, under the edge of the crown."""
    f = s.face
    plane = Plane(s.pose, (0, -0.36, 0.30), pitch=-1.0)
    w = plane.window(s.canvas, -0.6, -0.1, 0.6, 0.95)
    u, v = plane.local(w.x, w.y)
    bent = v - 0.75 * u * u
    d = np.maximum(ellipse(u, bent, 0, 0, 0.40 * f.width, 0.40), -v - 0.12)
    up = s.pose.direction((0, -0.9, 0.4))[1] + 0.25
    base = mix(f.hat_color, (0, 0, 0), 0.12) if f.stripes else f.hat_second
    normal = (np.clip(u * 1.6, -0.6, 0.6), np.float32(up), np.float32(0.6))
    color = s.light.shade(base, normal, 1 - 0.45 * smoothstep(0.24, 0.08, bent))
    color *= (1 - 0.15 * line(d + 0.03, 0.006))[..., None]
    shadow = np.exp(-11 * np.maximum(d, 0)) * (d > 0) * smoothstep(-0.05, 0.15, v)
    s.canvas.darken(w, 0.48 * shadow, (0.9, 1, 1))
    s.canvas.paint(w, coverage(d), color, HAT)


def _draw_brim(s: Sitter) -> None:
    """Draw a disc around the head, seen from a little above. The crown stands on the disc."""
    f = s.face
    plane = Plane(s.pose, (0, -0.315, -0.10), pitch=-1.28)
    w = plane.window(s.canvas, -0.85, -0.85, 0.85, 2.0)
    u, v = plane.local(w.x, w.y)
    d = ellipse(u, v + 0.12 * u * u, 0, 0.04, 0.70, 0.74)
    ring = length(u * (1 / f.width), v * 0.85)
    normal = (0.30 * u, 0.3 * smoothstep(0.40, 0.75, ring) - 0.80, 0.55 + 0.1 * v)
    color = s.light.shade(f.hat_color, normal, 1 - 0.5 * np.exp(-9 * np.maximum(ring - 0.43, 0)))
    color += (0.10 * line(d + 0.012, 0.010))[..., None]
    s.canvas.darken(w, 0.45 * np.exp(-4.5 * np.maximum(d, 0)) * (d > 0) * (v > -0.1), (0.9, 1, 1))
    s.canvas.paint(w, coverage(d), color, HAT)
