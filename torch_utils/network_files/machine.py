"""Reads pickles safely.

A pickle is a small program: it can name any function of any module and call it. `load` runs this program on its own
machine, which accepts only the instructions for plain data. The machine imports nothing. It calls only functions of
`allowed`, which check their arguments. Any other content of the file ends the reading with an error.
"""

import contextlib
import io
import os
import pickle
import pickletools
import types
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, BinaryIO

from dnnlib import UserError
from torch_utils.network_files import allowed
from torch_utils.network_files.allowed import LEGACY_MAGIC, Global, Record, Refused
from torch_utils.network_files.rebuild import rebuild_records
from torch_utils.persistence import as_record

MAX_FILE_BYTES = 16 << 30
MAX_INSTRUCTIONS = 5_000_000
SCALARS = (str, int, float, bool, bytes, type(None))


def dump(obj: Any, file: BinaryIO) -> None:
    """Write a pickle that `load` and Python's own unpickler read.

    Raises:
        UserError: `obj` holds an object that `load` would refuse.
    """
    _Writer(file, protocol=4).dump(obj)


class _Writer(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType, types.BuiltinFunctionType)):
            if not allowed.is_allowed(obj.__module__, obj.__qualname__):
                raise UserError(
                    f"A network file cannot hold {obj.__module__}.{obj.__qualname__}. Use only plain data, tensors and"
                    " persistent objects."
                )
        elif _is_plain_object(obj):
            return as_record(obj)
        return NotImplemented


def _is_plain_object(obj: Any) -> bool:
    """Whether the `__dict__` describes `obj` completely, as for a sub-module of a persistent network."""
    cls = type(obj)
    default = cls.__reduce__ is object.__reduce__ and cls.__reduce_ex__ is object.__reduce_ex__
    return default and hasattr(obj, "__dict__") and not allowed.is_allowed(cls.__module__, cls.__qualname__)


def load(
    file: BinaryIO,
    class_names: Mapping[str, str] | None = None,
    packages: Collection[str] = (),
    where: str | None = None,
) -> Any:
    """Read a pickle of plain data, tensors and persistent objects.

    A persistent object is rebuilt if it is the whole content, or a value of the outermost dictionary. It is built from
    its recorded constructor arguments, and its parameters and buffers are copied. Deeper objects stay `Record`s.

    Args:
        file: file object, open for binary reading.
        class_names: dotted names of the classes that the file names without a module.
        packages: top-level packages in which the file may name further persistent classes.
        where: name of the file in messages. None uses the name of the file object.

    Raises:
        UserError: the file is damaged, or requests an object that is not allowed. No code of it was run.
    """
    where = where or describe(file)
    value = load_records(file, where, packages)
    return rebuild_records(value, dict(class_names or {}), frozenset(packages), where)


def load_records(file: BinaryIO, where: str | None = None, packages: Collection[str] = ()) -> Any:
    """Same as `load`, but leaves persistent objects as `Record`s: class name, module and state."""
    where = where or describe(file)
    stream = _Bounded(file)
    if stream.size > MAX_FILE_BYTES:
        raise UserError(f"{where} has {stream.size >> 30} GiB, too much for a network file.")
    with _plain_errors(where):
        return _Machine(stream, _Memory(stream.size), packages=packages).run()


def load_torch(file: BinaryIO, where: str | None = None) -> Any:
    """Read a file of `torch.save` without `torch.load`: plain data, tensors and argparse.Namespace, on the CPU.

    Raises:
        UserError: as for `load`, or the file is not a zip archive, which torch writes since version 1.6.
    """
    where = where or describe(file)
    archive, root = open_archive(file, where)
    storages: dict[str, allowed.Storage] = {}

    def storage(identity: Any) -> allowed.Storage:
        dtype, key, length = allowed.declared_storage(identity)
        if key not in storages:
            data = archive.read(f"{root}/data/{key}")
            machine.allocate(len(data))
            storages[key] = allowed.storage_of(dtype, length, data)
        return storages[key]

    with archive, _plain_errors(where):
        if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
            raise Refused("has its bytes in an order that cannot be read here")
        program = archive.read(f"{root}/data.pkl")
        size = sum(member.file_size for member in archive.infolist())
        machine = _Machine(_Bounded(io.BytesIO(program)), _Memory(size), storage)
        return machine.run()


