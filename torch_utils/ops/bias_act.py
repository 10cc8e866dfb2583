"""Bias, activation, gain and clamp as one operator."""

import math

import torch
import torch.nn.functional as F

from dnnlib import EasyDict
from torch_utils.ops import triton_support
from torch_utils.ops._arguments import check_impl

_SQRT2 = math.sqrt(2)

# `func(x, alpha)` is the bare activation, `def_alpha` its shape parameter where it has one. `def_gain` multiplies
# the result and keeps the scale of a normally distributed signal about constant.
activation_funcs = EasyDict(
    linear=EasyDict(func=lambda x, alpha: x, def_alpha=0.0, def_gain=1.0),
    relu=EasyDict(func=lambda x, alpha: F.relu(x), def_alpha=0.0, def_gain=_SQRT2),
    lrelu=EasyDict(func=lambda x, alpha: F.leaky_relu(x, alpha), def_alpha=0.2, def_gain=_SQRT2),
    tanh=EasyDict(func=lambda x, alpha: torch.tanh(x), def_alpha=0.0, def_gain=1.0),
    sigmoid=EasyDict(func=lambda x, alpha: torch.sigmoid(x), def_alpha=0.0, def_gain=1.0),
    elu=EasyDict(func=lambda x, alpha: F.elu(x), def_alpha=0.0, def_gain=1.0),
    selu=EasyDict(func=lambda x, alpha: F.selu(x), def_alpha=0.0, def_gain=1.0),
    softplus=EasyDict(func=lambda x, alpha: F.softplus(x), def_alpha=0.0, def_gain=1.0),
    swish=EasyDict(func=lambda x, alpha: F.silu(x), def_alpha=0.0, def_gain=_SQRT2),
)

# For these, gain * act(x) = act(gain * x) where gain and alpha are not negative, so bias and gain take one pass
# over memory; the activation then overwrites that pass's result, which autograd allows for all three.
_HOMOGENEOUS_IN_PLACE = {
    "linear": lambda x, alpha: x,
    "relu": lambda x, alpha: F.relu_(x),
    "lrelu": lambda x, alpha: F.leaky_relu_(x, alpha),
}


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> torch.Tensor:
    """`gain * act(x + b)`, limited to -clamp..clamp; differentiable to any order.

    Args:
        x: Any shape.
        b: Bias `[x.shape[dim]]`, added along dimension `dim`; None adds nothing.
        dim: The dimension of `x` that `b` runs along.
        act: A name in `activation_funcs`: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish.
        alpha: Slope of `lrelu` below zero; the other activations ignore it. None: the activation's default.
        gain: Factor on the activation's result. None: the activation's default.
        clamp: Limit of the magnitude after the gain, at least 0; None does not limit.
        impl: `'ref'` is plain PyTorch; `'cuda'` runs the kernel, one pass over memory forward and one backward,
            where `triton_support.runs_on(x)`, and otherwise is the same as `'ref'`.

    Returns:
        A tensor with the shape and data type of `x`.

    Raises:
        ValueError: an unknown `act` or `impl`, a bias that does not fit, a negative clamp.
    """
    check_impl(impl)
    if act not in activation_funcs:
        raise ValueError(f"act must be one of {', '.join(activation_funcs)}, not {act!r}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must be at least 0, not {clamp}")
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    if b is not None:
        _check_bias(b, x, dim)
    if impl == "cuda" and triton_support.runs_on(x):
        from torch_utils.ops import _bias_act_triton as kernels

        return kernels.bias_act(x, b, kernels.Settings(act, alpha, gain, clamp, dim))

    b = None if b is None else _along(b, x, dim)
    changed = b is not None or gain != 1
    if changed and act in _HOMOGENEOUS_IN_PLACE and gain >= 0 and alpha >= 0:
        y = _HOMOGENEOUS_IN_PLACE[act](_scaled_sum(x, b, gain), alpha)
    else:
        y = spec.func(x if b is None else x + b, alpha)
        y = y if gain == 1 else y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def _check_bias(b: torch.Tensor, x: torch.Tensor, dim: int) -> None:
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must name a dimension of x {list(x.shape)}, not {dim}")
    if b.ndim != 1 or b.shape[0] != x.shape[dim]:
        raise ValueError(f"b must have shape [{x.shape[dim]}] to fit dimension {dim} of x, not {list(b.shape)}")
    if b.device != x.device:
        raise ValueError(f"b must be on the device of x, {x.device}, not on {b.device}")


def _along(b: torch.Tensor, x: torch.Tensor, dim: int) -> torch.Tensor:
    """The bias in the data type of `x`, shaped to broadcast along its dimension `dim`."""
    shape = [1] * x.ndim
    shape[dim] = -1
    return b.to(x.dtype).reshape(shape)


def _scaled_sum(x: torch.Tensor, b: torch.Tensor | None, gain: float) -> torch.Tensor:
    """gain * (x + b) as a new tensor, in one pass."""
    if b is None:
        return x * gain
    return x + b if gain == 1 else torch.add(b * gain, x, alpha=gain)
