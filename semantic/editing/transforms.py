"""Moving, scaling and turning a region through the coordinates at which it is evaluated."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch

from dnnlib import UserError
from semantic.regions import Regions


@dataclass(frozen=True)
class RegionTransform:
    """The move of a region in the picture. Lengths are in grid units. The picture is 2 units wide."""

    dx: float = 0.0
    """Shift to the right."""
    dy: float = 0.0
    """Shift downwards."""
    scale: float = 1.0
    """Scale factor. A region grows above 1 and shrinks below 1."""
    rotate: float = 0.0
    """Angle in degrees, counter-clockwise."""

    def __str__(self) -> str:
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(f"{f.name} {getattr(self, f.name):g}" for f in changed) or "unchanged"


def parse_transform(text: str, regions: Regions) -> tuple[int, RegionTransform]:
    """Read ``'hair:dx=0.1,dy=0,scale=1.2,rotate=10'``. A setting that is missing keeps its default.

    Raises:
        UserError: an unknown region or setting, or a number that makes no sense.
    """
    index, settings = regions.split(text)
    region = regions.names[index]
    names = [f.name for f in fields(RegionTransform)]
    values: dict[str, float] = {}
    for setting in filter(None, (s.strip() for s in settings.split(","))):
        name, _, number = (s.strip() for s in setting.partition("="))
        if name not in names:
            raise UserError(
                f"The transform {text!r} has an unknown setting {name!r}. The settings are {', '.join(names)}."
            )
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"In the transform {text!r}, {name} must be a number, not {number!r}.") from None
    if not values:
        raise UserError(f"The transform {text!r} changes nothing. Write, for example, {region}:dx=0.1,scale=1.2.")
    if not all(map(math.isfinite, values.values())) or values.get("scale", 1) <= 0:
        raise UserError(f"In the transform {text!r}, numbers must be finite and scale above 0.")
    return index, RegionTransform(**values)


def parse_transforms(texts: Iterable[str], regions: Regions) -> dict[int, RegionTransform]:
    """Returns the transforms of different regions, by index of the region.

    Raises:
        UserError: a text is wrong, see `parse_transform`, or two texts name one region.
    """
    changes: dict[int, RegionTransform] = {}
    for region, change in (parse_transform(text, regions) for text in texts):
        if region in changes:
            raise UserError(f"Two transforms name {regions.names[region]}. Write their settings into one transform.")
        changes[region] = change
    return changes


def region_grid(
    regions: Regions,
    grid: torch.Tensor,
    transforms: Mapping[int | str, RegionTransform],
    centers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns input grids that move, enlarge and turn regions.

    A local generator draws what its input coordinates say. To move a region by T, each pixel p gets the coordinates
    T⁻¹ p = c + R⁻¹(p - c - d) / scale.

    Args:
        regions: the K regions.
        grid: coordinates of the pixels, [2, H, W], x (to the right) first, then y (downwards).
        transforms: transforms by region. Other regions keep the pixel grid.
        centers: c, the centres of turning and scaling, [K, 2] or [N, K, 2], x first. The default is the middle of
            the picture.

    Returns:
        `coords` for the synthesis network: [K, 2, H, W], or [N, K, 2, H, W] where the centres differ by sample.
    """
    lead = [len(regions)] if centers is None else list(centers.shape[:-1])
    frames = torch.eye(2, 3, dtype=torch.float64, device=grid.device).repeat(*lead, 1, 1)
    for region, change in transforms.items():
        k = regions.index(region)
        center = grid.new_zeros(2) if centers is None else centers[..., k, :]
        frames[..., k, :, :] = inverse_frame(change, center)
    return warp_grid(grid, frames).to(grid)


def inverse_frame(change: RegionTransform, center: torch.Tensor) -> torch.Tensor:
    """Returns the inverse T⁻¹ of a transform T about c. T moves the place T⁻¹ p to the place p.

    Args:
        change: the transform T.
        center: c, [..., 2], x first.

    Returns:
        float64 [..., 2, 3], the matrix that maps (x, y, 1) to c + R⁻¹(p - c - d) / scale.
    """
    cos, sin = math.cos(math.radians(change.rotate)), math.sin(math.radians(change.rotate))
    center = center.double()
    turn = center.new_tensor([[cos, -sin], [sin, cos]]) / change.scale
    offset = center - (center + center.new_tensor([change.dx, change.dy])) @ turn.T
    return torch.cat([turn.expand(*center.shape[:-1], 2, 2), offset.unsqueeze(-1)], dim=-1)


def warp_grid(grid: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Returns the grid mapped by each frame: [2, H, W] and [..., 2, 3] -> float64 [..., 2, H, W]."""
    turn, offset = frames[..., :2], frames[..., 2:]
    return (turn @ grid.double().flatten(1) + offset).unflatten(-1, grid.shape[1:])
