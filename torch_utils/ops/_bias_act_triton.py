"""Triton kernels of `bias_act`: the operator, its slope and its curvature, each in one pass over memory.

A dense tensor of any memory format is treated as a matrix `[rows, cols]` over its memory. With channels last, and for
vectors, the bias varies along the columns. With NCHW, each row has the length of the bias's stride, and the bias varies
from row to row. A tile of that matrix therefore finds its biases without a division per element.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from torch_utils.ops import triton_support
from torch_utils.ops._activations_triton import first_derivative, second_derivative, value
from torch_utils.ops._bias_act_plain import along, plain_bias_act

_WARPS = 4
_TILE_BYTES = 4096  # 32 for each thread
_MAX_CHANNELS = 256  # in a tile whose columns are channels, so that it sums several rows
_MAX_TILES = 16  # tiles per program
_MANY_PROGRAMS = 2048  # enough to fill a large GPU


class Settings(NamedTuple):
    """gain * act(x + b), clamped to -clamp..clamp. b runs along dimension `dim` of x."""

    act: str
    alpha: float
    gain: float
    clamp: float | None
    dim: int

    @property
    def known(self) -> str:
        """The tensor from which derivatives are computed. Piecewise linear activations need only the output's sign."""
        if self.act not in ("linear", "relu", "lrelu") or self.alpha < 0:
            return "input"
        return "nothing" if self.act == "linear" and self.clamp is None else "output"


def bias_act(x: torch.Tensor, b: torch.Tensor | None, settings: Settings) -> torch.Tensor:
    """Apply the operator. The result has data type and memory format of `x`. 16-bit inputs are computed in float32."""
    return _BiasAct.apply(x, b, settings)


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, b: torch.Tensor | None, settings: Settings) -> torch.Tensor:
        dense = _dense(x)
        y = torch.empty_like(dense)
        matrix = _Matrix(dense, None if b is None else settings.dim)
        matrix.launch(_value_kernel, dense, _vector(b), y, settings=settings)
        ctx.set_materialize_grads(False)
        ctx.settings = settings
        ctx.bias_dtype = None if b is None else b.dtype
        if settings.known == "input":
            ctx.save_for_backward(x, b)
        elif settings.known == "output":
            ctx.save_for_backward(y, None)
        return y

    @staticmethod
    def backward(ctx, grad: torch.Tensor | None):
        if grad is None:
            return None, None, None
        known, b = (None, None) if ctx.settings.known == "nothing" else ctx.saved_tensors
        # The slope of a piecewise linear activation does not depend on the output, so it has no further derivative.
        known = known.detach() if ctx.settings.known == "output" else known
        bias_dtype = ctx.bias_dtype if ctx.needs_input_grad[1] else None
        return *_Slope.apply(grad, known, b, bias_dtype, ctx.settings), None


class _Slope(torch.autograd.Function):
    """The gradient times the slope, and its sum for each bias (None without `bias_dtype`)."""

    @staticmethod
    def forward(ctx, grad, known, b, bias_dtype: torch.dtype | None, settings: Settings):
        ctx.set_materialize_grads(False)
        ctx.settings = settings
        ctx.save_for_backward(grad, known, b)
        dense = _dense(grad if known is None else known)
        out = torch.empty_like(dense)
        matrix = _Matrix(dense, None if b is None and bias_dtype is None else settings.dim)
        sums = None if bias_dtype is None else matrix.new_sums()
        known = None if known is None else dense
        matrix.launch(_slope_kernel, _like(grad, dense), known, _vector(b), out, sums, settings=settings)
        return out, None if sums is None else matrix.total(sums).to(bias_dtype)

    @staticmethod
    def backward(ctx, cotangent: torch.Tensor | None, bias_cotangent: torch.Tensor | None):
        grad, known, b = ctx.saved_tensors
        settings = ctx.settings
        if cotangent is None and bias_cotangent is None:
            return None, None, None, None, None
        if bias_cotangent is not None:
            spread = along(bias_cotangent.to(grad.dtype), grad, settings.dim)
            cotangent = spread.expand_as(grad) if cotangent is None else cotangent + spread
        if settings.known != "input":
            return _Slope.apply(cotangent, known, None, None, settings)[0], None, None, None, None
        if torch.is_grad_enabled():
            return *_plain_second_order(cotangent, grad, known, b, settings), None, None
        return *_curvature(cotangent, grad, known, b, settings), None, None


