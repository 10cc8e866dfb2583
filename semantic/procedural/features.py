"""Eyes, eyebrows, nose and mouth."""

import numpy as np

from semantic.procedural.draw import Window, facing, unit
from semantic.procedural.face import mix
from semantic.procedural.head import BLEED, EYE, EYEBROW, MOUTH, NOSE, HeadSurface, Sitter
from semantic.procedural.sdf import (
    bump,
    capsule,
    circle,
    coverage,
    length,
    line,
    profile,
    smooth_max,
    smooth_min,
    smoothstep,
    waves,
)
from semantic.procedural.space import Plane

DARK = (0.05, 0.035, 0.035)


def draw_eye(s: Sitter, head: HeadSurface, side: int) -> None:
    """Draw one eye: lids, white, iris, pupil, highlights and lashes. Side +1 is on the right of the picture."""
    f = s.face
    plane = Plane(s.pose, (side * f.eye_gap, 0.0, 0.36), yaw=0.26 * side, mirror=side < 0)
    if plane.facing < 0.15:
        return
    width, height = f.eye_width, f.eye_height
    w = plane.window(s.canvas, -1.7 * width, -0.13, 1.8 * width, 0.09)
    u, v = plane.local(w.x, w.y)
    v = v + f.eye_tilt * u
    t = u * (1 / width)
    arch = 1 - t * t
    upper = -height * arch * (1 - 0.22 * t)
    lower = height * f.eye_lower * arch * (1 + 0.25 * t)
    inside = head.on(w)
    opening = coverage(smooth_max(upper - v, v - lower, 0.004)) * inside
    _draw_lids(s, w, (t, v, upper, lower), inside)

    under_lid = np.exp(-(((v - upper) * (1 / (0.35 * height))) ** 2))
    ball = np.clip(t * 0.8, -1, 1)
    toward = plane.u[0] * s.light.key[0]
    white = (1 - 0.45 * under_lid) * (1 - 0.28 * ball * ball) * (0.82 + 0.2 * ball * toward)
    light = np.float32(
        [0.62 * k + 0.5 * sky + 0.16 for k, sky in zip(s.light.key_color, s.light.sky_color, strict=True)]
    )
    s.canvas.paint(w, opening, white[..., None] * (light * np.float32((0.97, 0.955, 0.95))), EYE)

    # Both eyes look the same way, and a little back towards the viewer when the head is turned.
    r = 0.82 * min(max(height, 0.046), 0.060) + 0.004
    look = min(max((0.03 * f.gaze[0] - 0.02 * s.pose.yaw) * side, -0.035), 0.035)
    du, dv = u - look, v - (0.02 * f.gaze[1] - 0.10 * height)
    rho = length(du, dv)
    spokes = 1 + 0.10 * np.sin(np.arctan2(dv, du) * 17 + 6 * f.phases[3]) * smoothstep(0.3 * r, 0.8 * r, rho)
    glow = (0.55 + 0.85 * smoothstep(-0.6 * r, r, dv)) * spokes * (1 - 0.60 * smoothstep(0.72 * r, r, rho))
    glow *= 1 - 0.50 * under_lid
    s.canvas.paint(w, coverage(rho - r) * opening, glow[..., None] * np.float32(f.iris) * np.float32(1.15))
    s.canvas.paint(w, coverage(rho - 0.45 * r) * opening, (0.02, 0.018, 0.02))
    mirrored = s.light.key[0] * (-1 if side < 0 else 1)
    s.canvas.paint(w, coverage(circle(du, dv, 0.58 * r * mirrored, -0.40 * r, 0.26 * r)) * opening * 0.95, (1, 1, 1))
    s.canvas.paint(w, coverage(circle(du, dv, -0.40 * r * mirrored, 0.42 * r, 0.13 * r)) * opening * 0.55, (1, 1, 1))

    thick = 0.006 + 0.007 * (1 - f.structure) + 0.006 * f.makeup
    thick = thick * profile(t, [-1.15, -0.6, 0.3, 1.0, 1.3], [0.15, 0.7, 1.0, 1.05, 0.15])
    wing = np.maximum(t - 1, 0) * (0.055 * (0.2 + 0.3 * (1 - f.structure) + f.makeup))
    lash = np.abs(v - np.where(np.abs(t) > 1, 0, upper) + 0.35 * thick + wing) - 0.75 * thick
    reach = 1.08 + 0.14 * f.makeup + 0.05 * (1 - f.structure)
    lash = coverage(np.maximum(lash, np.abs(t - 0.06) - reach)) * inside
    tone = mix(DARK, f.hair_color, 0.15)
    s.canvas.paint(w, lash * 0.95, tone)
    rim = line(v - lower, 0.0045) * smoothstep(1.05, 0.85, np.abs(t)) * inside
    s.canvas.paint(w, rim * (0.28 + 0.3 * f.makeup), mix(tone, f.skin, 0.35))
    s.canvas.mask[w.rows, w.cols][np.maximum(lash, opening) > 0.5] = EYE


