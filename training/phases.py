"""A phase: one optimizer step of one network on a part of the loss."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

import dnnlib
from torch_utils import distributed


class Phase:
    """A part of the training step that ends in one optimizer step.

    A step is skipped if a gradient is not finite: parameters, the optimizer's state and `running` keep their values.
    Gradients are first averaged over the processes, so all processes make the same decision. On a GPU the decision is
    made on the device, without waiting for it.

    Args:
        name: phase of the loss: 'Gmain', 'Greg', 'Dmain', 'Dreg', 'Gboth' or 'Dboth'.
        parameters: parameters to train, by name.
        optimizer: shared by the phases of one network.
        interval: number of steps between runs of the phase. Regularization terms are multiplied by it.
        running: tensors that the loss updates beside the gradients, such as running means.

    Attributes:
        rate: current fraction of the learning rate, see `set_rate`.
        deferred: whether the optimizer reads the decision on the device, as a fused optimizer on a GPU does.
        skipped: steps skipped since the last `take_skipped`, a scalar on the device.
        in_row: steps skipped since the last step that was not skipped, a scalar on the device.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        interval: int,
        running: Sequence[torch.Tensor] = (),
    ):
        self.name = name
        self.named_parameters = dict(parameters)
        self.parameters = list(parameters.values())
        self.optimizer = optimizer
        self.interval = interval
        self.running = list(running)
        self.rate = 1.0
        on_gpu = any(parameter.is_cuda for parameter in self.parameters)
        self.deferred = on_gpu and getattr(optimizer, "_step_supports_amp_scaling", False)
        self.skipped = self.in_row = torch.zeros([], device=self.parameters[0].device if self.parameters else None)
        self._running_before: list[torch.Tensor] = []
        self._broken: tuple[list[str], torch.Tensor] = ([], torch.zeros(0))

    def begin(self) -> None:
        """Clear the gradients, and enable gradients of this phase's parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self._running_before = [tensor.clone() for tensor in self.running]

    def end(self, rounds: int = 1) -> None:
        """Average gradients over rounds and processes, then step. The network is frozen until its next phase."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        trained = {name: p for name, p in self.named_parameters.items() if p.grad is not None}
        if not trained:
            return
        grads = [parameter.grad for parameter in trained.values()]
        if rounds > 1:
            torch._foreach_div_(grads, rounds)
        distributed.average_gradients(list(trained.values()))

        # A value that is not finite in one process makes the average of all processes not finite.
        broken = ~torch.stack(torch._foreach_norm(grads, float("inf"))).isfinite()
        bad = broken.any()
        if self.deferred:
            self.optimizer.found_inf = bad.float()
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()

        for tensor, before in zip(self.running, self._running_before, strict=True):
            tensor.copy_(torch.where(bad, before, tensor))
        self.skipped = self.skipped + bad
        self.in_row = (self.in_row + 1) * bad
        self._broken = (list(trained), broken)

    def cancel(self) -> None:
        """Undo `begin` and drop the gradients computed since."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        for tensor, before in zip(self.running, self._running_before, strict=False):  # empty if the phase did not begin
            tensor.copy_(before)
        self._running_before = []

    def take_skipped(self) -> int:
        """Returns the number of steps skipped since the last call. Waits for the device."""
        skipped, self.skipped = int(self.skipped), torch.zeros_like(self.skipped)
        return skipped

    def diagnosis(self) -> str:
        """Returns the names of the gradients that were not finite in the latest step."""
        found = [name for name, is_broken in zip(*self._broken, strict=True) if is_broken]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"phase {self.name}: the gradient of {found[0]}{more}"

    def set_rate(self, share: float) -> None:
        """Set the learning rate to this fraction of the rate in the options."""
        self.rate = share
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * share

    def state_dict(self) -> dict[str, float]:
        """Returns the counts of skipped steps."""
        return {"skipped": float(self.skipped), "in_row": float(self.in_row)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the counts of `state_dict`."""
        self.skipped = torch.full_like(self.skipped, state["skipped"])
        self.in_row = torch.full_like(self.in_row, state["in_row"])


def build_phases(
    name: str,
    network: torch.nn.Module,
    optimizer_kwargs: Mapping[str, Any],
    reg_interval: int | None,
    frozen: Iterable[str] = (),
    running: Sequence[torch.Tensor] = (),
) -> list[Phase]:
    """Returns the phases of one network with lazy regularization (Karras et al. 2020, appendix B).

    The regularization phase runs every `reg_interval` steps. It takes additional steps with the same optimizer, so
    learning rate and betas are corrected by reg_interval / (reg_interval + 1).

    Args:
        name: 'G' or 'D'.
        network: network to train.
        optimizer_kwargs: class name and options of the optimizer.
        reg_interval: None computes the regularization in every step.
        frozen: parameters whose names start with one of these are not trained.
        running: see `Phase`.
    """
    network.requires_grad_(False)
    frozen = tuple(frozen)
    parameters = {n: p for n, p in network.named_parameters() if not (frozen and n.startswith(frozen))}
    options = dict(optimizer_kwargs)
    ratio = 1 if reg_interval is None else reg_interval / (reg_interval + 1)
    options["lr"] = options["lr"] * ratio
    if "betas" in options:
        options["betas"] = [float(beta) ** ratio for beta in options["betas"]]
    optimizer = dnnlib.construct_class_by_name(list(parameters.values()), **options)
    for group in getattr(optimizer, "param_groups", ()):
        group["full_lr"] = group["lr"]
    if reg_interval is None:
        return [Phase(f"{name}both", parameters, optimizer, 1, running)]
    intervals = {f"{name}main": 1, f"{name}reg": reg_interval}
    return [Phase(phase, parameters, optimizer, interval, running) for phase, interval in intervals.items()]
