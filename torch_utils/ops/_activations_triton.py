"""The activations of `bias_act` and their derivatives in Triton's language.

Comparisons are written so that NaN stays NaN.
"""

import triton
import triton.language as tl

_SELU_ALPHA = tl.constexpr(1.6732632423543772)
_SELU_SCALE = tl.constexpr(1.0507009873554805)


@triton.jit
def _expm1(v):
    series = v * (1 + v * (1 / 2 + v * (1 / 6 + v * (1 / 24 + v * (1 / 120 + v / 720)))))
    return tl.where(tl.abs(v) < 0.03, series, tl.exp(v) - 1)


@triton.jit
def _sigmoid(v):
    return 1 / (1 + tl.exp(-v))


@triton.jit
def _tanh(v):
    e = _expm1(-2 * tl.abs(v))
    return tl.where(v < 0, e, -e) / (2 + e)


@triton.jit
def _softplus(v):
    # log(1 + e) stays precise for small e: log(u) / (u - 1) hardly depends on u there.
    e = tl.exp(-tl.abs(v))
    u = 1 + e
    log1p = tl.where(u == 1, e, tl.log(u) * (e / tl.where(u == 1, 1, u - 1)))
    return tl.maximum(v, 0, propagate_nan=tl.PropagateNan.ALL) + log1p


@triton.jit
def value(v, alpha, ACT: tl.constexpr):
    if ACT == "relu":
        v = tl.where(v <= 0, 0, v)
    elif ACT == "lrelu":
        v = tl.where(v > 0, v, v * alpha)
    elif ACT == "tanh":
        v = _tanh(v)
    elif ACT == "sigmoid":
        v = _sigmoid(v)
    elif ACT == "elu":
        v = tl.where(v > 0, v, _expm1(v))
    elif ACT == "selu":
        v = _SELU_SCALE * tl.where(v > 0, v, _SELU_ALPHA * _expm1(v))
    elif ACT == "softplus":
        v = _softplus(v)
    elif ACT == "swish":
        v = v * _sigmoid(v)
    return v


@triton.jit
def first_derivative(v, alpha, ACT: tl.constexpr):
    if ACT == "relu":
        d = tl.where(v > 0, 1.0, 0.0)
    elif ACT == "lrelu":
        d = tl.where(v > 0, 1.0, alpha)
    elif ACT == "tanh":
        t = _tanh(v)
        d = 1 - t * t
    elif ACT == "sigmoid":
        s = _sigmoid(v)
        d = s * (1 - s)
    elif ACT == "elu":
        d = tl.where(v > 0, 1.0, tl.exp(v))
    elif ACT == "selu":
        d = _SELU_SCALE * tl.where(v > 0, 1.0, _SELU_ALPHA * tl.exp(v))
    elif ACT == "softplus":
        d = _sigmoid(v)
    elif ACT == "swish":
        s = _sigmoid(v)
        d = s * (1 + v * (1 - s))
    else:
        d = v * 0 + 1
    return d


@triton.jit
def second_derivative(v, ACT: tl.constexpr):
    if ACT == "tanh":
        t = _tanh(v)
        d = -2 * t * (1 - t * t)
    elif ACT == "sigmoid":
        s = _sigmoid(v)
        d = s * (1 - s) * (1 - 2 * s)
    elif ACT == "elu":
        d = tl.where(v < 0, tl.exp(v), 0.0)
    elif ACT == "selu":
        d = tl.where(v < 0, _SELU_SCALE * _SELU_ALPHA * tl.exp(v), 0.0)
    elif ACT == "softplus":
        s = _sigmoid(v)
        d = s * (1 - s)
    elif ACT == "swish":
        s = _sigmoid(v)
        d = s * (1 - s) * (2 + v * (1 - 2 * s))
    else:
        d = v * 0
    return d