def _curvature(cotangent, grad, x, b, settings: Settings):
    """Returns the gradients of `cotangent` on the slope's result for gradient, input and bias."""
    dense = _dense(x)
    for_grad, for_x = torch.empty_like(dense), torch.empty_like(dense)
    matrix = _Matrix(dense, None if b is None else settings.dim)
    sums = None if b is None else matrix.new_sums()
    tensors = _like(cotangent, dense), _like(grad, dense), dense, _vector(b), for_grad, for_x, sums
    matrix.launch(_curvature_kernel, *tensors, settings=settings)
    return for_grad, for_x, None if b is None else matrix.total(sums).to(b.dtype)


def _plain_second_order(cotangent, grad, x, b, settings: Settings):
    """Same as `_curvature` in plain PyTorch, for the rare third derivative."""
    # Views: the gradient may itself depend on the input, and this dependence must not be differentiated here.
    known = [tensor for tensor in (grad, x, b) if tensor is not None]
    known = [tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in known]
    grad, x, b = [*known, None][:3]
    y = plain_bias_act(x, b, **settings._asdict())
    (slope,) = torch.autograd.grad(y, x, grad, create_graph=True)
    return [*torch.autograd.grad(slope, known, cotangent, create_graph=True, allow_unused=True), None][:3]


