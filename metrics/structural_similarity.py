"""Multi-scale structural similarity (Wang et al. 2003), and diversity measured with it (Odena et al. 2017)."""

import numpy as np
import torch

from dnnlib import UserError
from metrics.metric_utils import FeatureStats, MetricOptions, iterate_dataset, iterate_generator, open_dataset

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def num_scales(resolution: int) -> int:
    """Returns the number of scales at which the window fits: 5 from 176 pixels up, 3 at 64."""
    return sum(resolution >> scale >= WINDOW for scale in range(len(WEIGHTS)))


def ms_ssim(a: torch.Tensor, b: torch.Tensor, floor: float = 0.0) -> torch.Tensor:
    """Returns the similarity of pairs of images, 1 for equal images. Negative structure counts as 0.

    Below 176 pixels there are fewer scales. Their published weights are scaled to sum to 1.

    Args:
        a, b: [N, C, R, R] in 0..255.
        floor: smallest value of a factor. Values above 0 give gradients everywhere.

    Returns:
        [N], the mean over channels, float32.

    Raises:
        UserError: the images are smaller than the window of 11 pixels.
    """
    scales = num_scales(a.shape[-1])
    if not scales:
        raise UserError(f"MS-SSIM needs images of {WINDOW} pixels or more, not {a.shape[-1]}.")
    weights = a.new_tensor(WEIGHTS[:scales], dtype=torch.float32)
    weights = weights / weights.sum()
    a, b = a.float(), b.float()
    product = 1.0
    for scale, weight in enumerate(weights):
        similarity, contrast = _ssim(a, b)
        factor = similarity if scale == scales - 1 else contrast
        product = product * factor.clamp(min=floor) ** weight
        a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (a, b)) if scale < scales - 1 else (a, b)
    return product.mean(dim=1)


def _ssim(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the mean over places of SSIM and of its contrast-structure part, each [N, C]."""
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    contrast = (2 * covariance + C2) / (var_a + var_b + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * contrast).mean(dim=(2, 3)), contrast.mean(dim=(2, 3))


def _window(images: torch.Tensor) -> torch.Tensor:
    """Returns the Gaussian mean at all places where the window fits."""
    channels = images.shape[1]
    offset = torch.arange(WINDOW, device=images.device, dtype=images.dtype) - (WINDOW - 1) / 2
    taps = torch.exp(-((offset / SIGMA) ** 2) / 2)
    taps = taps / taps.sum()
    rows = torch.nn.functional.conv2d(images, taps.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return torch.nn.functional.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)


def compute_msssim(opts: MetricOptions, num_pairs: int) -> dict[str, float]:
    """Returns the mean similarity of pairs of generated images under '', and of pairs of real images under '_real'.

    A lower value means more diversity. A good generator comes close to the real value.
    """
    found = {"": _mean_similarity(iterate_generator(opts, 2 * num_pairs), opts)}
    if opts.has_data:
        dataset = open_dataset(opts)
        count = min(2 * num_pairs, len(dataset) // 2 * 2)
        if count:
            found["_real"] = _mean_similarity(iterate_dataset(opts, count, shuffle=True, dataset=dataset), opts)
    return found


def _mean_similarity(batches: object, opts: MetricOptions) -> float:
    """Returns the mean over pairs of neighbours. A last image without a partner is ignored."""
    stats = FeatureStats(capture_all=True)
    for batch in batches:
        pairs = len(batch.image) // 2 * 2
        if pairs:
            stats.append(ms_ssim(batch.image[0:pairs:2], batch.image[1:pairs:2])[:, None], batch.start)
    stats.gather()
    return float(np.mean(stats.get_all(), dtype=np.float64)) if opts.rank == 0 else float("nan")
