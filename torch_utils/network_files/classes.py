"""The registry of classes that network files can hold."""

from dnnlib import UserError, get_obj_by_name

PUBLISHED = {
    "Generator": "training.networks.Generator",
    "Discriminator": "training.networks.Discriminator",
    "AugmentPipe": "training.augment.AugmentPipe",
}
"""Module of the classes that NVIDIA's files name without a module. Python's own unpickler calls only
`torch_utils.persistence`, as the file format requires. Therefore this table is here, below the classes.
"""

UNSUPPORTED = {"SynthesisInput": "StyleGAN3"}
"""Parts that only occur in other kinds of networks, and the names of these networks."""

_classes: dict[str, type] = {}


def full_name(cls: type) -> str:
    """Returns the dotted name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def register(cls: type) -> None:
    """Allow network files to hold instances of `cls`."""
    _classes[full_name(cls)] = cls


def is_registered(cls: type) -> bool:
    """Whether network files can hold instances of `cls` itself. A subclass must be registered separately."""
    return _classes.get(full_name(cls)) is cls


def is_known(name: str) -> bool:
    """Whether a class with this dotted name is already registered."""
    return name in _classes


def find_class(name: str) -> type:
    """Returns the registered class of a dotted name such as ``'training.networks.Generator'``. Imports its module.

    Raises:
        UserError: the class does not exist, or is not registered.
    """
    cls = _classes.get(name) or get_obj_by_name(name)
    if not isinstance(cls, type) or not is_registered(cls):
        raise UserError(f"{name} is not a class that network files can hold.")
    return cls