def open_archive(file: BinaryIO, where: str) -> tuple[zipfile.ZipFile, str]:
    """Returns the zip archive of a torch file, and the name of the folder in it.

    Raises:
        UserError: the file is not a torch file, or claims to hold more than its own size.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{where} is cut short or damaged. Copy or download it again.") from error
    members = archive.infolist()
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UserError(f"{where} is a zip archive, not a network file. Expected .pkl, .safetensors, .npz or .pt.")
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise UserError(f"{where} is a compressed archive, which torch never writes. It was not loaded.")
    if sum(member.file_size for member in members) > size:
        raise UserError(f"{where} claims to hold more than its own size. It was not loaded.")
    return archive, roots[0]


@contextlib.contextmanager
def _plain_errors(where: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise UserError(f"{where} {error}. It was not loaded, and no code in it was run.") from error
    except MemoryError as error:
        raise UserError(f"{where} needs more memory than this machine has.") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply for a network file.") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{where} is not a complete network file: {reason}. Copy or download it again.") from error
    except Exception as error:
        # A malformed program fails in many ways, such as missing operands and objects.
        raise UserError(
            f"{where} is damaged: its instructions contradict each other. Copy or download it again."
        ) from error


def describe(file: BinaryIO) -> str:
    """Returns the name of a file for messages."""
    name = getattr(file, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else "The file"


class _Bounded:
    """A file that reads at most as many bytes as it has, for any requested number."""

    def __init__(self, file: BinaryIO):
        if not file.seekable():
            file = io.BytesIO(file.read(MAX_FILE_BYTES + 1))
        self._file = file
        start = file.tell()
        self.size = self._left = file.seek(0, os.SEEK_END) - start
        file.seek(start)

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self._file.readline(4096)
        self._left -= len(line)
        return line


class _Memory:
    """Counts the bytes that a file may still allocate.

    The file holds the bytes of every tensor once. Pickles of protocol 2 store them as text, which is decoded first.
    """

    def __init__(self, size: int):
        self.left = 2 * size


class _Machine:
    """The stack machine that runs the program of a pickle (see the standard module pickletools)."""

    def __init__(
        self,
        file: Any,
        memory: _Memory,
        storage: Callable[[Any], Any] | None = None,
        packages: Collection[str] = (),
    ):
        self.file = file
        self.memory = memory
        self.storage = storage
        self.packages = packages
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns the object that the program builds. The file position is then after the program."""
        for count, (opcode, arg, _) in enumerate(pickletools.genops(self.file)):
            if count > MAX_INSTRUCTIONS:
                raise Refused("has more instructions than any network file")
            if opcode.name == "STOP":
                return self.stack.pop()
            operation = _OPERATIONS.get(opcode.name)
            if operation is None:
                raise Refused(f"uses the pickle instruction {opcode.name}, which network files have no use for")
            operation(self, arg)
        raise ValueError("it ends too early")

    def allocate(self, size: int) -> None:
        self.memory.left -= size
        if self.memory.left < 0:
            raise Refused("asks for far more memory than its own size")

    def run_part(self, stream: BinaryIO, storage: Callable[[Any], Any]) -> Any:
        return _Machine(stream, self.memory, storage).run()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it ends too early")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def target(self, *kinds: type) -> Any:
        """Returns the container on top of the stack. Its type must be one of `kinds`."""
        if type(self.stack[-1]) not in kinds:
            raise Refused(f"adds items to {allowed.kind(self.stack[-1])}")
        return self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        self.target(list).extend(items)

    def add(self, items: list[Any]) -> None:
        self.target(set).update(map(_checked_key, items))

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key lacks its value")
        self.target(*allowed.DICTIONARIES).update(zip(map(_checked_key, items[::2]), items[1::2], strict=True))

    def find(self, module: Any, name: Any) -> None:
        self.push(allowed.find(module, name, self.packages))

    def call(self, args: list[Any]) -> None:
        target, arguments = args
        if not isinstance(target, Global) or type(arguments) is not tuple:
            raise Refused(f"calls {allowed.kind(target)}")
        self.push(target.call(arguments, self))

    def build(self, args: list[Any]) -> None:
        target, state = args
        self.push(allowed.set_state(target, state, self))

    def persistent(self) -> None:
        if self.storage is None:
            raise Refused("refers to objects outside of itself")
        self.push(self.storage(self.stack.pop()))


def _checked_key(key: Any) -> Any:
    # Nested tuples are refused too, since their hash can take exponential time.
    if type(key) not in SCALARS:
        raise Refused(f"uses {allowed.kind(key)} as a key")
    return key


def _ignore(machine: _Machine, arg: Any) -> None:
    pass


def _push_argument(machine: _Machine, arg: Any) -> None:
    machine.push(arg)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _ignore,
    "FRAME": _ignore,
    "BININT": _push_argument,
    "BININT1": _push_argument,
    "BININT2": _push_argument,
    "LONG1": _push_argument,
    "LONG4": _push_argument,
    "BINFLOAT": _push_argument,
    "SHORT_BINUNICODE": _push_argument,
    "BINUNICODE": _push_argument,
    "BINUNICODE8": _push_argument,
    "SHORT_BINBYTES": _push_argument,
    "BINBYTES": _push_argument,
    "BINBYTES8": _push_argument,
    "SHORT_BINSTRING": _push_argument,
    "BINSTRING": _push_argument,
    "NONE": lambda m, arg: m.push(None),
    "NEWTRUE": lambda m, arg: m.push(True),
    "NEWFALSE": lambda m, arg: m.push(False),
    "EMPTY_TUPLE": lambda m, arg: m.push(()),
    "EMPTY_LIST": lambda m, arg: m.push([]),
    "EMPTY_DICT": lambda m, arg: m.push({}),
    "EMPTY_SET": lambda m, arg: m.push(set()),
    "MARK": lambda m, arg: m.mark(),
    "POP": lambda m, arg: m.pop(1),
    "TUPLE": lambda m, arg: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, arg: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, arg: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, arg: m.push(tuple(m.pop(3))),
    "APPEND": lambda m, arg: m.extend(m.pop(1)),
    "APPENDS": lambda m, arg: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, arg: m.add(m.since_mark()),
    "SETITEM": lambda m, arg: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, arg: m.set_items(m.since_mark()),
    "MEMOIZE": lambda m, arg: m.put(len(m.memo)),
    "BINPUT": lambda m, arg: m.put(arg),
    "LONG_BINPUT": lambda m, arg: m.put(arg),
    "BINGET": lambda m, arg: m.push(m.memo[arg]),
    "LONG_BINGET": lambda m, arg: m.push(m.memo[arg]),
    "GLOBAL": lambda m, arg: m.find(*arg.split(" ", 1)),
    "STACK_GLOBAL": lambda m, arg: m.find(*m.pop(2)),
    "REDUCE": lambda m, arg: m.call(m.pop(2)),
    "NEWOBJ": lambda m, arg: m.call(m.pop(2)),
    "BUILD": lambda m, arg: m.build(m.pop(2)),
    "BINPERSID": lambda m, arg: m.persistent(),
}

__all__ = ["LEGACY_MAGIC", "Record", "dump", "load", "load_records", "load_torch", "open_archive"]
