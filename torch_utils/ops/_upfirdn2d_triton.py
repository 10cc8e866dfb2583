"""Triton kernels of `upfirdn2d`. They move the images once and skip the zeros that up-sampling inserts.

Along one axis, with factors U and D, padding p in front and taps g in the order in which they are applied,

    y[o] = sum over t of g[t] z[o D + t - p],   z[m U] = x[m],   all other z zero.

Output o therefore uses input m with tap t = m U + p - o D. Outputs are computed in patches of P, with P D a multiple of
U. Let o = P q + a and p = U k + s. Then input m = (P D / U) q - k + r contributes to output a with tap
t = r U + s - a D, for every q. The taps are therefore known when the kernel is compiled. An input for several outputs
of a patch is loaded and converted once. This determines the speed: in half precision, a GPU has time for about 35
instructions per element that it moves.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from torch_utils.ops import triton_support

_MAX_UNROLLED_TAPS = 36  # beyond, the kernel with a loop over taps

# Patches in a tile, by number of warps. With channels last, a thread has 4 channels of a patch. Otherwise it has one
# channel of two or four patches, one below the other.
_CHANNELS_LAST_WARPS = 8
_PLANES_WARPS = 4


class Axis(NamedTuple):
    """One axis of the operator: factors, padding in front (negative crops), taps and size of the result."""

    up: int
    down: int
    padding: int
    taps: int
    size: int

    def transposed(self, size: int) -> "Axis":
        """Returns the axis of the operator's transpose, whose result has the `size` of the operator's input."""
        return Axis(self.down, self.up, self.taps - 1 - self.padding, self.taps, size)


class Settings(NamedTuple):
    """The operator along both axes. With `outer` the filter is a row that stands for its outer product with itself."""

    y: Axis
    x: Axis
    outer: bool
    flip_filter: bool
    gain: float

    def transposed(self, height: int, width: int) -> "Settings":
        y, x = self.y.transposed(height), self.x.transposed(width)
        return self._replace(y=y, x=x, flip_filter=not self.flip_filter)


def upfirdn2d(
    x: torch.Tensor, f: torch.Tensor | None, axis_y: Axis, axis_x: Axis, flip_filter: bool, gain: float
) -> torch.Tensor:
    """Apply the operator. The result has data type and memory format of `x`. Sums are float32 (float64 if `x` is).

    A row of taps stands for its outer product with itself. With few taps the kernel applies the product. With many taps
    it runs along the rows and then along the columns.
    """
    row = f is not None and f.ndim == 1
    if row and axis_y.taps * axis_x.taps > _MAX_UNROLLED_TAPS:
        still = Axis(1, 1, 0, 1, x.shape[2])
        x = _Resample.apply(x, f, Settings(still, axis_x, False, flip_filter, gain))
        still = still._replace(size=x.shape[3])
        return _Resample.apply(x, f, Settings(axis_y, still, False, flip_filter, 1.0))
    return _Resample.apply(x, f, Settings(axis_y, axis_x, row, flip_filter, gain))


class _Resample(torch.autograd.Function):
    """Linear in the images, so its derivative is its transpose, an operator of the same kind."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, f: torch.Tensor | None, settings: Settings) -> torch.Tensor:
        ctx.save_for_backward(f)
        ctx.transposed = settings.transposed(*x.shape[2:])
        return _launch(x, f, settings)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (f,) = ctx.saved_tensors
        return _Resample.apply(grad, f, ctx.transposed), None, None


