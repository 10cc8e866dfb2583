"""The metrics of the framework, by name.

Numbers in a name count generated images in thousands: ``fid5k_full`` is ``fid50k_full`` with 5,000. Names that end in
``_full`` compare with all real images without mirroring. Other names compare with as many real images as generated
images, including mirrored images if the data set has them.
"""

from metrics.frechet import compute_fid
from metrics.inception_score import compute_is
from metrics.kernel import compute_kid
from metrics.metric_utils import MetricOptions
from metrics.path_length import compute_ppl
from metrics.precision_recall import compute_pr
from metrics.registry import register_metric
from metrics.sliced_wasserstein import compute_swd
from metrics.structural_similarity import compute_msssim

MAX_REAL_KID = 1_000_000
MAX_REAL_PR = 200_000


@register_metric(pattern=r"fid([1-9]\d*)k(_full)?", names=["fid50k_full", "fid50k"])
def fid(opts: MetricOptions, thousands: int, full: str | None) -> dict[str, float]:
    """Fréchet inception distance."""
    count = _count(thousands)
    return {opts.metric: compute_fid(_real(opts, full), None if full else count, count)}


@register_metric(pattern=r"kid([1-9]\d*)k(_full)?", names=["kid50k_full", "kid50k"])
def kid(opts: MetricOptions, thousands: int, full: str | None) -> dict[str, float]:
    """Kernel inception distance, 100 subsets of 1,000."""
    count = _count(thousands)
    return {opts.metric: compute_kid(_real(opts, full), MAX_REAL_KID if full else count, count)}


@register_metric(pattern=r"pr([1-9]\d*)k([1-9]\d*)(_full)?", names=["pr50k3_full", "pr50k3"])
def pr(opts: MetricOptions, thousands: int, k: int, full: str | None) -> dict[str, float]:
    """Precision and recall with k nearest neighbours."""
    count = _count(thousands)
    precision, recall = compute_pr(_real(opts, full), MAX_REAL_PR if full else count, count, k)
    return {f"{opts.metric}_precision": precision, f"{opts.metric}_recall": recall}


@register_metric(pattern=r"is([1-9]\d*)k", names=["is50k"])
def inception(opts: MetricOptions, thousands: int) -> dict[str, float]:
    """Inception score over 10 splits."""
    mean, std = compute_is(_real(opts, "_full"), _count(thousands))
    return {f"{opts.metric}_mean": mean, f"{opts.metric}_std": std}


@register_metric(pattern=r"ppl2_wend|ppl([1-9]\d*)k_([zw])(full|end)", names=["ppl2_wend"])
def ppl2(opts: MetricOptions, thousands: int | None, space: str | None, sampling: str | None) -> dict[str, float]:
    """Perceptual path length on whole images (StyleGAN2's: in W, at the ends of paths)."""
    count = _count(thousands or 50)
    return {opts.metric: compute_ppl(_real(opts, "_full"), count, space or "w", sampling or "end", crop=False)}


@register_metric(pattern=r"ppl_([zw])(full|end)", names=["ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend"])
def ppl(opts: MetricOptions, space: str, sampling: str) -> dict[str, float]:
    """Perceptual path length of the first StyleGAN, on crops of faces."""
    return {opts.metric: compute_ppl(_real(opts, "_full"), _count(50), space, sampling, crop=True)}


@register_metric(pattern=r"swd(?:([1-9]\d*)k)?", names=["swd"])
def swd(opts: MetricOptions, thousands: int | None) -> dict[str, float]:
    """Sliced Wasserstein distance by level and mean, times 1,000, with 5,000 images unless the name has a number."""
    levels = compute_swd(_real(opts, "_full"), _count(5 if thousands is None else thousands))
    return {f"{opts.metric}_{level}": value for level, value in levels.items()}


@register_metric(pattern=r"msssim(?:([1-9]\d*)k)?", names=["msssim"])
def msssim(opts: MetricOptions, thousands: int | None) -> dict[str, float]:
    """Mean MS-SSIM of 5,000 pairs of generated images, and of pairs of real images if there are data."""
    found = compute_msssim(_real(opts, "_full"), _count(5 if thousands is None else thousands))
    return {f"{opts.metric}{suffix}": value for suffix, value in found.items()}


def _count(thousands: int) -> int:
    return thousands * 1000


def _real(opts: MetricOptions, full: str | None) -> MetricOptions:
    """Returns options with the data for the comparison."""
    return opts.with_dataset(max_size=None, **({"xflip": False} if full else {}))
