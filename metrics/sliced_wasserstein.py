"""Sliced Wasserstein distance between patches of Laplacian pyramids (Karras et al. 2018, section 5)."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from dnnlib import UserError
from metrics.laplacian import laplacian_pyramid, pyramid_levels
from metrics.metric_utils import FeatureStats, MetricOptions, cached_arrays, iterate_dataset, iterate_generator
from metrics.samples import open_dataset
from torch_utils.sampler import derive_seed

PATCH = 7
PATCHES_PER_IMAGE = 128
PROJECTIONS = 512
REPEATS = 4


def draw_patches(level: torch.Tensor, seed: int, count: int = PATCHES_PER_IMAGE) -> torch.Tensor:
    """Returns square patches of 7 pixels at random places, [N, C, H, H] to [N, count, C * 49]."""
    n, channels, side, _ = level.shape
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.randint(0, side - PATCH + 1, [2, n, count], generator=generator).to(level.device)
    across = torch.arange(PATCH, device=level.device)
    rows = (y[:, :, None, None] + across[:, None]).expand(-1, -1, PATCH, PATCH)
    columns = (x[:, :, None, None] + across).expand(-1, -1, PATCH, PATCH)
    places = (rows * side + columns).reshape(n, 1, -1).expand(-1, channels, -1)
    found = level.flatten(2).gather(2, places).reshape(n, channels, count, PATCH * PATCH)
    return found.transpose(1, 2).reshape(n, count, channels * PATCH * PATCH)


def normalize_channels(patches: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """Returns patches [N, C * 49] with mean 0 and standard deviation 1 per channel, over the whole set."""
    split = patches.float().reshape(len(patches), channels, -1)
    split = split - split.mean(dim=(0, 2), keepdim=True)
    std = torch.linalg.vector_norm(split, dim=(0, 2), keepdim=True) / (split.numel() / channels) ** 0.5
    return split.div_(std.clamp(min=1e-8)).flatten(1)


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, seed: int = 0) -> float:
    """Returns the mean distance of two sets projected onto 512 random directions, in 4 turns of 128.

    Args:
        a, b: [N, F], of equal size.
    """
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(REPEATS):
        directions = torch.randn([PROJECTIONS // REPEATS, a.shape[1]], generator=generator)
        directions = (directions / directions.norm(dim=1, keepdim=True)).to(a.device)
        total += _sorted_distance(directions @ a.T, directions @ b.T)
    return total / REPEATS


def _sorted_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Returns the mean over rows of the Wasserstein-1 distance of two sets of numbers, [D, N] each."""
    if a.device.type == "cuda":
        return (a.sort(dim=1).values - b.sort(dim=1).values).abs().mean().item()

    def distance(row: tuple[np.ndarray, np.ndarray]) -> float:
        return float(np.abs(np.sort(row[0]) - np.sort(row[1])).mean(dtype=np.float64))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # here numpy sorts several times faster than torch
        return float(np.mean(list(pool.map(distance, zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)))))


class PatchSet:
    """Patches of a stream of images, one collection per level.

    Args:
        resolution: side of the images.

    Raises:
        UserError: the images are smaller than a patch.
    """

    def __init__(self, resolution: int):
        if resolution < PATCH:
            raise UserError(f"The sliced Wasserstein distance needs images of 8 pixels or more, not {resolution}.")
        self.levels = pyramid_levels(resolution)
        self.stats = [FeatureStats(capture_all=True) for _ in self.levels]

    def append(self, images: torch.Tensor, start: int, seed: int) -> None:
        """Add patches of images uint8 [N, 3, R, R]. Half precision suffices for differences of bytes."""
        pyramid = laplacian_pyramid(images.float() / 127.5 - 1, len(self.levels))
        for number, (level, stats) in enumerate(zip(pyramid, self.stats, strict=True)):
            stats.append(draw_patches(level, seed + number).half(), start)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns float16 [images, 128 * 147] by side of the level, complete on process 0."""
        for stats in self.stats:
            stats.gather()
        return {str(side): stats.get_all() for side, stats in zip(self.levels, self.stats, strict=True)}


def compare_patches(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray], seed: int = 0, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Returns the distance times 1,000 by level, and the mean. a and b come from `PatchSet.arrays`, equal sizes."""
    found = {}
    for level in a:
        rows = [torch.from_numpy(part[level]).to(device).view(-1, 3 * PATCH * PATCH) for part in (a, b)]
        found[level] = 1e3 * sliced_wasserstein(*map(normalize_channels, rows), seed=seed)
    return {**found, "mean": float(np.mean(list(found.values())))}


def compute_swd(opts: MetricOptions, num_images: int) -> dict[str, float]:
    """Returns the distance between real and generated images, by level and as mean, times 1,000.

    Args:
        num_images: number of images of each kind, at most the size of the data set.
    """
    G = opts.require_network()
    dataset = open_dataset(opts)
    if dataset.resolution != G.img_resolution:
        raise UserError(f"{dataset.name} has images of {dataset.resolution}², but the network {G.img_resolution}².")
    count = min(num_images, len(dataset))

    def real_patches() -> dict[str, np.ndarray]:
        patches = PatchSet(dataset.resolution)
        for batch in iterate_dataset(opts, count, dataset=dataset):
            patches.append(batch.image, batch.start, derive_seed(opts.seed, 6, batch.start))
        return patches.arrays()

    key = dict(count=count, seed=opts.seed, batch=opts.batch_for(dataset.resolution))
    real = cached_arrays(opts, "patches", key, real_patches)
    patches = PatchSet(G.img_resolution)
    for batch in iterate_generator(opts, count):
        patches.append(batch.image, batch.start, derive_seed(opts.seed, 7, batch.start))
    fake = patches.arrays()
    if opts.rank != 0:
        return {}
    return compare_patches(real, fake, opts.seed, opts.device if opts.device.type == "cuda" else "cpu")