def _launch(x: torch.Tensor, f: torch.Tensor | None, settings: Settings) -> torch.Tensor:
    samples, channels, in_h, in_w = x.shape
    axis_y, axis_x = settings.y, settings.x
    channels_last = channels > 1 and x.stride(1) == 1 and not x.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = [samples, channels, axis_y.size, axis_x.size]
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)

    unrolled = {axis_y.up, axis_x.up} <= {1, 2, 4} and axis_y.taps * axis_x.taps <= _MAX_UNROLLED_TAPS
    tile = _tile_sizes(y, settings, channels_last, unrolled)
    tiles_y = triton.cdiv(axis_y.size, tile["PY"] * tile["TY"])
    tiles_x = triton.cdiv(axis_x.size, tile["PX"] * tile["TX"])
    channel_tiles = triton.cdiv(channels, tile["TC"])
    kernel = _outputs if not unrolled else _patches_of_pixels if channels_last else _patches_of_planes
    with triton_support.device_of(x):
        kernel[(samples * channel_tiles * tiles_y * tiles_x,)](
            x,
            None if f is None else f.contiguous(),
            y,
            float(settings.gain),
            channels,
            *(in_h, in_w, axis_y.size, axis_x.size, axis_y.padding, axis_x.padding),
            *(channel_tiles, tiles_y, tiles_x),
            *x.stride(),
            *y.stride(),
            UP_Y=axis_y.up,
            UP_X=axis_x.up,
            DOWN_Y=axis_y.down,
            DOWN_X=axis_x.down,
            TAPS_Y=axis_y.taps,
            TAPS_X=axis_x.taps,
            PHASE_Y=axis_y.padding % axis_y.up,
            PHASE_X=axis_x.padding % axis_x.up,
            OUTER=settings.outer,
            FLIP=settings.flip_filter,
            CHANNELS_LAST=channels_last,
            WIDE=triton_support.needs_wide_index(x, y),
            DOUBLE=x.dtype == torch.float64,
            **tile,
        )
    return y


