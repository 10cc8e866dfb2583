"""Triton kernels of the fusion of features: products of all regions in one pass, the shares applied on chip.

The shares scale the product of each region. Where the sum runs over pixels, they scale the hidden maps as these are
read. Weighted maps never exist in memory. Sums have a fixed order, so results do not depend on timing.
"""

import torch
import triton
import triton.language as tl

from semantic.local import plain
from semantic.local.triton_layers import Precision, full, is_hopper, tiles_each
from torch_utils.ops import triton_support

_jit = triton.jit(do_not_specialize=["items", "each", "tiles", "regions"])


def fuse(hidden: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`ops.fuse`. Under autocast the result has autocast's data type."""
    return _Fusion.apply(hidden, shares, weight, bias, Precision.present(weight))


def _plain_fuse(*arguments):
    *arguments, precision = arguments
    with precision.context(arguments[0]):
        return plain.plain_fuse(*arguments)


class _Fusion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, shares, weight, bias, precision):
        N, _, _, P = hidden.shape
        sizes = _sizes("forward", hidden.shape[2], precision.dtype, is_hopper(hidden))
        fused = hidden.new_empty(N, weight.shape[1], P, dtype=precision.dtype)
        tiles = triton.cdiv(P, sizes["PIXELS"])
        programs = N * tiles * triton.cdiv(weight.shape[1], sizes["ROWS"])
        _launch(_forward_kernel, programs, precision, sizes, hidden, shares, weight, tiles, full(bias), fused)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(hidden, shares, weight, bias)
            ctx.options = (precision,)
        return fused

    @staticmethod
    @plain.second_derivatives_of(_plain_fuse)
    def backward(ctx, grad):
        arguments = ctx.saved_tensors
        grads = _gradients(*arguments, grad, *ctx.options, ctx.needs_input_grad[2])
        grads = [g.to(x.dtype) if g is not None else None for g, x in zip(grads, arguments, strict=True)]
        return *grads, None


def _gradients(hidden, shares, weight, bias, grad, precision, for_weight):
    """Returns first derivatives for the four arguments. None for the weight unless `for_weight`."""
    N, K, C, P = hidden.shape
    F = weight.shape[1]
    grad = precision.operand(grad)
    grad_hidden = torch.empty_like(hidden, dtype=precision.dtype, memory_format=torch.contiguous_format)
    grad_shares = (precision.operand(bias) @ grad).float()  # the kernel adds to it
    grad_bias = (precision.operand(shares) @ grad.transpose(1, 2)).float().sum(0)

    sizes = _sizes("hidden", C, precision.dtype, is_hopper(hidden))
    tiles = triton.cdiv(P, sizes["PIXELS"])
    tensors = hidden, shares, weight, tiles, grad, grad_hidden, grad_shares
    _launch(_hidden_kernel, N * K * tiles, precision, sizes, *tensors)
    if not for_weight:
        return grad_hidden, grad_shares, None, grad_bias

    sizes = _sizes("weight", C, precision.dtype, is_hopper(hidden))
    tiles = triton.cdiv(P, sizes["PIXELS"])
    groups = K * triton.cdiv(F, sizes["ROWS"])
    each = tiles_each(groups, N * tiles, sizes["num_warps"], hidden)
    splits = triton.cdiv(N * tiles, each)
    grad_weight = hidden.new_empty(splits, K, F, C, dtype=torch.float32)
    tensors = hidden, shares, weight, tiles, grad, grad_weight, N * tiles, each
    _launch(_weight_kernel, groups * splits, precision, sizes, *tensors)
    return grad_hidden, grad_shares, grad_weight.sum(0), grad_bias


def _sizes(kernel: str, channels: int, dtype: torch.dtype, hopper: bool) -> dict[str, int]:
    """Returns the largest tiles of features and pixels whose sums fit into registers, as the compiler reports."""
    warps = 8 if channels == 128 else 4
    if dtype == torch.float32:
        return {"ROWS": 64 if hopper else 32, "PIXELS": 64, "num_warps": warps, "num_stages": 2}
    rows, pixels = {"forward": (64 if channels == 128 else 128, 128), "hidden": (64, 128), "weight": (128, 64)}[kernel]
    return {"ROWS": rows, "PIXELS": pixels, "num_warps": 8 if kernel == "forward" else warps, "num_stages": 3}


def _launch(kernel, programs, precision, sizes, hidden, shares, weight, tiles, *others) -> None:
    _, K, C, P = hidden.shape
    with triton_support.device_of(hidden):
        kernel[(programs,)](
            precision.operand(hidden),
            full(shares),
            precision.operand(weight),
            *others,
            tiles,
            K,
            weight.shape[1],
            P,
            C=C,
            PRECISION=precision.products,
            **sizes,
        )


