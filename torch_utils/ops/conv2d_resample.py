"""Convolution combined with up- or down-sampling."""

from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F

from torch_utils.ops import conv2d_gradfix
from torch_utils.ops._arguments import (
    check_images,
    filter_size,
    grow_sides,
    margins_down,
    margins_up,
    padding_sides,
)
from torch_utils.ops.upfirdn2d import upfirdn2d


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Enlarge images by `up`, convolve them with `w`, reduce them by `down`. Differentiable to any order.

    The low-pass `f` acts after up-sampling inserts zeros, and before down-sampling drops samples. Without resampling,
    `f` is not used. All steps are linear and commute up to a shift, so they run in the cheapest order: the convolution
    uses the smaller image if possible.

    Args:
        x: Images `[N, C, H, W]`.
        w: Weights `[out_channels, C / groups, kh, kw]`.
        f: Filter of `upfirdn2d.setup_filter`. None is the identity.
        up: Up-sampling factor, an integer.
        down: Down-sampling factor, an integer.
        padding: Samples of the up-sampled image, in addition to the padding for `f`: an integer, `[x, y]` or
            `[x0, x1, y0, y1]`. Negative numbers crop.
        groups: Number of groups of channels that do not mix.
        flip_weight: True correlates with `w`, like `torch.nn.functional.conv2d`. False convolves.
        flip_filter: False convolves with `f`, True correlates.

    Returns:
        `[N, out_channels, h, w]`. Padding (kh - 1) / 2 and (kw - 1) / 2 gives h = H * up / down, and w likewise.

    Raises:
        ValueError: an argument has a wrong form, or the weights do not fit the channels of `x`.
    """
    check_images(x)
    up, down = _factor(up, "up"), _factor(down, "down")
    if w.ndim != 4 or groups < 1 or w.shape[0] % groups or w.shape[1] * groups != x.shape[1]:
        raise ValueError(f"w {list(w.shape)} with groups={groups} does not fit x {list(x.shape)}")
    fw, fh = filter_size(f)
    sides = padding_sides(padding)
    if up > 1:
        sides = grow_sides(sides, margins_up(fw, up), margins_up(fh, up))
    if down > 1:
        sides = grow_sides(sides, margins_down(fw, down), margins_down(fh, down))
    kh, kw = w.shape[2:]
    pointwise = kh == kw == 1

    if up > 1:
        if pointwise:
            x = _convolve(x, w, groups)
            x = upfirdn2d(x, f, up=up, padding=sides, flip_filter=flip_filter, gain=up**2)
        else:
            x = _convolve_zero_inserted(x, w, up, groups, flip_weight)
            # The result already extends beyond the image by the kernel, minus the zeros after the last sample.
            sides = grow_sides(sides, (1 - kw, up - kw), (1 - kh, up - kh))
            x = upfirdn2d(x, f, padding=sides, flip_filter=flip_filter, gain=up**2)
        return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)

    w = w if flip_weight else w.flip([2, 3])
    if down > 1 and pointwise:
        return _convolve(upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter), w, groups)
    if down > 1:
        return _convolve(upfirdn2d(x, f, padding=sides, flip_filter=flip_filter), w, groups, stride=down)
    x0, x1, y0, y1 = sides
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return _convolve(x, w, groups, padding=(y0, x0))
    return _convolve(F.pad(x, sides), w, groups)


def _factor(value: int, name: str) -> int:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
    return int(value)


def _convolve(x: torch.Tensor, w: torch.Tensor, groups: int, **options) -> torch.Tensor:
    return conv2d_gradfix.conv2d(x, w, groups=groups, **options)


def _convolve_zero_inserted(x: torch.Tensor, w: torch.Tensor, up: int, groups: int, flip_weight: bool) -> torch.Tensor:
    """Returns `x` with `up - 1` zeros between samples, convolved with `w` at all overlapping positions."""
    w = w.flip([2, 3]) if flip_weight else w  # a transposed convolution does not correlate
    outputs, inputs, kh, kw = w.shape
    w = w.reshape(groups, outputs // groups, inputs, kh, kw).transpose(1, 2)
    w = w.reshape(groups * inputs, outputs // groups, kh, kw)
    return conv2d_gradfix.conv_transpose2d(x, w, stride=up, groups=groups)
