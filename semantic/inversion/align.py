"""Finds the crop of a photo in which regions lie as in samples of the network. No face detector is needed."""

import math

import torch
from torch.nn import functional as F

from dnnlib import UserError
from semantic.inversion.layout import Layout, axis_angles, long_axes, moments, one_hot_planes, overlaps
from semantic.inversion.parse import Parser
from semantic.placement import Placement

WINDOWS = 0.22
"""Side of the smallest windows, as a share of the photo's shorter side."""
ZOOM, STRIDE = math.sqrt(2), 0.6
"""Ratio of the sides of neighbouring sizes of windows, and distance of neighbouring windows in sides."""
LARGEST = 1.8
TURNS = (0.0, 30.0, -30.0)
QUARTERS = (90.0, -90.0, 180.0)
"""Turns in degrees. The search tries them if no upright window fits."""
ROUNDS = ((8, 1), (6, 2), (2, 2))
"""Number of windows that stay, and number of corrections of each window."""
LAST, AVERAGED = 6, 4
"""Number of corrections of the best window. The result is the mean of the last ones."""
SETTLED = 0.9
"""The last corrections may lower the fit to this share, since centres are more exact than overlaps."""
LEAST_SPREAD = 0.15
"""Smallest spread of the size of a region, as a share. Parsers are not more exact."""
LEAST_FIT = 0.7
"""Smallest fit of a photo, as a share of the fit of the network's own samples."""
GOOD_FIT = 0.8
"""Fit, as a share, that ends the search over quarter turns."""
CHECKED = 4
"""Number of windows that `_Search.constancy` compares for each window that stays."""
MOVES = ((1.0, 0.0, 0.2, 0.0), (1.0, 0.0, 0.0, -0.2), (1.3, 0.0, -0.25, -0.05))
"""Other windows (a, b, tx, ty), in unit squares, in which labels must stay with the photo."""
WORKING = 4
"""Largest shorter side of the searched photo, in sides of the parser."""
BATCH = 32


def align(photo: torch.Tensor, name: str, parser: Parser, layout: Layout) -> Placement:
    """Returns the similarity transform of the crop that fits the layout of a network's samples best.

    Windows of several sizes, places and turns are labelled. The best windows are corrected: the centres and areas of
    their regions are matched with samples. Steady regions weigh more. The corrected crop is labelled again.

    Args:
        photo: [3, H, W] in [-1, 1].
        name: what messages and the placement call it.
        parser: see `build_parser`.
        layout: see `network_layout`.

    Raises:
        UserError: nothing in the photo looks like the network's samples.
    """
    height, width = photo.shape[1:]
    search = _Search(photo, parser, layout)
    candidates = windows(width, height)
    best, fit = search.best(torch.cat([turned(candidates, angle) for angle in TURNS[:1]]))
    if fit < GOOD_FIT * layout.usual:
        more = torch.cat([turned(candidates, angle) for angle in QUARTERS])
        other, other_fit = search.best(more)
        best, fit = (other, other_fit) if other_fit > fit * 1.15 else (best, fit)
    if fit < LEAST_FIT * layout.usual:
        names = ", ".join(_steady(parser, layout))
        raise UserError(
            f"{name}: No part of this photo looks like the regions of this network ({names}). Choose another photo, or "
            "crop the photo yourself and use --align=none."
        )
    (a, b, tx, ty), side = best.tolist(), parser.resolution
    matrix = ((a / side, -b / side, tx), (b / side, a / side, ty))
    return Placement(photo=name, photo_size=(width, height), resolution=side, matrix=matrix)


def windows(width: int, height: int) -> torch.Tensor:
    """Returns upright square windows of several sizes over a photo.

    They are maps of the unit square, [M, 4] of (a, b, tx, ty).
    """
    found, short = [], min(width, height)
    share = WINDOWS
    while share < LARGEST:
        side = share * short
        places = [
            torch.linspace(min(side / 2, length / 2), max(length - side / 2, length / 2), _steps(length, side))
            for length in (width, height)
        ]
        x, y = torch.meshgrid(*places, indexing="ij")
        x, y = x.flatten() - side / 2, y.flatten() - side / 2
        found.append(torch.stack([torch.full_like(x, side), torch.zeros_like(x), x, y], dim=1))
        share *= ZOOM
    return torch.cat(found).double()


