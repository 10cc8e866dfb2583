"""The classes that network files can hold, by name."""

from dnnlib import UserError, get_obj_by_name

PUBLISHED = {
    "Generator": "training.networks.Generator",
    "Discriminator": "training.networks.Discriminator",
    "AugmentPipe": "training.augment.AugmentPipe",
}
"""Where the classes are that NVIDIA's files name without a module. Python's own unpickler knows only this package: it
calls `torch_utils.persistence`, because the file format says so. Therefore this table stands here, below the classes.
"""

UNSUPPORTED = {"SynthesisInput": "StyleGAN3"}
"""Parts that only networks of another kind have, and what these networks are called."""

_classes: dict[str, type] = {}


def full_name(cls: type) -> str:
    """The dotted name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def register(cls: type) -> None:
    """Let network files hold instances of `cls`."""
    _classes[full_name(cls)] = cls


def is_registered(cls: type) -> bool:
    """Whether network files can hold instances of `cls` itself; a subclass is registered on its own."""
    return _classes.get(full_name(cls)) is cls


def is_known(name: str) -> bool:
    """Whether a class of this dotted name is registered already."""
    return name in _classes


def find_class(name: str) -> type:
    """The registered class of a dotted name such as ``'training.networks.Generator'``; imports its module.

    Raises:
        UserError: there is no such class, or it is not registered.
    """
    cls = _classes.get(name) or get_obj_by_name(name)
    if not isinstance(cls, type) or not is_registered(cls):
        raise UserError(f"{name} is not a class that network files can hold.")
    return cls
