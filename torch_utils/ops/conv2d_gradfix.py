"""Convolutions whose weights can be left out of a backward pass."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

# A plain module variable: the backward of GPU work runs in threads of its own, which would not see a context variable.
_weight_gradients_wanted = True


@contextlib.contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Backward passes that run inside give no gradient to the weights of this module's convolutions.

    For regularisers such as R1 and path length, which differentiate with respect to images or latents inside and,
    outside, once more with respect to everything: the second pass is complete, weights included. What counts is where
    the backward pass runs; the forward pass may run anywhere. `torch.autograd.grad` with inputs that the weights do
    not depend on skips the work by itself; here it is a promise whatever the inputs, and for `backward()` too.
    """
    global _weight_gradients_wanted
    before = _weight_gradients_wanted
    _weight_gradients_wanted = False
    try:
        yield
    finally:
        _weight_gradients_wanted = before


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv2d`, heeding `no_weight_gradients`."""
    return F.conv2d(input, _gated(weight), bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv_transpose2d`, heeding `no_weight_gradients`."""
    return F.conv_transpose2d(input, _gated(weight), bias, stride, padding, output_padding, groups, dilation)


def _gated(weight: torch.Tensor) -> torch.Tensor:
    return _WeightGate.apply(weight) if weight.requires_grad and torch.is_grad_enabled() else weight


class _WeightGate(torch.autograd.Function):
    """The identity, whose gradient is dropped inside `no_weight_gradients`."""

    @staticmethod
    def forward(ctx, weight: torch.Tensor) -> torch.Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor | None:
        return grad if _weight_gradients_wanted else None
