"""Filters of the augmentation pipe: wavelets, octave bands and mirrored borders."""

from collections.abc import Sequence
from itertools import chain, product
from math import comb

import numpy as np
import torch


def symlet(moments: int) -> np.ndarray:
    """Returns the low-pass filter of the least asymmetric orthogonal Daubechies wavelet (sym2, sym6, ...).

    Daubechies, "Ten Lectures on Wavelets", sections 6.1 and 8.1. The squared response is a power of (1 + z) times a
    polynomial with roots in pairs z, 1/z. Each choice of one root per pair (conjugates together) gives a filter that is
    orthogonal to its even shifts. The symlet is the choice whose taps are closest to their own reverse.

    Args:
        moments: number of vanishing moments, at least 1.

    Returns:
        2 * moments taps, float64, with sum 1. The end with the larger tap comes first.
    """
    squared = [comb(moments - 1 + k, k) for k in reversed(range(moments))]
    pairs = []
    for y in np.roots(squared):
        if y.imag < -1e-9:
            continue
        inside = min(np.roots([1, 4 * y - 2, 1]), key=abs)
        conjugates = [inside] if abs(y.imag) < 1e-9 else [inside, inside.conj()]
        pairs.append((conjugates, [1 / z for z in conjugates]))
    smooth = np.poly([-1] * moments)
    candidates = [np.convolve(smooth, np.poly(list(chain(*chosen))).real) for chosen in product(*pairs)]
    taps = min((c / c.sum() for c in candidates), key=lambda c: np.square(c - c[::-1]).sum())
    return taps if abs(taps[0]) >= abs(taps[-1]) else taps[::-1].copy()


def octave_bands(lowpass: Sequence[float], bands: int = 4) -> np.ndarray:
    """Returns symmetric filters that split a signal into octaves and add up to the unit impulse.

    Karras et al. 2020, appendix B.

    With H the low-pass, H(z) H(1/z) and H(-z) H(-1/z) are zero-phase and sum to one. The octaves result from
    splitting the low half repeatedly, each time with filters stretched by two.

    Args:
        lowpass: taps of an orthogonal wavelet's low-pass with sum 1.
        bands: number of octaves.

    Returns:
        float64 [bands, taps], the lowest band first, taps odd.
    """
    low = np.convolve(lowpass, lowpass[::-1])
    high = low * (-1.0) ** (np.arange(len(low)) - len(low) // 2)
    octaves, remainder = [], np.ones(1)
    for level in range(bands - 1):
        octaves.append(np.convolve(remainder, _stretched(high, 2**level)))
        remainder = np.convolve(remainder, _stretched(low, 2**level))
    octaves.append(remainder)
    length = len(remainder)
    return np.stack([np.pad(taps, (length - len(taps)) // 2) for taps in reversed(octaves)])


def _stretched(taps: np.ndarray, factor: int) -> np.ndarray:
    stretched = np.zeros((len(taps) - 1) * factor + 1)
    stretched[::factor] = taps
    return stretched


def mirrored(position: torch.Tensor, size: int) -> torch.Tensor:
    """Fold positions (integer or not) on an axis into 0..size-1. Mirrors at the centres of first and last pixel."""
    if size == 1:
        return torch.zeros_like(position)
    return (size - 1) - (position % (2 * (size - 1)) - (size - 1)).abs()


def mirror_pad(images: torch.Tensor, left: int, right: int, top: int, bottom: int) -> torch.Tensor:
    """Reflect-pad [N, C, H, W] by any number of pixels, even more than the width of the image."""
    height, width = images.shape[2:]
    if max(left, right) < width and max(top, bottom) < height:
        return torch.nn.functional.pad(images, [left, right, top, bottom], mode="reflect")
    columns = mirrored(torch.arange(-left, width + right, device=images.device), width)
    rows = mirrored(torch.arange(-top, height + bottom, device=images.device), height)
    return images.index_select(2, rows).index_select(3, columns)
