"""Objects that record their constructor arguments, and that StyleGAN2-ADA's tools can unpickle.

A pickle of a persistent object holds the source text of its module, its class name and its constructor arguments. Its
`__dict__` follows. Other tools run this text. This project does not run it: it looks the class up by name.
"""

import copy
import copyreg
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from dnnlib import EasyDict, UserError, get_obj_by_name
from torch_utils.network_files import classes, rebuild
from torch_utils.network_files.allowed import Record
from torch_utils.network_files.classes import find_class, is_known

FORMAT_VERSION = 6
T = TypeVar("T", bound=type)
Hook = Callable[[EasyDict], EasyDict]

__all__ = ["as_record", "find_class", "import_hook", "is_known", "is_persistent", "named_arguments", "persistent_class"]

_import_hooks: list[Hook] = []


def persistent_class(cls: T) -> T:
    """Decorates a class: instances record their constructor arguments and pickle in the StyleGAN2-ADA layout.

    Adds the properties `init_args` (list) and `init_kwargs` (EasyDict): copies of the constructor arguments. A subclass
    that should be pickled in this way needs its own decorator.
    """
    construct = cls.__init__

    @functools.wraps(construct)
    def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
        # The constructor of the outermost class records. Constructors of base classes find the record in place. The
        # record is written to __dict__, since torch.nn.Module accepts no attributes before its own __init__.
        if "_init_args" not in self.__dict__:
            self.__dict__["_init_args"] = copy.deepcopy(args)
            self.__dict__["_init_kwargs"] = copy.deepcopy(kwargs)
        construct(self, *args, **kwargs)

    cls.__init__ = recording_init
    cls.__reduce__ = _reduce
    cls.__copy__ = _shallow_copy
    cls.__deepcopy__ = _deep_copy
    cls.init_args = property(lambda self: list(copy.deepcopy(self._init_args)), doc="Positional constructor arguments.")
    cls.init_kwargs = property(
        lambda self: EasyDict(copy.deepcopy(self._init_kwargs)), doc="Constructor arguments given by name."
    )
    classes.register(cls)
    return cls


def is_persistent(obj: Any) -> bool:
    """Whether `obj` is a persistent class or an instance of one."""
    return classes.is_registered(obj if isinstance(obj, type) else type(obj))


def named_arguments(obj: Any) -> dict[str, Any]:
    """Returns the constructor arguments of a persistent object by name, without defaults."""
    return dict(inspect.signature(type(obj)).bind(*obj.init_args, **obj.init_kwargs).arguments)


def import_hook(hook: Hook) -> Hook:
    """Register a function that can change the description of an object before Python's own unpickler builds it.

    `hook` gets an EasyDict of type, version, module_src, class_name and state, and returns the description to use.
    `legacy.load_network` does not call hooks.
    """
    _import_hooks.append(hook)
    return hook


@functools.cache
def _source_text(module_name: str) -> str:
    # Cached so that all objects of one module share one string, which pickle then writes only once.
    try:
        return inspect.getsource(sys.modules[module_name])
    except (OSError, TypeError, KeyError):
        return ""


def as_record(obj: Any) -> tuple:
    """Returns function and arguments by which a network file describes `obj`, an object with nothing but a `__dict__`.

    `__reduce__` of a persistent object returns them. `machine.dump` writes parts of an object in the same way.
    """
    cls = type(obj)
    meta = EasyDict(
        type="class",
        version=FORMAT_VERSION,
        module_src=_source_text(cls.__module__),
        class_name=cls.__qualname__,
        module=cls.__module__,
        state=dict(obj.__dict__),
    )
    return _reconstruct_persistent_obj, (meta,)


def _reduce(self: Any) -> tuple:
    if is_persistent(self):
        return as_record(self)
    return copyreg.__newobj__, (type(self),), dict(self.__dict__)


def _shallow_copy(self: Any) -> Any:
    return _restored(type(self).__new__(type(self)), dict(self.__dict__))


def _deep_copy(self: Any, memo: dict[int, Any]) -> Any:
    twin = type(self).__new__(type(self))
    memo[id(self)] = twin
    return _restored(twin, copy.deepcopy(dict(self.__dict__), memo))


def _restored(obj: Any, state: dict[str, Any]) -> Any:
    """Returns the empty object `obj` with this `__dict__`."""
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(state)
    else:
        obj.__dict__.update(state)
    return obj


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    """Build a persistent object for Python's own unpickler. The name of this function is part of the file format.

    Objects of this project get their state back. A network with foreign parts is built from its recorded constructor
    arguments, and its tensors are copied. Until then, its parts stay `Record`s. This concerns networks of NVIDIA's
    files, and own files with parts whose class has moved since. Networks get single precision.
    """
    for hook in _import_hooks:
        meta = hook(EasyDict(meta))
    record = Record(meta["class_name"], meta.get("module"), meta["state"])
    cls = _class_of(record)
    if cls is None:
        return record
    if record.module is None or any(isinstance(part, Record) for part in _parts(record.state)):
        if not classes.is_registered(cls):
            return record
        return rebuild.rebuild_record(record, classes.PUBLISHED, (), record.class_name)
    obj = _restored(cls.__new__(cls), record.state)
    if isinstance(obj, torch.nn.Module):
        for tensor in [*obj.parameters(recurse=False), *obj.buffers(recurse=False)]:
            if tensor.dtype == torch.float16:  # stored in half precision only to save space
                tensor.data = tensor.data.float()
    return obj


def _class_of(record: Record) -> type | None:
    if record.module is None:
        return find_class(classes.PUBLISHED[record.class_name]) if record.class_name in classes.PUBLISHED else None
    try:
        return get_obj_by_name(f"{record.module}.{record.class_name}")
    except UserError:
        return None


def _parts(state: dict[str, Any]) -> list[Any]:
    return [*state.values(), *(state.get("_modules") or {}).values()]
