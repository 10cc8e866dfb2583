"""Finds the crop of a photo in which regions lie as in samples of the network. No face detector is needed."""

import math

import torch
from torch.nn import functional as F

from dnnlib import UserError
from semantic.inversion.framing import RANGES, transforms
from semantic.inversion.layout import Layout, one_hot_planes, overlaps
from semantic.inversion.parse import Parser
from semantic.placement import Placement
from torch_utils.devices import bfloat16_if_fast

WINDOWS = 0.22
"""Side of the smallest windows, as a share of the photo's shorter side."""
ZOOM, STRIDE = math.sqrt(2), 0.6
"""Ratio of the sides of neighbouring sizes of windows, and distance of neighbouring windows in sides."""
LARGEST = 1.8
LONGEST = 20
"""Longest side of a photo that is searched, in shorter sides. The number of windows grows with it."""
TURNS = (0.0, 30.0, -30.0)
QUARTERS = (90.0, -90.0, 180.0)
"""Turns in degrees. The search tries them if no upright window fits."""
ROUNDS = ((10, (0,)), (6, (1, 2)), (2, (2,)))
"""How many windows stay, and the stages of the framing that correct each of them."""
LAST, AVERAGED = 4, 2
"""Corrections of the best window, and how many of the last make the result."""
AROUND, JITTER = 12, 0.04
"""Windows around the best window that are corrected together, and how far they are moved, see `transforms`."""
SETTLED = 0.9
"""Share of the fit that a corrected window must reach. The best crop need not have the largest overlap with samples."""
LEAST_FIT = 0.58
"""Below this share of the fit of the network's own samples, the photo shows nothing of their kind."""
GOOD_FIT = 0.75
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

    Windows of several sizes, places and turns are labelled. The best windows are corrected by the layout's framing, and
    labelled again.

    Args:
        photo: [3, H, W] in [-1, 1], on the parser's device.
        name: name of the photo in messages and in the placement.
        parser: see `build_parser`.
        layout: see `network_layout`.

    Raises:
        UserError: nothing in the photo looks like the network's samples, or the photo is too long.
    """
    height, width = photo.shape[1:]
    if max(width, height) > LONGEST * min(width, height):
        raise UserError(
            f"{name}: The photo has {width} x {height} pixels. Its longer side exceeds {LONGEST} shorter sides. "
            "Crop the photo yourself and use --align=none."
        )
    search = _Search(photo, parser, layout)
    candidates = windows(width, height)
    best, fit = search.best(candidates)
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


def combined(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Returns the transforms that apply `inner` first and then `outer`, all [N, 4]."""
    a, b, tx, ty = outer.unbind(dim=1)
    c, d, ux, uy = inner.to(outer).unbind(dim=1)
    return torch.stack([a * c - b * d, b * c + a * d, a * ux - b * uy + tx, b * ux + a * uy + ty], dim=1)


