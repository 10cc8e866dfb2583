"""What a run does about values that are not finite: skip the step, go back and learn more slowly, or give up."""

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
"""Factor of the learning rate each time that a run goes back because of one failure."""

KIMG = 20.0
"""Thousands of images after the failure until the learning rate is whole again."""

ROLLBACKS = 3
"""How often a run goes back because of one failure."""


class RollBack(Exception):
    """The run cannot continue from here, but perhaps from its last state.

    Attributes:
        diagnosis: which tensor was not finite.
        images_seen: where the run is.
    """

    def __init__(self, diagnosis: str, images_seen: int):
        super().__init__(diagnosis)
        self.diagnosis = diagnosis
        self.images_seen = images_seen


class Recovery:
    """Watches the phases of a run, and sets the learning rate after a return.

    Args:
        phases: all phases of the training step.
        max_bad_steps: the run goes back after so many skipped steps of one phase in a row.

    Attributes:
        rollbacks: how often the run went back because of its latest failure; each time halves the learning rate.
        until: number of the image from which on the learning rate is whole again.
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
        """Stop the run where too many steps in a row were skipped.

        Looks after every step; on a GPU, where looking means waiting, only every `max_bad_steps`.

        Args:
            step: number of the step that has just ended.
            images_seen: images seen so far.
            now: look in any case.

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
        """Refuse to save a state that holds a value that is not finite; all processes must call this together.

        Args:
            parts: networks, optimizers and loss by name; each has a `state_dict`.
            images_seen: images seen so far.

        Raises:
            RollBack: a tensor is not finite, in any process.
        """
        mine = next((found for name, part in parts.items() if (found := find_broken(part.state_dict(), name))), None)
        broken = next((found for found in distributed.gather(mine) if found), None)
        if broken is not None:
            raise RollBack(f"{broken} was not finite when the state was to be saved", images_seen)

    def figures(self) -> dict[str, float]:
        """Statistics of a tick; waits for the device."""
        return {
            "Progress/skipped_steps": sum(phase.take_skipped() for phase in self.phases),
            "Progress/rollbacks": self.rollbacks,
            "Progress/learning_rate": self.phases[0].rate,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        phases = {phase.name: phase.state_dict() for phase in self.phases}
        return {"rollbacks": self.rollbacks, "until": self.until, "phases": phases}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rollbacks, self.until = int(state["rollbacks"]), int(state["until"])
        for phase in self.phases:
            phase.load_state_dict(state["phases"][phase.name])


def find_broken(tree: Any, name: str) -> str | None:
    """Name of the first tensor in nested dictionaries and lists that is not finite; None where all are."""
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
    """Run the training loop; after a `RollBack` run it again from the last good state.

    Args:
        loop: `training.training_loop.training_loop`.
        run_dir, options: its arguments.
        say: prints a line.

    Returns:
        What the loop returns.

    Raises:
        UserError: the run went back several times and failed again.
    """
    options = dict(options)
    while True:
        try:
            return loop(run_dir, **options)
        except RollBack as error:
            failure = (error.diagnosis, error.images_seen)  # the error itself would keep the old networks in memory
        options["resume_state"] = distributed.from_first(go_back, run_dir, *failure, say)


def go_back(run_dir: str, diagnosis: str, images_seen: int, say: Callable[[str], None]) -> str:
    """Prepare the newest state for another try with a smaller learning rate; returns its path.

    Raises:
        UserError: there is no state, or the run went back too often.
    """
    path = newest_state(run_dir, say)
    if path is None:
        raise UserError(f"Training broke down before its first state: {diagnosis}. Check the data and the options.")
    state = load_state(path)
    past = state["recovery"]
    is_new = images_seen > past["until"]
    past["rollbacks"] = 1 if is_new else past["rollbacks"] + 1
    past["until"] = max(images_seen, past["until"]) + round(KIMG * 1000)
    if past["rollbacks"] > ROLLBACKS:
        raise UserError(
            f"Training broke down at {images_seen / 1000:g} kimg: {diagnosis}, again after {ROLLBACKS} returns to "
            f"{path} with smaller learning rates. Try --precision=fp32, a larger --gamma, or look into the data."
        )
    rewind(run_dir, path, state, keep_log=True)
    say(
        f"Going back to {os.path.basename(path)} ({state['run']['images_seen'] / 1000:g} kimg): {diagnosis}. "
        f"Learning {RATE ** past['rollbacks']:g} times as fast until {past['until'] / 1000:g} kimg."
    )
    state["logs"]["log.txt"] = log_sizes(run_dir).get("log.txt", 0)  # a resume keeps the line above
    save_state(path, state)
    return str(path)
