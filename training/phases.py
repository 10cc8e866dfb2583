"""One optimizer step: which network, which part of the loss, how often; and never one that is not finite."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

import dnnlib
from torch_utils import distributed, training_stats


class Phase:
    """A part of the training step that ends in one optimizer step.

    A step whose loss terms or gradients are not all finite, on any process, is skipped: parameters, the optimizer's
    state and `running` stay as they were. On a GPU that is decided there, without waiting for it.

    Args:
        name: as the loss knows it: 'Gmain', 'Greg', 'Dmain', 'Dreg', 'Gboth' or 'Dboth'.
        parameters: what it trains, by name.
        optimizer: shared by the phases of one network.
        interval: executed every so many steps; regularization terms are multiplied by it.
        running: tensors that the loss moves along beside the gradients, such as running means.

    Attributes:
        rate: present share of the learning rate, see `set_rate`.
        deferred: whether the optimizer looks at the verdict on the device (a fused one on a GPU), so that nobody waits.
        skipped: steps skipped since the last `take_skipped`, a scalar on the device.
        in_row: steps skipped since the last one that was taken, likewise.
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
        self.parameters = list(parameters.values())
        self.optimizer = optimizer
        self.interval = interval
        self.running = list(running)
        self.rate = 1.0
        on_gpu = any(parameter.is_cuda for parameter in self.parameters)
        self.deferred = on_gpu and getattr(optimizer, "_step_supports_amp_scaling", False)
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._before: list[torch.Tensor] = []
        self.skipped = self.in_row = torch.zeros([], device=self.parameters[0].device if self.parameters else None)
        self._evidence: tuple[list[str], torch.Tensor] | None = None

    def begin(self) -> None:
        """Let gradients flow to this network's parameters, and only start them here."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self._before = [tensor.clone() for tensor in self.running]
        training_stats.take_non_finite()

    def end(self, rounds: int = 1) -> None:
        """Average gradients over rounds and processes, and step; the network is frozen until its next phase."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        trained = [parameter for parameter in self.parameters if parameter.grad is not None]
        terms = training_stats.take_non_finite()
        if not trained:
            return
        grads = [parameter.grad for parameter in trained]
        if rounds > 1:
            torch._foreach_div_(grads, rounds)
        lost = torch.stack([count.to(grads[0]) for count in terms.values()]) if terms else grads[0].new_zeros(1)
        lost_anywhere = distributed.average_gradients(trained, lost.sum())
        broken = ~torch.stack(torch._foreach_norm(grads, float("inf"))).isfinite()
        bad = (lost_anywhere != 0) | broken.any()
        self._step_unless(bad)
        for tensor, before in zip(self.running, self._before, strict=True):
            tensor.copy_(torch.where(bad, before, tensor))
        self._note(bad, terms, lost, trained, broken)

    def cancel(self) -> None:
        """Undo `begin` and what gradients have gathered since."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        for tensor, before in zip(self.running, self._before, strict=False):  # none if it did not begin
            tensor.copy_(before)
        self._before = []

    def _step_unless(self, bad: torch.Tensor) -> None:
        """Step, or leave everything as it is."""
        if self.deferred:
            self.optimizer.found_inf = bad.float()
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()

    def _note(
        self,
        bad: torch.Tensor,
        terms: Mapping[str, torch.Tensor],
        lost: torch.Tensor,
        trained: list[torch.nn.Parameter],
        broken: torch.Tensor,
    ) -> None:
        """Count a bad step, and keep what was not finite in the first one of a row."""
        flags = torch.cat([lost != 0, broken])
        names = [*(terms or [""]), *(f"the gradient of {self._names[id(p)]}" for p in trained)]
        first = bad & (self.in_row == 0)
        if self._evidence is None or self._evidence[0] != names:
            self._evidence = (names, flags)
        else:
            self._evidence = (names, torch.where(first, flags, self._evidence[1]))
        self.in_row = (self.in_row + 1) * bad
        self.skipped = self.skipped + bad

    def take_skipped(self) -> int:
        """How many steps were skipped since the last call; waits for the device."""
        skipped, self.skipped = int(self.skipped), torch.zeros_like(self.skipped)
        return skipped

    def diagnosis(self) -> str:
        """What was not finite when the present row of skipped steps began."""
        found = []
        if self._evidence is not None:
            found = [name for name, flag in zip(self._evidence[0], self._evidence[1].tolist(), strict=True) if flag]
        if not found:
            return f"phase {self.name}: a loss term of another process"
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"phase {self.name}: {found[0]}{more}"

    def set_rate(self, share: float) -> None:
        """Learn at this share of the learning rate that the options give."""
        self.rate = share
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * share

    def state_dict(self) -> dict[str, float]:
        """Counts of skipped steps."""
        return {"skipped": float(self.skipped), "in_row": float(self.in_row)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """The inverse of `state_dict`."""
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
    """Phases of one network with lazy regularization (Karras et al. 2020, appendix B).

    The regularization phase runs every `reg_interval` steps. Since it then takes additional steps with the same
    optimizer, learning rate and betas are corrected by reg_interval / (reg_interval + 1).

    Args:
        name: 'G' or 'D'.
        network: whose parameters are trained.
        optimizer_kwargs: class name and options of the optimizer.
        reg_interval: None computes the regularization in every step.
        frozen: parameters whose names start with one of these stay as they are.
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