def _draw_lids(s: Sitter, w: Window, place: tuple, inside: np.ndarray) -> None:
    """Draw the fold over the eye, eye shadow, and the bag below."""
    f = s.face
    t, v, upper, lower = place
    at = np.abs(t)
    high = 0.016 + 0.016 * f.lid
    fold = line(v - upper + high, 0.008) * smoothstep(1.25, 0.7, at)
    bag = line(v - lower - 0.022, 0.010) * smoothstep(1.1, 0.5, at)
    s.canvas.darken(w, inside * (0.30 * fold + 0.12 * bag * (0.3 + f.age)), (0.8, 1.0, 1.0))
    if f.makeup > 0:
        lid = smoothstep(high * 1.3, 0.0, upper - v) * smoothstep(-0.002, 0.002, upper - v) * smoothstep(1.2, 0.8, at)
        s.canvas.paint(w, inside * lid * 0.5 * f.makeup, mix(f.lip_color, (0.25, 0.12, 0.16), 0.55))


def draw_eyebrow(s: Sitter, head: HeadSurface, side: int) -> None:
    """Draw one eyebrow of short hairs, arched, and thinner outwards."""
    f = s.face
    plane = Plane(s.pose, (side * 0.19, -f.brow_height, 0.36), yaw=0.36 * side, pitch=-0.25, mirror=side < 0)
    if plane.facing < 0.1:
        return
    w = plane.window(s.canvas, -0.17, -0.09, 0.18, 0.08)
    u, v = plane.local(w.x, w.y)
    t = (u + 0.105) * (1 / 0.225)
    lift = -f.brow_arch * (np.sin(0.7 + 2.2 * np.clip(t, 0, 1)) - 0.55)
    v = v - lift + 0.5 * f.brow_tilt * u + 0.006 * f.smile
    half = f.brow_thickness * profile(t, [-0.05, 0.12, 0.45, 0.75, 1.02], [0.75, 1.15, 1.10, 0.75, 0.10])
    ends = np.maximum(3 * v - t - 0.04, t - 1.03) * 0.225
    alpha = coverage(np.maximum(np.abs(v) - half, ends)) * head.on(w)
    hairs = 1 + 0.25 * waves(u * 34 + v * 40, f.noise(5), (1.0, 2.1))
    one = np.ones_like(u)
    color = s.light.shade(mix(f.hair_color, (0.16, 0.11, 0.09), 0.45), (0.3 * side * one, -0.3 * one, 0.9 * one))
    s.canvas.paint(w, alpha * 0.92, color * hairs[..., None], EYEBROW)


