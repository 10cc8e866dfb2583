"""Selects the device for computations, and bfloat16 where a device multiplies it fast."""

import torch

from dnnlib import UserError


def select_device(name: str) -> torch.device:
    """Returns the device for 'auto', 'cpu', 'cuda' or 'mps'. 'auto' selects a GPU if there is one.

    Raises:
        UserError: the requested device does not exist.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[name]:
        raise UserError(f"PyTorch finds no {name} device. Use --device=cpu or --device=auto.")
    return torch.device(name)


def multiplies_bfloat16(device: str) -> bool:
    """Returns whether a device is a CPU with matrix units for bfloat16 (AMX), where bfloat16 is much faster."""
    return device == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def bfloat16_if_fast(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Returns autocast to bfloat16 if it is wanted and fast, else an autocast that is off. See `multiplies_bfloat16`.

    It is for results that need not be exact, such as labels, and gradients before the last steps of a search.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and multiplies_bfloat16(device.type))


def resolve_device(name: str, gpus: int) -> str:
    """Returns the device for training, after a check that it exists."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found == 0:
            raise UserError(
                "No GPU was found: PyTorch sees no CUDA device. Train with --device=cpu, or check the driver."
            )
        if gpus > found:
            raise UserError(f"--gpus={gpus} asks for more GPUs than this machine has ({found}).")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device=mps asks for an Apple GPU, but PyTorch sees none. Train with --device=cpu.")
    if name == "mps" and gpus > 1:
        raise UserError("--device=mps trains in one process. Remove --gpus.")
    return name
