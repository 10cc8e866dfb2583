"""Labels photos with the parser that every network with regions has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from dnnlib import UserError
from semantic.inversion.disturb import disturb
from semantic.inversion.kept import kept_arrays
from semantic.metrics.segmenter import LARGEST, Segmenter, shrink, train_segmenter
from semantic.regions import Regions
from training.images import to_uint8

PAIRS, TRAIN_IMAGES = 2000, 24_000
BATCH = 8
SEED = 0
VERSION = 1
"""Version of the training of segmenters. A new version ignores older segmenters in the cache."""


class Parser:
    """Finds the regions of a network in images.

    Args:
        regions: the regions of the network.
        resolution: R, side of the scores.
        score: network that returns scores [N, K, S, S] of images [N, 3, S, S] in [-1, 1].
        side: S, side of the input of `score`.
    """

    def __init__(self, regions: Regions, resolution: int, score: torch.nn.Module, side: int):
        self.regions = regions
        self.resolution = resolution
        self.side = side
        self._score = score

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns scores [N, K, R, R] of the regions in images [N, 3, H, W] in [-1, 1]. The region of a pixel has the
        largest score.
        """
        x = _resize(images.float().clamp(-1, 1), self.side)
        return _resize(self._score(x), self.resolution)

    def masks(self, images: torch.Tensor) -> torch.Tensor:
        """Returns class indices int64 [N, R, R] of images [N, 3, H, W] in [-1, 1]."""
        return self(images).argmax(dim=1)


class _Head(torch.nn.Module):
    """The segmentation head of a discriminator."""

    def __init__(self, D: torch.nn.Module):
        super().__init__()
        self.D = D

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.D.segmentation(self.D.image.features(images))


def build_parser(
    networks: Mapping[str, Any],
    device: torch.device,
    cache: bool = True,
    pairs: int = PAIRS,
    train_images: int = TRAIN_IMAGES,
    hide_progress: bool | None = None,
) -> Parser:
    """Returns the parser of a network.

    It is the segmentation head of the discriminator if there is one, since that head was trained on real pairs. Other
    networks get a small segmenter. It is trained once on generated pairs, and kept in the cache.

    Args:
        networks: G_ema and D, as from ``legacy.load_network``.
        device: device of the computation.
        cache: read and write the cache.
        pairs: generated pairs to learn from.
        train_images: total number of training images.
        hide_progress: True hides the bars, None shows them on terminals.

    Raises:
        UserError: the network has no regions, or its images are not in colour.
    """
    G, D = networks["G_ema"], networks.get("D")
    regions = getattr(G, "regions", None)
    if regions is None:
        raise UserError("This network has no regions to find in photos. Use a network trained with --cfg=semantic.")
    if G.img_channels != 3:
        raise UserError(f"Photos have 3 channels, but this network makes images of {G.img_channels}.")
    head = getattr(D, "segmentation", None)
    if head is not None and D.num_regions == len(regions) and D.img_resolution == G.img_resolution:
        return Parser(regions, G.img_resolution, _Head(D).eval().to(device), G.img_resolution)
    network = _generated_segmenter(G, device, cache, pairs, train_images, hide_progress)
    return Parser(regions, G.img_resolution, network, min(G.img_resolution, LARGEST))


def _generated_segmenter(
    G: torch.nn.Module, device: torch.device, cache: bool, pairs: int, train_images: int, hide_progress: bool | None
) -> Segmenter:
    """Returns a segmenter trained on generated pairs. Takes the segmenter from the cache if it is there."""
    num_regions = len(G.regions)

    def train() -> dict[str, np.ndarray]:
        images, masks = generated_pairs(G, device, pairs, hide_progress=hide_progress)
        text = "Learning to label photos"
        learned = train_segmenter(
            images, masks, num_regions, train_images, device, SEED, None, hide_progress, text, disturb=disturb
        )
        return {name: tensor.cpu().numpy() for name, tensor in learned.state_dict().items()}

    network = Segmenter(num_regions)
    for attempt in (cache, False):  # the arrays in the cache may have another form
        arrays = kept_arrays(G, f"parser{VERSION}-{pairs}-{train_images}", train, attempt)
        try:
            network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
            break
        except (RuntimeError, TypeError):
            continue
    return network.eval().requires_grad_(False).to(device)


@torch.no_grad()
def generated_pairs(
    G: torch.nn.Module, device: torch.device, count: int, seed: int = SEED, hide_progress: bool | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns generated images uint8 [N, 3, S, S] and class indices uint8 [N, S, S], on the CPU. S is at most 128.

    In half of the images, the regions have codes of different images. Colours and shapes then meet in new ways.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in tqdm(range(0, count, BATCH), desc="Pairs to learn from", leave=False, disable=hide_progress):
        number = min(BATCH, count - start)
        psi = 0.5 + 0.5 * torch.rand(number, 1, 1, generator=generator).to(device)
        ws = [random_codes(G, number, generator, device, psi) for _ in range(2)]
        swap = torch.rand(number, G.num_ws, 1, generator=generator).to(device) < 0.5
        swap[:, list(G.regions.base_slots)] = False
        swap[::2] = False
        out = G.synthesis(torch.where(swap, ws[1], ws[0]), noise_mode="const", return_mask=True)
        pixels = torch.from_numpy(to_uint8(out.image))
        found.append(shrink(pixels, out.mask.argmax(dim=1).to(torch.uint8).cpu()))
    images, masks = (torch.cat(part) for part in zip(*found, strict=True))
    return images, masks


def random_codes(
    G: torch.nn.Module, count: int, generator: torch.Generator, device: torch.device, psi: torch.Tensor
) -> torch.Tensor:
    """Returns truncated codes [N, num_ws, D] of random latents and random labels."""
    z = torch.randn(count, G.z_dim, generator=generator).to(device)
    labels = torch.zeros(count, G.c_dim, device=device)
    if G.c_dim:
        chosen = torch.randint(G.c_dim, [count], generator=generator).to(device)
        labels[torch.arange(count, device=device), chosen] = 1
    return G.mapping.w_avg + (G.mapping(z, labels) - G.mapping.w_avg) * psi


def _resize(planes: torch.Tensor, side: int) -> torch.Tensor:
    """Returns planes [N, C, H, W], resized to [N, C, side, side]."""
    if planes.shape[2:] == (side, side):
        return planes
    smaller = side < max(planes.shape[2:])
    return F.interpolate(planes, [side, side], mode="bilinear", antialias=smaller, align_corners=False)
