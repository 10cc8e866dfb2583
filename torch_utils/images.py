"""Images as bytes."""

import torch


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Bytes of images in [-1, 1]: uint8, any shape. Numbers are rounded; what lies outside is clamped."""
    return images.detach().float().mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8)
