"""The controller of adaptive discriminator augmentation (Karras et al. 2020, "Limited Data", section 3.1)."""

from collections.abc import Mapping
from typing import Any

import torch

from torch_utils import training_stats

SIGNS = "Loss/signs/real"


class AugmentController:
    """Raises the augmentation probability while D is too confident on real samples, and lowers it otherwise.

    Args:
        augment_pipe: the pipe whose `p` is controlled.
        target: desired mean of the signs of real logits. None keeps p constant.
        interval: steps between adjustments.
        batch_size: images per step.
        speed_kimg: thousands of images in which p can rise from 0 to 1.
        device: device for sums over processes.
    """

    def __init__(
        self,
        augment_pipe: torch.nn.Module,
        target: float | None,
        interval: int,
        batch_size: int,
        speed_kimg: float,
        device: torch.device,
    ):
        self.augment_pipe = augment_pipe
        self.target = target
        self.interval = interval
        self.device = device
        self.increment = batch_size * interval / (speed_kimg * 1000)
        self._signs = training_stats.Collector(SIGNS, keep_previous=False)

    @property
    def p(self) -> float:
        """The current augmentation probability."""
        return float(self.augment_pipe.p)

    def step(self, step: int) -> None:
        """Adjust p after training step number `step` if an adjustment is due."""
        if self.target is None or step % self.interval:
            return
        count, total, _ = self._signs.take(SIGNS, self.device)
        # Computed on the device, without waiting: p rises if the mean sign exceeds the target, and falls otherwise.
        direction = torch.where(total > self.target * count, 1.0, -1.0) * (count > 0)
        p = self.augment_pipe.p
        p.copy_((p + direction.to(p) * self.increment).clamp(min=0))

    def state_dict(self) -> dict[str, Any]:
        """Returns the signs since the last adjustment. In a group of processes, all must call this together."""
        return self._signs.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the signs of `state_dict`."""
        self._signs.load_state_dict(state)