class _Matrix:
    """A dense tensor as rows and columns of its memory, split into tiles. One long row if there is no bias."""

    def __init__(self, dense: torch.Tensor, dim: int | None):
        count = dense.numel()
        tile = _TILE_BYTES // min(dense.element_size(), 4)
        self.dense = dense
        self.channels = 1 if dim is None else dense.shape[dim]
        step = dense.stride(dim) if self.channels > 1 else count
        self.channels_in_columns = self.channels > 1 and step == 1
        self.cols = self.channels if self.channels_in_columns else step
        self.rows = count // self.cols
        self.tile_cols = min(triton.next_power_of_2(self.cols), _MAX_CHANNELS if self.channels_in_columns else tile)
        self.tile_rows = tile // self.tile_cols
        self.col_tiles = triton.cdiv(self.cols, self.tile_cols)
        self.row_tiles = triton.cdiv(self.rows, self.tile_rows)
        self.tiles_each = 1

    def new_sums(self) -> torch.Tensor:
        """Returns memory for partial sums of each bias, one for each program and channel."""
        dtype = torch.float64 if self.dense.dtype == torch.float64 else torch.float32
        if not self.channels_in_columns:
            return self.dense.new_empty([self.rows, self.col_tiles], dtype=dtype)
        programs = self.row_tiles * self.col_tiles
        self.tiles_each = max(1, min(_MAX_TILES, programs // _MANY_PROGRAMS))
        return self.dense.new_empty([triton.cdiv(self.row_tiles, self.tiles_each), self.cols], dtype=dtype)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        if self.channels_in_columns:
            return sums.sum(0)
        return sums.view(-1, self.channels, self.col_tiles).sum([0, 2])

    def launch(self, kernel, *tensors: torch.Tensor | None, settings: Settings) -> None:
        programs = triton.cdiv(self.row_tiles, self.tiles_each) * self.col_tiles
        with triton_support.device_of(self.dense):
            kernel[(programs,)](
                *tensors,
                self.rows,
                self.cols,
                self.channels,
                self.col_tiles,
                self.tiles_each,
                settings.alpha,
                settings.gain,
                None if settings.clamp is None else _representable(settings.clamp, self.dense.dtype),
                ACT=settings.act,
                KNOWN=settings.known,
                COLUMN_BIAS=self.channels_in_columns,
                ROWS=self.tile_rows,
                COLS=self.tile_cols,
                WIDE=triton_support.needs_wide_index(self.dense),
                DOUBLE=self.dense.dtype == torch.float64,
                num_warps=_WARPS,
            )


@functools.lru_cache(maxsize=1000)
def _representable(clamp: float, dtype: torch.dtype) -> float:
    """Returns the limit as both a saved output and a kernel's argument represent it, to recognize clamped outputs."""
    return torch.tensor(clamp, dtype=torch.float32).to(dtype).item()


def _dense(x: torch.Tensor) -> torch.Tensor:
    """Returns `x`, or a copy if its memory has gaps or overlaps."""
    if x.is_contiguous():
        return x
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1 and stride != expected:
            return x.clone()
        expected *= size
    return x


def _like(x: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Returns `x`, or a copy if its elements are not in the order of `dense`."""
    same = all(a == b or n == 1 for a, b, n in zip(x.stride(), dense.stride(), x.shape, strict=True))
    return x if same else torch.empty_like(dense).copy_(x)


def _vector(b: torch.Tensor | None) -> torch.Tensor | None:
    return None if b is None else b.contiguous()


_jit = triton.jit(do_not_specialize=["rows", "channels", "col_tiles", "tiles_each"])


@_jit
def _value_kernel(
    x_ptr, b_ptr, y_ptr, rows, cols, channels, col_tiles, tiles_each, alpha, gain, clamp,
    ACT: tl.constexpr, KNOWN: tl.constexpr, COLUMN_BIAS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """y = gain * act(x + b), clamped to -clamp..clamp."""
    row, col, offset, inside = _tile(0, rows, cols, col_tiles, tiles_each, ROWS, COLS, WIDE)
    v = _shifted(tl.load(x_ptr + offset, mask=inside), b_ptr, row, col, rows, cols, channels, COLUMN_BIAS, DOUBLE)
    y = value(v, alpha, ACT) * gain
    if clamp is not None:
        y = tl.where(y > clamp, clamp, tl.where(y < -clamp, -clamp, y))
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=inside)


@_jit
def _slope_kernel(
    grad_ptr, known_ptr, b_ptr, out_ptr, sums_ptr, rows, cols, channels, col_tiles, tiles_each, alpha, gain, clamp,
    ACT: tl.constexpr, KNOWN: tl.constexpr, COLUMN_BIAS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """out = grad * slope, and its sums over this program's part of each channel."""
    total = tl.zeros([ROWS, COLS], tl.float64 if DOUBLE else tl.float32)
    for tile in range(tiles_each):
        row, col, offset, inside = _tile(tile, rows, cols, col_tiles, tiles_each, ROWS, COLS, WIDE)
        out = _wide(tl.load(grad_ptr + offset, mask=inside, other=0), DOUBLE)
        if KNOWN == "nothing":
            out = out * gain
        elif KNOWN == "output":
            y = _wide(tl.load(known_ptr + offset, mask=inside, other=0), DOUBLE)
            out = out * gain * first_derivative(y * gain, alpha, ACT)
            if clamp is not None:
                out = tl.where(tl.abs(y) >= clamp, 0, out)
        else:
            x = tl.load(known_ptr + offset, mask=inside, other=0)
            v = _shifted(x, b_ptr, row, col, rows, cols, channels, COLUMN_BIAS, DOUBLE)
            out = out * gain * first_derivative(v, alpha, ACT)
            if clamp is not None:
                out = tl.where(tl.abs(value(v, alpha, ACT) * gain) > clamp, 0, out)
        tl.store(out_ptr + offset, out.to(out_ptr.dtype.element_ty), mask=inside)
        total += out
    if sums_ptr is not None:
        _store_sums(sums_ptr, total, rows, cols, col_tiles, tiles_each, COLUMN_BIAS, ROWS, COLS, WIDE)


@_jit
def _curvature_kernel(
    cotangent_ptr, grad_ptr, x_ptr, b_ptr, for_grad_ptr, for_x_ptr, sums_ptr,
    rows, cols, channels, col_tiles, tiles_each, alpha, gain, clamp,
    ACT: tl.constexpr, KNOWN: tl.constexpr, COLUMN_BIAS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """for_grad = cotangent * slope; for_x = cotangent * grad * curvature, and its sums."""
    total = tl.zeros([ROWS, COLS], tl.float64 if DOUBLE else tl.float32)
    for tile in range(tiles_each):
        row, col, offset, inside = _tile(tile, rows, cols, col_tiles, tiles_each, ROWS, COLS, WIDE)
        x = tl.load(x_ptr + offset, mask=inside, other=0)
        v = _shifted(x, b_ptr, row, col, rows, cols, channels, COLUMN_BIAS, DOUBLE)
        cotangent = _wide(tl.load(cotangent_ptr + offset, mask=inside, other=0), DOUBLE) * gain
        if clamp is not None:
            cotangent = tl.where(tl.abs(value(v, alpha, ACT) * gain) > clamp, 0, cotangent)
        for_grad = cotangent * first_derivative(v, alpha, ACT)
        tl.store(for_grad_ptr + offset, for_grad.to(for_grad_ptr.dtype.element_ty), mask=inside)
        grad = _wide(tl.load(grad_ptr + offset, mask=inside, other=0), DOUBLE)
        for_x = cotangent * grad * second_derivative(v, ACT)
        tl.store(for_x_ptr + offset, for_x.to(for_x_ptr.dtype.element_ty), mask=inside)
        total += for_x
    if sums_ptr is not None:
        _store_sums(sums_ptr, total, rows, cols, col_tiles, tiles_each, COLUMN_BIAS, ROWS, COLS, WIDE)


@triton.jit
def _tile(tile, rows, cols, col_tiles, tiles_each, ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr):
    """Returns rows, columns, memory offsets and validity of this program's tile number `tile`."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    row = (program // col_tiles * tiles_each + tile) * ROWS + tl.arange(0, ROWS)[:, None]
    col = program % col_tiles * COLS + tl.arange(0, COLS)[None, :]
    return row, col, row * cols + col, (row < rows) & (col < cols)


@triton.jit
def _wide(x, DOUBLE: tl.constexpr):
    return x.to(tl.float64 if DOUBLE else tl.float32)


@triton.jit
def _shifted(x, b_ptr, row, col, rows, cols, channels, COLUMN_BIAS: tl.constexpr, DOUBLE: tl.constexpr):
    """Returns x + b in the precision of the computation."""
    v = _wide(x, DOUBLE)
    if b_ptr is not None:
        if COLUMN_BIAS:
            b = tl.load(b_ptr + col, mask=col < cols, other=0)
        else:
            b = tl.load(b_ptr + row % channels, mask=row < rows, other=0)
        v += _wide(b, DOUBLE)
    return v


@triton.jit
def _store_sums(
    sums_ptr, total, rows, cols, col_tiles, tiles_each, COLUMN_BIAS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store one number per column in row (program // col_tiles), or one per row in column (program % col_tiles)."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    if COLUMN_BIAS:
        col = program % col_tiles * COLS + tl.arange(0, COLS)
        tl.store(sums_ptr + program // col_tiles * cols + col, tl.sum(total, 0), mask=col < cols)
    else:
        row = program // col_tiles * tiles_each * ROWS + tl.arange(0, ROWS)
        tl.store(sums_ptr + row * col_tiles + program % col_tiles, tl.sum(total, 1), mask=row < rows)
