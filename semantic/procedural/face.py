"""The choices and measures of one face. All are drawn at random before the face is painted."""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Color = tuple[float, float, float]

SKIN_TONES = (
    (0.975, 0.845, 0.765), (0.96, 0.785, 0.675), (0.92, 0.71, 0.57), (0.82, 0.60, 0.45), (0.68, 0.46, 0.32),
    (0.52, 0.33, 0.22), (0.38, 0.235, 0.16), (0.29, 0.175, 0.125),
)  # fmt: skip
DARK_HAIR = ((0.075, 0.065, 0.075), (0.14, 0.10, 0.085), (0.23, 0.145, 0.10))
GREY_HAIR = (0.80, 0.80, 0.80)
HAIR_COLORS = {
    (0.075, 0.065, 0.075): 16, (0.14, 0.10, 0.085): 15, (0.23, 0.145, 0.10): 13, (0.36, 0.215, 0.13): 11,
    (0.45, 0.20, 0.11): 6, (0.72, 0.34, 0.13): 6, (0.58, 0.41, 0.23): 8, (0.80, 0.62, 0.34): 9,
    (0.93, 0.82, 0.60): 5, (0.52, 0.51, 0.52): 3, (0.86, 0.85, 0.84): 2, (0.92, 0.42, 0.60): 2.2,
    (0.22, 0.38, 0.78): 1.6, (0.12, 0.58, 0.60): 1.4, (0.48, 0.28, 0.70): 1.5, (0.35, 0.62, 0.32): 0.8,
    (0.72, 0.10, 0.14): 1.5,
}  # fmt: skip
IRIS_COLORS = {
    (0.20, 0.12, 0.07): 24, (0.33, 0.20, 0.10): 22, (0.45, 0.29, 0.12): 14, (0.45, 0.42, 0.18): 10,
    (0.26, 0.46, 0.28): 9, (0.22, 0.45, 0.66): 10, (0.42, 0.60, 0.76): 7, (0.45, 0.50, 0.55): 4,
}  # fmt: skip
LIP_COLORS = {(0.80, 0.30, 0.32): 5, (0.75, 0.16, 0.22): 2, (0.85, 0.38, 0.45): 3, (0.5, 0.12, 0.2): 1}
FRAME_COLORS = {
    (0.06, 0.06, 0.07): 6, (0.30, 0.17, 0.09): 3, (0.80, 0.62, 0.30): 2, (0.70, 0.72, 0.76): 2,
    (0.55, 0.10, 0.14): 1, (0.12, 0.22, 0.45): 1,
}  # fmt: skip
LENS_COLORS = {(0.08, 0.09, 0.11): 3, (0.30, 0.18, 0.10): 2, (0.15, 0.25, 0.45): 1, (0.6, 0.25, 0.4): 1}
METALS = {(0.95, 0.76, 0.36): 5, (0.82, 0.84, 0.88): 4, (0.90, 0.60, 0.50): 2}

HAIR_STYLES = {
    "bald": 3, "buzz": 7, "short": 16, "quiff": 10, "bob": 12, "long": 14, "wavy": 13, "curly": 9, "afro": 7,
    "bun": 7, "ponytail": 6,
}  # fmt: skip
FRINGES = {"none": 8, "straight": 4, "side": 5, "curtain": 4}
BEARDS = {"none": 55, "stubble": 18, "moustache": 6, "goatee": 8, "full": 13}
GLASSES = {"none": 74, "round": 9, "square": 8, "cat": 4, "aviator": 5}
HATS = {"none": 80, "beanie": 8, "cap": 6, "brim": 6}
EARRINGS = {"none": 62, "stud": 12, "hoop": 13, "drop": 13}
CLOTHES = {"crew": 9, "vneck": 6, "collar": 6, "hoodie": 6, "turtleneck": 4}
BACKDROPS = {"gradient": 5, "bokeh": 5, "wall": 3}


