"""Tells from the labels of a window where the frame of a network's samples lies, by regression on moved samples."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

CELLS = 8
"""Cells along a side to which labels are averaged."""
RANGES = ((0.45, 0.5, 0.22), (0.2, 0.2, 0.1), (0.1, 0.08, 0.05))
"""For each stage, how far frames are moved: logarithm of the scale, angle in radians, shift in sides."""
MOVES = 24
"""Moves of each sample."""
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Shares of the mean variance of a feature, of which held-out samples choose one."""
HELD_OUT = 0.2
PADDINGS = ("border", "zeros", "reflection")
"""Paddings that continue labels beyond the frame, in turn, since a sample ends at its frame and a photo does not.

Half of the moved samples have labels of other samples there instead.
"""
SURROUNDING = (0.7, 3.0, 0.5, 0.5)
"""Largest moves of the labels around a frame: logarithm of the scale, angle in radians, shifts in x and y in sides."""
EDGES, BLUR = 1.0, 5
"""Deviation of the logarithm of a region's weight, and side in pixels of the square in which regions are weighed.

Parsers find edges a little beside the true edges. Weights move the edges of the samples in the same way.
"""
SEED = 5


@dataclass(frozen=True)
class Framing:
    """Linear regressions from labels to the frame, from coarse to fine (cascaded as Xiong and De la Torre 2013).

    All its tensors are on the CPU.

    Attributes:
        means: [T, F], mean features of each stage.
        weights: [T, F, 4], to the logarithm of the scale, the angle, and the shift of the centre.
        biases: [T, 4].
    """

    means: torch.Tensor
    weights: torch.Tensor
    biases: torch.Tensor

    def __call__(self, planes: torch.Tensor, stage: int) -> torch.Tensor:
        """Returns where the frame lies in windows: similarity transforms (a, b, tx, ty) of unit squares, [N, 4].

        Args:
            planes: shares of the regions in the windows, [N, K, S, S].
            stage: 0 for frames far away, up to T - 1 for frames nearby.
        """
        moves = (features(planes) - self.means[stage]) @ self.weights[stage] + self.biases[stage]
        scale, angle, shift = RANGES[stage]
        limit = moves.new_tensor([scale, angle, shift, shift])
        return transforms(moves.clamp(-limit, limit).double())


def features(planes: torch.Tensor) -> torch.Tensor:
    """Returns the features of planes [N, K, S, S]: [N, K · CELLS²]."""
    return F.adaptive_avg_pool2d(planes, CELLS).flatten(1)


def transforms(moves: torch.Tensor) -> torch.Tensor:
    """Returns similarity transforms (a, b, tx, ty) of unit squares, [N, 4], of moves [N, 4].

    A move has the logarithm of the scale, the angle in radians, and the shifts of the centre in sides.
    """
    scale, angle = moves[:, 0].exp(), moves[:, 1]
    a, b = scale * angle.cos(), scale * angle.sin()
    x, y = 0.5 + moves[:, 2], 0.5 + moves[:, 3]
    return torch.stack([a, b, x - (a - b) / 2, y - (a + b) / 2], dim=1)


def moved_labels(planes: torch.Tensor, moves: torch.Tensor, padding: str) -> torch.Tensor:
    """Returns the labels of windows [N, K, S, S] in which the frame of planes [N, K, S, S] lies at moves [N, 4]."""
    scale, angle = moves[:, 0].exp(), moves[:, 1]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x, y = 2 * moves[:, 2], 2 * moves[:, 3]
    rows = [torch.stack([cos, sin, -cos * x - sin * y], dim=1), torch.stack([-sin, cos, sin * x - cos * y], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(planes.shape), align_corners=False)
    found = F.grid_sample(planes, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    found[:, 0] += 1 - found.sum(dim=1)  # a place without labels is background
    return found


def surrounded(moved: torch.Tensor, moves: torch.Tensor, others: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Returns moved planes with labels of other samples around their frames, [N, K, S, S].

    Parsers find regions in any surrounding of a frame. The other samples are scaled, turned and shifted at random, at
    most by `SURROUNDING`.

    Args:
        moved: planes [N, K, S, S] after `moved_labels`.
        moves: [N, 4], the moves of the frames: logarithm of the scale, angle in radians, shifts in sides.
        others: planes of other samples, [N, K, S, S].
        random: source of the random moves.
    """
    away = (2 * torch.rand(len(moved), 4, generator=random) - 1) * torch.tensor(SURROUNDING)
    frame = moved_labels(torch.ones_like(moved), moves, "zeros")[:, 1:2]
    return torch.lerp(moved_labels(others, away, "reflection"), moved, frame)


def other_edges(planes: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Returns planes [N, K, S, S] of 0 and 1 in which some regions are a little larger and others smaller."""
    weights = (EDGES * torch.randn(*planes.shape[:2], 1, 1, generator=random)).exp()
    blurred = F.avg_pool2d(planes, BLUR, stride=1, padding=BLUR // 2, count_include_pad=False)
    found = (blurred * weights).argmax(dim=1)
    return F.one_hot(found, planes.shape[1]).permute(0, 3, 1, 2).to(planes)


def fit_framing(planes: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns the arrays of a `Framing` for the labels of samples, planes [N, K, S, S]."""
    random = torch.Generator().manual_seed(SEED)
    aside = (torch.arange(len(planes)) % round(1 / HELD_OUT) == 0).repeat(MOVES)
    stages = []
    for ranges in RANGES:
        limit = torch.tensor([ranges[0], ranges[1], ranges[2], ranges[2]])
        inputs, wanted = [], []
        for number in range(MOVES):
            moves = (2 * torch.rand(len(planes), 4, generator=random) - 1) * limit
            moved = moved_labels(planes, moves, PADDINGS[number % len(PADDINGS)])
            if number % 2:
                moved = surrounded(moved, moves, planes.roll(1 + number, dims=0), random)
            inputs.append(features(other_edges(moved, random)))
            wanted.append(moves)
        stages.append(_ridge(torch.cat(inputs), torch.cat(wanted), aside))
    return {name: np.stack([stage[name] for stage in stages]) for name in stages[0]}


def _ridge(inputs: torch.Tensor, wanted: torch.Tensor, aside: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns mean, weights and bias of a ridge regression; rows that lie `aside` choose the ridge."""
    mean, bias = inputs[~aside].mean(dim=0), wanted[~aside].mean(dim=0)
    x, y = inputs[~aside] - mean, wanted[~aside] - bias
    gram, cross = (x.mT @ x).double(), (x.mT @ y).double()
    values, axes = torch.linalg.eigh(gram)
    turned, best, weights = axes.mT @ cross, math.inf, None
    for ridge in RIDGES:
        found = (axes @ (turned / (values.clamp(min=0) + ridge * values.mean() + 1e-9)[:, None])).float()
        missed = float((((inputs[aside] - mean) @ found + bias - wanted[aside]) / wanted.std(dim=0)).square().mean())
        if missed < best:
            best, weights = missed, found
    return {"means": mean.numpy(), "weights": weights.numpy(), "biases": bias.numpy()}
