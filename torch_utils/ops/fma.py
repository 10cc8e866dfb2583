"""Multiply and add in one pass."""

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Returns `a * b + c` with broadcasting, in one pass over memory. Differentiable to any order.

    Raises:
        ValueError: the shapes do not broadcast to one shape.
    """
    try:
        torch.broadcast_shapes(a.shape, b.shape, c.shape)
    except RuntimeError as error:
        shapes = f"a {list(a.shape)}, b {list(b.shape)} and c {list(c.shape)}"
        raise ValueError(f"{shapes} do not broadcast to one shape") from error
    return torch.addcmul(c, a, b)
