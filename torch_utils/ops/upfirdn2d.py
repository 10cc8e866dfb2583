"""Up-sample, pad, filter with a finite impulse response, and down-sample images in one operator."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from torch_utils.ops import proof, triton_support
from torch_utils.ops._arguments import (
    check_images,
    check_impl,
    factor_pair,
    filter_size,
    grow_sides,
    margins_down,
    margins_up,
    padding_sides,
)

# From this number of taps, one pass along rows and one along columns are faster than one pass with the image of taps.
# With 4 taps, the single pass is a third faster on a CPU.
_SEPARABLE_FROM_TAPS = 8


def setup_filter(
    f: torch.Tensor | np.ndarray | Sequence | float | None,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> torch.Tensor:
    """Returns a filter in the form that the other functions of this module need.

    Args:
        f: Taps: an image `[h, w]`, a row `[n]` for both axes, one number, or None for the identity.
        device: Device of the result. None uses PyTorch's default device.
        normalize: Scale the taps to sum to 1 (before `gain`).
        flip_filter: Reverse the order of the taps.
        gain: Gain of the filter at frequency zero.
        separable: Keep a row as a row, which is applied in two passes. None: for rows of 8 and more taps.

    Returns:
        float32, `[n]` for a separable filter, else `[h, w]`.

    Raises:
        ValueError: there are no taps, they have more than two dimensions, or `separable` is set for an image of taps.
    """
    taps = torch.as_tensor(1 if f is None else f, dtype=torch.float32)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"f must be a number, a row or an image of taps, not an array of shape {list(taps.shape)}")
    taps = taps.reshape(-1) if taps.ndim == 0 else taps
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= _SEPARABLE_FROM_TAPS
    if separable and taps.ndim == 2:
        raise ValueError(f"separable=True needs a row of taps, not an image of shape {list(taps.shape)}")
    if taps.ndim == 1 and not separable:
        taps = taps.outer(taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = _reversed(taps)
    # A row is applied twice, so each pass uses the square root of the gain.
    return (taps * gain ** (taps.ndim / 2)).to(device or torch.get_default_device())


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Up-sample, pad, filter and down-sample images. Differentiable to any order.

    Inserts `up - 1` zeros after every sample. Pads with zeros, or crops. Convolves with `f` where the filter is fully
    inside, and multiplies by `gain`. Keeps every `down`-th sample, starting with the first.

    Args:
        x: Images `[N, C, H, W]`.
        f: Filter of `setup_filter`, `[h, w]` or, separable, `[n]`. None is the identity.
        up: Up-sampling factor, an integer or `[x, y]`.
        down: Down-sampling factor, an integer or `[x, y]`.
        padding: Samples of the up-sampled image: an integer, `[x, y]` or `[x0, x1, y0, y1]`. Negative numbers crop.
        flip_filter: False convolves, True correlates.
        gain: Factor of the result.
        impl: `'ref'` is plain PyTorch. `'cuda'` runs the kernel, one pass over memory (two with a long separable
            filter), if `triton_support.runs_on(x)`, and otherwise plain PyTorch.

    Returns:
        `[N, C, h, w]` with h = (H * up + y0 + y1 - taps) // down + 1, and w likewise.

    Raises:
        ValueError: an argument has a wrong form, or the filter is larger than the padded image.
    """
    check_images(x)
    check_impl(impl)
    fw, fh = filter_size(f)
    upx, upy = factor_pair(up, "up")
    downx, downy = factor_pair(down, "down")
    px0, px1, py0, py1 = padding_sides(padding)
    height, width = x.shape[2] * upy + py0 + py1, x.shape[3] * upx + px0 + px1
    if height < fh or width < fw:
        raise ValueError(f"a filter of {fw} x {fh} taps does not fit into {width} x {height} padded samples")
    if f is not None and f.device != x.device:
        raise ValueError(f"f must be on the device of x, {x.device}, not on {f.device}")

    # The kernel has no gradient for the filter, since no filter is trained.
    if impl == "cuda" and triton_support.runs_on(x) and not (f is not None and f.requires_grad):
        factors = (upx, upy), (downx, downy), (px0, px1, py0, py1)
        key = ("upfirdn2d", *factors, None if f is None else f.shape, x.dtype, proof.layout(x))
        if proof.answer(key, x.device, lambda: _is_proven(x, f, *factors)):
            return _run_kernel(x, f, *factors, flip_filter, gain)

    taps = x.new_ones([1, 1]) if f is None else f.to(x.dtype)
    taps = _reversed(taps) if flip_filter else taps
    if taps.ndim == 2:
        return _resample(x, taps * gain, (upy, upx), (downy, downx), (py0, py1, px0, px1))
    x = _resample(x, taps[None, :] * gain, (1, upx), (1, downx), (0, 0, px0, px1))
    return _resample(x, taps[:, None], (upy, 1), (downy, 1), (py0, py1, 0, 0))


