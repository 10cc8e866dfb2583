"""Building a network from what a file says about it: constructor arguments and named tensors, none of them trusted."""

import contextlib
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dnnlib import EasyDict, UserError
from torch_utils import persistence
from torch_utils.network_files.allowed import DICTIONARIES, Record

MAX_ARGUMENT = 1 << 20
MAX_ARGUMENTS = 10_000
MAX_MODULES = 10_000
MAX_DEPTH = 32
MIN_COST = 2048
MODULE_GROUPS = ("_parameters", "_buffers", "_modules")


def rebuild_records(
    value: Any, class_names: Mapping[str, str], packages: Collection[str], where: str = "The file"
) -> Any:
    """Replace `Record`s by instances of our classes: `value` itself, or the values of the dictionary that it is."""
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
    """Build the module that `record` describes, in the mode (training or not) in which it was saved.

    Raises:
        UserError: its class is unknown, or its arguments or tensors do not fit the class.
    """
    cls = find_record_class(record, class_names, packages, where)
    args, kwargs = record.state.get("_init_args"), record.state.get("_init_kwargs")
    if type(args) not in (tuple, list) or type(kwargs) not in DICTIONARIES:
        raise UserError(f"{where} lacks the arguments that it was built from: save it again with its own tools.")
    tensors = _collect(record, where)
    module = build_module(cls, args, kwargs, tensors, where)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(tensors[name].requires_grad)
    return module.train(record.state.get("training") is True)


def find_record_class(
    record: Record, class_names: Mapping[str, str], packages: Collection[str], where: str
) -> type[nn.Module]:
    """Our class for a record, by the table `class_names` or, where the file gives a module, by that."""
    if record.module is not None:
        return find_network_class(f"{record.module}.{record.class_name}", packages, where)
    if record.class_name not in class_names:
        raise UserError(f"{where} is of class {record.class_name[:100]!r}, which is no network known here.")
    return persistence.find_class(class_names[record.class_name])


def find_network_class(name: str, packages: Collection[str], where: str) -> type[nn.Module]:
    """The network class of a dotted name that a file gives: one in `packages`, or one that is imported already.

    Raises:
        UserError: there is none.
    """
    if persistence.is_known(name) or (name.split(".")[0] in packages and name.replace(".", "a").isidentifier()):
        with contextlib.suppress(UserError):
            cls = persistence.find_class(name)
            if issubclass(cls, nn.Module):
                return cls
    raise UserError(f"{where} is of class {name[:100]!r}, which is no network known here.")


def build_module(
    cls: type[nn.Module],
    args: Any,
    kwargs: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    where: str,
) -> nn.Module:
    """Construct `cls` and copy all parameters and buffers, bit by bit; none may be missing, left over or misshapen.

    Tensors stored in half precision become those of single precision that the class has. While the constructor runs, it
    can allocate only in proportion to the tensors that the file really has.

    Raises:
        UserError: arguments or tensors do not fit the class, in one line that names the tensor.
    """
    args, kwargs = _plain(args, where), _plain(kwargs, where)
    size = sum(tensor.numel() for tensor in tensors.values())
    try:
        with Allowance(16 * size + (4 << 20)):
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
        raise UserError(f"{where} has a tensor {name[:200]!r} that a {cls.__name__} of its arguments has no place for.")
    for name, target in own.items():
        source = tensors[name]
        if source.shape != target.shape:
            raise UserError(f"{where}: the tensor {name} is {list(source.shape)} but must be {list(target.shape)}.")
        if source.dtype != target.dtype and (source.dtype, target.dtype) != (torch.float16, torch.float32):
            raise UserError(f"{where}: the tensor {name} holds {source.dtype} but must hold {target.dtype}.")
    with torch.no_grad():
        for name, target in own.items():
            target.copy_(tensors[name])
    return module


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers by name, those left out of state_dict included."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _collect(record: Record, where: str) -> dict[str, torch.Tensor]:
    """All tensors of a record and its sub-modules under their dotted names."""
    tensors: dict[str, torch.Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", record)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return tensors
        prefix, part = waiting.pop()
        groups = [part.state.get(name) if isinstance(part, Record) else None for name in MODULE_GROUPS]
        if not all(type(group) in DICTIONARIES and all(type(name) is str for name in group) for group in groups):
            raise UserError(f"{where} is malformed: its part {prefix[:100]!r} is not a network.")
        parameters, buffers, modules = groups
        for name, tensor in [*parameters.items(), *buffers.items()]:
            if tensor is not None and not isinstance(tensor, torch.Tensor):
                raise UserError(f"{where} is malformed: {(prefix + name)[:100]!r} is no tensor.")
            if tensor is not None:
                tensors[prefix + name] = tensor
        waiting += [(f"{prefix}{name}.", module) for name, module in modules.items() if module is not None]
    raise UserError(f"{where} has more parts than any network.")


def _plain(value: Any, where: str) -> Any:
    """A copy of constructor arguments, if they are plain data of moderate size."""
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
        raise UserError(f"{where} has {shown} among its constructor arguments, which no network takes.")

    return copy(value, 0)


class Allowance(TorchDispatchMode):
    """Ends a computation by a UserError once it has gone through more than `size` numbers.

    Every operation is charged before it runs, by the sizes that it is given and the shape to which its inputs
    broadcast.
    """

    def __init__(self, size: int):
        super().__init__()
        self.left = size

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch asks this of every such class; True would make it import its compiler, which takes seconds.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        values = [*args, *(kwargs or {}).values()]
        cost = _cost(values)
        name = func.overloadpacket.__name__
        if name in ("arange", "linspace", "eye"):
            length = max((abs(value) for value in values if isinstance(value, (int, float))), default=0)
            cost = max(cost, length**2 if name == "eye" else length)
        elif name == "repeat":
            cost = args[0].numel() * math.prod(args[1])
        self.left -= max(MIN_COST, cost)
        if self.left < 0:
            raise UserError("its arguments ask for far more numbers than its tensors have.")
        return func(*args, **(kwargs or {}))


def _cost(values: list[Any]) -> int:
    """No less than the number of elements that an operation on `values` reads or makes."""
    shapes = [value.shape for value in values if isinstance(value, torch.Tensor)]
    lists = [value for value in values if isinstance(value, (list, tuple)) and len(value)]
    sizes = [value for value in lists if all(type(number) is int for number in value)][:1]  # strides come second
    joined = [sum(v.numel() for v in value if isinstance(v, torch.Tensor)) for value in lists]
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    broadcast = math.prod(max(sides) for sides in zip(*padded, strict=True))
    return max([broadcast, *map(math.prod, sizes), *joined])
