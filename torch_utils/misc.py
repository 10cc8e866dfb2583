"""Helpers that scripts for StyleGAN2-ADA import: constants, checks, parameters, a table of layers."""

import contextlib
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from dnnlib import UserError
from torch_utils import distributed
from torch_utils.sampler import RunSampler

F = TypeVar("F", bound=Callable[..., Any])

nan_to_num = torch.nan_to_num
symbolic_assert = torch._assert


def constant(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """Returns a tensor with fixed content. Equal arguments return the same object, so do not change it.

    Args:
        value: number or array.
        shape: repeat the value to this shape.
        dtype: data type. None uses PyTorch's default.
        device: device. None uses the CPU.
        memory_format: memory format. None uses contiguous.
    """
    array = np.asarray(value)
    shape = None if shape is None else tuple(shape)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    device = torch.device("cpu" if device is None else device)
    return _constant(array.tobytes(), array.dtype.str, array.shape, shape, dtype, device, memory_format)


@functools.lru_cache(maxsize=1000)
def _constant(
    content: bytes,
    kind: str,
    own_shape: tuple[int, ...],
    shape: tuple[int, ...] | None,
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format | None,
) -> torch.Tensor:
    tensor = torch.tensor(np.frombuffer(content, kind).reshape(own_shape), dtype=dtype, device=device)
    tensor = tensor if shape is None else tensor.expand(shape)
    return tensor.contiguous(memory_format=memory_format or torch.contiguous_format)


@contextlib.contextmanager
def suppress_tracer_warnings() -> Iterator[None]:
    """Silences warnings of `torch.jit.trace`, until the end of `with`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def assert_shape(tensor: torch.Tensor, ref_shape: Sequence[int | None]) -> None:
    """Check the shape of a tensor.

    Args:
        ref_shape: the size of each axis. None accepts any size.

    Raises:
        AssertionError: the tensor has another shape.
    """
    with suppress_tracer_warnings():  # while tracing, sizes are tensors
        sizes = [int(size) for size in tensor.shape]
        expected = [None if size is None else int(size) for size in ref_shape]
    fits = len(sizes) == len(expected) and all(e in (None, s) for s, e in zip(sizes, expected, strict=True))
    if not fits:
        raise AssertionError(f"A tensor has shape {sizes}, expected {expected}.")


def profiled_function(function: F) -> F:
    """Decorates a function so that PyTorch's profiler shows its name."""

    @functools.wraps(function)
    def profiled(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.profiler.record_function(function.__name__):
            return function(*args, **kwargs)

    return profiled


class InfiniteSampler(RunSampler):
    """Endless passes over a data set, each in a new order. See `RunSampler`.

    Args:
        dataset: any object with a length.
        rank, num_replicas: number of this process, and number of processes. Together they see each item once per pass.
        shuffle: False keeps the order of the data.
        seed: seed of the order.
        window_size: ignored. Each pass is a permutation of all items.

    Raises:
        UserError: the data set is empty, or `rank` is out of range.
    """

    def __init__(
        self,
        dataset: Any,
        rank: int = 0,
        num_replicas: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        window_size: float = 0.5,
    ):
        if not len(dataset):
            raise UserError("The data set is empty, so there is nothing to sample.")
        if not 0 <= rank < num_replicas:
            raise UserError(f"rank={rank} is out of range: with {num_replicas} processes, ranks start at 0.")
        super().__init__(len(dataset), seed, rank, num_replicas, shuffle=shuffle)


def params_and_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """Returns all parameters of a module, then all its buffers."""
    return [*module.parameters(), *module.buffers()]


def named_params_and_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Returns names and tensors of all parameters of a module, then of all its buffers."""
    return [*module.named_parameters(), *module.named_buffers()]


def copy_params_and_buffers(
    src_module: torch.nn.Module, dst_module: torch.nn.Module, require_all: bool = False
) -> None:
    """Copy parameters and buffers from one module to another, by name.

    Args:
        src_module: source. Tensors that only the source has are ignored.
        dst_module: target. Tensors that only the target has do not change.
        require_all: the source must have all tensors of `dst_module`.

    Raises:
        UserError: a tensor is missing, or has another shape. In this case nothing is copied.
    """
    source = dict(named_params_and_buffers(src_module))
    pairs = [(name, source.get(name), tensor) for name, tensor in named_params_and_buffers(dst_module)]
    for name, theirs, ours in pairs:
        if theirs is None and require_all:
            raise UserError(f"The source has no tensor {name}: the networks have different architectures.")
        if theirs is not None and theirs.shape != ours.shape:
            raise UserError(f"Cannot copy {name}: its shape is {list(theirs.shape)} instead of {list(ours.shape)}.")
    with torch.no_grad():
        for _, theirs, ours in pairs:
            if theirs is not None:
                ours.copy_(theirs)


@contextlib.contextmanager
def ddp_sync(module: torch.nn.Module, sync: bool) -> Iterator[None]:
    """Inside `with`, `DistributedDataParallel` sums gradients over processes if `sync`. Ignores other modules."""
    waits = isinstance(module, torch.nn.parallel.DistributedDataParallel) and not sync
    with module.no_sync() if waits else contextlib.nullcontext():
        yield


def check_ddp_consistency(module: torch.nn.Module, ignore_regex: str | None = None) -> None:
    """Check that a module is equal in all processes, bit by bit. All processes must call this together.

    Args:
        module: module to check.
        ignore_regex: pattern of tensor names ``Class.tensor`` to ignore.

    Raises:
        UserError: a tensor differs.
    """
    named = {f"{type(module).__name__}.{name}": tensor for name, tensor in named_params_and_buffers(module)}
    kept = {n: t for n, t in named.items() if ignore_regex is None or not re.fullmatch(ignore_regex, n)}
    found = distributed.find_difference(kept)
    if found is not None:
        raise UserError(f"{found[0]} of process {found[1]} differs from process 0.")


class _Layer(NamedTuple):
    name: str
    module: torch.nn.Module
    outputs: list[torch.Tensor]


def print_module_summary(
    module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True
) -> Any:
    """Call a module, and print a table of its layers: parameters, buffers, shapes and types of outputs.

    Args:
        module: module to call.
        inputs: positional arguments of the module.
        max_nesting: largest nesting depth of the listed layers.
        skip_redundant: omit layers without own tensors whose output is also another layer's output.

    Returns:
        The output of the module.
    """
    layers: list[_Layer] = []
    names = {part: name for name, part in module.named_modules()}

    def note(part: torch.nn.Module, _: Any, outputs: Any) -> None:
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        layers.append(_Layer(names[part], part, [t for t in outputs if isinstance(t, torch.Tensor)]))

    shown = [part for name, part in module.named_modules() if len(name.split(".")) <= max_nesting]
    hooks = [part.register_forward_hook(note) for part in shown]
    try:
        outputs = module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    _print_table(_rows(module, layers, skip_redundant))
    return outputs


def _rows(module: torch.nn.Module, layers: Sequence[_Layer], skip_redundant: bool) -> list[list[str]]:
    """Returns the texts of the table: one row per tensor of each layer, and the sums."""
    counted: set[int] = set()
    given: set[int] = set()
    rows = [[type(module).__name__, "Parameters", "Buffers", "Output shape", "Datatype"]]
    total = [0, 0]
    for layer in layers:
        sizes = []
        for tensors in (layer.module.parameters(), layer.module.buffers()):
            new = [t for t in tensors if id(t) not in counted]
            counted.update(map(id, new))
            sizes.append(sum(t.numel() for t in new))
        is_new = any(id(t) not in given for t in layer.outputs)
        given.update(map(id, layer.outputs))
        total = [t + size for t, size in zip(total, sizes, strict=True)]
        if skip_redundant and not any(sizes) and not is_new:
            continue
        figures = [str(size) if size else "-" for size in sizes]
        for number, tensor in enumerate(layer.outputs or [None]):
            name = (layer.name or "<top-level>") + (f":{number}" if number else "")
            kind = ["-", "-"] if tensor is None else [str(list(tensor.shape)), str(tensor.dtype).removeprefix("torch.")]
            rows.append([name, *(figures if not number else ["-", "-"]), *kind])
    return [*rows, ["Total", *map(str, total), "-", "-"]]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "  ".join("-" * width for width in widths)
    print("\n".join(["", lines[0], rule, *lines[1:-1], rule, lines[-1], ""]))
