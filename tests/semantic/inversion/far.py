"""A device without float64, written on the CPU. Its tensors refuse tensors of the CPU, as those of a GPU do."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("mps")
"""Device that far tensors name. PyTorch need not have it."""
Tensor = torch.Tensor


class Far(Tensor):
    """A tensor of the device."""


def mark(values, far=True):
    """The same tensors, as tensors of the device or of the CPU."""
    kind = Far if far else Tensor
    with torch._C.DisableTorchFunctionSubclass():
        return tree_map(lambda value: value.as_subclass(kind) if isinstance(value, Tensor) else value, values)


class FarDevice(TorchFunctionMode):
    """Checks every call of PyTorch while it is active."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = any(isinstance(tensor, Far) for tensor in tensors)
        with torch._C.DisableTorchFunctionSubclass():
            if func == Tensor.device.__get__:
                return DEVICE if far else func(*args)
            if func is Tensor.cpu:
                return mark(args[0], far=False)
            if func is Tensor.__iter__:
                return iter(mark(args[0].unbind(), far))
            if func is Tensor.to:
                return self.moved(*args, **kwargs)
            if kwargs.get("device") == DEVICE:
                kwargs["device"], far = "cpu", True
            near = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.ndim]
            assert not far or not near, f"{func.__name__} gets tensors of two devices"
            found = func(*args, **kwargs)
        return self.checked(mark(found)) if far else found

    def moved(self, tensor, target, *rest):
        far = isinstance(tensor, Far)
        if isinstance(target, Tensor):
            far, target = isinstance(target, Far), target.dtype
        elif isinstance(target, str | torch.device):
            far, target = torch.device(target) == DEVICE, tensor.dtype
        return self.checked(mark(mark(tensor, far=False).to(target, *rest), far))

    @staticmethod
    def checked(values):
        for value in tree_leaves(values):
            assert not isinstance(value, Far) or mark(value, False).dtype != torch.float64, "the device has no float64"
        return values
