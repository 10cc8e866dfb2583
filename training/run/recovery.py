"""What a run does about numbers that are not finite: skip the step, go back with a smaller learning rate, give up."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dnnlib import UserError
from torch_utils import distributed
from training.phases import Phase
from training.run.folder import log_sizes, rewind
from training.run.snapshots import load_state, newest_state, save_state

RATE = 0.5
"""Share of the learning rate after going back; once more where that does not help."""

KIMG = 20.0
"""Thousands of images beyond the failure for which the rate stays so."""

ROLLBACKS = 3
"""How often a run goes back because of one failure."""


NEVER = {"rollbacks": 0, "rate": 1.0, "until": 0}
"""What a run knows of its returns before the first one: their number, the rate since, and until which image."""


class RollBack(Exception):
    """The run cannot go on from here, but perhaps from its last state.

    Attributes:
        diagnosis: which phase, and what in it was not finite.
        images_seen: where the run is.
    """

    def __init__(self, diagnosis: str, images_seen: int):
        super().__init__(diagnosis)
        self.diagnosis = diagnosis
        self.images_seen = images_seen


class Recovery:
    """Watches the phases of a run, and knows how fast it learns after it went back.

    Args:
        phases: all phases of the training step.
        max_bad_steps: a phase that is skipped so often in a row makes the run go back.
    """

    def __init__(self, phases: Sequence[Phase], max_bad_steps: int):
        self.phases = list(phases)
        self.max_bad_steps = max_bad_steps
        self.past: dict[str, float] = dict(NEVER)

    def set_rate(self, images_seen: int) -> None:
        """Set the learning rate of the next step."""
        rate = self.past["rate"] if images_seen < self.past["until"] else 1.0
        for phase in self.phases:
            phase.set_rate(rate)

    def check(self, step: int, images_seen: int, now: bool) -> None:
        """Look whether too many steps in a row were skipped: after every step, on a GPU only as often as is needed.

        Args:
            step: number of the step that has just ended.
            images_seen: images seen before that step.
            now: look in any case.

        Raises:
            RollBack: there were too many.
        """
        waits = any(phase.deferred for phase in self.phases)
        if waits and not now and step % self.max_bad_steps:
            return
        for phase in self.phases:
            if phase.in_row >= self.max_bad_steps:
                raise RollBack(f"{phase.diagnosis()} was not finite {int(phase.in_row)} times in a row", images_seen)

    def require_finite(self, parts: Mapping[str, Any], images_seen: int) -> None:
        """Let no state be saved from which nobody would want to go on.

        Raises:
            RollBack: a tensor of a network, an optimizer or the loss is not finite, in any process.
        """
        broken = next((n for name, part in parts.items() for n in _not_finite(part.state_dict(), name)), None)
        broken = next((found for found in distributed.gather(broken) if found), None)
        if broken is not None:
            raise RollBack(f"{broken} was not finite when the state was to be saved", images_seen)

    def figures(self) -> dict[str, float]:
        """Statistics of a tick; waits for the device."""
        return {
            "Progress/skipped_steps": sum(phase.take_skipped() for phase in self.phases),
            "Progress/rollbacks": self.past["rollbacks"],
            "Progress/learning_rate": self.phases[0].rate,
        }

    def state_dict(self) -> dict[str, Any]:
        """What must be kept for a run to continue exactly."""
        return {"past": dict(self.past), "phases": {phase.name: phase.state_dict() for phase in self.phases}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.past = {name: type(value)(state["past"][name]) for name, value in self.past.items()}
        for phase in self.phases:
            if phase.name in state["phases"]:
                phase.load_state_dict(state["phases"][phase.name])


def _not_finite(tree: Any, name: str) -> list[str]:
    """Names of the floating-point tensors in nested dictionaries and lists that are not finite, in order."""
    tensors: dict[str, torch.Tensor] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, torch.Tensor) and node.is_floating_point():
            tensors[path] = node
        elif isinstance(node, Mapping):
            for key, value in node.items():
                visit(value, f"{path}.{key}")
        elif isinstance(node, (list, tuple)):
            for i, value in enumerate(node):
                visit(value, f"{path}.{i}")

    visit(tree, name)
    if not tensors:
        return []
    flags = torch.stack([tensor.detach().isfinite().all().cpu() for tensor in tensors.values()])
    return [path for path, fine in zip(tensors, flags.tolist(), strict=True) if not fine]


def train_safely(
    loop: Callable[..., bool], run_dir: str, options: Mapping[str, Any], say: Callable[[str], None]
) -> bool:
    """Run the training loop; where it must go back, run it again from the last good state.

    Args:
        loop: `training.training_loop.training_loop`.
        run_dir, options: its arguments.
        say: prints a line.

    Returns:
        What the loop returns.

    Raises:
        UserError: it went back several times and failed again.
    """
    options = dict(options)
    while True:
        failure = None
        try:
            return loop(run_dir, **options)
        except RollBack as error:
            failure = (error.diagnosis, error.images_seen)  # the error itself would keep the old networks in memory
        options["resume_state"] = distributed.from_first(go_back, run_dir, *failure, say)


def go_back(run_dir: str, diagnosis: str, images_seen: int, say: Callable[[str], None]) -> str:
    """Prepare the newest state for a second try with a smaller learning rate; returns its path.

    Raises:
        UserError: there is no state, or it was tried too often.
    """
    path = newest_state(run_dir, say)
    if path is None:
        raise UserError(f"Training broke down before its first state: {diagnosis}. Check the data and the options.")
    state = load_state(path)
    past = state.setdefault("recovery", {"past": NEVER, "phases": {}})["past"]  # earlier versions kept none
    again = images_seen <= past["until"]
    rollbacks = int(past["rollbacks"]) + 1 if again else 1
    if rollbacks > ROLLBACKS:
        raise UserError(
            f"Training broke down at {images_seen / 1000:g} kimg: {diagnosis}, again after {ROLLBACKS} returns to "
            f"{path} with smaller learning rates. Try --precision=fp32, a larger --gamma, or look into the data."
        )
    rate = (past["rate"] if again else 1.0) * RATE
    until = max(images_seen, int(past["until"])) + round(KIMG * 1000)
    state["recovery"]["past"] = {"rollbacks": rollbacks, "rate": rate, "until": until}
    rewind(run_dir, path, state, keep_log=True)
    say(
        f"Going back to {os.path.basename(path)} ({state['run']['images_seen'] / 1000:g} kimg): {diagnosis}. "
        f"Learning {rate:g} times as fast until {until / 1000:g} kimg."
    )
    state.setdefault("logs", log_sizes(run_dir))["log.txt"] = log_sizes(run_dir).get(
        "log.txt", 0
    )  # a resume must not forget this line
    save_state(path, state)
    return str(path)
