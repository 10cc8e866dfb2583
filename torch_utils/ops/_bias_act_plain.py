"""Bias, activation, gain and clamp in plain PyTorch."""

import math

import torch
import torch.nn.functional as F

from dnnlib import EasyDict

_SQRT2 = math.sqrt(2)

# `func(x, alpha)` is the activation without gain, `def_alpha` its default shape parameter. `def_gain` multiplies the
# result and keeps the scale of a normally distributed signal about constant.
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

# For these, gain * act(x) = act(gain * x) if gain and alpha are not negative. Bias and gain then take one pass over
# memory, and the activation overwrites the result of this pass, which autograd allows for all three.
_HOMOGENEOUS_IN_PLACE = {
    "linear": lambda x, alpha: x,
    "relu": lambda x, alpha: F.relu_(x),
    "lrelu": lambda x, alpha: F.leaky_relu_(x, alpha),
}


def plain_bias_act(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    """`bias_act.bias_act` in differentiable PyTorch. All settings are required."""
    b = None if b is None else along(b, x, dim)
    changed = b is not None or gain != 1
    if changed and act in _HOMOGENEOUS_IN_PLACE and gain >= 0 and alpha >= 0:
        y = _HOMOGENEOUS_IN_PLACE[act](_scaled_sum(x, b, gain), alpha)
    else:
        y = activation_funcs[act].func(x if b is None else x + b, alpha)
        y = y if gain == 1 else y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def along(b: torch.Tensor, x: torch.Tensor, dim: int) -> torch.Tensor:
    """Returns the bias in the data type of `x`, shaped to broadcast along its dimension `dim`."""
    shape = [1] * x.ndim
    shape[dim] = -1
    return b.to(x.dtype).reshape(shape)


def _scaled_sum(x: torch.Tensor, b: torch.Tensor | None, gain: float) -> torch.Tensor:
    """Returns gain * (x + b) as a new tensor, in one pass."""
    if b is None:
        return x * gain
    return x + b if gain == 1 else torch.add(b * gain, x, alpha=gain)
