"""The layout of regions in a network's own samples: the fit of other masks, and where the frame of a window lies."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from semantic.inversion.framing import Framing, fit_framing
from semantic.inversion.kept import kept_arrays
from semantic.inversion.parse import random_codes
from semantic.masks import is_present

SAMPLES, BATCH, PSI, SEED = 128, 8, 0.8, 1
SIDE = 32
"""Largest side of the labels, in pixels."""
NEAREST = 3
"""Number of the most similar samples whose overlaps with a mask are averaged.

Hats and other regions give samples different layouts. The mean of all samples would be like none of them.
"""
EMPTY = 0.5
"""Least number of pixels that a region has in two masks together. The overlap of smaller regions does not count."""


@dataclass(frozen=True)
class Layout:
    """The layout of regions in samples. All its tensors are on the CPU.

    Attributes:
        samples: [M, K, S, S], shares of the regions in the labels of samples.
        steadiness: [K], mean overlap of a region in two samples.
        presence: [K], share of the samples that show a region at all.
        usual: fit of the median sample to the others, see `fit`.
        framing: tells from labels where the frame of the samples lies.
    """

    samples: torch.Tensor
    steadiness: torch.Tensor
    presence: torch.Tensor
    usual: float
    framing: Framing

    @property
    def side(self) -> int:
        """Side of the labels in pixels."""
        return self.samples.shape[-1]

    def fit(self, planes: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Returns the fit of masks, [N] in [0, 1]: their overlap with the nearest samples. Steady regions weigh more.

        Args:
            planes: shares of the regions, [N, K, S, S].
            inside: [N, S, S], 0 at unknown places. They do not count.
        """
        found, there = pair_overlaps(planes * inside.unsqueeze(1), self.samples, inside)
        return likeness(found, there, self.steadiness).topk(min(NEAREST, len(self.samples)), dim=1).values.mean(dim=1)


def pair_overlaps(
    planes: torch.Tensor, samples: torch.Tensor, inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the intersection over union of each mask with each sample, [N, M, K], and where one shows the region.

    Args:
        planes: [N, K, S, S], 0 at unknown places.
        samples: [M, K, S, S].
        inside: [N, S, S], 0 at unknown places.
    """
    ours, theirs = planes.flatten(2).transpose(0, 1), samples.flatten(2).transpose(0, 1)
    both = (ours @ theirs.mT).permute(1, 2, 0)
    theirs = (inside.flatten(1) @ theirs.mT).permute(1, 2, 0)
    either = planes.sum(dim=(2, 3)).unsqueeze(1) + theirs - both
    return both / either.clamp(min=EMPTY), either > EMPTY


def likeness(found: torch.Tensor, there: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns the weighted mean overlap of pairs of masks, [N, M], of `pair_overlaps`."""
    there = there.to(weights)
    return (found * there) @ weights / (there @ weights).clamp(min=1e-6)


def overlaps(planes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Returns the intersection over union of planes and shares, [N, K]."""
    both = torch.minimum(planes, others).sum(dim=(2, 3))
    return both / torch.maximum(planes, others).sum(dim=(2, 3)).clamp(min=1)


@torch.no_grad()
def network_layout(
    G: torch.nn.Module, device: torch.device, cache: bool = True, hide_progress: bool | None = None
) -> Layout:
    """Returns the layout of a network's samples, on the CPU. Takes the layout from the cache if it is there.

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
            found.append(one_hot_planes(mask.argmax(dim=1), len(G.regions), SIDE).cpu())
        return _measure(torch.cat(found))

    arrays = kept_arrays(G, f"layout5-{SAMPLES}", build, cache)
    tensors = {name: torch.from_numpy(array).float() for name, array in arrays.items()}
    framing = Framing(*(tensors.pop(name) for name in ("means", "weights", "biases")))
    return Layout(**tensors | {"usual": float(arrays["usual"]), "framing": framing})


def one_hot_planes(indices: torch.Tensor, num_regions: int, side: int) -> torch.Tensor:
    """Returns the shares [N, K, side, side] of regions in class indices [N, S, S]."""
    planes = F.one_hot(indices.long(), num_regions).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(planes, side) if planes.shape[-1] > side else planes


def _measure(planes: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns the arrays of a layout of planes [M, K, S, S] of samples."""
    present = is_present(planes.mean(dim=(2, 3))).float()
    found, there = pair_overlaps(planes, planes, torch.ones_like(planes[:, 0]))
    others = 1 - torch.eye(len(planes)).unsqueeze(-1)
    pairs = present.unsqueeze(0) * present.unsqueeze(1) * others
    steadiness = (found * pairs).sum(dim=(0, 1)) / pairs.sum(dim=(0, 1)).clamp(min=1) * present.mean(dim=0)
    like = likeness(found, there, steadiness) * others[..., 0]
    return {
        "samples": planes.half().numpy(),
        "steadiness": steadiness.numpy(),
        "presence": present.mean(dim=0).numpy(),
        "usual": like.topk(min(NEAREST, len(planes) - 1), dim=1).values.mean(dim=1).median().numpy(),
        **fit_framing(planes),
    }
