"""Triton kernels of the local generators' layers: the hidden state of a tile of pixels stays on chip throughout.

Pixels are the rows of every product. The result of one layer in registers is then the left operand of the next layer.

Backward recomputes the forward maps of a tile and keeps no maps from the forward pass. At 256², K = 13, L = 10, C = 64
and N = 16, maps would take 1.1 GB in half precision. Writing and reading them would take about as long as the
additional third of arithmetic. Instead each program writes the maps of one tile to its own scratch area. This area is
small enough to stay in the L2 cache. The program reads them back in reverse order while the gradient stays on chip. It
sums the gradients of weights over its tiles, in order. The few partial sums of one sample and region are added
afterwards. Results therefore do not depend on timing.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from semantic.local import plain
from torch_utils.ops import triton_support

_SLOPE = tl.constexpr(plain.LRELU_SLOPE)

_jit = triton.jit(do_not_specialize=["samples", "splits", "each", "tiles", "regions"])


def run_layers(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    depth_weight: torch.Tensor,
    depth_bias: torch.Tensor,
    depth_layers: int,
    detach_texture: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`ops.run_layers`. Under autocast, hidden maps have autocast's data type. Depths are float32."""
    arguments = (inputs, weights, biases, depth_weight, depth_bias)
    return _Layers.apply(*arguments, depth_layers, detach_texture, Precision.present(weights))


