"""Scores of one region in an image and its mask, for the search of directions."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dnnlib import UserError
from semantic.masks import is_present

Measure = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(image [N, 3, R, R] in [-1, 1], mask [N, K, R, R], index of the region) -> [N]; NaN where nothing can be measured."""
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Score:
    """A measure of a region."""

    name: str
    measure: Measure
    part: str
    """The part of the region on which it depends most, 'shape', 'texture' or 'both'."""
    unit: str = ""
    circular: bool = False
    """Whether it is an angle in degrees."""
    holds: bool = True
    """Whether the areas of other regions shall stay; a region that comes must cover others."""
    keeps: bool = False
    """Whether the region's own area shall stay. Else a region may go where it cannot be measured."""
    psi: float = 1.0
    """Truncation of the samples. Regions near the average are seen, and measured, more often."""

    def __call__(self, image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
        """Returns the scores [N] of a region in images and masks. See `Measure`."""
        return self.measure(image.float().clamp(-1, 1), mask, region)


def shares(mask: torch.Tensor, region: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the pixels of a region [N, R, R] as 0 and 1, and its share of each picture [N]."""
    inside = (mask.argmax(dim=1) == region).float()
    return inside, inside.mean(dim=(1, 2))


def area(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the region's share of the picture."""
    return shares(mask, region)[1]


def presence(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns 1 if the region is present, else 0. See `is_present`."""
    return is_present(shares(mask, region)[1]).float()


def level(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the height of the region's centre above the picture's centre, in sides of the picture."""
    return -_along(mask, region, 1)[0]


def height(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the height of the region, in sides of the picture.

    It is √12 standard deviations of the pixels, which is exact for a rectangle.
    """
    return _along(mask, region, 1)[1]


def width(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the width of the region, in sides of the picture. See `height`."""
    return _along(mask, region, 2)[1]


def brightness(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the luma of the region's mean colour, from 0 to 1."""
    return (mean_color(image, mask, region) * image.new_tensor(LUMA)).sum(dim=1)


def saturation(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the saturation of the region's mean colour in HSV, from 0 to 1."""
    color = mean_color(image, mask, region)
    high, low = color.amax(dim=1), color.amin(dim=1)
    return (high - low) / high.clamp_min(1e-6) + 0 * color.sum(dim=1)  # NaN stays NaN


def hue(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the hue of the region's mean colour in degrees: red 0, green 120, blue 240."""
    red, green, blue = mean_color(image, mask, region).unbind(dim=1)
    return torch.rad2deg(torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue)) % 360


def mean_color(image: torch.Tensor, mask: torch.Tensor, region: int) -> torch.Tensor:
    """Returns the mean colour of a region, [N, 3] from 0 to 1, or NaN without the region.

    A grey image counts as three equal channels.
    """
    inside, share = shares(mask, region)
    image = (image.float().clamp(-1, 1).expand(-1, 3, -1, -1) + 1) / 2
    mean = (image * inside.unsqueeze(1)).mean(dim=(2, 3)) / share.unsqueeze(1)
    return torch.where(is_present(share.unsqueeze(1)), mean, torch.nan)


def _along(mask: torch.Tensor, region: int, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns centre and extent of a region along an axis of [N, R, R], in sides of the picture, or NaN."""
    inside, share = shares(mask, region)
    side = mask.shape[axis + 1]
    places = (torch.arange(side, device=mask.device) + 0.5) / side - 0.5
    weight = mask[:, region].float().clamp(0, 1) + 1e-3 * inside  # finer than whole pixels
    profile = weight.sum(dim=3 - axis)
    profile = profile / profile.sum(dim=1, keepdim=True)
    center = (profile * places).sum(dim=1)
    variance = (profile * (places - center[:, None]).square()).sum(dim=1)
    there = is_present(share)
    return tuple(torch.where(there, found, torch.nan) for found in (center, (12 * variance).sqrt()))


SCORES = {
    score.name: score
    for score in (
        Score("area", area, "shape", "of the picture"),
        Score("height", height, "shape", "of the picture"),
        Score("width", width, "shape", "of the picture"),
        Score("level", level, "whole", "of the picture", keeps=True, psi=0.7),
        Score("presence", presence, "whole", holds=False),
        Score("brightness", brightness, "texture"),
        Score("saturation", saturation, "texture"),
        Score("hue", hue, "texture", "degrees", circular=True),
    )
}
"""Built-in scores by name."""


def find_score(name: str) -> Score:
    """Returns a built-in score, or the function 'module:function', see `Measure`.

    Raises:
        UserError: there is neither.
    """
    if name in SCORES:
        return SCORES[name]
    module, _, function = name.partition(":")
    if not module or not function:
        raise UserError(f"There is no score {name!r}. Choose {', '.join(SCORES)}, or write MODULE:FUNCTION.")
    try:
        measure = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"Cannot use the score {name}: {error}.") from error
    if not callable(measure):
        raise UserError(f"Cannot use the score {name}: it is not a function.")
    return Score(function, measure, "both")
