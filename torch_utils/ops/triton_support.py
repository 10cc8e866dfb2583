"""Whether a Triton kernel can take a tensor, and what launching one needs.

Triton itself is imported by the kernels' own modules, which are imported when the first kernel runs: a process that
never runs one does not pay for it, and a machine without it needs none.
"""

import contextlib
import functools
import importlib.util
import os
import sys
from contextlib import AbstractContextManager

import torch

from torch_utils.ops import proof

# A GPU older than this is not one that Triton generates code for.
_MIN_CAPABILITY = (7, 0)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Offsets reach past the end of a tensor by less than its size, where they are masked: half of what 32 bits hold.
_INDEX_LIMIT = 2**30


def runs_on(x: torch.Tensor) -> bool:
    """True where kernels run on `x`: on a GPU with Triton, or on a CPU under Triton's interpreter.

    Inside `torch.compile` the answer is no: its own generated code fuses the plain operators. Where a GPU cannot be
    used for lack of Triton, one line on stderr says so, once per process. Where the user chose plain forms it is no.
    """
    if x.dtype not in _DTYPES or x.numel() == 0 or torch.compiler.is_compiling() or proof.mode() == "plain":
        return False
    if x.is_cuda:
        return _runs_on_gpu(x.device.index)
    return x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1" and _installed()


def device_of(x: torch.Tensor) -> AbstractContextManager:
    """Makes the device of `x` the current one, as launching a kernel needs."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def needs_wide_index(*tensors: torch.Tensor) -> bool:
    """True if offsets into one of the tensors may not fit into 32 bits and need wider, slower arithmetic."""
    return any(_last_offset(x) >= _INDEX_LIMIT for x in tensors)


def _last_offset(x: torch.Tensor) -> int:
    return sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _runs_on_gpu(index: int) -> bool:
    if not _installed():
        _tell("Triton is not installed")
        return False
    capability = torch.cuda.get_device_capability(index)
    if torch.version.hip is None and capability < _MIN_CAPABILITY:
        _tell(f"the GPU's compute capability {capability[0]}.{capability[1]} is below what Triton supports")
        return False
    return True


@functools.cache
def _tell(reason: str) -> None:
    print(f"{reason}: operators and local generators take the slower plain path", file=sys.stderr)