class Precision(NamedTuple):
    """Precision of the products. Sums are always float32."""

    dtype: torch.dtype
    """Data type of the operands."""
    products: str
    """Products of float32 operands: tf32, or three tf32 products that are as exact as float32."""
    autocast: bool
    """Whether `dtype` comes from autocast and not from the operands."""

    @classmethod
    def present(cls, x: torch.Tensor) -> "Precision":
        """Returns the precision that autocast and PyTorch's switches set for operands like `x`."""
        products = "tf32" if _tf32_allowed() else "tf32x3"
        return cls(plain.operand_dtype(x), products, torch.is_autocast_enabled(x.device.type))

    def context(self, x: torch.Tensor) -> torch.autocast:
        """Returns the recorded autocast, for a plain form that runs later."""
        return torch.autocast(x.device.type, self.dtype, enabled=self.autocast)

    def operand(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` dense and in the operands' data type."""
        return x.to(self.dtype).contiguous()


def _tf32_allowed() -> bool:
    switches = torch.backends.cuda.matmul
    # Newer versions of PyTorch may refuse to read the older switch.
    chosen = getattr(switches, "fp32_precision", None)
    return switches.allow_tf32 if chosen is None else chosen == "tf32"


def _plain_layers(*arguments):
    *arguments, precision = arguments
    with precision.context(arguments[0]):
        hidden, depth = plain.plain_layers(*arguments)
    return hidden, depth.float() if precision.autocast else depth


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, weights, biases, depth_weight, depth_bias, depth_layers, detach_texture, precision):
        _, N, K, C, _ = weights.shape
        P = inputs.shape[-1]
        hidden = inputs.new_empty(N, K, C, P, dtype=precision.dtype)
        depth = inputs.new_empty(N, K, P, dtype=torch.float32 if precision.autocast else precision.dtype)
        sizes = Sizes.of(False, C, precision.dtype, is_hopper(inputs))
        programs = N * K * triton.cdiv(P, sizes.tile)
        tensors = full(biases), full(depth_weight), full(depth_bias), hidden, depth
        _launch(_forward_kernel, programs, sizes, inputs, weights, depth_layers, precision, *tensors)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(inputs, weights, biases, depth_weight, depth_bias, hidden)
            ctx.options = depth_layers, detach_texture, precision
        return hidden, depth

    @staticmethod
    @plain.second_derivatives_of(_plain_layers)
    def backward(ctx, grad_hidden, grad_depth):
        *arguments, hidden = ctx.saved_tensors
        for_inputs = ctx.needs_input_grad[0]
        grads = _layer_gradients(*arguments, hidden, grad_hidden, grad_depth, *ctx.options, for_inputs)
        grads = [g.to(x.dtype) if g is not None else None for g, x in zip(grads, arguments, strict=True)]
        return *grads, None, None, None


def _layer_gradients(
    inputs, weights, biases, depth_weight, depth_bias, hidden, grad_hidden, grad_depth,
    depth_layers, detach_texture, precision, for_inputs,
):  # fmt: skip
    """Returns first derivatives for the five arguments, with sums in float32. None for inputs unless `for_inputs`."""
    L, N, K, C, _ = weights.shape
    P = inputs.shape[-1]
    sizes = Sizes.of(True, C, precision.dtype, is_hopper(inputs))
    tiles = triton.cdiv(P, sizes.tile)
    each = tiles_each(N * K, tiles, sizes.warps, inputs)
    splits = triton.cdiv(tiles, each)
    maps = inputs.new_empty(N * K * splits, L - 1, sizes.tile, C, dtype=precision.dtype)
    grad_first = inputs.new_empty(K, N, C, P, dtype=precision.dtype) if for_inputs else None
    grad_weights = inputs.new_empty(splits, L, N, K, C, C, dtype=torch.float32)
    grad_biases = inputs.new_empty(splits, L, N, K, C, dtype=torch.float32)
    grad_head = inputs.new_empty(splits, N, K, C, dtype=torch.float32)
    tensors = full(biases), full(depth_weight), hidden, grad_hidden.contiguous(), full(grad_depth)
    tensors += maps, grad_first, grad_weights, grad_biases, grad_head
    counts = N, splits, each
    _launch(
        *(_backward_kernel, N * K * splits, sizes, inputs, weights, depth_layers, precision),
        *tensors,
        *counts,
        DETACH=detach_texture,
    )
    grad_inputs = None
    if for_inputs:
        first = precision.operand(weights[0].transpose(0, 1))
        if inputs.ndim == 2:
            grad_inputs = first.flatten(0, 2).t() @ grad_first.flatten(0, 2)
        elif inputs.ndim == 3:
            grad_inputs = first.flatten(1, 2).transpose(1, 2) @ grad_first.flatten(1, 2)
        else:
            grad_inputs = (first.transpose(2, 3) @ grad_first).transpose(0, 1)
    grad_weights = grad_weights.sum(0) if splits > 1 else grad_weights[0]
    return grad_inputs, grad_weights, grad_biases.sum((0, 2)), grad_head.sum((0, 1)), grad_depth.float().sum((0, 2))


def full(x: torch.Tensor) -> torch.Tensor:
    """Returns `x` dense and in float32."""
    return x.to(torch.float32).contiguous()


class Sizes(NamedTuple):
    """Size of a tile, and number of threads that process it."""

    tile: int
    """Number of pixels."""
    warps: int

    @classmethod
    def of(cls, backward: bool, channels: int, dtype: torch.dtype, hopper: bool) -> "Sizes":
        """Returns the largest tile whose state fits into registers, as the compiler reports."""
        if dtype == torch.float32:
            numbers = 4096 if hopper and not backward else 2048
        else:
            numbers = 8192 if hopper or not backward else 4096
        many = channels == 128 or (backward and hopper and channels == 64 and dtype != torch.float32)
        return cls(min(128, numbers // channels), 8 if many else 4)


def is_hopper(x: torch.Tensor) -> bool:
    """Whether products read operands from shared memory, and so need fewer registers, as on H100 and B200."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device)[0] in (9, 10)


def tiles_each(groups: int, tiles: int, warps: int, x: torch.Tensor) -> int:
    """Returns the number of tiles per program, if a program cannot process tiles of several groups.

    More tiles per program save memory of partial sums and scratch areas. The number is the largest for which
    multiprocessors are idle for at most about a tenth of the time.
    """
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4
    return _tiles_each(groups, tiles, processors * (8 // warps))


@functools.cache
def _tiles_each(groups: int, tiles: int, places: int) -> int:
    times = {each: triton.cdiv(groups * triton.cdiv(tiles, each), places) * each for each in range(1, tiles + 1)}
    enough = 1.1 * min(times.values())
    return max(each for each, time in times.items() if time <= enough)


def _launch(kernel, programs, sizes, inputs, weights, depth_layers, precision, *others, **constants) -> None:
    L, _, K, C, _ = weights.shape
    P = inputs.shape[-1]
    sample, region = {2: (0, 0), 3: (0, C * P), 4: (K * C * P, C * P)}[inputs.ndim]
    with triton_support.device_of(inputs):
        kernel[(programs,)](
            precision.operand(inputs),
            precision.operand(weights),
            *others,
            triton.cdiv(P, sizes.tile),
            K,
            P,
            sample,
            region,
            weights[0].numel(),
            L=L,
            BEFORE=depth_layers,
            C=C,
            TILE=sizes.tile,
            PRECISION=precision.products,
            num_warps=sizes.warps,
            num_stages=2,
            **constants,
        )


@_jit
def _forward_kernel(
    inputs, weights, biases, head, head_bias, hidden, depth,
    tiles, regions, pixels, input_sample, input_region, weight_layer,
    L: tl.constexpr, BEFORE: tl.constexpr, C: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program runs one tile of one sample and region through all layers."""
    program = tl.program_id(0)
    pair = (program // tiles).to(tl.int64)
    region = pair % regions
    channel = tl.arange(0, C)
    pixel = program % tiles * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    place = channel[None, :] * pixels + pixel[:, None]
    inputs += pair // regions * input_sample + region * input_region
    weights += pair * C * C
    biases += region * C
    y = tl.load(inputs + place, mask=inside[:, None], other=0).to(tl.float32)
    for _ in range(BEFORE):
        y = _layer(y, weights, biases, C, PRECISION)
        weights += weight_layer
        biases += regions * C
    value = tl.sum(y * tl.load(head + region * C + channel)[None, :], axis=1)
    value += tl.load(head_bias + region)
    tl.store(depth + pair * pixels + pixel, value.to(depth.dtype.element_ty), mask=inside)
    for _ in range(L - BEFORE):
        y = _layer(y, weights, biases, C, PRECISION)
        weights += weight_layer
        biases += regions * C
    tl.store(hidden + pair * C * pixels + place, y.to(hidden.dtype.element_ty), mask=inside[:, None])


@_jit
def _backward_kernel(
    inputs, weights, biases, head, hidden, grad_hidden, grad_depth,
    maps, grad_first, grad_weights, grad_biases, grad_head, samples, splits, each,
    tiles, regions, pixels, input_sample, input_region, weight_layer,
    L: tl.constexpr, BEFORE: tl.constexpr, C: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
    DETACH: tl.constexpr,
):  # fmt: skip
    """A program runs some tiles of one sample and region, one after another, forward and back."""
    program = tl.program_id(0)
    pair = (program // splits).to(tl.int64)
    split = program % splits
    region = pair % regions
    sample = pair // regions
    channel = tl.arange(0, C)
    row = tl.arange(0, TILE)
    v = tl.load(head + region * C + channel)
    inputs += sample * input_sample + region * input_region
    weights += pair * C * C
    biases += region * C
    hidden += pair * C * pixels
    grad_hidden += pair * C * pixels
    maps += program.to(tl.int64) * (L - 1) * TILE * C
    bias_layer = samples * regions * C
    grad_weights += split.to(tl.int64) * L * weight_layer + pair * C * C
    grad_biases += split.to(tl.int64) * L * bias_layer + pair * C
    grad_head += split * bias_layer + pair * C
    slot = row[:, None] * C + channel[None, :]

    start = split * each
    for tile in range(start, tl.minimum(start + each, tiles)):
        again = tile > start
        pixel = tile * TILE + row
        inside = pixel < pixels
        place = channel[None, :] * pixels + pixel[:, None]

        y = tl.load(inputs + place, mask=inside[:, None], other=0).to(tl.float32)
        w = weights
        b = biases
        m = maps
        for _ in range(L - 1):
            y = _layer(y, w, b, C, PRECISION)
            tl.store(m + slot, y.to(maps.dtype.element_ty))
            w += weight_layer
            b += regions * C
            m += TILE * C
        tl.debug_barrier()  # each thread reads results of other threads

        shift = tl.load(grad_depth + pair * pixels + pixel, mask=inside, other=0)
        y = tl.load(hidden + place, mask=inside[:, None], other=0).to(tl.float32)
        g = tl.load(grad_hidden + place, mask=inside[:, None], other=0).to(tl.float32)
        if BEFORE == L:
            g += shift[:, None] * v[None, :]
        g = _slope(g, y).to(weights.dtype.element_ty)
        if BEFORE < L:
            y = tl.load(maps + (BEFORE - 1) * TILE * C + slot).to(tl.float32)
        _add(grad_head + channel, tl.sum(y * shift[:, None], axis=0), again)

        # From here on, these are the weights, the input and the gradients of the next layer.
        m -= TILE * C
        gw = grad_weights + (L - 1) * weight_layer
        gb = grad_biases + (L - 1) * bias_layer
        for done in range(L - 1):
            z = tl.load(m + slot)
            _add_gradients(gw, gb, g, z, again, C, PRECISION)
            before = _back(g, w, C, PRECISION)
            depth_here = done == L - 1 - BEFORE
            if DETACH:
                before = tl.where(depth_here, 0.0, before)
            before += tl.where(depth_here, shift, 0.0)[:, None] * v[None, :]
            g = _slope(before, z.to(tl.float32)).to(z.dtype)
            w -= weight_layer
            m -= TILE * C
            gw -= weight_layer
            gb -= bias_layer
        x = tl.load(inputs + place, mask=inside[:, None], other=0)
        _add_gradients(gw, gb, g, x, again, C, PRECISION)
        if grad_first is not None:
            first = grad_first + (region * samples + sample) * C * pixels
            tl.store(first + place, g, mask=inside[:, None])
        tl.debug_barrier()  # the next tile overwrites the maps and continues the sums


@triton.jit
def _layer(x, weights, biases, C: tl.constexpr, PRECISION: tl.constexpr):
    """Returns lrelu(W x + b) in float32 for pixels x [TILE, C].

    The result is rounded only as an operand of the next layer, so an H100 takes the operand from registers.
    """
    channel = tl.arange(0, C)
    w = tl.load(weights + channel[None, :] * C + channel[:, None])
    b = tl.load(biases + channel)
    y = tl.dot(x.to(w.dtype), w, input_precision=PRECISION) + b[None, :]
    return tl.maximum(y, y * _SLOPE)


@triton.jit
def _back(g, weights, C: tl.constexpr, PRECISION: tl.constexpr):
    """Returns W^T g for pixels g [TILE, C]."""
    channel = tl.arange(0, C)
    w = tl.load(weights + channel[:, None] * C + channel[None, :])
    return tl.dot(g, w, input_precision=PRECISION)


@triton.jit
def _slope(g, y):
    """Returns the gradient before the activation with result y. The result has the sign of its argument."""
    return tl.where(y > 0, g, g * _SLOPE)


@triton.jit
def _add_gradients(grad_weights, grad_biases, g, x, again, C: tl.constexpr, PRECISION: tl.constexpr):
    """Add gradients of W and b of a layer with input x and gradient g before its activation."""
    channel = tl.arange(0, C)
    products = tl.dot(tl.trans(g), x, input_precision=PRECISION)
    _add(grad_weights + channel[:, None] * C + channel[None, :], products, again)
    _add(grad_biases + channel, tl.sum(g.to(tl.float32), axis=0), again)


@triton.jit
def _add(total, value, again):
    """Start a sum in memory, or add to it."""
    tl.store(total, value + tl.load(total, mask=again, other=0))
