"""What a configuration may add to the loop: an object that looks at each snapshot and may end the run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch


class Look(NamedTuple):
    """What a monitor found at a snapshot."""

    line: str
    """One line for the user."""
    ends: bool
    """Whether the run ends here."""


class Monitor:
    """Built by class name after the networks have started, and before loss and optimizers exist.

    Args:
        run_dir: folder of the run.
        networks: G, D and G_ema. The monitor may change how they start.
        device: where they are.
        training_set_kwargs: class name and options of the data set.
    """

    def __init__(
        self,
        run_dir: str,
        networks: Mapping[str, torch.nn.Module],
        device: torch.device,
        training_set_kwargs: Mapping[str, Any],
    ):
        self.run_dir = run_dir
        self.training_set_kwargs = training_set_kwargs
        self.networks = networks
        self.device = device

    def look(self, loss: Any, images_seen: int, snapshot: str) -> Look:
        """Judge a snapshot; process 0 calls it.

        Args:
            loss: the loss of the run.
            images_seen: images so far.
            snapshot: path of the networks as they are now.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            UserError: the run has ended by the monitor's word.
        """
