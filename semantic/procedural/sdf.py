"""Plane figures as signed distances (negative inside), and the smooth noise that textures them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Array = np.ndarray


def coverage(distance: Array) -> Array:
    """Returns the share of each pixel that a figure covers, in [0, 1], with an edge one pixel wide.

    The distance is divided by its own slope. So any smooth function serves if it is negative inside and positive
    outside, in any unit, stretched or bent.

    Args:
        distance: [H, W], on the pixel grid.
    """
    slope = slope_per_pixel(distance)
    slope += 1e-7
    alpha = np.divide(distance, slope, out=slope)
    np.subtract(np.float32(0.5), alpha, out=alpha)
    return np.clip(alpha, 0, 1, out=alpha)


def slope_per_pixel(values: Array) -> Array:
    """Returns the length of the gradient of [H, W], per pixel."""
    dy, dx = gradient(values)
    dx *= dx
    dy *= dy
    dx += dy
    return np.sqrt(dx, out=dx)


def gradient(values: Array) -> tuple[Array, Array]:
    """Returns the central differences of [H, W] down and across, one-sided at the border."""
    dy, dx = np.empty_like(values), np.empty_like(values)
    np.subtract(values[2:], values[:-2], out=dy[1:-1])
    dy[1:-1] *= np.float32(0.5)
    dy[0], dy[-1] = values[1] - values[0], values[-1] - values[-2]
    np.subtract(values[:, 2:], values[:, :-2], out=dx[:, 1:-1])
    dx[:, 1:-1] *= np.float32(0.5)
    dx[:, 0], dx[:, -1] = values[:, 1] - values[:, 0], values[:, -1] - values[:, -2]
    return dy, dx


def length(x: Array, y: Array) -> Array:
    """Returns the Euclidean norm of (x, y). It is several times faster than np.hypot."""
    return np.sqrt(x * x + y * y)


def smoothstep(low: float, high: float, values: Array) -> Array:
    """Returns 0 below `low`, 1 above `high`, a cubic between (with low > high it falls)."""
    t = np.clip((values - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_min(a: Array, b: Array, k: float) -> Array:
    """Returns the union of two figures with the crease rounded over a width k."""
    h = np.maximum(k - np.abs(a - b), 0) * (1 / k)
    return np.minimum(a, b) - h * h * (k * 0.25)


def smooth_max(a: Array, b: Array, k: float) -> Array:
    """Returns the intersection of two figures with the edge rounded over a width k."""
    return -smooth_min(-a, -b, k)


def bump(x: Array, y: Array, rx: float, ry: float) -> Array:
    """Returns a Gaussian hill of height 1 at the origin."""
    return np.exp(-((x * (1 / rx)) ** 2) - (y * (1 / ry)) ** 2)


def line(offset: Array, width: float) -> Array:
    """Returns a soft line: 1 where the offset is 0, falling as a Gaussian."""
    t = offset * (1 / width)
    return np.exp(-t * t)


def circle(x: Array, y: Array, cx: float, cy: float, r: float) -> Array:
    return length(x - cx, y - cy) - r


def ellipse(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """Returns the distance to an axis-aligned ellipse. It is exact on the edge, and to first order beside it."""
    u, v = (x - cx) * (1 / rx), (y - cy) * (1 / ry)
    k0 = np.sqrt(u * u + v * v)
    k1 = length(u * (1 / rx), v * (1 / ry)) + 1e-6
    return k0 * (k0 - 1) / k1


def box(x: Array, y: Array, cx: float, cy: float, hx: float, hy: float, r: float = 0.0) -> Array:
    """Returns the box of half sides hx, hy whose corners are rounded with radius r."""
    qx, qy = np.abs(x - cx) - (hx - r), np.abs(y - cy) - (hy - r)
    return length(np.maximum(qx, 0), np.maximum(qy, 0)) + np.minimum(np.maximum(qx, qy), 0) - r


def capsule(x: Array, y: Array, a: Sequence[float], b: Sequence[float], ra: float, rb: float | None = None) -> Array:
    """Returns the thick segment from a to b whose radius runs from ra to rb."""
    rb = ra if rb is None else rb
    px, py, bx, by = x - a[0], y - a[1], b[0] - a[0], b[1] - a[1]
    t = np.clip((px * bx + py * by) * (1 / (bx * bx + by * by + 1e-9)), 0, 1)
    return length(px - t * bx, py - t * by) - (ra + (rb - ra) * t)


def polygon(x: Array, y: Array, points: Sequence[Sequence[float]]) -> Array:
    """Returns the exact distance to a simple polygon."""
    points = [(float(px), float(py)) for px, py in points]
    squared, sign = None, 1.0
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        ex, ey = bx - ax, by - ay
        px, py = x - ax, y - ay
        t = np.clip((px * ex + py * ey) * (1 / (ex * ex + ey * ey + 1e-12)), 0, 1)
        part = (px - t * ex) ** 2 + (py - t * ey) ** 2
        squared = part if squared is None else np.minimum(squared, part)
        crosses = ((y >= ay) != (y >= by)) & ((px * ey < py * ex) == (by > ay))
        sign = sign * np.where(crosses, np.float32(-1), np.float32(1))
    return sign * np.sqrt(squared)


def stroke(x: Array, y: Array, points: Sequence[Sequence[float]], radii: Sequence[float]) -> tuple[Array, Array]:
    """Returns a polyline of changing thickness.

    Returns:
        distance, signed offset across the line.
    """
    best = across = None
    for (a, ra), (b, rb) in pairwise(zip(points, radii, strict=True)):
        px, py, ex, ey = x - a[0], y - a[1], b[0] - a[0], b[1] - a[1]
        square = ex * ex + ey * ey + 1e-12
        t = np.clip((px * ex + py * ey) * (1 / square), 0, 1)
        d = length(px - t * ex, py - t * ey) - (ra + (rb - ra) * t)
        offset = (px * ey - py * ex) * square**-0.5
        if best is None:
            best, across = d, offset
        else:
            across = np.where(d < best, offset, across)
            best = np.minimum(d, best)
    return best, across


def bezier(points: Sequence[Sequence[float]], count: int) -> list[tuple[float, float]]:
    """Returns `count` points on the Bézier curve of the control points."""
    t = np.linspace(0, 1, count)[:, None]
    curve = [np.asarray(p, dtype=np.float64)[None] for p in points]
    while len(curve) > 1:
        curve = [a + (b - a) * t for a, b in pairwise(curve)]
    return [(float(px), float(py)) for px, py in curve[0]]


def profile(values: Array, knots: Sequence[float], heights: Sequence[float]) -> Array:
    """Returns a smooth curve through (knots, heights), monotone between neighbouring knots.

    It is constant outside the knots.
    """
    knots, heights = np.asarray(knots, dtype=np.float32), np.asarray(heights, dtype=np.float32)
    flat = np.clip(values, knots[0], knots[-1])
    i = np.clip(np.searchsorted(knots, flat, side="right") - 1, 0, len(knots) - 2)
    steps = np.diff(knots)
    secant = np.diff(heights) / steps
    # Harmonic means of neighbouring slopes: no overshoot (Fritsch & Butland 1984).
    slopes = np.zeros_like(heights)
    product = secant[:-1] * secant[1:]
    slopes[1:-1] = np.where(product > 0, 2 * product / (secant[:-1] + secant[1:] + 1e-12), 0)
    h = steps[i]
    t = (flat - knots[i]) / h
    a, b = heights[i], heights[i + 1]
    return a + (b - a) * t * t * (3 - 2 * t) + h * t * (1 - t) * ((1 - t) * slopes[i] - t * slopes[i + 1])


def waves(s: Array, phases: Sequence[float], octaves: Sequence[float] = (1.0, 2.3, 5.1)) -> Array:
    """Returns irregular waves in [-1, 1] along one coordinate. Waves that are too fine for the grid fade out.

    Args:
        s: [H, W]. One unit is about one strand.
        phases: at least one number in [0, 1) per octave.
        octaves: frequencies in waves per unit.
    """
    step = slope_per_pixel(s) if s.ndim == 2 and min(s.shape) > 2 else 0.0
    total, weight = 0.0, 0.0
    for i, f in enumerate(octaves):
        turn = 2 * np.pi * phases[i % len(phases)]
        amount = 0.75**i
        wave = np.sin(6.2832 * f * s + (turn + 1.3 * np.sin(2.39 * f * s + 2 * turn)))
        total = total + wave * (amount / (1 + (3.0 * f * step) ** 4))
        weight += amount
    return total * (1 / weight)


def clouds(x: Array, y: Array, phases: Sequence[float], octaves: int = 3) -> Array:
    """Returns soft two-dimensional noise, about [-1, 1]. One unit is about one cloud."""
    total, f, amount = 0.0, 3.0, 0.6
    for i in range(octaves):
        a, b = 6.2832 * phases[2 * i % len(phases)], 6.2832 * phases[(2 * i + 1) % len(phases)]
        c = 0.8 + i
        u, v = x * float(np.cos(c)) + y * float(np.sin(c)), y * float(np.cos(c)) - x * float(np.sin(c))
        total = total + amount * np.sin(f * u + a + np.sin(f * 0.7 * v + b)) * np.cos(f * v + b)
        f, amount = f * 2.07, amount * 0.6
    return total
