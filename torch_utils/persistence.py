"""Objects that remember how they were built, and network files that other StyleGAN2-ADA tools can open.

A pickle of a persistent object holds the source text of its module, its class name, its constructor arguments and its
`__dict__`. Foreign tools may run that text; nothing here does: reading looks the class up by name.
"""

import copy
import copyreg
import functools
import inspect
import sys
from typing import Any, TypeVar

from dnnlib import EasyDict, UserError, get_obj_by_name

FORMAT_VERSION = 6
T = TypeVar("T", bound=type)

_classes: dict[str, type] = {}


def persistent_class(cls: T) -> T:
    """Class decorator: instances record their constructor arguments and pickle in the StyleGAN2-ADA layout.

    Adds the properties `init_args` (list) and `init_kwargs` (EasyDict): copies of what the constructor was given.
    Subclasses that should be pickled the same way are decorated themselves.
    """
    construct = cls.__init__

    @functools.wraps(construct)
    def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
        # The outermost constructor speaks for the object; those of base classes find the record in place. It goes
        # straight into __dict__ because torch.nn.Module accepts no attributes before its own __init__.
        if "_init_args" not in self.__dict__:
            self.__dict__["_init_args"] = copy.deepcopy(args)
            self.__dict__["_init_kwargs"] = copy.deepcopy(kwargs)
        construct(self, *args, **kwargs)

    cls.__init__ = recording_init
    cls.__reduce__ = _reduce
    cls.init_args = property(lambda self: list(copy.deepcopy(self._init_args)), doc="Positional constructor arguments.")
    cls.init_kwargs = property(
        lambda self: EasyDict(copy.deepcopy(self._init_kwargs)), doc="Constructor arguments given by name."
    )
    _classes[_full_name(cls)] = cls
    return cls


def is_persistent(obj: Any) -> bool:
    """Whether `obj` is a persistent class or an instance of one."""
    cls = obj if isinstance(obj, type) else type(obj)
    return _classes.get(_full_name(cls)) is cls


def is_known(name: str) -> bool:
    """Whether a persistent class of this dotted name is imported already."""
    return name in _classes


def find_class(name: str) -> type:
    """The persistent class of a dotted name such as ``'training.networks.Generator'``; imports its module.

    Raises:
        UserError: there is no such class, or it is not persistent.
    """
    cls = _classes.get(name) or get_obj_by_name(name)
    if not isinstance(cls, type) or not is_persistent(cls):
        raise UserError(f"{name} is not a class that network files can hold.")
    return cls


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.cache
def _source_text(module_name: str) -> str:
    # Cached so that all objects of one module share a single string, which pickle then writes only once.
    try:
        return inspect.getsource(sys.modules[module_name])
    except (OSError, TypeError, KeyError):
        return ""


def as_record(obj: Any) -> tuple:
    """How `obj`, of any class whose instances are no more than their `__dict__`, is written to a network file.

    This is what `__reduce__` of a persistent object gives; `safe_pickle.dump` writes the parts of one in the same way.
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


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    """What plain pickle and copy.deepcopy call. The name is part of the file format."""
    name = f"{meta['module']}.{meta['class_name']}"
    cls = _classes.get(name) or get_obj_by_name(name)
    obj = cls.__new__(cls)
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(meta["state"])
    else:
        obj.__dict__.update(meta["state"])
    return obj
