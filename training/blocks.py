"""Shared parts of the blocks of generator and discriminator: resolutions, architectures, number formats."""

import torch
from torch import nn

from dnnlib import UserError

ARCHITECTURES = ("orig", "skip", "resnet")
HALF_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def known_architecture(name: str) -> str:
    if name not in ARCHITECTURES:
        raise UserError(f"Unknown architecture {name!r}. Choose one of {', '.join(ARCHITECTURES)}.")
    return name


def plane_layout(x: torch.Tensor) -> torch.memory_format:
    """Returns the memory format in which convolutions of `x` are fastest.

    The format is channels-last under autocast: the matrix units of a GPU then read operands without a transposition.
    It is channels-last on a CPU too, whose library would otherwise transpose before and after each convolution.
    """
    if x.device.type == "cpu" or torch.is_autocast_enabled(x.device.type):
        return torch.channels_last
    return torch.contiguous_format


def working_format(block: nn.Module, x: torch.Tensor, force_fp32: bool) -> torch.Tensor:
    """Returns `x` in the number type and memory format in which `block` computes.

    A block's own half precision applies on GPUs only. Under autocast all blocks use autocast's type.
    """
    layout = plane_layout(x)
    if torch.is_autocast_enabled(x.device.type) and not force_fp32:
        return x.to(torch.get_autocast_dtype(x.device.type), memory_format=layout)
    half = block.use_fp16 and not force_fp32 and x.device.type == "cuda"
    layout = torch.channels_last if half and block.channels_last else layout
    return x.to(HALF_TYPES[block.half_dtype] if half else torch.float32, memory_format=layout)


def resolutions_to(img_resolution: int, smallest: int) -> list[int]:
    """Returns the resolutions from 4 to `img_resolution`, each twice the previous one."""
    if img_resolution < smallest or img_resolution & (img_resolution - 1):
        raise UserError(f"img_resolution must be a power of two from {smallest} up, but is {img_resolution}.")
    return [2**i for i in range(2, img_resolution.bit_length())]


def in_half(resolution: int, img_resolution: int, num_fp16_res: int) -> bool:
    """Whether `resolution` is one of the `num_fp16_res` largest. Always False for 4x4."""
    return resolution > 4 and resolution << num_fp16_res > img_resolution
