"""Hair that falls: behind the neck, beside the face, and as a tail."""

import numpy as np

from semantic.procedural.draw import facing
from semantic.procedural.hair import Hair, cast_shadow, draw_curls, strands
from semantic.procedural.head import BODY, HAIR
from semantic.procedural.sdf import bezier, coverage, profile, smoothstep, stroke, waves
from semantic.procedural.space import Ellipsoid, Pose, Solid

FLARE = {"bob": (1.06, 0.98), "long": (1.02, 1.05), "wavy": (1.12, 1.2)}  # width at the chin and at the ends


def draw_back(h: Hair) -> None:
    """Draw the hair behind the head, neck and shoulders."""
    if h.style.curls:
        draw_curls(h, _cloud(h), behind=True)
    elif h.style.ends:
        _draw_fall(h)
    elif h.s.face.hair == "ponytail":
        _draw_tail(h)


def draw_sides(h: Hair) -> None:
    """Draw the locks beside the face, over ears and shoulders. The far lock comes first."""
    if h.style.locks:
        for side in (-h.s.near, h.s.near):
            _draw_lock(h, side)


def _cloud(h: Hair) -> Solid:
    """Returns the round mass of curls behind the head. It is longer at the sides unless it is an afro."""
    f, pose, t = h.s.face, h.s.pose, h.thick
    low = 0.0 if f.hair == "afro" else 0.12 * f.length
    parts = [((0, -0.16 - 0.15 * t + low, -0.14), (0.43 * f.width + t, 0.45 + 0.85 * t + low, 0.50 + 0.6 * t))]
    if f.hair != "afro":
        parts += [((x, 0.16 + 2 * low, -0.10), (0.15 + 0.5 * t, 0.24 + low, 0.2)) for x in (-0.36, 0.36)]
    return Solid([Ellipsoid(pose, c, r) for c, r in parts], blend=0.08)


def _ends(h: Hair) -> float:
    low, high = h.style.ends
    return low + (high - low) * h.s.face.length


def _draw_fall(h: Hair) -> None:
    s, f, end = h.s, h.s.face, _ends(h)
    top, foot = s.pose.xy((0, -0.2, -0.1)), s.pose.xy(Pose.PIVOT)
    w = s.canvas.window(-1, top[1] - 0.1, 1, end + 0.1)
    middle = profile(w.y, [top[1], foot[1], 1.2], [top[0], 0.5 * (foot[0] + top[0]), foot[0]])
    chin, tips = FLARE[f.hair]
    half = profile(w.y, [top[1], 0.15, 0.5, 1.0], [0.82, 0.94, 0.94 * chin, tips]) * (
        s.pose.scale * (0.43 * f.width + h.thick)
    )
    x = w.x - middle
    wave = h.style.wave * 0.035 * np.sin(w.y * 11 + 6 * f.phases[30]) * smoothstep(-0.1, 0.4, w.y)
    across = (x + wave * np.sign(x)) * (1 / half)
    ragged = 0.05 * waves(across * 5, f.noise(31), (1.0, 2.3)) + 0.10 * across * across
    d = np.maximum((np.abs(across) - 1) * half, w.y - end + ragged)
    normal = facing(np.clip(across, -1, 1) * 0.8, -0.05)
    # The neck and the face throw a shadow on the hair behind.
    color = strands(h, across * 11, normal, 1 - 0.60 * smoothstep(0.95, 0.35, np.abs(across)))
    s.canvas.paint(w, coverage(d), color, HAIR)