def turned(squares: torch.Tensor, degrees: float) -> torch.Tensor:
    """Returns windows [M, 4], turned about their centres."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b, tx, ty = squares.unbind(dim=1)
    x, y = tx + (a - b) / 2, ty + (a + b) / 2
    a, b = a * cos - b * sin, a * sin + b * cos
    return torch.stack([a, b, x - (a - b) / 2, y - (a + b) / 2], dim=1)


def correction(
    centers: torch.Tensor, areas: torch.Tensor, axes: torch.Tensor, layout: Layout, least_area: float
) -> torch.Tensor:
    """Returns the similarity transform (a, b, tx, ty) of unit squares that moves regions to the layout, [N, 4].

    Weighted least squares of the centres (Umeyama 1991). The weight of a region is the inverse of its variance among
    samples. A distant region counts less. The long axes of regions also tell the angle: eyes, brows and mouth lie
    across the face. If fewer than two regions are left, areas alone give the scale.

    Args:
        centers, areas, axes: of the regions in the windows, [N, K, 2], [N, K] and [N, K, 2].
        layout: see `Layout`.
        least_area: share of the picture from which on a region counts.
    """
    there = (areas >= least_area) & (layout.presence > 0.3)
    there[:, 0] = False  # the background's centre says nothing
    weights = there * (layout.presence / layout.center_deviations**2)
    off = (centers - layout.centers).norm(dim=-1)
    weights = weights / (1 + (off / 0.25) ** 2)
    total = weights.sum(dim=1, keepdim=True)
    weights = weights / total.clamp(min=1e-9)
    goal, found = (torch.einsum("nk,nkc->nc", weights, x.expand_as(centers)) for x in (layout.centers, centers))
    p, q = layout.centers - goal.unsqueeze(1), centers - found.unsqueeze(1)
    spread = (weights * p.square().sum(dim=-1)).sum(dim=1)
    dot = (weights * (p * q).sum(dim=-1)).sum(dim=1)
    cross = (weights * (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0])).sum(dim=1)
    known = (weights > 1e-4).sum(dim=1) >= 2
    precision = total.squeeze(1) * spread  # inverse of the variance of the angle, and of the scale's logarithm
    by_axes = axis_angles(axes, layout.axes)
    axis_weights = there * layout.presence / layout.axis_deviations**2 / (1 + (by_axes / 0.3) ** 2)
    length = torch.where(known, precision, 0) / torch.hypot(cross, dot).clamp(min=1e-9)
    sine = length * cross + (axis_weights * by_axes.sin()).sum(dim=1)
    cosine = length * dot + (axis_weights * by_axes.cos()).sum(dim=1)
    angle = torch.atan2(sine, cosine).clamp(-0.6, 0.6)
    by_centers = torch.hypot(cross, dot) / spread.clamp(min=1e-9)
    relative = layout.size_deviations / layout.sizes.clamp(min=1e-3)
    size_weights = there * layout.presence / (relative**2 + LEAST_SPREAD**2)
    ratio = (areas.sqrt() / layout.sizes.clamp(min=1e-3)).clamp(0.2, 5).log()
    by_areas = ((size_weights * ratio).sum(dim=1) / size_weights.sum(dim=1).clamp(min=1e-9)).exp()
    # Both estimates of the logarithm of the scale count by the inverse of their variances.
    trust = torch.where(known, precision / (precision + size_weights.sum(dim=1)).clamp(min=1e-9), 0)
    scale = (by_centers.clamp(0.3, 3).log() * trust + by_areas.log() * (1 - trust)).exp().clamp(0.5, 2)
    scale = torch.where(there.any(dim=1), scale, 1)
    a, b = scale * angle.cos(), scale * angle.sin()
    shift = torch.stack(
        [found[:, 0] - a * goal[:, 0] + b * goal[:, 1], found[:, 1] - b * goal[:, 0] - a * goal[:, 1]], dim=1
    )
    result = torch.cat([torch.stack([a, b], dim=1), shift], dim=1)
    return torch.where(there.any(dim=1, keepdim=True), result, result.new_tensor([1.0, 0.0, 0.0, 0.0]))


def combined(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Returns the transforms that apply `inner` first and then `outer`, all [N, 4]."""
    a, b, tx, ty = outer.unbind(dim=1)
    c, d, ux, uy = inner.to(outer).unbind(dim=1)
    return torch.stack([a * c - b * d, b * c + a * d, a * ux - b * uy + tx, b * ux + a * uy + ty], dim=1)