def _run_kernel(x, f, up, down, sides, flip_filter: bool, gain: float) -> torch.Tensor:
    """Run the kernel. Factors are pairs (x, y), sides are (x0, x1, y0, y1)."""
    from torch_utils.ops import _upfirdn2d_triton as kernels

    (fw, fh), (px0, px1, py0, py1) = filter_size(f), sides
    height, width = x.shape[2] * up[1] + py0 + py1, x.shape[3] * up[0] + px0 + px1
    axis_y = kernels.Axis(up[1], down[1], py0, fh, (height - fh) // down[1] + 1)
    axis_x = kernels.Axis(up[0], down[0], px0, fw, (width - fw) // down[0] + 1)
    return kernels.upfirdn2d(x, f, axis_y, axis_x, flip_filter, gain)


def _is_proven(x: torch.Tensor, f: torch.Tensor | None, up, down, sides) -> bool:
    """Whether the kernel agrees with the plain form on the device of `x`, for such tensors and factors."""
    taps, layout = None if f is None else list(f.shape), proof.layout(x)
    traits = f"up {up}, down {down}, padding {sides}, taps {taps}, {proof.dtype_name(x.dtype)}, {layout}"
    width, height = filter_size(f)
    # Large enough for the filter after cropping.
    size = [max(8, -(-(needed - before - after) // factor) + 3) for needed, before, after, factor in
            ((height, *sides[2:], up[1]), (width, *sides[:2], up[0]))]  # fmt: skip

    def inputs(generator: torch.Generator) -> list[torch.Tensor]:
        memory = torch.channels_last if layout == "channels last" else torch.contiguous_format
        return [torch.randn([1, 8, *size], generator=generator).to(x.dtype).contiguous(memory_format=memory)]

    def taps_like(x: torch.Tensor) -> torch.Tensor | None:
        row = torch.linspace(0.2, 1, 1 if f is None else f.numel(), dtype=torch.float32, device=x.device)
        return None if f is None else (row / row.norm()).reshape(f.shape)

    return proof.holds(
        f"upfirdn2d ({traits})",
        x.device,
        kernel=lambda x: _run_kernel(x, taps_like(x), up, down, sides, False, 1.5),
        plain=lambda x: upfirdn2d(x, taps_like(x), up, down, sides, False, 1.5, impl="ref"),
        inputs=inputs,
        tolerance=proof.TOLERANCES[x.dtype],
    )


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Filter images `[N, C, H, W]`. With padding 0 the size stays, with zeros outside of the image.

    `padding` is added to the padding that keeps the size. For other arguments and errors see `upfirdn2d`.
    """
    fw, fh = filter_size(f)
    sides = grow_sides(padding_sides(padding), margins_up(fw, 1), margins_up(fh, 1))
    return upfirdn2d(x, f, padding=sides, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Enlarge images `[N, C, H, W]` by `up`, at the same brightness.

    With padding 0 the result is `[N, C, H * up, W * up]`. `padding` is in samples of the result.
    For other arguments and errors see `upfirdn2d`.
    """
    fw, fh = filter_size(f)
    upx, upy = factor_pair(up, "up")
    sides = grow_sides(padding_sides(padding), margins_up(fw, upx), margins_up(fh, upy))
    return upfirdn2d(x, f, up=up, padding=sides, flip_filter=flip_filter, gain=gain * upx * upy, impl=impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Reduce images `[N, C, H, W]` by `down`, to `[N, C, H / down, W / down]` with padding 0.

    `padding` is in samples of `x`. For other arguments and errors see `upfirdn2d`.
    """
    fw, fh = filter_size(f)
    downx, downy = factor_pair(down, "down")
    sides = grow_sides(padding_sides(padding), margins_down(fw, downx), margins_down(fh, downy))
    return upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter, gain=gain, impl=impl)


def _reversed(taps: torch.Tensor) -> torch.Tensor:
    return taps.flip(list(range(taps.ndim)))


def _resample(
    x: torch.Tensor,
    taps: torch.Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    sides: tuple[int, int, int, int],
) -> torch.Tensor:
    """Run one pass with the kernel `taps` `[h, w]`. Factors are `(y, x)` and sides `(y0, y1, x0, x1)`, as in PyTorch.

    A strided convolution computes only the kept samples, a transposed convolution skips the inserted zeros. Depthwise
    convolutions are 3 to 15 times faster on a CPU than channels moved into the batch.
    """
    channels = x.shape[1]
    if up == (1, 1):
        padding, rest = _split_sides(sides)
        weight = _reversed(taps).expand(channels, 1, -1, -1)
        return F.conv2d(_pad(x, rest), weight, stride=down, padding=padding, groups=channels)
    # The full transposed convolution exceeds the requested samples by these numbers.
    (th, tw), (upy, upx), (y0, y1, x0, x1) = taps.shape, up, sides
    excess = (th - 1 - y0, th - upy - y1, tw - 1 - x0, tw - upx - x1)
    crop, rest = _split_sides(excess)
    weight = taps.expand(channels, 1, -1, -1)
    x = F.conv_transpose2d(x, weight, stride=up, padding=crop, groups=channels)
    return _pad(x, [-side for side in rest])[:, :, :: down[0], :: down[1]]


def _split_sides(sides: Sequence[int]) -> tuple[tuple[int, int], list[int]]:
    """Returns the part of `(y0, y1, x0, x1)` that a convolution pads at no cost (equal on both sides), and the rest."""
    y, x = (max(0, min(pair)) for pair in (sides[:2], sides[2:]))
    return (y, x), [sides[0] - y, sides[1] - y, sides[2] - x, sides[3] - x]


def _pad(x: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """Pad with zeros, or crop at negative numbers, by `(y0, y1, x0, x1)`."""
    return F.pad(x, [*sides[2:], *sides[:2]]) if any(sides) else x