def _draw_tail(h: Hair) -> None:
    s, f, side = h.s, h.s.face, h.s.near
    x, y = s.pose.xy((0.10 * side, -0.30, -0.55))
    curve = [
        (x, y),
        (x + 0.50 * side, y - 0.14),
        (x + 0.38 * side, y + 0.66),
        (x + 0.28 * side, 0.78 + 0.25 * f.length),
    ]
    points = bezier(curve, 12)
    radii = [0.06, 0.10, 0.12, 0.125, 0.125, 0.12, 0.11, 0.10, 0.085, 0.065, 0.04, 0.01]
    xs, ys = zip(*points, strict=True)
    w = s.canvas.window(min(xs) - 0.15, min(ys) - 0.15, max(xs) + 0.15, max(ys) + 0.1)
    d, across = stroke(w.x, w.y, points, radii)
    normal = facing(np.clip(across * 8, -0.9, 0.9), -0.2)
    s.canvas.paint(w, coverage(d), strands(h, across * 34, normal), HAIR)


def _draw_lock(h: Hair, side: int) -> None:
    """Draw the lock of one side: the span between an inner and an outer edge at every height."""
    s, f, pose, end = h.s, h.s.face, h.s.pose, min(_ends(h), 1.3)
    heights = (-0.34, -0.12, 0.08, 0.30, 0.50)
    inner = ((0.335, 0.16), (0.375, 0.12), (0.40, 0.06), (0.39, 0.04), (0.37, 0.02))
    if f.tucked and pose.yaw * side < 0.05:  # behind a visible ear
        inner = ((0.37, 0.05), (0.41, -0.05), (0.43, -0.16), (0.42, -0.14), (0.38, -0.05))
    rim = [0.43 * f.width + h.thick + grow for grow in (-0.05, 0.01, 0.02, 0.02, 0.02)]
    points = [pose.xy((side * f.width * x, y, z)) for (x, z), y in zip(inner, heights, strict=True)]
    lows, ys = [p[0] * side for p in points], [p[1] for p in points]
    highs = [
        max(pose.xy((side * x, y, -0.12))[0] * side, low + 0.03) for x, y, low in zip(rim, heights, lows, strict=True)
    ]
    # Below the chin hair hangs straight down, whatever the head does.
    foot = side * pose.xy(Pose.PIVOT)[0]
    near, far = (foot + x * pose.scale / BODY for x in h.style.locks)
    ys += [ys[-1] + 0.22, 1.2]
    lows += [0.5 * (lows[-1] + near), near - 0.02]
    highs += [0.5 * (highs[-1] + far), far + 0.02]

    x0, x1 = sorted((side * (min(lows) - 0.1), side * (max(highs) + 0.1)))
    w = s.canvas.window(x0, ys[0] - 0.05, x1, end + 0.06)
    wave = 0.030 * np.sin(w.y * 12 + 6 * f.phases[30] + side) + 0.012 * np.sin(w.y * 23 + side)
    x = w.x * side - h.style.wave * wave * smoothstep(-0.2, 0.3, w.y)
    low, high = profile(w.y, ys, lows), profile(w.y, ys, highs)
    across = (x - low) / np.maximum(high - low, 0.03)
    narrow = 0.0 if f.hair == "bob" else smoothstep(0.25, 0.0, end - w.y)
    ragged = 0.04 * waves(across * 2.2 + side, f.noise(36), (1.0, 2.3))
    d = np.maximum(low + 0.06 * narrow - x, x - high + 0.09 * narrow)
    d = np.maximum(d, np.maximum(ys[0] - w.y, w.y - end + ragged))
    # At the top the lock grows out of the cap.
    free = smoothstep(pose.xy((0, -0.10, 0))[1], pose.xy((0, 0.12, 0))[1], w.y)
    d = np.maximum(d, h.cap.distance(w.x, w.y) - 3 * free)
    grown = smoothstep(ys[0], ys[0] + 0.24, w.y)
    normal = facing(np.clip((across - 0.45) * 1.35, -0.83, 0.83) * side, -0.12)
    color = strands(h, across * 4.2 + 0.8 * side, normal, 1 - 0.35 * smoothstep(0.25, -0.05, across))
    cast_shadow(h, w, d + 0.1 * (1 - grown))
    alpha = coverage(d)
    s.canvas.paint(w, alpha * grown, color)
    s.canvas.paint(w, alpha * (grown > 0.5), color, HAIR)
