"""Tests whether a kernel agrees with its plain form on this device, on small random input, and stores the result.

An untested GPU may compile a kernel wrongly, or not at all. The cache stores the result for each device, driver,
version of PyTorch and of Triton, and version of the kernels.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dnnlib import UserError, make_cache_dir_path
from dnnlib.cache import find_kept, keep
from dnnlib.option_types import KERNELS_VARIABLE
from torch_utils import distributed

TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""Largest distance of results, relative to their norm. A wrong kernel exceeds it by far."""
TF32_TOLERANCE = 1e-2

ON_CPU = False
"""Whether kernels are also tested on a CPU, in Triton's interpreter. Tests set it."""

_folders = [Path(__file__).resolve().parent]
_results: dict[tuple[str, str], str] = {}
_answers: dict[tuple, bool] = {}
_busy = False


def mode() -> str:
    """Returns the user's choice: 'auto', 'plain' or 'strict'."""
    return os.environ.get(KERNELS_VARIABLE, "auto")


def holds(
    name: str,
    device: torch.device,
    kernel: Callable[..., Any],
    plain: Callable[..., Any],
    inputs: Callable[[torch.Generator], Sequence[torch.Tensor]],
    tolerance: float,
) -> bool:
    """Returns whether a kernel agrees with the plain form on `device`, in values and both derivatives.

    Args:
        name: name of the kernel with data type and layout of the test. One result is stored for each name.
        device: device of the test.
        kernel, plain: functions that map the inputs to one or several tensors. `plain` gets float64.
        inputs: draws the inputs on the CPU with a generator.
        tolerance: see `TOLERANCES`.

    Raises:
        UserError: the kernel does not agree, and the user chose 'strict'.
    """
    if _busy or (device.type != "cuda" and not ON_CPU):
        return True
    place = describe(device)
    if (place, name) not in _results:
        found = _kept(place).get(name)
        if found is None:
            found = _try(device, kernel, plain, inputs, tolerance)
            _remember(place, name, found)
        _results[place, name] = found
        if found and mode() != "strict" and distributed.get_rank() == 0:
            tqdm.write(f"{name} on {_name(device)} {found}. Using the slower plain form.", file=sys.stderr)
    found = _results[place, name]
    if found and mode() == "strict":
        raise UserError(f"{name} on {_name(device)} {found}. --kernels=strict does not allow the plain form.")
    return not found


def answer(key: tuple, device: torch.device, ask: Callable[[], bool]) -> bool:
    """Returns the result of `ask`, stored for each key and device: building a name takes longer than an operator."""
    if device.type != "cuda" and not ON_CPU:
        return True
    key = (device, mode(), *key)
    if key not in _answers:
        _answers[key] = ask()
    return _answers[key]


def results() -> dict[str, str]:
    """Returns the results of this process: for each kernel the reason why it does not run, or an empty text."""
    return {name: found for (_, name), found in _results.items()}


def forget() -> None:
    """Forget the results of this process."""
    _results.clear()
    _answers.clear()


def layout(x: torch.Tensor) -> str:
    """Returns the memory format of a tensor as part of a name."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return "channels last" if last else "channels first"


def dtype_name(dtype: torch.dtype) -> str:
    """Returns a data type as part of a name."""
    return str(dtype).removeprefix("torch.")


def _try(device, kernel, plain, inputs, tolerance) -> str:
    """Returns the reason why a kernel cannot be used, or an empty text."""
    try:
        with _during_test():
            tensors = [x.to(device).detach().requires_grad_() for x in inputs(torch.Generator().manual_seed(0))]
            found = _derivatives(kernel, tensors)
            exact = [x.detach().double().requires_grad_() for x in tensors]
            with torch.autocast(device.type, enabled=False):
                wanted = _derivatives(plain, exact)
            for what in found:
                distance = max(_distance(a, b) for a, b in zip(found[what], wanted[what], strict=True))
                if not distance <= tolerance:
                    return f"differs from the plain form in its {what} by {distance:.1%}"
        return ""
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers and drivers may raise any error
        reason = " ".join(str(error).split())[:160]
        return f"fails ({type(error).__name__}: {reason})" if reason else f"fails ({type(error).__name__})"


def _derivatives(function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> dict[str, list[torch.Tensor | None]]:
    """Returns values, gradients of the sum of their squares, and gradients of the sum of squares of these gradients."""
    values = function(*inputs)
    found = {"values": [values] if isinstance(values, torch.Tensor) else list(values)}
    last = found["values"]
    for order in ("first derivatives", "second derivatives"):
        total = sum((result.double() ** 2).sum() for result in last if result is not None)
        last = list(torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True))
        found[order] = last
    return found


def _distance(found: torch.Tensor | None, wanted: torch.Tensor | None) -> float:
    if found is None or wanted is None:
        present = wanted if found is None else found
        return 0.0 if present is None or not present.any() else float("inf")
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.detach().double(), wanted.detach().double()
    length = wanted.norm()
    return float((found - wanted).norm() / (length if length > 0 else 1))


@contextlib.contextmanager
def _during_test() -> Iterator[None]:
    """Inside `with`, derivatives are enabled, and a kernel under test is not tested again."""
    global _busy
    _busy = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        _busy = False


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@functools.cache
def describe(device: torch.device) -> str:
    """Returns a text with all facts that affect whether a kernel is correct."""
    packages = ["torch", "triton"]
    versions = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    driver = ""
    if device.type == "cuda":
        with contextlib.suppress(Exception):
            driver = f"{torch.version.cuda or torch.version.hip} driver {torch._C._cuda_getDriverVersion()}"
    return ", ".join([_name(device), driver, *versions, _sources()])


def add_sources(folder: Path) -> None:
    """Make results depend on the files of a folder with further kernels. Earlier results are not used."""
    if folder not in _folders:
        _folders.append(folder)
        _sources.cache_clear()
        describe.cache_clear()


@functools.cache
def _sources() -> str:
    """Returns a checksum of the files of the kernels."""
    digest = hashlib.md5()
    for path in sorted(path for folder in _folders for path in folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _file(place: str) -> Path:
    return make_cache_dir_path("kernels", f"{hashlib.md5(place.encode()).hexdigest()}.json")


def _kept(place: str) -> dict[str, str]:
    """Returns the results of earlier processes for a device."""
    path = find_kept(_file(place))
    if path is not None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            kept = json.loads(path.read_text(encoding="utf-8"))["found"]
            return {name: found for name, found in kept.items() if isinstance(found, str)}
    return {}


def _remember(place: str, name: str, found: str) -> None:
    kept = {"place": place, "found": {**_kept(place), name: found}}
    with contextlib.suppress(UserError):
        keep(_file(place), lambda file: file.write(json.dumps(kept, indent=1).encode()))