def draw_nose(s: Sitter, head: HeadSurface) -> None:
    """Draw the nose from between the eyes to its tip: skin with wings and nostrils."""
    f, canvas, pose = s.face, s.canvas, s.pose
    k, base, high, low, half = pose.scale, 0.385, f.nose_height, f.nose_length, f.nose_width
    root, bridge = pose.xy((0, -0.035, base - 0.005)), pose.xy((0, 0.06, base + 0.35 * high))
    tip, under = pose.xy((0, low - 0.012, base + high)), pose.xy((0, low + 0.022, base + 0.35 * high))
    wings = [pose.xy((side * half * 0.72, low, base + 0.02)) for side in (-1, 1)]
    xs, ys = zip(root, bridge, tip, under, *wings, strict=True)
    w = canvas.window(min(xs) - 0.12, min(ys) - 0.08, max(xs) + 0.12, max(ys) + 0.12)
    x, y = w.x, w.y
    ridge = smooth_min(
        capsule(x, y, root, bridge, 0.036 * k, 0.034 * k), capsule(x, y, bridge, tip, 0.034 * k, 0.040 * k), 0.05
    )
    lobes = [circle(x, y, *p, 0.034 * k) for p in wings]
    d = smooth_min(smooth_min(ridge, circle(x, y, *tip, 0.050 * k), 0.04), smooth_min(*lobes, 0.06), 0.075)
    d = smooth_min(d, circle(x, y, *under, 0.036 * k), 0.04)
    inside = head.on(w)
    alpha = coverage(d) * inside

    # The normal turns from the front to the sides across the ridge, and downwards under the tip.
    dx, dy = tip[0] - root[0], tip[1] - root[1]
    along = ((x - root[0]) * dx + (y - root[1]) * dy) * (1 / (dx * dx + dy * dy))
    down = np.clip(along, 0, 1)
    off_ridge = x - root[0] - down * dx
    turn = np.clip(off_ridge / ((0.030 + 0.055 * smoothstep(0.55, 1.0, down)) * k), -1.2, 1.2)
    front = pose.direction((0, 0, 1))
    below = smoothstep(0.97, 1.22, along)
    nx = front[0] * 0.6 + turn * 0.66 * smoothstep(-0.15, 0.45, along)
    ny = front[1] * 0.6 + 0.10 - 0.45 * smoothstep(0.5, 0.9, along) + 1.15 * below
    normal = unit(*facing(nx, ny))
    crease = sum(line(lobe - 0.004, 0.012) for lobe in lobes) * smoothstep(0.78, 1.0, along)
    crease = crease * smoothstep(-0.055 * k, -0.02 * k, d)
    skin = mix(f.skin, (f.skin[0] * 1.02, f.skin[1] * 0.78, f.skin[2] * 0.78), 0.25 + 0.25 * f.blush)
    occlusion = 1 - 0.28 * crease - 0.20 * below
    color = s.light.shade(skin, normal, occlusion, BLEED, wrap=0.30)
    lean = s.light.key[0]
    gleam = 0.20 * bump(x - tip[0] - 0.018 * lean, y - tip[1] + 0.018, 0.020 * k, 0.018 * k)
    gleam = gleam + 0.10 * line(off_ridge - 0.008 * lean, 0.011) * smoothstep(0.1, 0.35, along) * smoothstep(
        1.0, 0.8, along
    )
    color += gleam[..., None] * np.float32(s.light.key_color)

    # The shadow beside the nose, away from the light.
    away = np.clip(0.1 - (x - tip[0]) * lean * 14 + (y - tip[1]) * 6, 0, 1)
    cast = np.exp(-np.maximum(d, 0) * 40) * away * (d > 0) * smoothstep(0.3, 0.8, along)
    canvas.darken(w, 0.22 * cast * inside, (0.75, 1, 1))
    # The root melts into the brow.
    soft = np.clip(0.5 - d * 45, 0, 1) * smoothstep(-0.25, 0.25, along)
    canvas.paint(w, alpha * np.maximum(soft, smoothstep(0.5, 0.9, along)), color)
    for side in (-1, 1):
        px, py = pose.xy((side * half * 0.42, low + 0.022, base + 0.30 * high))
        hole = capsule(x, y, (px - 0.012 * side * k, py - 0.002), (px + 0.014 * side * k, py + 0.004), 0.010 * k)
        canvas.paint(w, coverage(hole) * 0.62 * alpha, mix((0.16, 0.05, 0.04), f.skin, 0.15))
    canvas.mask[w.rows, w.cols][alpha > 0.5] = NOSE


