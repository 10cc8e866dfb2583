"""The objects that a network file may request. A function that checks its arguments creates each object.

Names in a pickle are looked up only in `_ALLOWED`. The functions below replace functions of torch and numpy. With them,
sizes and strides cannot reach outside the bytes of the file.
"""

import argparse
import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import torch

from dnnlib import EasyDict

DICTIONARIES = (dict, EasyDict, OrderedDict)
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
MAX_DIMENSIONS = 16
_SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
_STORAGE_HEAD = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_VERSION, _SYSTEM))

DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


class Refused(Exception):
    """The file requests something that is not allowed. The text completes a sentence that begins with 'The file'."""


class Reader(Protocol):
    """Interface of the machine that runs a pickle, for the functions below."""

    def allocate(self, size: int) -> None:
        """Count `size` bytes of memory. Raises Refused if the file needs far more than its own size."""

    def run_part(self, stream: BinaryIO, storage: Callable[[Any], Any]) -> Any:
        """Run a pickle inside the pickle. `storage` resolves its references to storages."""


class Global:
    """A name in a pickle, and the function that is called instead of the named object."""

    __slots__ = ("_make", "name")

    def __init__(self, name: str, make: Callable[..., Any]):
        self.name = name
        self._make = make

    def call(self, args: tuple, reader: Reader) -> Any:
        try:
            return self._make(reader, *args)
        except (TypeError, ValueError, KeyError, RuntimeError, OverflowError, AttributeError) as error:
            raise Refused(f"calls {self.name} with arguments that do not fit it") from error


class Record(NamedTuple):
    """A persistent object as the file describes it."""

    class_name: str
    module: str | None
    state: dict[str, Any]


class Storage(NamedTuple):
    """The numbers of one or more tensors: one dimension, one number type."""

    values: torch.Tensor


class NumberType:
    """A numpy number type while it is read from a file."""

    def __init__(self, name: str):
        self.dtype = np.dtype(name)


def kind(value: Any) -> str:
    """Returns the name of a value for messages."""
    return value.name if isinstance(value, Global) else f"an object of type {type(value).__name__}"


def is_allowed(module: str, name: str) -> bool:
    """Whether `find` accepts `module.name`."""
    return (module, name) in _ALLOWED


def find(module: Any, name: Any, packages: Collection[str] = ()) -> Any:
    """Returns the object that replaces `module.name` of a file.

    Args:
        module, name: values from the file.
        packages: top-level packages whose classes a file may name for parts of a network. Such a part becomes a
            `Record`. Its class is not used.

    Raises:
        Refused: the name is not allowed.
    """
    if type(module) is not str or type(name) is not str:
        raise Refused("names an object by something other than text")
    shown = f"{module}.{name}"
    if (module, name) in _ALLOWED:
        return _ALLOWED[module, name]
    if module.startswith("torch.nn.modules.") or module.split(".")[0] in packages:
        return Global(shown, _part_of(module, name))
    shown = shown if len(shown) <= 100 and shown.isprintable() else repr(shown[:100])
    raise Refused(f"asks for {shown}, which network files have no use for")


def set_state(target: Any, state: Any, reader: Reader) -> Any:
    """Set the state of `target` to the state in the file, like the instruction BUILD, and return `target`."""
    if type(target) is argparse.Namespace and _is_text_dict(state):
        vars(target).update(state)
    elif type(target) is Record and _is_text_dict(state):
        target.state.update(state)
    elif type(target) is NumberType and type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "=", "|"):
        target.dtype = target.dtype.newbyteorder(state[1])
    elif type(target) is np.ndarray and type(state) is tuple and len(state) == 5:
        _fill_array(target, *state, reader=reader)
    elif not (type(target) is OrderedDict and _is_text_dict(state)):
        # Attributes of an OrderedDict, such as the versions in a state_dict, are not needed.
        raise Refused(f"sets the state of {kind(target)}")
    return target


