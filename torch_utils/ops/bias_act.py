"""Bias, activation, gain and clamp as one operator."""

from typing import Any

import torch

from torch_utils.ops import proof, triton_support
from torch_utils.ops._arguments import check_impl
from torch_utils.ops._bias_act_plain import activation_funcs, plain_bias_act


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
    """Returns `gain * act(x + b)`, clamped to -clamp..clamp. Differentiable to any order.

    Args:
        x: Any shape.
        b: Bias `[x.shape[dim]]`, added along dimension `dim`. None adds no bias.
        dim: Dimension of `x` for `b`.
        act: A name in `activation_funcs`: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish.
        alpha: Slope of `lrelu` below zero. Other activations ignore it. None uses the activation's default.
        gain: Factor of the activation's result. None uses the activation's default.
        clamp: Largest magnitude after the gain, at least 0. None does not clamp.
        impl: `'ref'` is plain PyTorch. `'cuda'` runs the kernel, one pass over memory forward and one backward,
            if `triton_support.runs_on(x)`, and otherwise plain PyTorch.

    Returns:
        A tensor with the shape and data type of `x`.

    Raises:
        ValueError: `act` or `impl` is unknown, the bias does not fit, or the clamp is negative.
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

        settings = kernels.Settings(act, alpha, gain, clamp, dim)
        traits = None if b is None else (b.dtype, dim % x.ndim), clamp is None, alpha < 0
        key = ("bias_act", act, x.ndim, *traits, x.dtype, proof.layout(x))
        if proof.answer(key, x.device, lambda: _is_proven(kernels, x, b, settings)):
            return kernels.bias_act(x, b, settings)

    return plain_bias_act(x, b, dim, act, alpha, gain, clamp)


def _is_proven(kernels: Any, x: torch.Tensor, b: torch.Tensor | None, settings: Any) -> bool:
    """Whether the kernel agrees with the plain form on the device of `x`, for such tensors and settings."""
    dim, layout = settings.dim % x.ndim if b is not None else 0, proof.layout(x)
    shape = [8 if axis == dim else 4 for axis in range(x.ndim)]
    settings = settings._replace(clamp=None if settings.clamp is None else 1.0)
    bias = "no bias" if b is None else f"bias {proof.dtype_name(b.dtype)} along {dim} of {x.ndim}"
    traits = [settings.act, bias, "clamped" if settings.clamp else "not clamped", proof.dtype_name(x.dtype), layout]
    traits += ["falling"] if settings.alpha < 0 else []

    def inputs(generator: torch.Generator) -> list[torch.Tensor]:
        memory = torch.channels_last if layout == "channels last" else torch.contiguous_format
        drawn = [torch.randn(shape, generator=generator).to(x.dtype).contiguous(memory_format=memory)]
        return drawn if b is None else [*drawn, torch.randn([8], generator=generator).to(b.dtype)]

    return proof.holds(
        f"bias_act ({', '.join(traits)})",
        x.device,
        kernel=lambda x, b=None: kernels.bias_act(x, b, settings),
        plain=lambda x, b=None: plain_bias_act(x, b, dim, *settings[:4]),
        inputs=inputs,
        tolerance=proof.TOLERANCES[x.dtype],
    )


def _check_bias(b: torch.Tensor, x: torch.Tensor, dim: int) -> None:
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must name a dimension of x {list(x.shape)}, not {dim}")
    if b.ndim != 1 or b.shape[0] != x.shape[dim]:
        raise ValueError(f"b must have shape [{x.shape[dim]}] to fit dimension {dim} of x, not {list(b.shape)}")
    if b.device != x.device:
        raise ValueError(f"b must be on the device of x, {x.device}, not on {b.device}")