@_jit
def _forward_kernel(
    hidden, shares, weight, bias, fused, tiles, regions, features, pixels,
    C: tl.constexpr, ROWS: tl.constexpr, PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program computes some features of a tile of pixels of one sample."""
    row_tiles = tl.cdiv(features, ROWS)
    program = tl.program_id(0)
    row = program % row_tiles * ROWS + tl.arange(0, ROWS)
    pixel = program // row_tiles % tiles * PIXELS + tl.arange(0, PIXELS)
    sample = (program // row_tiles // tiles).to(tl.int64)
    channel = tl.arange(0, C)
    inside = pixel < pixels
    known = row < features
    hidden += sample * regions * C * pixels
    shares += sample * regions * pixels
    total = tl.zeros([ROWS, PIXELS], tl.float32)
    for _ in range(regions):
        w = tl.load(weight + row[:, None] * C + channel[None, :], mask=known[:, None], other=0)
        h = tl.load(hidden + channel[:, None] * pixels + pixel[None, :], mask=inside[None, :], other=0)
        b = tl.load(bias + row, mask=known, other=0)
        a = tl.load(shares + pixel, mask=inside, other=0)
        total += (tl.dot(w, h, input_precision=PRECISION) + b[:, None]) * a[None, :]
        weight += features * C
        hidden += C * pixels
        bias += features
        shares += pixels
    place = (sample * features + row[:, None]) * pixels + pixel[None, :]
    tl.store(fused + place, total.to(fused.dtype.element_ty), mask=known[:, None] & inside[None, :])


@_jit
def _hidden_kernel(
    hidden, shares, weight, grad, grad_hidden, grad_shares, tiles, regions, features, pixels,
    C: tl.constexpr, ROWS: tl.constexpr, PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program computes the gradients of one region's hidden map and shares in a tile of pixels of one sample."""
    program = tl.program_id(0)
    region = program % regions
    pixel = program // regions % tiles * PIXELS + tl.arange(0, PIXELS)
    sample = (program // regions // tiles).to(tl.int64)
    channel = tl.arange(0, C)
    inside = pixel < pixels
    weight += region * features * C
    grad += sample * features * pixels
    total = tl.zeros([C, PIXELS], tl.float32)
    for start in range(0, features, ROWS):
        row = start + tl.arange(0, ROWS)
        known = row < features
        w = tl.load(weight + row[None, :] * C + channel[:, None], mask=known[None, :], other=0)
        g = tl.load(grad + row[:, None] * pixels + pixel[None, :], mask=known[:, None] & inside[None, :], other=0)
        total = tl.dot(w, g, total, input_precision=PRECISION)
    map_start = (sample * regions + region) * pixels
    place = map_start * C + channel[:, None] * pixels + pixel[None, :]
    a = tl.load(shares + map_start + pixel, mask=inside, other=0)
    h = tl.load(hidden + place, mask=inside[None, :], other=0).to(tl.float32)
    tl.store(grad_hidden + place, (total * a[None, :]).to(grad_hidden.dtype.element_ty), mask=inside[None, :])
    from_bias = tl.load(grad_shares + map_start + pixel, mask=inside, other=0)
    tl.store(grad_shares + map_start + pixel, from_bias + tl.sum(total * h, axis=0), mask=inside)


@_jit
def _weight_kernel(
    hidden, shares, weight, grad, grad_weight, items, each, tiles, regions, features, pixels,
    C: tl.constexpr, ROWS: tl.constexpr, PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program sums gradients of some rows of one region's weight over tiles of pixels and samples."""
    row_tiles = tl.cdiv(features, ROWS)
    program = tl.program_id(0)
    row = program % row_tiles * ROWS + tl.arange(0, ROWS)
    region = program // row_tiles % regions
    split = program // row_tiles // regions
    channel = tl.arange(0, C)
    known = row < features
    total = tl.zeros([ROWS, C], tl.float32)
    start = split * each
    for item in range(start, tl.minimum(start + each, items)):
        sample = (item // tiles).to(tl.int64)
        pixel = item % tiles * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < pixels
        here = known[:, None] & inside[None, :]
        g = tl.load(grad + sample * features * pixels + row[:, None] * pixels + pixel[None, :], mask=here, other=0)
        map_start = (sample * regions + region) * pixels
        a = tl.load(shares + map_start + pixel, mask=inside, other=0)
        place = map_start * C + channel[None, :] * pixels + pixel[:, None]
        h = tl.load(hidden + place, mask=inside[:, None], other=0).to(tl.float32)
        total = tl.dot(g, (h * a[:, None]).to(g.dtype), total, input_precision=PRECISION)
    place = (split * regions + region) * features * C + row[:, None] * C + channel[None, :]
    tl.store(grad_weight + place, total, mask=known[:, None])