def _is_text_dict(state: Any) -> bool:
    return type(state) is dict and all(type(key) is str for key in state)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _whole(*numbers: Any) -> None:
    _require(all(type(number) is int and number >= 0 for number in numbers))


def _persistent(reader: Reader, meta: Any) -> Record:
    _require(type(meta) in DICTIONARIES and meta.get("type") == "class")
    if type(meta.get("version")) is not int or meta["version"] > 6:
        raise Refused("was written by a newer version of StyleGAN's tools")
    name, module, state = meta.get("class_name"), meta.get("module"), meta.get("state")
    _require(type(name) is str and type(module) in (str, type(None)) and _is_text_dict(state))
    return Record(name, module, state)


def _part_of(module: str, name: str) -> Callable[..., Record]:
    def make(reader: Reader) -> Record:
        return Record(name, module, {})

    return make


def _empty(factory: Callable[[], Any]) -> Callable[..., Any]:
    def make(reader: Reader) -> Any:
        return factory()

    return make


def _make_set(reader: Reader, items: Any = ()) -> set:
    _require(type(items) in (list, tuple) and all(type(v) in (str, int, float, bool, bytes) for v in items))
    return set(items)


def _make_bytes(reader: Reader, text: Any, encoding: Any) -> bytes:
    """Returns bytes as written by pickles of protocol 2."""
    _require(type(text) is str and encoding == "latin1")
    reader.allocate(len(text))
    return text.encode("latin1")


def _make_size(reader: Reader, sizes: Any) -> torch.Size:
    _require(type(sizes) in (list, tuple) and len(sizes) <= MAX_DIMENSIONS)
    _whole(*sizes)
    return torch.Size(sizes)


def _make_device(reader: Reader, kind: Any, index: Any = None) -> torch.device:
    _require(type(kind) is str)
    return torch.device(kind) if index is None else torch.device(kind, index)


def _make_tensor(
    reader: Reader,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    backward_hooks: Any = None,
    metadata: Any = None,
) -> torch.Tensor:
    _require(type(storage) is Storage and type(size) in (tuple, torch.Size) and type(stride) is tuple)
    _require(len(size) == len(stride) <= MAX_DIMENSIONS)
    _whole(offset, *size, *stride)
    values = storage.values
    if 0 not in size:
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if last >= len(values) or math.prod(size) > len(values):
            raise Refused(f"has a tensor {list(size)} that reaches outside its {len(values)} numbers")
    else:
        offset, size = 0, [min(length, 1 << 20) for length in size]
    return values.as_strided(size, stride, offset)


def _make_parameter(reader: Reader, data: Any, requires_grad: Any, backward_hooks: Any = None) -> torch.nn.Parameter:
    _require(type(data) is torch.Tensor and type(requires_grad) is bool)
    return torch.nn.Parameter(data, requires_grad)


def _make_storage(reader: Reader, data: Any) -> Storage:
    """Read a storage in torch's older file format: five small pickles, then the numbers."""
    _require(type(data) is bytes)
    stream = io.BytesIO(data)
    declared: list[tuple[torch.dtype, str, int]] = []

    def declare(identity: Any) -> None:
        declared.append(declared_storage(identity))

    def read() -> Any:
        return reader.run_part(stream, declare)

    if data.startswith(_STORAGE_HEAD):  # torch writes this head for nearly every tensor
        stream.seek(len(_STORAGE_HEAD))
    else:
        _require(read() == LEGACY_MAGIC and read() == LEGACY_VERSION)
        system = read()
        _require(type(system) is dict and system.get("little_endian", True) is True)
    read()
    _require(len(declared) == 1)
    dtype, key, length = declared[0]
    _require(read() == [key])
    start = stream.tell() + 8
    _require(int.from_bytes(data[start - 8 : start], "little") == length)
    numbers = memoryview(data)[start:]
    reader.allocate(len(numbers))
    return storage_of(dtype, length, numbers)


