"""The layout of regions in a network's own samples, and the fit of other masks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from semantic.inversion.kept import kept_arrays
from semantic.inversion.parse import random_codes
from semantic.masks import is_present

SAMPLES, BATCH, PSI, SEED = 96, 8, 0.8, 1
SIDE = 64
"""Largest side of the templates in pixels."""
LEAST_DEVIATION = 0.015
"""Smallest deviation of centres and of roots of areas, as a share of the picture's side."""
LEAST_TURN = 0.03
"""Smallest deviation of axes, in radians. It is larger for regions that are hardly longer than wide."""


@dataclass(frozen=True)
class Layout:
    """The layout of regions in samples. Positions are shares of the picture's side, x first.

    Attributes:
        template: [K, S, S], share of the samples that show a region at a place.
        steadiness: [K], mean overlap of a sample's region with the template.
        presence: [K], share of the samples that show a region at all.
        centers, sizes: [K, 2] and [K], mean centres and roots of areas, where a region is there.
        axes: [K, 2], mean directions of the longer axes, see `long_axes`.
        center_deviations, size_deviations, axis_deviations: [K], deviations of samples. Axes in radians.
        usual: fit of the median sample, see `fit`.
    """

    template: torch.Tensor
    steadiness: torch.Tensor
    presence: torch.Tensor
    centers: torch.Tensor
    sizes: torch.Tensor
    axes: torch.Tensor
    center_deviations: torch.Tensor
    size_deviations: torch.Tensor
    axis_deviations: torch.Tensor
    usual: float

    def fit(self, planes: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Returns the fit of masks, [N] in [0, 1]: their overlap with the template. Steady regions weigh more.

        Args:
            planes: [N, K, S, S], one-hot.
            inside: [N, S, S], 0 at unknown places. They do not count.
        """
        known = inside.unsqueeze(1)
        return overlaps(planes * known, self.template * known) @ (self.steadiness / self.steadiness.sum())


def overlaps(planes: torch.Tensor, template: torch.Tensor) -> torch.Tensor:
    """Returns the intersection over union of planes and shares, [N, K]."""
    both = torch.minimum(planes, template).sum(dim=(2, 3))
    return both / torch.maximum(planes, template).sum(dim=(2, 3)).clamp(min=1)


def moments(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns centres [N, K, 2] and areas [N, K] of planes [N, K, S, S] of 0 and 1.

    Centres are shares of the side. Areas are shares of the picture.
    """
    side = planes.shape[-1]
    areas = planes.mean(dim=(2, 3))
    places = (torch.arange(side, device=planes.device, dtype=planes.dtype) + 0.5) / side
    x, y = planes.mean(dim=2) @ places / side, planes.mean(dim=3) @ places / side
    return torch.stack([x, y], dim=-1) / areas.clamp(min=1e-9).unsqueeze(-1), areas


def long_axes(planes: torch.Tensor) -> torch.Tensor:
    """Returns directions of the longer axes of planes [N, K, S, S], as vectors [N, K, 2].

    A vector has twice the angle of the axis, measured from x to y.

    The length of a vector is the difference of the variances along both axes, divided by their sum. It is 0 for a disc
    and 1 for a line.
    """
    side = planes.shape[-1]
    places = (torch.arange(side, device=planes.device, dtype=planes.dtype) + 0.5) / side
    total = planes.sum(dim=(2, 3)).clamp(min=1e-9)
    columns, rows = planes.sum(dim=2), planes.sum(dim=3)
    x, y = columns @ places / total, rows @ places / total
    xx, yy = columns @ places**2 / total - x**2, rows @ places**2 / total - y**2
    xy = (planes @ places) @ places / total - x * y
    return torch.stack([xx - yy, 2 * xy], dim=-1) / (xx + yy).clamp(min=1e-9).unsqueeze(-1)


def axis_angles(axes: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    """Returns the angles, [N, K] in radians, from `usual` axes [K, 2] to axes [N, K, 2]: at most a quarter turn."""
    cross = usual[..., 0] * axes[..., 1] - usual[..., 1] * axes[..., 0]
    return torch.atan2(cross, (usual * axes).sum(dim=-1)) / 2


@torch.no_grad()
def network_layout(
    G: torch.nn.Module, device: torch.device, cache: bool = True, hide_progress: bool | None = None
) -> Layout:
    """Returns the layout of a network's samples. Takes the layout from the cache if it is there.

    Args:
        G: a generator with regions.
        device: device of the generator.
        cache: read and write the cache.
        hide_progress: True hides the bar, None shows it on terminals.
    """

    def build() -> dict[str, np.ndarray]:
        generator = torch.Generator().manual_seed(SEED)
        found = []
        for _ in tqdm(range(SAMPLES // BATCH), desc="Layout of samples", leave=False, disable=hide_progress):
            ws = random_codes(G, BATCH, generator, device, torch.full([BATCH, 1, 1], PSI, device=device))
            mask = G.synthesis(ws, noise_mode="const", return_mask=True).mask
            found.append(one_hot_planes(mask.argmax(dim=1), len(G.regions), min(SIDE, mask.shape[-1])).cpu())
        return _measure(torch.cat(found))

    arrays = kept_arrays(G, f"layout3-{SAMPLES}", build, cache)
    tensors = {name: torch.from_numpy(array).float().to(device) for name, array in arrays.items()}
    return Layout(**tensors | {"usual": float(arrays["usual"])})


def one_hot_planes(indices: torch.Tensor, num_regions: int, side: int) -> torch.Tensor:
    """Returns the shares [N, K, side, side] of regions in class indices [N, S, S]."""
    planes = F.one_hot(indices.long(), num_regions).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(planes, side) if planes.shape[-1] > side else planes


def _measure(planes: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns the numbers of a layout of planes [N, K, S, S] of samples."""
    centers, areas = moments(planes)
    there = is_present(areas).float()
    count = there.sum(dim=0).clamp(min=1)
    mean = (centers * there.unsqueeze(-1)).sum(dim=0) / count.unsqueeze(-1)
    sizes = areas.sqrt()
    size = (sizes * there).sum(dim=0) / count
    away = (centers - mean).square().sum(dim=-1) / 2
    found = long_axes(planes)
    axes = (found * there.unsqueeze(-1)).sum(dim=0) / count.unsqueeze(-1)
    turns = axis_angles(found, axes).square()
    least_turns = LEAST_TURN / axes.norm(dim=-1).clamp(min=1e-3)
    template = planes.mean(dim=0)
    found = overlaps(planes, template)
    steadiness = (found * there).sum(dim=0) / count * there.mean(dim=0)
    return {
        "template": template.numpy(),
        "steadiness": steadiness.numpy(),
        "presence": there.mean(dim=0).numpy(),
        "centers": mean.numpy(),
        "sizes": size.numpy(),
        "axes": axes.numpy(),
        "axis_deviations": ((turns * there).sum(dim=0) / count).sqrt().maximum(least_turns).numpy(),
        "center_deviations": ((away * there).sum(dim=0) / count).sqrt().clamp(min=LEAST_DEVIATION).numpy(),
        "size_deviations": (((sizes - size).square() * there).sum(dim=0) / count)
        .sqrt()
        .clamp(min=LEAST_DEVIATION)
        .numpy(),
        "usual": (found @ (steadiness / steadiness.sum())).median().numpy(),
    }
