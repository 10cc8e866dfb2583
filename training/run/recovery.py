"""Handles values that are not finite: skip the step, roll back with a smaller learning rate, or stop the run."""

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
"""Factor of the learning rate for each roll back after the same failure."""

KIMG = 20.0
"""Thousands of images after the failure until the learning rate is back at its full value."""

ROLLBACKS = 3
"""Largest number of roll backs after the same failure."""


class RollBack(Exception):
    """The run cannot continue from here, but may resume from its last state.

    Attributes:
        diagnosis: name of the tensor that was not finite.
        images_seen: images seen at the failure.
    """

    def __init__(self, diagnosis: str, images_seen: int):
        super().__init__(diagnosis)
        self.diagnosis = diagnosis
        self.images_seen = images_seen


class Recovery:
    """Counts skipped steps of all phases, and reduces the learning rate after a roll back.

    Args:
        phases: all phases of the training step.
        max_bad_steps: number of skipped steps of one phase in a row after which the run rolls back.

    Attributes:
        rollbacks: number of roll backs after the latest failure. Each roll back halves the learning rate.
        until: number of images seen at which the learning rate is back at its full value.
    """

    def __init__(self, phases: Sequence[Phase], max_bad_steps: int):
        self.phases = list(phases)
        self.max_bad_steps = max_bad_steps
        self.rollbacks = 0
        self.until = 0

    def set_rate(self, images_seen: int) -> None:
        """Set the learning rate of the next step."""
        rate = RATE**self.rollbacks if images_seen < self.until else 1.0
        for phase in self.phases:
            phase.set_rate(rate)

    def check(self, step: int, images_seen: int, now: bool) -> None:
        """Stop the run if too many steps in a row were skipped.

        On a CPU, checks after every step. On a GPU a check waits for the device, so it checks only every
        `max_bad_steps` steps.

        Args:
            step: number of the step that has just ended.
            images_seen: images seen so far.
            now: check in any case.

        Raises:
            RollBack: too many steps were skipped.
        """
        waits = any(phase.deferred for phase in self.phases)
        if waits and not now and step % self.max_bad_steps:
            return
        for phase in self.phases:
            if phase.in_row >= self.max_bad_steps:
                raise RollBack(f"{phase.diagnosis()} was not finite {int(phase.in_row)} times in a row", images_seen)

    def require_finite(self, parts: Mapping[str, Any], images_seen: int) -> None:
        """Refuse to save a state with values that are not finite. All processes must call this function together.

        Args:
            parts: networks, optimizers and loss by name. Each has a `state_dict`.
            images_seen: images seen so far.

        Raises:
            RollBack: a tensor of any process is not finite.
        """
        mine = next((found for name, part in parts.items() if (found := find_broken(part.state_dict(), name))), None)
        broken = next((found for found in distributed.gather(mine) if found), None)
        if broken is not None:
            raise RollBack(f"{broken} was not finite when the state was to be saved", images_seen)

    def figures(self) -> dict[str, float]:
        """Returns the statistics of a tick. Waits for the device."""
        return {
            "Progress/skipped_steps": sum(phase.take_skipped() for phase in self.phases),
            "Progress/rollbacks": self.rollbacks,
            "Progress/learning_rate": self.phases[0].rate,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the values that a resume needs."""
        phases = {phase.name: phase.state_dict() for phase in self.phases}
        return {"rollbacks": self.rollbacks, "until": self.until, "phases": phases}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state_dict`."""
        self.rollbacks, self.until = int(state["rollbacks"]), int(state["until"])
        for phase in self.phases:
            phase.load_state_dict(state["phases"][phase.name])


def find_broken(tree: Any, name: str) -> str | None:
    """Returns the name of the first tensor in nested dictionaries and lists that is not finite, or None."""
    if isinstance(tree, torch.Tensor):
        return None if tree.isfinite().all() else name
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    if not isinstance(tree, Mapping):
        return None
    return next((found for key, child in tree.items() if (found := find_broken(child, f"{name}.{key}"))), None)


def train_safely(
    loop: Callable[..., bool], run_dir: str, options: Mapping[str, Any], say: Callable[[str], None]
) -> bool:
    """Run the training loop. After a `RollBack`, run it again from the last good state.

    Args:
        loop: `training.training_loop.training_loop`.
        run_dir, options: its arguments.
        say: prints a line.

    Returns:
        The return value of the loop.

    Raises:
        UserError: the run failed again after several roll backs.
    """
    options = dict(options)
    while True:
        try:
            return loop(run_dir, **options)
        except RollBack as error:
            failure = (error.diagnosis, error.images_seen)  # keeping the error would keep the old networks in memory
        options["resume_state"] = distributed.from_first(go_back, run_dir, *failure, say)


def go_back(run_dir: str, diagnosis: str, images_seen: int, say: Callable[[str], None]) -> str:
    """Prepare the newest state for a resume with a smaller learning rate, and return its path.

    Raises:
        UserError: the run has no state, or has rolled back too often.
    """
    path = newest_state(run_dir, say)
    if path is None:
        raise UserError(f"Training failed before its first state: {diagnosis}. Check the data and the options.")
    state = load_state(path)
    past = state["recovery"]
    is_new = images_seen > past["until"]
    past["rollbacks"] = 1 if is_new else past["rollbacks"] + 1
    past["until"] = max(images_seen, past["until"]) + round(KIMG * 1000)
    if past["rollbacks"] > ROLLBACKS:
        raise UserError(
            f"Training failed at {images_seen / 1000:g} kimg: {diagnosis}, again after {ROLLBACKS} roll backs "
            f"to {path}. Try --precision=fp32 or a larger --gamma, and check the data."
        )
    rewind(run_dir, path, state, keep_log=True)
    say(
        f"Rolling back to {os.path.basename(path)} ({state['run']['images_seen'] / 1000:g} kimg): {diagnosis}. "
        f"The learning rate is multiplied by {RATE ** past['rollbacks']:g} until {past['until'] / 1000:g} kimg."
    )
    state["logs"]["log.txt"] = log_sizes(run_dir).get("log.txt", 0)  # a resume keeps the line above
    save_state(path, state)
    return str(path)
