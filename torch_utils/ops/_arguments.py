"""Checks and normalizes arguments that several operators share."""

from collections.abc import Sequence
from numbers import Integral

import torch

IMPLEMENTATIONS = ("ref", "cuda")


def check_impl(impl: str) -> None:
    """Refuse all values but `'ref'` (plain PyTorch) and `'cuda'` (the kernel for inputs on a GPU)."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be 'ref' or 'cuda', not {impl!r}")


def check_images(x: torch.Tensor, name: str = "x") -> None:
    """Refuse all values but a floating-point batch of images `[N, C, H, W]`."""
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name} must be a tensor [N, C, H, W], not {type(x).__name__}")
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor [N, C, H, W], not {x.dtype} {list(x.shape)}")


def check_filter(f: torch.Tensor | None) -> None:
    """Refuse all values but `None`, a row of taps `[n]` or an image of taps `[h, w]`."""
    if f is None:
        return
    if not isinstance(f, torch.Tensor):
        raise ValueError(f"f must be a tensor or None, not {type(f).__name__}: make it with setup_filter")
    if f.ndim not in (1, 2) or f.numel() == 0 or not f.is_floating_point():
        raise ValueError(f"f must be a floating-point tensor [n] or [h, w], not {f.dtype} {list(f.shape)}")


def filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """Returns width and height in taps. A row stands for its outer product with itself, `None` for the identity."""
    check_filter(f)
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def factor_pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Returns a resampling factor, one number or `[x, y]`, as `(x, y)`. Both must be at least 1."""
    pair = _integers(value, name, "an integer or [x, y]", lengths=(1, 2))
    if min(pair) < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return pair[0], pair[-1]


def padding_sides(value: int | Sequence[int], name: str = "padding") -> tuple[int, int, int, int]:
    """Returns a padding, one number, `[x, y]` or `[x0, x1, y0, y1]`, as `(x0, x1, y0, y1)`. Negative numbers crop."""
    sides = _integers(value, name, "an integer, [x, y] or [x0, x1, y0, y1]", lengths=(1, 2, 4))
    if len(sides) == 4:
        return sides
    return sides[0], sides[0], sides[-1], sides[-1]


def margins_up(taps: int, factor: int) -> tuple[int, int]:
    """Returns the padding before and after for up-sampling with `taps` taps to exactly `factor` times the size."""
    return (taps + factor - 1) // 2, (taps - factor) // 2


def margins_down(taps: int, factor: int) -> tuple[int, int]:
    """Returns the padding before and after for down-sampling with `taps` taps to exactly 1 / `factor` of the size."""
    return (taps - factor + 1) // 2, (taps - factor) // 2


def grow_sides(sides: tuple[int, int, int, int], x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the padding `(x0, x1, y0, y1)` plus `x` and `y`, each (before, after)."""
    return sides[0] + x[0], sides[1] + x[1], sides[2] + y[0], sides[3] + y[1]


def _integers(value: int | Sequence[int], name: str, wanted: str, lengths: tuple[int, ...]) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(items) not in lengths or not all(isinstance(item, Integral) for item in items):
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
    return tuple(int(item) for item in items)
