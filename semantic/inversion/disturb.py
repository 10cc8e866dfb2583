"""Disturbs generated images. A network that learns from disturbed images can also read photographs."""

import io

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F

from torch_utils.images import to_bytes

SMOOTHEST = 4
"""Side of the coarsest pattern of light and of backgrounds."""


def disturb(images: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Returns images of which some have other backgrounds, colours, light, blur, noise and JPEG artefacts.

    Args:
        images: [N, 3, S, S] in about [-1, 1].
        masks: class indices int64 [N, S, S]. 0 is the background.
        rng: draws everything.

    Returns:
        [N, 3, S, S].
    """
    x = new_backgrounds(images, masks, rng)
    x = change_colors(x, masks, rng)
    x = change_light(x, rng)
    x = blur(x, rng)
    x = x + _column(x, rng.uniform(0, 0.15, len(x)) * (rng.random(len(x)) < 0.5)) * _noise(x.shape, rng).to(x)
    return _compress(x, rng)


def new_backgrounds(images: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Returns images, half of them with new backgrounds: parts of other images, upside down, or random patterns."""
    others = images[torch.from_numpy(rng.permutation(len(images)))].flip(2)
    others = torch.roll(others, (int(rng.integers(images.shape[2])), int(rng.integers(images.shape[3]))), (2, 3))
    pattern = patterns(images.shape, rng).to(images)
    drawn = rng.random(len(images))
    new = torch.where(_column(images, drawn < 0.25) > 0, others, pattern)
    change = (_column(images, drawn < 0.5) > 0) & (masks == 0).unsqueeze(1)
    return torch.where(change, new, images)


def change_colors(images: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Returns images with mixed colour channels and other saturation. Each region gets its own brightness and tint."""
    count = len(images)
    grey = images.mean(dim=1, keepdim=True)
    x = grey + (images - grey) * _column(images, rng.uniform(0, 1.4, count))
    mix = torch.eye(3) + torch.from_numpy(rng.normal(0, 0.12, [count, 3, 3])).float()
    x = torch.einsum("ncd,ndhw->nchw", mix.to(x), x)
    tints = torch.from_numpy(rng.normal(0, 0.2, [count, int(masks.max()) + 1, 3])).to(x)
    tint = tints[torch.arange(count, device=x.device)[:, None, None], masks].permute(0, 3, 1, 2)
    x = x + tint
    gamma = _column(x, np.exp(rng.uniform(-0.5, 0.5, count)))
    return ((x.clamp(-1, 1) + 1) / 2).clamp(min=1e-4) ** gamma * 2 - 1


def change_light(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Returns images with smooth shadows and lights, and a fine texture."""
    shape = [len(images), 1, *images.shape[2:]]
    smooth = F.interpolate(_noise([len(images), 1, SMOOTHEST, SMOOTHEST], rng).to(images), shape[2:], mode="bicubic")
    fine = F.interpolate(_noise([len(images), 1, shape[2] // 2, shape[3] // 2], rng).to(images), shape[2:])
    strength = [_column(images, rng.uniform(0, most, len(images))) for most in (0.3, 0.1)]
    return images * (1 + smooth * strength[0]) + fine * strength[1]


def blur(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Returns images, half of them resized to a smaller size and back."""
    side = images.shape[-1]
    small = F.interpolate(images, max(int(side * rng.uniform(0.3, 0.9)), 8), mode="bilinear", antialias=True)
    soft = F.interpolate(small, side, mode="bilinear", align_corners=False)
    return torch.where(_column(images, rng.random(len(images)) < 0.5) > 0, soft, images)


def patterns(shape: torch.Size, rng: np.random.Generator) -> torch.Tensor:
    """Returns random patterns [N, 3, H, W] of two octaves or a plain colour, in about [-1, 1]."""
    count, channels, height, width = shape
    total = torch.from_numpy(rng.uniform(-0.9, 0.9, [count, channels, 1, 1])).float().expand(shape)
    for side in (SMOOTHEST, 4 * SMOOTHEST):
        strength = torch.from_numpy(rng.uniform(0, 0.5, [count, 1, 1, 1])).float()
        octave = _noise([count, channels, side, side], rng) * strength
        total = total + F.interpolate(octave, [height, width], mode="bicubic" if rng.random() < 0.7 else "nearest")
    return total.clamp(-1, 1)


def _compress(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Returns images, a third of them after JPEG compression of low quality."""
    x = images.clone()
    for i in np.flatnonzero(rng.random(len(x)) < 1 / 3):
        pixels = to_bytes(x[i]).permute(1, 2, 0).cpu().numpy()
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(20, 90)))
        back = np.array(PIL.Image.open(file), dtype=np.float32).transpose(2, 0, 1)
        x[i] = torch.from_numpy(back).to(x) / 127.5 - 1
    return x


def _noise(shape: list[int] | torch.Size, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(list(shape), dtype=np.float32))


def _column(images: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """Returns one number for each image, as [N, 1, 1, 1]."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(images)[:, None, None, None]
