"""Moving, scaling and turning a region through the coordinates at which it is evaluated."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch

from dnnlib import UserError
from semantic.regions import Regions


@dataclass(frozen=True)
class RegionTransform:
    """Where a region goes, as seen in the picture; lengths in grid units, of which the picture is 2 wide."""

    dx: float = 0.0
    """To the right."""
    dy: float = 0.0
    """Downwards."""
    scale: float = 1.0
    """Above 1 is larger."""
    rotate: float = 0.0
    """Degrees, counter-clockwise."""

    def __str__(self) -> str:
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(f"{f.name} {getattr(self, f.name):g}" for f in changed) or "unchanged"


def parse_transform(text: str, regions: Regions) -> tuple[int, RegionTransform]:
    """Read ``'hair:dx=0.1,dy=0,scale=1.2,rotate=10'``; what is left out stays as it is.

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
            raise UserError(f"There is no setting {name!r} in the transform {text!r}: it takes {', '.join(names)}.")
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"In the transform {text!r}, {name} must be a number, not {number!r}.") from None
    if not values:
        raise UserError(f"The transform {text!r} changes nothing: write for example {region}:dx=0.1,scale=1.2.")
    if not all(map(math.isfinite, values.values())) or values.get("scale", 1) <= 0:
        raise UserError(f"In the transform {text!r}, numbers must be finite and scale above 0.")
    return index, RegionTransform(**values)


def parse_transforms(texts: Iterable[str], regions: Regions) -> dict[int, RegionTransform]:
    """Read several transforms of different regions, by index of the region.

    Raises:
        UserError: as `parse_transform`, or a region is named twice.
    """
    changes: dict[int, RegionTransform] = {}
    for region, change in (parse_transform(text, regions) for text in texts):
        if region in changes:
            raise UserError(f"Two transforms name {regions.names[region]}: put their settings into one.")
        changes[region] = change
    return changes


def region_grid(
    regions: Regions,
    grid: torch.Tensor,
    transforms: Mapping[int | str, RegionTransform],
    centers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Input grids that make regions appear moved, enlarged and turned.

    A local generator draws at every pixel what belongs to the coordinates that it is given, so a region that shall
    move by T is evaluated at T⁻¹ of the pixel's place: q = c + R⁻¹(p - c - d) / scale.

    Args:
        regions: the K regions.
        grid: coordinates of the pixels, [2, H, W], x (to the right) first, then y (downwards).
        transforms: by region; the others keep the pixel grid.
        centers: c, the points about which regions are turned and scaled, [K, 2] or [N, K, 2], x first; the middle of
            the picture by default.

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
    """The map from a place p in the picture to T⁻¹ p, the place that a transform T about c brings there.

    Args:
        change: T.
        center: c, [..., 2], x first.

    Returns:
        float64 [..., 2, 3], which takes (x, y, 1) to c + R⁻¹(p - c - d) / scale.
    """
    cos, sin = math.cos(math.radians(change.rotate)), math.sin(math.radians(change.rotate))
    center = center.double()
    turn = center.new_tensor([[cos, -sin], [sin, cos]]) / change.scale
    offset = center - (center + center.new_tensor([change.dx, change.dy])) @ turn.T
    return torch.cat([turn.expand(*center.shape[:-1], 2, 2), offset.unsqueeze(-1)], dim=-1)


def warp_grid(grid: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Grids as frames move them: [2, H, W] and [..., 2, 3] -> float64 [..., 2, H, W]."""
    turn, offset = frames[..., :2], frames[..., 2:]
    return (turn @ grid.double().flatten(1) + offset).unflatten(-1, grid.shape[1:])