@dataclass(frozen=True)
class FaceParameters:
    """All of a face. Lengths are in the picture's unit (half its side), angles in radians, colours RGB in 0..1."""

    phases: tuple[float, ...]  # of all noise, in 0..1
    structure: float  # 0 soft .. 1 angular features
    age: float  # 0 young .. 1 old
    yaw: float
    pitch: float
    roll: float
    scale: float
    shift: tuple[float, float]
    width: float
    jaw: float
    chin: float
    cheeks: float
    ear_size: float
    skin: Color
    blush: float
    freckles: float
    beard: str
    eye_width: float
    eye_height: float
    eye_tilt: float
    eye_gap: float
    eye_lower: float  # height of the lower lid's arc, as a share of the upper's
    lid: float
    iris: Color
    gaze: tuple[float, float]
    makeup: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    nose_height: float
    mouth_width: float
    smile: float  # -0.1 .. 1
    gape: float  # 0 closed .. 1 open
    upper_lip: float
    lower_lip: float
    lip_color: Color
    lip_strength: float
    hair: str
    fringe: str
    parting: float  # -1 left .. 1 right
    volume: float
    length: float
    curl: float
    tucked: bool  # long hair behind the ears
    hair_color: Color
    glasses: str
    frame_color: Color
    lens_color: Color
    lens_tint: float
    glasses_size: float
    hat: str
    hat_color: Color
    hat_second: Color
    earrings: str
    metal: Color
    earring_size: float
    clothes: str
    cloth_color: Color
    cloth_second: Color
    stripes: bool
    shoulders: float
    backdrop: str
    back_color: Color
    back_second: Color
    light_side: float  # < 0 from the left
    light_height: float
    warmth: float
    contrast: float
    rim_color: Color

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "FaceParameters":
        """Returns a random face. The number of random draws is always the same."""
        d = _Draws(rng)
        structure, age, tone = d.uniform(0, 1), d.uniform(0, 1) ** 1.6, d.uniform(0, 1) ** 1.15
        return cls(
            phases=tuple(rng.random(48).tolist()),
            structure=structure,
            age=age,
            **_head(d, structure, tone),
            **_features(d, structure, age),
            **_hair_and_hat(d, structure, age, tone),
            **_jewels(d),
            **_surroundings(d, structure),
        )

    def noise(self, start: int, count: int = 6) -> tuple[float, ...]:
        """Returns `count` of the phases, from index `start`."""
        return tuple(self.phases[(start + i) % len(self.phases)] for i in range(count))


def mix(a: Color, b: Color, t: float) -> Color:
    """Returns the colour a share t of the way from a to b."""
    return tuple(x + (y - x) * t for x, y in zip(a, b, strict=True))