class _Search:
    """Windows of one photo: their labels, fits and corrections."""

    def __init__(self, photo: torch.Tensor, parser: Parser, layout: Layout):
        self.parser, self.layout = parser, layout
        self.size = (photo.shape[2], photo.shape[1])
        self.levels, level = [], photo[None]
        factor = WORKING * parser.side / min(self.size)
        if factor < 1:
            size = [max(round(side * factor), 1) for side in level.shape[2:]]
            level = F.interpolate(level, size, mode="bilinear", antialias=True, align_corners=False)
        while not self.levels or min(level.shape[2:]) > 16:
            self.levels.append(level)
            size = [max(round(side / ZOOM), 1) for side in level.shape[2:]]
            level = F.interpolate(level, size, mode="bilinear", antialias=True, align_corners=False)

    def best(self, squares: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Returns the best window after all rounds, [4], and its fit."""
        fits, labels = self.look(squares)
        for number, (count, times) in enumerate(ROUNDS):
            # Parsers see the usual layout where there is nothing to see: labels must stay with the photo.
            chosen = fits.topk(min(CHECKED * count, len(fits))).indices
            squares, fits, labels = squares[chosen], fits[chosen], labels[chosen]
            chosen = (fits * self.constancy(squares, labels)).topk(min(count, len(fits))).indices
            squares, fits, labels = squares[chosen], fits[chosen], labels[chosen]
            if number == 0:
                squares = torch.cat([turned(squares, angle) for angle in TURNS])
                fits, labels = self.look(squares)
            for _ in range(times):
                squares, fits, labels = self.correct(squares, fits, labels)
        last = int((fits * self.constancy(squares, labels)).argmax())
        return self.settle(squares[last : last + 1], fits[last : last + 1], labels[last : last + 1])

    def constancy(self, squares: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns how well labels stay with the photo when the window moves, [M] in [0, 1].

        Each window is labelled again from windows that are shifted and larger. Their labels are mapped back and
        compared, region by region, where both windows reach.

        Args:
            squares: windows, [M, 4].
            labels: of these windows, [M, K, S, S].
        """
        side, found = labels.shape[-1], torch.zeros(len(squares), device=labels.device)
        for change in MOVES:
            inner = squares.new_tensor([change]).expand(len(squares), 4)
            _, planes = self.look(combined(squares, inner))
            a, _, tx, ty = change
            places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
            y, x = torch.meshgrid((places - ty) / a, (places - tx) / a, indexing="ij")
            grid = (torch.stack([x, y], dim=-1) * 2 - 1).to(planes).expand(len(planes), -1, -1, -1)
            known = (grid.abs() <= 1).all(dim=-1).to(planes)[:, None]
            back = F.grid_sample(planes, grid, mode="nearest", align_corners=False)
            weights = self.layout.steadiness / self.layout.steadiness.sum()
            found = found + overlaps(back * known, labels * known) @ weights / len(MOVES)
        return found

    def settle(self, square: torch.Tensor, fit: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Returns the window after repeated corrections of a window [1, 4], as [4], and its fit."""
        way, first = [square], fit
        for _ in range(LAST):
            square = self.corrected(square, labels)
            fit, labels = self.look(square)
            if float(fit) < SETTLED * float(first):
                break
            way.append(square)
        rest = torch.cat(way[-AVERAGED:]).mean(dim=0)
        return rest, float(self.look(rest[None])[0])

    def correct(
        self, squares: torch.Tensor, fits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns corrected windows, their fits and their labels. A window stays if its correction fits worse."""
        moved = self.corrected(squares, labels)
        sides = torch.hypot(moved[:, 0], moved[:, 1])
        allowed = (sides > 0.1 * min(self.size)) & (sides < 3 * max(self.size))
        moved = torch.where(allowed[:, None], moved, squares)
        new_fits, new_labels = self.look(moved)
        better = new_fits > fits
        pick = better.view(-1, 1, 1, 1)
        return (
            torch.where(better[:, None], moved, squares),
            torch.where(better, new_fits, fits),
            torch.where(pick, new_labels, labels),
        )

    def corrected(self, squares: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns windows [M, 4] after the correction for their labels."""
        found = correction(*moments(labels), long_axes(labels), self.layout, 1.5 / labels.shape[-1] ** 2)
        return combined(squares, found)

    def look(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fits [M] of windows, and their labels: planes [M, K, S, S]."""
        results = [self._look(part) for part in squares.split(BATCH)]
        return torch.cat([fit for fit, _ in results]), torch.cat([planes for _, planes in results])

    def _look(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        side = self.parser.side
        points = _points(squares, side).to(self.levels[0].device)
        grid = points / points.new_tensor(self.size) * 2 - 1
        crops = [
            F.grid_sample(self._level(square, side), part[None], padding_mode="reflection", align_corners=False)
            for square, part in zip(squares, grid.float(), strict=True)
        ]
        indices = self.parser.masks(torch.cat(crops))
        planes = one_hot_planes(indices, len(self.parser.regions), self.layout.template.shape[-1])
        inside = (grid.abs() <= 1).all(dim=-1).float()
        inside = F.adaptive_avg_pool2d(inside, planes.shape[-1])
        cover = inside.mean(dim=(1, 2))
        return self.layout.fit(planes, inside) * (cover / 0.6).clamp(max=1), planes

    def _level(self, square: torch.Tensor, side: int) -> torch.Tensor:
        """Returns the photo at a reduced size. A window then has about as many pixels as the parser's input."""
        wanted = math.hypot(float(square[0]), float(square[1])) / side  # photo pixels per pixel of the window
        have = [self.size[0] / level.shape[3] for level in self.levels]
        return self.levels[max([i for i, h in enumerate(have) if h <= wanted * 1.1], default=0)]


def _points(squares: torch.Tensor, side: int) -> torch.Tensor:
    """Returns the points of the photo under the pixels of windows, [M, side, side, 2]."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    v, u = torch.meshgrid(places, places, indexing="ij")
    a, b, tx, ty = (x.view(-1, 1, 1) for x in squares.cpu().unbind(dim=1))
    return torch.stack([a * u - b * v + tx, b * u + a * v + ty], dim=-1)


def _steps(length: int, side: float) -> int:
    return 1 if side >= length else math.ceil((length - side) / (STRIDE * side)) + 1


def _steady(parser: Parser, layout: Layout) -> list[str]:
    """Returns the names of the regions that most samples show, the steadiest first."""
    order = layout.steadiness.argsort(descending=True).tolist()
    return [parser.regions.names[k] for k in order if k and layout.presence[k] > 0.5][:5]
