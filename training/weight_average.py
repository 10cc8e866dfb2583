"""The moving average of a generator's weights (Karras et al. 2018, "Progressive Growing", section 6)."""

import torch


def ema_decay(images_seen: int, batch_size: int, kimg: float, rampup: float | None) -> float:
    """Returns the fraction of the average that one step keeps.

    Args:
        images_seen: images seen before the step.
        batch_size: images of the step.
        kimg: half-life in thousands of images.
        rampup: limits the half-life to this fraction of the images seen. None sets no limit.
    """
    half_life = kimg * 1000
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (batch_size / max(half_life, 1e-8))


def update_ema(G_ema: torch.nn.Module, G: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current weights, keeping the fraction `decay`. Buffers are copied."""
    with torch.no_grad():
        averaged, current = list(G_ema.parameters()), list(G.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for kept, buffer in zip(G_ema.buffers(), G.buffers(), strict=True):
            kept.copy_(buffer)
