"""Builds networks from the constructor arguments and tensors of a file. Neither is trusted."""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dnnlib import EasyDict, UserError
from torch_utils.network_files import classes
from torch_utils.network_files.allowed import DICTIONARIES, Record

MAX_ARGUMENT = 1 << 20
MAX_ARGUMENTS = 10_000
MAX_MODULES = 10_000
MAX_DEPTH = 32
MIN_OPERATIONS = 2000
OPERATIONS_PER_TENSOR = 16
MODULE_GROUPS = ("_parameters", "_buffers", "_modules")


def rebuild_records(
    value: Any, class_names: Mapping[str, str], packages: Collection[str], where: str = "The file"
) -> Any:
    """Returns `value` with instances of our classes instead of `Record`s: itself, or the values of a dictionary."""
    done: dict[int, Any] = {}

    def convert(item: Any, label: str) -> Any:
        if not isinstance(item, Record):
            return item
        if id(item) not in done:
            done[id(item)] = rebuild_record(item, class_names, packages, f"{label} in {where}")
        return done[id(item)]

    if type(value) in DICTIONARIES:
        return type(value)((key, convert(item, str(key)[:40])) for key, item in value.items())
    return convert(value, "The object")


def rebuild_record(record: Record, class_names: Mapping[str, str], packages: Collection[str], where: str) -> nn.Module:
    """Build the module that `record` describes, in its saved mode (training or evaluation).

    Raises:
        UserError: its class is unknown, or its arguments or tensors do not fit the class.
    """
    tensors = _collect(record, where)
    cls = find_record_class(record, class_names, packages, where)
    args, kwargs = record.state.get("_init_args"), record.state.get("_init_kwargs")
    if type(args) not in (tuple, list) or type(kwargs) not in DICTIONARIES:
        raise UserError(f"{where} lacks its constructor arguments. Save it again with its own tools.")
    module = build_module(cls, args, kwargs, tensors, where)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(tensors[name].requires_grad)
    return module.train(record.state.get("training") is True)


def find_record_class(
    record: Record, class_names: Mapping[str, str], packages: Collection[str], where: str
) -> type[nn.Module]:
    """Returns our class for a record, by the module in the file, or by the table `class_names` without a module."""
    if record.module is not None:
        return find_network_class(f"{record.module}.{record.class_name}", packages, where)
    if record.class_name not in class_names:
        raise UserError(f"{where} is of class {record.class_name[:100]!r}, which is not a known network.")
    return classes.find_class(class_names[record.class_name])


def find_network_class(name: str, packages: Collection[str], where: str) -> type[nn.Module]:
    """Returns the network class of a dotted name in a file. It must be in one of the `packages`, or imported already.

    Raises:
        UserError: the class does not exist.
    """
    if classes.is_known(name) or (name.split(".")[0] in packages and name.replace(".", "a").isidentifier()):
        with contextlib.suppress(UserError):
            cls = classes.find_class(name)
            if issubclass(cls, nn.Module):
                return cls
    raise UserError(f"{where} is of class {name[:100]!r}, which is not a known network.")