def _tile_sizes(y: torch.Tensor, settings: Settings, channels_last: bool, unrolled: bool) -> dict[str, int]:
    """Returns the sizes of a patch (PY x PX outputs) and of a tile (TC x TY x TX patches), and the number of warps."""
    _, channels, height, width = y.shape
    py, px = (4, _patch_width(y, settings.x, channels_last)) if unrolled else (1, 1)
    high, wide = triton.next_power_of_2(triton.cdiv(height, py)), triton.next_power_of_2(triton.cdiv(width, px))
    deep = triton.next_power_of_2(channels)
    if channels_last:
        # 32 channels of 16 x 16 outputs. Their patches share inputs through the L1 cache.
        warps, patches, tx = _CHANNELS_LAST_WARPS, 128 * _CHANNELS_LAST_WARPS, min(wide, 256 // min(deep, 32))
        ty = min(high, patches // (tx * min(deep, 32)))
    else:
        warps, patches, tx = _PLANES_WARPS, 32 * _PLANES_WARPS * (2 if px == 4 else 4), min(wide, 32)
        ty = min(high, patches // tx)
    tc = min(deep, patches // (tx * ty))
    # Neighbouring outputs of a row are stored as one word if rows start at a multiple of its size.
    bits = 8 * y.element_size()
    pack = bits if px > 1 and not channels_last and width % px == 0 and px * bits <= 64 else 0
    return {"PY": py, "PX": px, "PACK": pack, "TC": tc, "TY": ty, "TX": tx, "num_warps": warps}


def _patch_width(y: torch.Tensor, axis: Axis, channels_last: bool) -> int:
    """Returns the width of a patch. Wide patches load less, but store with gaps unless outputs pack into words."""
    least = axis.up // math.gcd(axis.up, axis.down)
    if channels_last:
        return max(least, 2)
    words = max(1, (8 if axis.down == 1 else 4) // y.element_size())
    return max(least, math.gcd(words, y.shape[3], 4))


def _patch_kernel(
    x_ptr, f_ptr, y_ptr, gain, channels, in_h, in_w, out_h, out_w, pad_y, pad_x, channel_tiles, tiles_y, tiles_x,
    xs_n, xs_c, xs_y, xs_x, ys_n, ys_c, ys_y, ys_x,
    UP_Y: tl.constexpr, UP_X: tl.constexpr, DOWN_Y: tl.constexpr, DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, PHASE_Y: tl.constexpr, PHASE_X: tl.constexpr,
    OUTER: tl.constexpr, FLIP: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, PACK: tl.constexpr, TC: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
):  # fmt: skip
    """Patches of 4 rows of PX outputs, all taps unrolled."""
    n, c, qy, qx = _tile(channel_tiles, tiles_y, tiles_x, TC, TY, TX, CHANNELS_LAST, WIDE)
    top = qy * (PY * DOWN_Y // UP_Y) - (pad_y - PHASE_Y) // UP_Y
    left = qx * (PX * DOWN_X // UP_X) - (pad_x - PHASE_X) // UP_X
    corner = x_ptr + n * xs_n + (c * xs_c + top * xs_y + left * xs_x)
    zero = tl.zeros(corner.shape, tl.float64 if DOUBLE else tl.float32)
    a0, a1, a2, a3 = zero, zero, zero, zero  # a row of outputs
    b0, b1, b2, b3 = zero, zero, zero, zero  # the row below, and so on
    c0, c1, c2, c3 = zero, zero, zero, zero
    d0, d1, d2, d3 = zero, zero, zero, zero
    for r in tl.static_range((TAPS_Y - 1 - PHASE_Y + (PY - 1) * DOWN_Y) // UP_Y + 1):
        row_inside = _within(top + r, in_h, WIDE) & (c < channels)
        ty = r * UP_Y + PHASE_Y
        for s in tl.static_range((TAPS_X - 1 - PHASE_X + (PX - 1) * DOWN_X) // UP_X + 1):
            inside = row_inside & _within(left + s, in_w, WIDE)
            v = tl.load(corner + r * xs_y + s * xs_x, mask=inside, other=0).to(zero.dtype)
            tx = s * UP_X + PHASE_X
            a0, a1, a2, a3 = _add(a0, a1, a2, a3, v, f_ptr, ty, tx, DOWN_X, TAPS_Y, TAPS_X, OUTER, FLIP)
            b0, b1, b2, b3 = _add(b0, b1, b2, b3, v, f_ptr, ty - DOWN_Y, tx, DOWN_X, TAPS_Y, TAPS_X, OUTER, FLIP)
            c0, c1, c2, c3 = _add(c0, c1, c2, c3, v, f_ptr, ty - 2 * DOWN_Y, tx, DOWN_X, TAPS_Y, TAPS_X, OUTER, FLIP)
            d0, d1, d2, d3 = _add(d0, d1, d2, d3, v, f_ptr, ty - 3 * DOWN_Y, tx, DOWN_X, TAPS_Y, TAPS_X, OUTER, FLIP)
    oy = qy * PY
    ox = qx * PX
    corner = y_ptr + n * ys_n + (c * ys_c + oy * ys_y + ox * ys_x)
    space = tl.where(c < channels, out_w - ox, 0)
    _store_row(corner, a0, a1, a2, a3, gain, tl.where(oy < out_h, space, 0), ys_x, PX, PACK)
    _store_row(corner + ys_y, b0, b1, b2, b3, gain, tl.where(oy + 1 < out_h, space, 0), ys_x, PX, PACK)
    _store_row(corner + 2 * ys_y, c0, c1, c2, c3, gain, tl.where(oy + 2 < out_h, space, 0), ys_x, PX, PACK)
    _store_row(corner + 3 * ys_y, d0, d1, d2, d3, gain, tl.where(oy + 3 < out_h, space, 0), ys_x, PX, PACK)


def _tap_loop_kernel(
    x_ptr, f_ptr, y_ptr, gain, channels, in_h, in_w, out_h, out_w, pad_y, pad_x, channel_tiles, tiles_y, tiles_x,
    xs_n, xs_c, xs_y, xs_x, ys_n, ys_c, ys_y, ys_x,
    UP_Y: tl.constexpr, UP_X: tl.constexpr, DOWN_Y: tl.constexpr, DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, PHASE_Y: tl.constexpr, PHASE_X: tl.constexpr,
    OUTER: tl.constexpr, FLIP: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, PACK: tl.constexpr, TC: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
):  # fmt: skip
    """Any factors and filters: computes single outputs, and looks up the taps of each."""
    n, c, oy, ox = _tile(channel_tiles, tiles_y, tiles_x, TC, TY, TX, CHANNELS_LAST, WIDE)
    # The first tap, 0..U-1, on a sample instead of an inserted zero. % has the sign of its left side.
    ty = ((pad_y - oy * DOWN_Y) % UP_Y + UP_Y) % UP_Y
    tx = ((pad_x - ox * DOWN_X) % UP_X + UP_X) % UP_X
    top = (oy * DOWN_Y - pad_y + ty) // UP_Y
    left = (ox * DOWN_X - pad_x + tx) // UP_X
    corner = x_ptr + n * xs_n + (c * xs_c + top * xs_y + left * xs_x)
    total = tl.zeros(corner.shape, tl.float64 if DOUBLE else tl.float32)
    for r in range((TAPS_Y + UP_Y - 1) // UP_Y):
        row_inside = _within(top + r, in_h, WIDE) & (ty + r * UP_Y < TAPS_Y) & (c < channels)
        for s in range((TAPS_X + UP_X - 1) // UP_X):
            inside = row_inside & _within(left + s, in_w, WIDE) & (tx + s * UP_X < TAPS_X)
            v = tl.load(corner + r * xs_y + s * xs_x, mask=inside, other=0).to(total.dtype)
            total += v * _tap(f_ptr, ty + r * UP_Y, tx + s * UP_X, inside, TAPS_Y, TAPS_X, OUTER, FLIP)
    inside = (c < channels) & (oy < out_h) & (ox < out_w)
    corner = y_ptr + n * ys_n + (c * ys_c + oy * ys_y + ox * ys_x)
    tl.store(corner, (total * gain).to(y_ptr.dtype.element_ty), mask=inside)


# Arguments without alignment information for the compiler, so that it does not compile again for every size.
_SIZES = ["in_h", "in_w", "out_h", "out_w", "pad_y", "pad_x", "channel_tiles", "tiles_y", "tiles_x"]

# With channels last, four channels are loaded and stored as one, which needs alignment information. With planes, a
# thread must not get four neighbouring patches, as it does if outputs are known to be aligned: the loads of a warp
# would have gaps.
_patches_of_pixels = triton.jit(_patch_kernel, do_not_specialize=_SIZES)
_patches_of_planes = triton.jit(_patch_kernel, do_not_specialize=[*_SIZES, "ys_n", "ys_c"])
_outputs = triton.jit(_tap_loop_kernel, do_not_specialize=_SIZES)


@triton.jit
def _tile(
    channel_tiles, tiles_y, tiles_x, TC: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Returns this program's sample and, in memory order, the channels, rows and columns of its patches.

    Programs are numbered in that order too, so programs that run together read neighbouring lines.
    """
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    if CHANNELS_LAST:
        c_tile = program % channel_tiles
        program = program // channel_tiles
    x_tile = program % tiles_x
    program = program // tiles_x
    y_tile = program % tiles_y
    program = program // tiles_y
    i = tl.arange(0, TC * TY * TX)
    if CHANNELS_LAST:
        n = program
        c = c_tile * TC + i % TC
        i = i // TC
        qx = x_tile * TX + i % TX
        qy = y_tile * TY + i // TX
    else:
        n = program // channel_tiles
        qx = x_tile * TX + i % TX
        i = i // TX
        qy = y_tile * TY + i % TY
        c = program % channel_tiles * TC + i // TY
    return n, c, qy, qx


@triton.jit
def _within(index, size, WIDE: tl.constexpr):
    """Returns 0 <= index < size, in one comparison."""
    if WIDE:
        inside = index.to(tl.uint64) < size.to(tl.uint64)
    else:
        inside = index.to(tl.uint32) < size.to(tl.uint32)
    return inside


@triton.jit
def _tap(
    f_ptr, ty, tx, mask, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, OUTER: tl.constexpr, FLIP: tl.constexpr
):  # fmt: skip
    """Returns the tap at (ty, tx), in the order of use: a convolution uses them in reverse."""
    if f_ptr is None:
        tap = 1.0
    else:
        ky = ty if FLIP else TAPS_Y - 1 - ty
        kx = tx if FLIP else TAPS_X - 1 - tx
        if OUTER:
            tap = tl.load(f_ptr + ky, mask=mask) * tl.load(f_ptr + kx, mask=mask)
        else:
            tap = tl.load(f_ptr + ky * TAPS_X + kx, mask=mask)
    return tap


@triton.jit
def _add(
    o0, o1, o2, o3, v, f_ptr, ty: tl.constexpr, tx: tl.constexpr, DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, OUTER: tl.constexpr, FLIP: tl.constexpr,
):  # fmt: skip
    """Add the contribution of sample v to a row's outputs. The first output uses it with tap (ty, tx)."""
    if ty >= 0 and ty < TAPS_Y:
        if tx >= 0 and tx < TAPS_X:
            o0 += v * _tap(f_ptr, ty, tx, None, TAPS_Y, TAPS_X, OUTER, FLIP)
        if tx >= DOWN_X and tx - DOWN_X < TAPS_X:
            o1 += v * _tap(f_ptr, ty, tx - DOWN_X, None, TAPS_Y, TAPS_X, OUTER, FLIP)
        if tx >= 2 * DOWN_X and tx - 2 * DOWN_X < TAPS_X:
            o2 += v * _tap(f_ptr, ty, tx - 2 * DOWN_X, None, TAPS_Y, TAPS_X, OUTER, FLIP)
        if tx >= 3 * DOWN_X and tx - 3 * DOWN_X < TAPS_X:
            o3 += v * _tap(f_ptr, ty, tx - 3 * DOWN_X, None, TAPS_Y, TAPS_X, OUTER, FLIP)
    return o0, o1, o2, o3


@triton.jit
def _store_row(ptr, o0, o1, o2, o3, gain, space, step, PX: tl.constexpr, PACK: tl.constexpr):
    """Store the first `space` of PX outputs with distance `step`, or all as one word, PACK bits each."""
    o0 = (o0 * gain).to(ptr.dtype.element_ty)
    o1 = (o1 * gain).to(ptr.dtype.element_ty)
    o2 = (o2 * gain).to(ptr.dtype.element_ty)
    o3 = (o3 * gain).to(ptr.dtype.element_ty)
    if PACK == 16 and PX == 4:
        word = _pair_of_words(_pair_of_halves(o0, o1), _pair_of_halves(o2, o3))
        tl.store(ptr.to(tl.pointer_type(tl.uint64), bitcast=True), word, mask=space > 0)
    elif PACK == 16:
        tl.store(ptr.to(tl.pointer_type(tl.uint32), bitcast=True), _pair_of_halves(o0, o1), mask=space > 0)
    elif PACK == 32:
        tl.store(ptr.to(tl.pointer_type(tl.uint64), bitcast=True), _pair_of_words(o0, o1), mask=space > 0)
    else:
        tl.store(ptr, o0, mask=space > 0)
        if PX > 1:
            tl.store(ptr + step, o1, mask=space > 1)
        if PX > 2:
            tl.store(ptr + 2 * step, o2, mask=space > 2)
            tl.store(ptr + 3 * step, o3, mask=space > 3)


@triton.jit
def _pair_of_halves(low, high):
    """Returns two 16-bit numbers as one 32-bit number, the first at the lower address."""
    return low.to(tl.uint16, bitcast=True).to(tl.uint32) | (high.to(tl.uint16, bitcast=True).to(tl.uint32) << 16)


@triton.jit
def _pair_of_words(low, high):
    """Returns two 32-bit numbers as one 64-bit number, the first at the lower address."""
    return low.to(tl.uint32, bitcast=True).to(tl.uint64) | (high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32)