def declared_storage(identity: Any) -> tuple[torch.dtype, str, int]:
    """Returns number type, name and length of a storage, from the tuple that refers to it in torch's files."""
    _require(type(identity) is tuple and len(identity) in (5, 6) and identity[0] == "storage")
    _, storage_type, key, _, length, *view = identity
    _require(type(storage_type) is _StorageType and type(key) is str and view in ([], [None]))
    _whole(length)
    return storage_type.dtype, key, length


def storage_of(dtype: torch.dtype, length: int, data: bytes | memoryview) -> Storage:
    """Returns a storage of `length` numbers. `data` must have exactly this length."""
    size = length * torch.empty(0, dtype=dtype).element_size()
    if len(data) != size:
        raise Refused(f"is cut short: a tensor has {len(data)} of its {size} bytes")
    return Storage(torch.frombuffer(bytearray(data), dtype=dtype) if size else torch.empty(0, dtype=dtype))


class _StorageType(NamedTuple):
    dtype: torch.dtype


def _make_number_type(reader: Reader, name: Any, align: Any = False, copy: Any = True) -> NumberType:
    _require(type(name) is str and re.fullmatch(r"b1|[iu][1248]|f[248]", name) is not None)
    return NumberType(name)


def _make_number(reader: Reader, number_type: Any, data: Any) -> int | float | bool:
    _require(type(number_type) is NumberType and type(data) is bytes and len(data) == number_type.dtype.itemsize)
    return np.frombuffer(data, number_type.dtype)[0].item()


def _make_array(reader: Reader, array_type: Any, shape: Any, code: Any) -> np.ndarray:
    _require(array_type is _ALLOWED["numpy", "ndarray"])
    return np.zeros(0, np.uint8)


def _fill_array(
    target: np.ndarray, version: Any, shape: Any, number_type: Any, fortran: Any, data: Any, reader: Reader
) -> None:
    if type(data) is str and (not data or ord(max(data)) < 256):
        data = data.encode("latin-1")  # bytes, as Python 2 wrote them
    if type(shape) is not tuple or type(number_type) is not NumberType or type(data) is not bytes:
        raise Refused("sets the state of an array to something else")
    _whole(*shape)
    if len(shape) > MAX_DIMENSIONS or math.prod(shape) * number_type.dtype.itemsize != len(data):
        raise Refused(f"has an array {list(shape)} of {len(data)} bytes, which do not fit")
    reader.allocate(len(data))
    target.__setstate__((1, shape, number_type.dtype, bool(fortran), data))


def _no_call(reader: Reader, *args: Any) -> Any:
    raise TypeError


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence _reconstruct_persistent_obj": _persistent,
    "collections OrderedDict": _empty(OrderedDict),
    "dnnlib.util EasyDict": _empty(EasyDict),
    "dnnlib EasyDict": _empty(EasyDict),
    "argparse Namespace": _empty(argparse.Namespace),
    "_codecs encode": _make_bytes,
    "builtins set": _make_set,
    "__builtin__ set": _make_set,
    "torch Size": _make_size,
    "torch device": _make_device,
    "torch._utils _rebuild_tensor_v2": _make_tensor,
    "torch._utils _rebuild_parameter": _make_parameter,
    "torch.storage _load_from_bytes": _make_storage,
    "numpy dtype": _make_number_type,
    "numpy ndarray": _no_call,
    "numpy.core.multiarray scalar": _make_number,
    "numpy._core.multiarray scalar": _make_number,
    "numpy.core.multiarray _reconstruct": _make_array,
    "numpy._core.multiarray _reconstruct": _make_array,
}

_ALLOWED: dict[tuple[str, str], Any] = {
    **{tuple(key.split(" ")): Global(key.replace(" ", "."), make) for key, make in _FUNCTIONS.items()},
    **{(module, f"{n}Storage"): _StorageType(t) for n, t in DTYPES.items() for module in ("torch", "torch.cuda")},
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in DTYPES.values()},
}
