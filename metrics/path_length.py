"""Perceptual path length (Karras et al. 2019, section 4.1)."""

from collections.abc import Callable

import numpy as np
import torch

from metrics.metric_utils import VGG16, FeatureStats, MetricOptions, label_sampler, load_detector, my_batches, seeded
from torch_utils.sampler import derive_seed

LARGEST = 256
"""Largest side of images for the perceptual distance."""


def lerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Returns the linear interpolation from a to b. t broadcasts."""
    return a + (b - a) * t


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Returns the interpolation on the unit sphere between directions a and b [N, D], constant speed, t [N, 1]."""
    a, b = (v / v.norm(dim=1, keepdim=True) for v in (a, b))
    away = b - (a * b).sum(dim=1, keepdim=True) * a
    angle = torch.atan2(away.norm(dim=1, keepdim=True), (a * b).sum(dim=1, keepdim=True))
    away = away / away.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return a * torch.cos(angle * t) + away * torch.sin(angle * t)


def trimmed_mean(distances: np.ndarray) -> float:
    """Returns the mean without the smallest and the largest hundredth of the values."""
    low = np.percentile(distances, 1, method="lower")
    high = np.percentile(distances, 99, method="higher")
    return float(np.asarray(distances, np.float64)[(distances >= low) & (distances <= high)].mean())


def path_distances(
    G: torch.nn.Module,
    distance: Callable[[torch.Tensor], torch.Tensor],
    z: tuple[torch.Tensor, torch.Tensor],
    c: torch.Tensor,
    t: torch.Tensor,
    epsilon: float,
    space: str,
    synthesize: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Returns the squared perceptual speed along paths between pairs of latents.

    Args:
        G: network with `mapping`.
        distance: features of images in [-1, 1]. The distance is the sum of squared differences.
        z: ends of the paths, two tensors [N, z_dim].
        c: labels [N, c_dim].
        t: positions on the paths, [N].
        epsilon: length of the step.
        space: 'z' (on the sphere) or 'w' (straight).
        synthesize: maps ws to images in [-1, 1], with the same noise in each call.

    Returns:
        [N], float32.
    """
    if space == "w":
        w0, w1 = G.mapping(torch.cat(z), torch.cat([c, c])).chunk(2)
        t = t.view(-1, *[1] * (w0.ndim - 1))
        ends = [lerp(w0, w1, at) for at in (t, t + epsilon)]
    else:
        ends = G.mapping(torch.cat([slerp(*z, at) for at in (t[:, None], t[:, None] + epsilon)]), torch.cat([c, c]))
        ends = ends.chunk(2)
    near, far = (distance(synthesize(ws)) for ws in ends)
    return (near - far).square().sum(dim=1) / epsilon**2


def compute_ppl(
    opts: MetricOptions, num_samples: int, space: str, sampling: str, crop: bool, epsilon: float = 1e-4
) -> float:
    """Returns the perceptual path length over `num_samples` pairs. NaN off process 0.

    Args:
        space: 'z' or 'w'.
        sampling: 'full' for random positions on the path, or 'end' for its start.
        crop: use the middle of the image, where faces are.
    """
    G = opts.require_network()
    network = load_detector(opts, VGG16)
    labels = label_sampler(opts)
    stats = FeatureStats(capture_all=True)
    batch = max(opts.batch_for(G.img_resolution) // 2, 1)

    def features(images: torch.Tensor) -> torch.Tensor:
        return network(prepare(images, crop), resize_images=False, return_lpips=True)

    for number, start, size in my_batches(opts, num_samples, batch, "paths"):
        with seeded(opts, 3, number):
            z = torch.randn([2, size, G.z_dim], device=opts.device).unbind(0)
            t = torch.rand([size], device=opts.device) * (sampling == "full")
            c = labels(size, derive_seed(opts.seed, 4, number))

        def synthesize(ws: torch.Tensor, number: int = number) -> torch.Tensor:
            with seeded(opts, 5, number):
                return G.synthesis(ws, **{"noise_mode": "random", **_synthesis_options(opts)})

        stats.append(path_distances(G, features, z, c, t, epsilon, space, synthesize), start)
    stats.gather()
    return trimmed_mean(stats.get_all()[:, 0]) if opts.rank == 0 else float("nan")


def prepare(images: torch.Tensor, crop: bool) -> torch.Tensor:
    """Returns images [N, C, R, R] in [-1, 1] as input of the feature network: RGB in 0..255, side at most 256."""
    if crop:  # the lower middle, half the side (Karras et al. 2018)
        eighth = images.shape[-1] // 8
        images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    if images.shape[-1] > LARGEST:
        images = torch.nn.functional.avg_pool2d(images, images.shape[-1] // LARGEST)
    images = (images.float() + 1) * 127.5
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _synthesis_options(opts: MetricOptions) -> dict:
    return {name: value for name, value in opts.G_kwargs.items() if not name.startswith("truncation_")}