def build_module(
    cls: type[nn.Module],
    args: Any,
    kwargs: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    where: str,
) -> nn.Module:
    """Returns a network of the class `cls` with parameters and buffers copied from `tensors` bit by bit.

    Names and shapes must be those of the network. The network is first built without memory. Memory is allocated only
    if the tensors fit. A class with a method `recorded_kwargs` translates the arguments of other code bases. Tensors in
    half precision are converted to single precision if the class uses it.

    Raises:
        UserError: arguments or tensors do not fit the class, in one line that names the tensor.
    """
    args, kwargs = plain_arguments(args, where), plain_arguments(kwargs, where)
    try:
        if hasattr(cls, "recorded_kwargs"):
            kwargs = cls.recorded_kwargs(kwargs)
        with Blueprint(len(tensors)):
            module = cls(*args, **kwargs)
    except UserError as error:
        raise UserError(f"{where} cannot be built: {error.message}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{where} cannot be built as a {cls.__name__}: {reason or type(error).__name__}.") from error
    own = named_tensors(module)
    for name in own.keys() - tensors.keys():
        raise UserError(f"{where} lacks the tensor {name}.")
    for name in tensors.keys() - own.keys():
        raise UserError(f"{where} has a tensor {name[:200]!r} that a {cls.__name__} of its arguments does not have.")
    for name, target in own.items():
        source = tensors[name]
        if source.shape != target.shape:
            raise UserError(f"{where}: the tensor {name} is {list(source.shape)} but must be {list(target.shape)}.")
        if source.dtype != target.dtype and (source.dtype, target.dtype) != (torch.float16, torch.float32):
            raise UserError(f"{where}: the tensor {name} holds {source.dtype} but must hold {target.dtype}.")
    # Same as `to_empty`, which would import PyTorch's compiler.
    module._apply(lambda meta: torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype, device="cpu"))
    with torch.no_grad():
        for name, target in named_tensors(module).items():
            target.copy_(tensors[name])
    return module


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns all parameters and buffers by name, including tensors that are not in the state_dict."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _collect(record: Record, where: str) -> dict[str, torch.Tensor]:
    """Returns all tensors of a record and its sub-modules by dotted name."""
    tensors: dict[str, torch.Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", record)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return tensors
        prefix, part = waiting.pop()
        if isinstance(part, Record) and part.class_name in classes.UNSUPPORTED:
            raise UserError(
                f"{where} is a {classes.UNSUPPORTED[part.class_name]} network, which is not supported: use a StyleGAN2"
                " network."
            )
        if isinstance(part, nn.Module):  # Python's own unpickler has already built it
            tensors.update((prefix + name, tensor) for name, tensor in named_tensors(part).items())
            continue
        groups = [part.state.get(name) if isinstance(part, Record) else None for name in MODULE_GROUPS]
        if not all(type(group) in DICTIONARIES and all(type(name) is str for name in group) for group in groups):
            raise UserError(f"{where} is malformed: its part {prefix[:100]!r} is not a network.")
        parameters, buffers, modules = groups
        for name, tensor in [*parameters.items(), *buffers.items()]:
            if tensor is not None and not isinstance(tensor, torch.Tensor):
                raise UserError(f"{where} is malformed: {(prefix + name)[:100]!r} is not a tensor.")
            if tensor is not None:
                tensors[prefix + name] = tensor
        waiting += [(f"{prefix}{name}.", module) for name, module in modules.items() if module is not None]
    raise UserError(f"{where} has more parts than any network.")


def plain_arguments(value: Any, where: str) -> Any:
    """Returns a copy of constructor arguments.

    Raises:
        UserError: the arguments are not plain data of moderate size.
    """
    left = MAX_ARGUMENTS

    def copy(item: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise UserError(f"{where} has more constructor arguments than any network.")
        if item is None or type(item) in (bool, float):
            return item
        if type(item) is int and abs(item) <= MAX_ARGUMENT:
            return item
        if type(item) is str and len(item) <= 10_000:
            return item
        if type(item) in (list, tuple):
            return type(item)(copy(part, depth + 1) for part in item)
        if type(item) in DICTIONARIES and all(type(key) in (str, int) for key in item):
            kind = EasyDict if type(item) is EasyDict else dict
            return kind((copy(key, depth + 1), copy(part, depth + 1)) for key, part in item.items())
        shown = repr(item)[:40] if type(item) in (int, str) else f"an object of type {type(item).__name__}"
        raise UserError(f"{where} has {shown} among its constructor arguments, which no network accepts.")

    return copy(value, 0)


class Blueprint(TorchDispatchMode):
    """Inside `with`, networks are built on the meta device: every tensor has a shape but no memory.

    Operations are counted, since a module without memory still takes time. Arithmetic only computes shapes: for
    arithmetic on the meta device, PyTorch would import its compiler, which takes seconds.

    Args:
        num_tensors: number of tensors in the file. Some operations are allowed for each tensor.
    """

    def __init__(self, num_tensors: int):
        super().__init__()
        self.left = MIN_OPERATIONS + OPERATIONS_PER_TENSOR * num_tensors
        self.others = contextlib.ExitStack()

    def __enter__(self) -> "Blueprint":
        self.others.enter_context(torch.device("meta"))
        self.others.enter_context(Undrawn())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.others.close()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch calls this for every such class. True would make it import its compiler too.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise UserError("its arguments request far more parts than it has tensors.")
        kwargs = kwargs or {}
        if func is torch.ops.aten.linspace.default:
            return torch.empty(args[2], dtype=kwargs.get("dtype"), device="meta")
        if func.overloadpacket is torch.ops.aten.arange and all(type(arg) is int for arg in args):
            return torch.empty(len(range(*args)), dtype=kwargs.get("dtype") or torch.int64, device="meta")
        if torch.Tag.pointwise in func.tags and not func._schema.is_mutable:
            return _pointwise(func, args, kwargs)
        return func(*args, **kwargs)


def _pointwise(func: Any, args: tuple, kwargs: dict) -> torch.Tensor:
    """Returns a tensor on the meta device with shape and number type of `func(*args, **kwargs)`."""
    ones = [torch.ones([], dtype=a.dtype, device="cpu") if isinstance(a, torch.Tensor) else a for a in args]
    shape = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, torch.Tensor)))
    return torch.empty(shape, dtype=func(*ones, **kwargs).dtype, device="meta")


class Undrawn(TorchFunctionMode):
    """Inside `with`, `torch.randn` returns uninitialized memory: for networks that are filled from a file."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))
