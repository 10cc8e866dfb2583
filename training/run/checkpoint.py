"""Saves and restores the complete state of a run."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import UserError
from torch_utils import distributed
from training.run.folder import log_sizes
from training.run.snapshots import load_state, remove_old_states, save_state, state_name


class Checkpoint:
    """Saves the parts of a run, and restores them.

    Args:
        run_dir: folder of the run.
        parts: objects with `state_dict` and `load_state_dict`, by name. 'run' is the run's position. Parts that are
            None are ignored.
        keep: number of newest states that stay in the folder.

    Attributes:
        logs: sizes of the run's logs at the last `save` or `restore`, see `training.run.folder.log_sizes`.
    """

    def __init__(self, run_dir: str, parts: Mapping[str, Any], keep: int):
        self.run_dir = run_dir
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.keep = keep
        self.logs: dict[str, int] = {}

    def save(self, metrics_due: bool) -> None:
        """Write a state and remove the oldest state. All processes must call this function together.

        Args:
            metrics_due: whether the metrics of this snapshot must be computed. A resume computes missing metrics.
        """
        state = {name: part.state_dict() for name, part in self.parts.items()}
        if distributed.get_rank() == 0:
            self.logs = log_sizes(self.run_dir)
            path = os.path.join(self.run_dir, state_name(self.parts["run"].images_seen))
            save_state(path, {**state, "metrics_due": metrics_due, "logs": self.logs})
            remove_old_states(self.run_dir, self.keep)

    def restore(self, path: str) -> bool:
        """Load a state into the parts. All processes must call this function together.

        Returns:
            Whether metrics were due when the state was saved.

        Raises:
            UserError: the state is damaged, or belongs to other data or options.
        """
        state = distributed.from_first(load_state, path)
        try:
            for name, part in self.parts.items():
                is_optimizer = isinstance(part, torch.optim.Optimizer)
                part.load_state_dict(fitted(part, state[name], name) if is_optimizer else state[name])
            self.logs = dict(state["logs"])
            return state["metrics_due"] is True
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not fit the run's data and options: {str(error)[:200]}") from error


def fitted(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the state of an optimizer with the options of this run. Some options depend on the device.

    The shapes are compared first. A fused optimizer would write beyond the end of tensors that are too small.

    Raises:
        ValueError: the state belongs to other parameters.
    """
    own, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    if [len(group["params"]) for group in own] != [len(group["params"]) for group in theirs]:
        raise ValueError(f"{name} has another number of parameters")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for key, value in state["state"].get(number, {}).items():
            wanted = [] if key == "step" else list(parameter.shape)
            if isinstance(value, torch.Tensor) and list(value.shape) != wanted:
                shapes = f"{list(value.shape)} for a parameter of shape {list(parameter.shape)}"
                raise ValueError(f"{name} has {key} of shape {shapes}")
    return {**state, "param_groups": own}


def check_replicas(networks: Mapping[str, torch.nn.Module], images_seen: int) -> None:
    """Compare the networks of all processes. Buffer `w_avg` is not compared: each process averages its own latents.

    Raises:
        UserError: the networks differ.
    """
    tensors = {f"{key}.{n}": t for key, network in networks.items() for n, t in network.state_dict().items()}
    found = distributed.find_difference({n: t for n, t in tensors.items() if not n.endswith("w_avg")})
    if found is not None:
        raise UserError(
            f"At {images_seen / 1000:g} kimg, {found[0]} of process {found[1]} differs from process 0. "
            f"Resume from the last state with --resume=latest, and check the devices."
        )