class _Draws:
    """Random numbers of the shapes that faces need, as plain Python values."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def normal(self, spread: float, limit: float, middle: float = 0.0) -> float:
        return middle + min(max(float(self.rng.standard_normal()) * spread, -limit), limit)

    def chance(self, share: float) -> bool:
        return float(self.rng.random()) < share

    def choose(self, shares: Mapping[Any, float]) -> Any:
        left = float(self.rng.random()) * sum(shares.values())
        for key, share in shares.items():
            left -= share
            if left < 0:
                return key
        return next(reversed(shares))

    def vary(self, color: Color, spread: float) -> Color:
        """Returns the colour a little lighter or darker, warmer or cooler."""
        light, warm = 1 + self.uniform(-1.5, 1.5) * spread, self.uniform(-0.5, 0.5) * spread
        return tuple(min(v * light * (1 + s * warm), 1.0) for v, s in zip(color, (1, 0, -1), strict=True))

    def cloth(self) -> Color:
        """Returns a dye: muted or bright, sometimes black, grey or white."""
        hue, kind, level = self.rng.random(3).tolist()
        if kind < 0.3:
            return colorsys.hsv_to_rgb(hue, 0.10, 0.12 + 0.8 * level)
        return colorsys.hsv_to_rgb(hue, 0.30 + 0.45 * kind, 0.35 + 0.55 * level)

    def wall(self) -> Color:
        hue, saturation, level = self.rng.random(3).tolist()
        return colorsys.hsv_to_rgb(hue, 0.08 + 0.40 * saturation, 0.50 + 0.45 * level)


def _head(d: _Draws, structure: float, tone: float) -> dict[str, Any]:
    place = tone * (len(SKIN_TONES) - 1)
    i = min(int(place), len(SKIN_TONES) - 2)
    skin, warm = mix(SKIN_TONES[i], SKIN_TONES[i + 1], place - i), d.normal(0.5, 1)
    beard, bearded = d.choose(BEARDS), d.uniform(0, 1)
    return {
        "yaw": d.normal(0.26, 0.61),
        "pitch": d.normal(0.08, 0.18),
        "roll": d.normal(0.055, 0.14),
        "scale": d.normal(0.04, 0.09, 1.24),
        "shift": (d.normal(0.025, 0.06), d.normal(0.015, 0.04, 0.51)),
        "width": d.normal(0.04, 0.09, 1.0),
        "jaw": d.normal(0.04, 0.08, 0.93 + 0.16 * structure),
        "chin": d.normal(0.016, 0.035),
        "cheeks": d.uniform(0, 1),
        "ear_size": d.normal(0.07, 0.14, 0.88),
        "skin": tuple(min(v * (1 + s * warm), 1.0) for v, s in zip(skin, (0.015, -0.01, -0.045), strict=True)),
        "blush": d.uniform(0.15, 1),
        "freckles": max(0.0, d.uniform(-3, 1)) * (tone < 0.45),
        "beard": beard if structure > 0.45 and bearded > 0.2 else "none",
    }


def _features(d: _Draws, structure: float, age: float) -> dict[str, Any]:
    makeup = max(0.0, d.uniform(-0.6, 1.0)) * (1 - structure)
    smile = min(max(d.normal(0.36, 1, 0.45), -0.1), 1.0)
    return {
        "eye_width": d.normal(0.006, 0.012, 0.104),
        "eye_height": d.normal(0.007, 0.014, 0.054 - 0.008 * age),
        "eye_tilt": d.normal(0.07, 0.14),
        "eye_gap": d.normal(0.007, 0.014, 0.180),
        "eye_lower": d.uniform(0.42, 0.68),
        "lid": d.uniform(0, 1),
        "iris": d.vary(d.choose(IRIS_COLORS), 0.06),
        "gaze": (d.normal(0.25, 0.6), d.normal(0.12, 0.3)),
        "makeup": makeup,
        "brow_height": d.normal(0.010, 0.02, 0.115),
        "brow_thickness": d.normal(0.003, 0.006, 0.015 + 0.010 * structure),
        "brow_arch": d.normal(0.010, 0.02, 0.030),
        "brow_tilt": d.normal(0.06, 0.14),
        "nose_length": d.normal(0.012, 0.025, 0.185),
        "nose_width": d.normal(0.010, 0.02, 0.080 + 0.012 * structure),
        "nose_height": d.normal(0.016, 0.03, 0.115),
        "mouth_width": d.normal(0.012, 0.025, 0.135),
        "smile": smile,
        "gape": max(0.0, d.uniform(-1.3, 1.0)) * (0.35 + 0.65 * max(smile, 0)),
        "upper_lip": d.normal(0.006, 0.011, 0.026),
        "lower_lip": d.normal(0.006, 0.012, 0.036),
        "lip_color": d.choose(LIP_COLORS),
        "lip_strength": d.normal(0.06, 0.12, 0.54 + 0.40 * makeup),
    }


def _hair_and_hat(d: _Draws, structure: float, age: float, tone: float) -> dict[str, Any]:
    style, luck, hat = d.choose(HAIR_STYLES), d.uniform(0, 1), d.choose(HATS)
    if structure < 0.5 and style in ("bald", "buzz") and luck < 0.7:
        style = "long"
    if structure > 0.55 and style in ("bob", "long", "bun", "ponytail") and luck < 0.75:
        style = "short" if luck < 0.4 else "quiff"
    if hat != "none":
        style = {"bun": "long", "quiff": "short", "afro": "curly"}.get(style, style)
    # Dark skin goes mostly with dark hair, age with grey hair.
    color, dark, dyed = d.choose(HAIR_COLORS), DARK_HAIR[int(d.uniform(0, len(DARK_HAIR)))], d.uniform(0, 1)
    if tone > 0.5 and dyed < 0.75:
        color = dark
    grey = d.chance((age - 0.45) * 1.3)
    return {
        "hair": style,
        "fringe": d.choose(FRINGES),
        "parting": d.normal(0.5, 0.9),
        "volume": d.uniform(0, 1),
        "length": d.uniform(0, 1),
        "curl": d.uniform(0, 1),
        "tucked": d.chance(0.45),
        "hair_color": d.vary(mix(color, GREY_HAIR, 0.55 + 0.4 * age) if grey else color, 0.12),
        "hat": hat,
        "hat_color": d.cloth(),
        "hat_second": d.cloth(),
    }


def _jewels(d: _Draws) -> dict[str, Any]:
    tinted = d.uniform(0, 1)
    return {
        "glasses": d.choose(GLASSES),
        "frame_color": d.choose(FRAME_COLORS),
        "lens_color": d.choose(LENS_COLORS),
        "lens_tint": 0.10 if tinted < 0.68 else 0.45 + 1.5 * (tinted - 0.68),
        "glasses_size": d.normal(0.06, 0.12, 1.0),
        "earrings": d.choose(EARRINGS),
        "metal": d.choose(METALS),
        "earring_size": d.uniform(0.85, 1.3),
    }


def _surroundings(d: _Draws, structure: float) -> dict[str, Any]:
    return {
        "clothes": d.choose(CLOTHES),
        "cloth_color": d.cloth(),
        "cloth_second": d.cloth(),
        "stripes": d.chance(0.25),
        "shoulders": d.normal(0.03, 0.06, 0.93 + 0.1 * structure),
        "backdrop": d.choose(BACKDROPS),
        "back_color": d.wall(),
        "back_second": d.wall(),
        "light_side": d.uniform(0.25, 0.75) * (1 if d.chance(0.5) else -1),
        "light_height": d.uniform(0.3, 0.75),
        "warmth": d.normal(0.45, 1),
        "contrast": d.uniform(0, 1),
        "rim_color": d.cloth(),
    }
