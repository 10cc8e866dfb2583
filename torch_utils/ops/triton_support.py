"""Checks whether Triton kernels can process a tensor, and prepares their launch.

The modules of the kernels import Triton, and are themselves imported when the first kernel runs. A process without
kernels does not pay for the import, and a machine without kernels does not need Triton.
"""

import contextlib
import functools
import importlib.util
import os
import sys
from contextlib import AbstractContextManager

import torch

from torch_utils.ops import proof

# Triton does not generate code for older GPUs.
_MIN_CAPABILITY = (7, 0)

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Masked offsets may exceed the size of a tensor by less than this size, so the limit is half of the 32-bit range.
_INDEX_LIMIT = 2**30


def runs_on(x: torch.Tensor) -> bool:
    """Whether kernels run on `x`: on a GPU with Triton, or on a CPU in Triton's interpreter.

    False inside `torch.compile`, whose own generated code fuses the plain operators, and if the user chose plain forms.
    If a GPU cannot be used for lack of Triton, one line on stderr says so, once per process.
    """
    if x.dtype not in _DTYPES or x.numel() == 0 or torch.compiler.is_compiling() or proof.mode() == "plain":
        return False
    if x.is_cuda:
        return _runs_on_gpu(x.device.index)
    return x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1" and _installed()


def device_of(x: torch.Tensor) -> AbstractContextManager:
    """Makes the device of `x` the current device, as a launch requires."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def needs_wide_index(*tensors: torch.Tensor) -> bool:
    """Whether offsets into one of the tensors may exceed 32 bits, and need wider, slower arithmetic."""
    return any(_last_offset(x) >= _INDEX_LIMIT for x in tensors)


def _last_offset(x: torch.Tensor) -> int:
    return sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _runs_on_gpu(index: int) -> bool:
    if not _installed():
        _report_once("Triton is not installed")
        return False
    capability = torch.cuda.get_device_capability(index)
    if torch.version.hip is None and capability < _MIN_CAPABILITY:
        _report_once(f"Triton does not support the GPU's compute capability {capability[0]}.{capability[1]}")
        return False
    return True


@functools.cache
def _report_once(reason: str) -> None:
    print(f"{reason}: operators and local generators use the slower plain form", file=sys.stderr)