def draw_mouth(s: Sitter, head: HeadSurface) -> None:
    """Draw the lips, and the teeth between the lips of an open mouth."""
    f, canvas = s.face, s.canvas
    plane = Plane(s.pose, (0, 0.305 + 0.3 * f.chin, 0.385), pitch=0.05)
    half = f.mouth_width * (1 + 0.12 * max(f.smile, 0))
    w = plane.window(canvas, -1.3 * half, -0.10, 1.3 * half, 0.16)
    u, v = plane.local(w.x, w.y)
    t = u * (1 / half)
    v = v + (0.046 * f.smile + 0.012) * t * t - 0.012 * f.smile
    arch = np.clip(1 - t * t, 0, 1)
    at = np.abs(t)
    bow = 1 - 0.22 * np.exp(-((t * (1 / 0.16)) ** 2)) - 0.30 * at * np.sqrt(at)
    gape = 0.075 * f.gape
    middle = 0.004 * np.exp(-((t * 5) ** 2))
    inner_top, inner_low = middle - 0.25 * gape * arch, middle + 0.75 * gape * arch
    top = inner_top - middle - 1.2 * f.upper_lip * bow * np.sqrt(arch)
    low = inner_low - middle + 1.15 * f.lower_lip * np.sqrt(arch) * (0.4 + 0.6 * arch)
    inside = head.on(w)
    alpha = coverage(np.maximum(np.maximum(top - v, v - low), (at - 1) * half)) * inside
    canvas.darken(w, 0.16 * bump(u, v - low - 0.018, 0.7 * half, 0.016) * inside, (0.7, 1, 1))
    corners = bump(np.abs(u) - half * 1.04, v, 0.014, 0.012)
    canvas.darken(w, 0.30 * corners * inside, (0.8, 1, 1))

    parting = v - 0.5 * (inner_top + inner_low)
    is_low = parting > 0
    place = np.where(is_low, (v - inner_low) / (low - inner_low + 1e-4), (v - inner_top) / (inner_top - top + 1e-4))
    place = np.clip(place, -1, 1)
    front = s.pose.direction((0, 0, 1))
    ny = front[1] + np.where(is_low, place - 0.45, 0.35 - 0.1 * place)
    nx = front[0] * 0.8 + 0.45 * t
    rouge = tuple(c * (0.38 + 0.62 * skin) for c, skin in zip(f.lip_color, f.skin, strict=True))
    grain = (1 - 0.025 * np.sin(u * 330)) * (0.86 + 0.14 * is_low)
    albedo = np.float32(mix(f.skin, rouge, f.lip_strength)) * grain[..., None].astype(np.float32)
    closed = 0.70 * line(parting, 0.007) if gape < 0.012 else 0.0
    color = s.light.shade(albedo, facing(nx, ny, 0.1), 1 - closed, (0.06, 0.0, 0.0), wrap=0.3)
    shine = bump(t - 0.25 * s.light.key[0], v - inner_low - 0.40 * (low - inner_low), 0.33, 0.009)
    color += (shine * is_low * (0.18 + 0.25 * f.makeup))[..., None]
    canvas.paint(w, alpha, color, MOUTH)
    if gape >= 0.012:
        hollow = coverage(np.maximum(inner_top - v, v - inner_low)) * alpha
        _draw_teeth(s, w, (u, v, half), (inner_top, inner_low), hollow)


def _draw_teeth(s: Sitter, w: Window, place: tuple, inner: tuple, hollow: np.ndarray) -> None:
    """Draw upper teeth and tongue in the open mouth."""
    (u, v, half), (top, low) = place, inner
    t = u * (1 / half)
    s.canvas.paint(w, hollow, (0.20, 0.05, 0.055))
    end = top + np.minimum(0.034, 0.62 * (low - top))
    tongue = 1 - (u * (1 / (0.55 * half))) ** 2 - ((v - low) * (1 / (0.026 * s.face.gape + 0.01))) ** 2
    s.canvas.paint(w, coverage(-0.03 * tongue) * hollow, (0.62, 0.25, 0.26))
    gaps = 1 - 0.10 * np.exp(-((np.sin(t * 11) * 6) ** 2))
    shade = (0.95 - 0.40 * t * t) * gaps * (1 - 0.35 * line(v - top, 0.008))
    teeth = coverage(np.maximum(v - end, (np.abs(t) - 0.86) * half)) * hollow
    s.canvas.paint(w, teeth, shade[..., None] * np.float32((0.97, 0.95, 0.92)))
