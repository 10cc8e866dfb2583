"""One optimizer step: which network, which part of the loss, how often."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch

import dnnlib
from torch_utils import distributed


@dataclasses.dataclass
class Phase:
    """A part of the training step that ends in one optimizer step.

    Attributes:
        name: as the loss knows it: 'Gmain', 'Greg', 'Dmain', 'Dreg', 'Gboth' or 'Dboth'.
        parameters: what it trains.
        optimizer: shared by the phases of one network.
        interval: executed every so many steps; regularization terms are multiplied by it.
    """

    name: str
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    interval: int

    def begin(self) -> None:
        """Let gradients flow to this network's parameters, and only start them here."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    def end(self, rounds: int = 1) -> None:
        """Average gradients over rounds and processes, and step; the network is frozen until its next phase."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if rounds > 1 and grads:
            torch._foreach_div_(grads, rounds)
        distributed.average_gradients(self.parameters)
        for grad in grads:
            torch.nan_to_num(grad, nan=0, posinf=1e5, neginf=-1e5, out=grad)
        self.optimizer.step()


def build_phases(
    name: str,
    network: torch.nn.Module,
    optimizer_kwargs: Mapping[str, Any],
    reg_interval: int | None,
    frozen: Iterable[str] = (),
) -> list[Phase]:
    """Phases of one network with lazy regularization (Karras et al. 2020, appendix B).

    The regularization phase runs every `reg_interval` steps. Since it then takes additional steps with the same
    optimizer, learning rate and betas are corrected by reg_interval / (reg_interval + 1).

    Args:
        name: 'G' or 'D'.
        network: whose parameters are trained.
        optimizer_kwargs: class name and options of the optimizer.
        reg_interval: None computes the regularization in every step.
        frozen: parameters whose names start with one of these stay as they are.
    """
    network.requires_grad_(False)
    frozen = tuple(frozen)
    parameters = [p for n, p in network.named_parameters() if not (frozen and n.startswith(frozen))]
    options = dict(optimizer_kwargs)
    ratio = 1 if reg_interval is None else reg_interval / (reg_interval + 1)
    options["lr"] = options["lr"] * ratio
    if "betas" in options:
        options["betas"] = [float(beta) ** ratio for beta in options["betas"]]
    optimizer = dnnlib.construct_class_by_name(parameters, **options)
    if reg_interval is None:
        return [Phase(f"{name}both", parameters, optimizer, 1)]
    return [Phase(f"{name}main", parameters, optimizer, 1), Phase(f"{name}reg", parameters, optimizer, reg_interval)]
