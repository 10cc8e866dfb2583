"""Glasses and earrings."""

import numpy as np

from semantic.procedural.draw import facing
from semantic.procedural.head import EARRING, GLASSES, Sitter, ear_plane
from semantic.procedural.sdf import box, capsule, circle, coverage, ellipse, length, line, smooth_min, smoothstep
from semantic.procedural.space import Plane

Array = np.ndarray


def _lens(kind: str, u: Array, v: Array, k: float) -> Array:
    """Returns the outline of one lens of size k around the origin. The coordinate u grows outwards."""
    if kind == "round":
        return circle(u, v, 0, 0, 0.118 * k)
    if kind == "square":
        return box(u, v, 0, 0, 0.128 * k, 0.092 * k, 0.035)
    if kind == "cat":
        lifted = v + 0.34 * np.maximum(u, 0) * smoothstep(0.03, -0.05, v)
        return box(u, lifted, 0, 0, 0.130 * k, 0.076 * k, 0.055)
    upper = ellipse(u, v, 0.0, -0.01, 0.125 * k, 0.085 * k)
    return smooth_min(upper, ellipse(u, v, 0.012, 0.045, 0.095 * k, 0.075 * k), 0.06)


def draw_temples(s: Sitter) -> None:
    """Draw the arms of the glasses, from the frame to the ears. Hair may cover the arms."""
    f = s.face
    if f.glasses == "none":
        return
    for side in (-1, 1):
        if s.pose.yaw * side > 0.12:
            continue
        (ax, ay), (bx, by) = (
            s.pose.xy((side * (f.eye_gap + 0.125), -0.03, 0.40)),
            s.pose.xy((side * 0.43 * f.width, -0.03, -0.04)),
        )
        w = s.canvas.window(min(ax, bx) - 0.03, min(ay, by) - 0.03, max(ax, bx) + 0.03, max(ay, by) + 0.03)
        s.canvas.paint(w, coverage(capsule(w.x, w.y, (ax, ay), (bx, by), 0.011)), f.frame_color, GLASSES)


def draw_glasses(s: Sitter) -> None:
    """Draw frame and lenses. The mask has both. The picture shows the eyes through the lenses."""
    f, canvas = s.face, s.canvas
    if f.glasses == "none":
        return
    plane = Plane(s.pose, (0, 0.012, 0.475))
    w = plane.window(canvas, -0.42, -0.2, 0.42, 0.22)
    u, v = plane.local(w.x, w.y)
    k = f.glasses_size
    gap = max(f.eye_gap, 0.128 * k + 0.022)
    out = np.abs(u) - gap
    lens = _lens(f.glasses, out, v, k)
    rim = 0.008 if f.glasses == "aviator" or f.frame_color[0] > 0.6 else 0.015
    bridge = np.maximum(np.abs(v + 0.030 - 1.2 * u * u) - rim * 0.9, out)
    if f.glasses == "aviator":
        bridge = np.minimum(bridge, np.maximum(np.abs(v + 0.075) - rim, out))
    whole = np.minimum(lens - rim, np.maximum(bridge, -lens))
    frame = np.maximum(whole, -lens - rim * 0.4)
    shadow = np.exp(np.maximum(whole, 0) * (-1 / 0.018)) * np.clip(v * 5 + 0.5, 0, 1) * (whole > 0)
    canvas.darken(w, 0.16 * shadow)
    glass = coverage(lens)
    tint = f.lens_tint * (1.08 - 2.6 * np.clip(v + 0.05, 0, 0.12))
    canvas.paint(w, glass * tint, f.lens_color if f.lens_tint > 0.3 else (0.85, 0.92, 0.98))
    # The window's reflection lies aslant on both lenses.
    aslant = out - (0.5 if s.light.key[0] > 0 else -0.5) * v * np.sign(u) - 0.035
    streak = smoothstep(0.022, 0.0, np.abs(aslant)) * smoothstep(0.1, -0.08, v)
    canvas.paint(w, glass * streak * (0.16 + 0.14 * f.lens_tint), (1, 1, 1))
    n = np.clip(-v * 5, -0.7, 0.7)
    color = s.light.shade(f.frame_color, (0 * n, -0.5 * n - 0.1, np.sqrt(1 - 0.3 * n * n)))
    color += (0.28 * line(whole + 0.5 * rim, 0.5 * rim) * np.clip(0.3 - 6 * v, 0, 1))[..., None]
    canvas.paint(w, coverage(frame), color)
    canvas.mask[w.rows, w.cols][coverage(whole) > 0.5] = GLASSES


def draw_earring(s: Sitter, side: int) -> None:
    """Draw a stud, hoop or drop on the lobe of one ear."""
    f = s.face
    plane = ear_plane(s, side)
    if f.earrings == "none" or plane.u[0] * side < 0.02:
        return
    k = f.earring_size * s.pose.scale
    x, y = plane.point(0.020 * f.ear_size, 0.125 * f.ear_size)
    w = s.canvas.window(x - 0.12 * k, y - 0.06 * k, x + 0.12 * k, y + 0.25 * k)
    u, v = (w.x - x) * (1 / k), (w.y - y) * (1 / k)
    color = f.metal
    if f.earrings == "stud":
        d = circle(u, v, 0, 0, 0.030)
        round_x, round_y = u * 33, v * 33
    elif f.earrings == "hoop":
        wide = 0.55 + 0.45 * abs(s.pose.yaw)
        d = np.abs(length(u * (1 / wide), v - 0.075) - 0.075) - 0.013
        round_x, round_y = u * 10.7, (v - 0.075) * 10.7
    else:
        color = f.hat_second
        wire = np.minimum(circle(u, v, 0, 0, 0.018), capsule(u, v, (0, 0), (0, 0.06), 0.009))
        drop = smooth_min(circle(u, v, 0, 0.125, 0.036), capsule(u, v, (0, 0.05), (0, 0.12), 0.008, 0.028), 0.02)
        d = np.minimum(wire, drop)
        round_x, round_y = u * 25, (v - 0.12) * 22
    normal = facing(np.clip(round_x, -0.9, 0.9), np.clip(round_y, -0.9, 0.9))
    shaded = s.light.shade(color, normal, wrap=0.3)
    shaded += 0.9 * s.light.gloss(normal, 22)[..., None]
    s.canvas.darken(w, 0.3 * np.exp(np.maximum(d, 0) * (-1 / 0.012)) * (d > 0))
    s.canvas.paint(w, coverage(d), shaded, EARRING)
