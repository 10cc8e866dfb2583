"""Scores against hand-made pictures."""

import colorsys

import pytest
import torch

from dnnlib import UserError
from semantic.editing.scores import SCORES, find_score


@pytest.fixture(scope="module")
def scene():
    """A rectangle of region 1, 8 pixels wide and 4 high, in a picture of 16²; region 2 is nowhere."""
    mask = torch.full([1, 3, 16, 16], -1.0)
    mask[:, 0] = 0
    mask[:, 1, 2:6, 4:12] = 1
    image = torch.full([1, 3, 16, 16], -1.0)
    color = torch.tensor([0.2, 0.5, 0.4])
    image[:, :, 2:6, 4:12] = (color * 2 - 1).view(1, 3, 1, 1)
    return image, mask, color


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("area", 32 / 256, 1e-6),
        ("presence", 1, 0),
        ("width", 0.5, 0.02),
        ("height", 0.25, 0.02),
        ("level", 0.25, 1e-6),
        ("brightness", 0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.4, 1e-5),
    ],
)
def test_scores_of_a_rectangle(scene, name, expected, tolerance):
    image, mask, _ = scene
    assert abs(SCORES[name](image, mask, 1).item() - expected) <= tolerance


def test_hue_and_saturation_are_those_of_hsv(scene):
    image, mask, color = scene
    hue, saturation, _ = colorsys.rgb_to_hsv(*color.tolist())
    assert SCORES["saturation"](image, mask, 1).item() == pytest.approx(saturation, abs=1e-5)
    assert SCORES["hue"](image, mask, 1).item() == pytest.approx(360 * hue, abs=4)  # of a hexagon, of a circle


def test_absent_regions_have_no_measure_but_area_and_presence(scene):
    image, mask, _ = scene
    for name, score in SCORES.items():
        value = score(image, mask, 2).item()
        assert value == 0 if name in ("area", "presence") else value != value, name


def test_any_function_can_be_a_score():
    assert find_score("torch:numel").measure is torch.numel
    for name in ("size", "torch:", "torch:nothing", "no.such.module:f", "torch:__version__"):
        with pytest.raises(UserError):
            find_score(name)