class _Search:
    """Windows of one photo: their labels, fits and corrections.

    The photo and the parser may be on a GPU. Windows, fits and labels are on the CPU, as the layout is: windows need
    float64, which Apple GPUs lack.
    """

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
        squares, fits, labels = self.scan(squares, CHECKED * ROUNDS[0][0])
        for number, (count, stages) in enumerate(ROUNDS):
            # Parsers see the usual layout where there is nothing to see: labels must stay with the photo.
            chosen = fits.topk(min(CHECKED * count, len(fits))).indices
            squares, fits, labels = squares[chosen], fits[chosen], labels[chosen]
            chosen = (fits * self.constancy(squares, labels)).topk(min(count, len(fits))).indices
            squares, fits, labels = squares[chosen], fits[chosen], labels[chosen]
            if number == 0:
                squares = torch.cat([turned(squares, angle) for angle in TURNS])
                fits, labels = self.look(squares)
            for stage in stages:
                squares, fits, labels = self.correct(squares, fits, labels, stage)
        last = int((fits * self.constancy(squares, labels)).argmax())
        return self.settle(squares[last : last + 1], fits[last : last + 1], labels[last : last + 1])

    def scan(self, squares: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the windows with the best fits, their fits and their labels, the best first.

        Only labels of the best windows so far are kept, since a long photo has many windows.

        Args:
            squares: windows, [M, 4].
            count: number of windows to return, if there are so many.
        """
        best = None
        for part in squares.split(BATCH):
            found = (part, *self._look(part))
            joined = found if best is None else [torch.cat(pair) for pair in zip(best, found, strict=True)]
            chosen = joined[1].topk(min(count, len(joined[1]))).indices
            best = [values[chosen] for values in joined]
        return tuple(best)

    def constancy(self, squares: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns how well labels stay with the photo when the window moves, [M] in [0, 1].

        Each window is labelled again from windows that are shifted and larger. Their labels are mapped back and
        compared, region by region, where both windows reach.

        Args:
            squares: windows, [M, 4].
            labels: of these windows, [M, K, S, S].
        """
        side, found = labels.shape[-1], torch.zeros(len(squares))
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
        """Returns the window after corrections of windows around a window [1, 4], as [4], and its fit.

        Labels change with the window. The median of the corrections of many windows depends on it less.
        """
        random = torch.Generator().manual_seed(0)
        way, first = [square], fit
        for _ in range(LAST):
            moves = (2 * torch.rand(AROUND, 4, generator=random, dtype=torch.float64) - 1) * JITTER
            around = combined(square.expand(AROUND, 4), transforms(moves))
            fits, labels = self.look(around)
            square = self.corrected(around, labels, len(RANGES) - 1).median(dim=0, keepdim=True).values
            if float(fits.median()) < SETTLED**2 * float(first):
                break
            way.append(square)
        rest = torch.cat(way[-AVERAGED:]).mean(dim=0)
        return rest, float(self.look(rest[None])[0])

    def correct(
        self, squares: torch.Tensor, fits: torch.Tensor, labels: torch.Tensor, stage: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns corrected windows, their fits and their labels. A window stays if its correction fits worse."""
        moved = self.corrected(squares, labels, stage)
        sides = torch.hypot(moved[:, 0], moved[:, 1])
        allowed = (sides > 0.1 * min(self.size)) & (sides < 3 * max(self.size))
        moved = torch.where(allowed[:, None], moved, squares)
        new_fits, new_labels = self.look(moved)
        better = new_fits > SETTLED * fits
        pick = better.view(-1, 1, 1, 1)
        return (
            torch.where(better[:, None], moved, squares),
            torch.where(better, new_fits, fits),
            torch.where(pick, new_labels, labels),
        )

    def corrected(self, squares: torch.Tensor, labels: torch.Tensor, stage: int) -> torch.Tensor:
        """Returns windows [M, 4] after the correction for their labels."""
        return combined(squares, self.layout.framing(labels, stage))

    def look(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fits [M] of windows, and their labels: planes [M, K, S, S]."""
        results = [self._look(part) for part in squares.split(BATCH)]
        return torch.cat([fit for fit, _ in results]), torch.cat([planes for _, planes in results])

    def _look(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        side, device = self.parser.side, self.levels[0].device
        points = _points(squares, side)
        grid = points / points.new_tensor(self.size) * 2 - 1
        crops = [
            F.grid_sample(self._level(square, side), part[None], padding_mode="reflection", align_corners=False)
            for square, part in zip(squares, grid.float().to(device), strict=True)
        ]
        with bfloat16_if_fast(device):
            indices = self.parser.masks(torch.cat(crops))
        planes = one_hot_planes(indices, len(self.parser.regions), self.layout.side).cpu()
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
    a, b, tx, ty = (x.view(-1, 1, 1) for x in squares.unbind(dim=1))
    return torch.stack([a * u - b * v + tx, b * u + a * v + ty], dim=-1)


def _steps(length: int, side: float) -> int:
    return 1 if side >= length else math.ceil((length - side) / (STRIDE * side)) + 1


def _steady(parser: Parser, layout: Layout) -> list[str]:
    """Returns the names of the regions that most samples show, the steadiest first."""
    order = layout.steadiness.argsort(descending=True).tolist()
    return [parser.regions.names[k] for k in order if k and layout.presence[k] > 0.5][:5]
