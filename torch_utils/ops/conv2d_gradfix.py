"""Convolutions whose weight gradients can be skipped in a backward pass."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

# A plain module variable: backward work of a GPU runs in separate threads, which do not see a context variable.
_weight_gradients_wanted = True


@contextlib.contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Inside `with`, backward passes compute no gradients of the weights of this module's convolutions.

    For regularizers such as R1 and path length. They first differentiate with respect to images or latents inside
    `with`, and then outside with respect to all parameters. The second pass is complete, weights included. The place of
    the backward pass matters, not that of the forward pass. `torch.autograd.grad` skips this work by itself for inputs
    on which the weights do not depend. Here it is skipped for any inputs, and for `backward()` too.
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
    """Same as `torch.nn.functional.conv2d`, but respects `no_weight_gradients`."""
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
    """Same as `torch.nn.functional.conv_transpose2d`, but respects `no_weight_gradients`."""
    return F.conv_transpose2d(input, _gated(weight), bias, stride, padding, output_padding, groups, dilation)


def _gated(weight: torch.Tensor) -> torch.Tensor:
    return _WeightGate.apply(weight) if weight.requires_grad and torch.is_grad_enabled() else weight


class _WeightGate(torch.autograd.Function):
    """The identity. Inside `no_weight_gradients` its gradient is dropped."""

    @staticmethod
    def forward(ctx, weight: torch.Tensor) -> torch.Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor | None:
        return grad if _weight_gradients_wanted else None
