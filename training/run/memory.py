"""Finds by trial how many images fit into the memory of a device at a time."""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from dnnlib import UserError
from torch_utils import distributed, training_stats
from training.layers import MinibatchStdLayer
from training.phases import Phase


def shares(largest: int, D: torch.nn.Module | None = None) -> list[int]:
    """Returns the sizes to try: `largest`, its half, its quarter and so on. Each size divides the previous size.

    Sizes that keep the groups of D's minibatch deviation come first. A smaller group would change what D computes.
    """
    sizes = [largest]
    while sizes[-1] > 1:
        size = sizes[-1]
        sizes.append(size // 2 if size % 2 == 0 else size // min(n for n in range(3, size + 1) if size % n == 0))
    groups = {size: [_group(layer, size) for layer in _deviations(D)] for size in sizes}
    return [size for size in sizes if groups[size] == groups[largest]] + [
        size for size in sizes if groups[size] != groups[largest]
    ]


def _deviations(D: torch.nn.Module | None) -> list[MinibatchStdLayer]:
    return [] if D is None else [module for module in D.modules() if isinstance(module, MinibatchStdLayer)]


def _group(layer: MinibatchStdLayer, count: int) -> int:
    largest = count if layer.group_size is None else min(layer.group_size, count)
    return max(size for size in range(1, largest + 1) if count % size == 0)


class Trial:
    """Runs a training step without lasting effects, to test whether the step fits into memory.

    Args:
        phases, loss, G, training_set, device: as in the run.
    """

    def __init__(self, phases: Sequence[Phase], loss: Any, G: Any, training_set: Any, device: torch.device):
        self.phases = list(phases)
        self.loss = loss
        self.z_dim = G.z_dim
        self.item = {name: torch.as_tensor(array) for name, array in training_set[0]._asdict().items()}
        self.device = device

    def fits(self, size: int) -> bool:
        """Whether all phases of a step fit with `size` images at a time, including memory for the optimizers."""
        try:
            with distributed.alone(), training_stats.muted():
                self._step(size)
            return True
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # the frames hold the tensors that did not fit
        finally:
            for phase in reversed(self.phases):
                phase.cancel()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def _step(self, size: int) -> None:
        moments = {id(p): p for phase in self.phases if not phase.optimizer.state for p in phase.parameters}
        room = [(torch.empty_like(p), torch.empty_like(p)) for p in moments.values()]
        real = {name: t.to(self.device).expand(size, *t.shape).contiguous() for name, t in self.item.items()}
        z = torch.randn([size, self.z_dim], device=self.device)
        for phase in self.phases:
            phase.begin()
            self.loss.accumulate_gradients(phase.name, real, z, real["label"], gain=phase.interval)
        del room

    def largest(self, sizes: Sequence[int]) -> int | None:
        """Returns the first of `sizes` that fits, or None if no size fits."""
        return next((size for size in sizes if self.fits(size)), None)


def find_share(trial: Trial, largest: int, D: torch.nn.Module) -> int:
    """Returns how many of `largest` images every process can handle at a time. All processes must call this together.

    Raises:
        UserError: a single image does not fit.
    """
    found = [0 if size is None else size for size in distributed.gather(trial.largest(shares(largest, D)))]
    if min(found) == 0:
        raise UserError("A single image does not fit into memory. Choose smaller images or a smaller --cbase.")
    return min(found)


@contextlib.contextmanager
def report_shortage(
    trial: Callable[[], Trial], batch_gpu: int, D: torch.nn.Module, first: Callable[[], bool]
) -> Iterator[None]:
    """Turn an out-of-memory error into one line with advice.

    Args:
        trial: creates the trial that searches a size that fits.
        batch_gpu: number of images handled at a time.
        first: returns whether this is the first step. Later steps have fitted before.

    Raises:
        UserError: the memory is too small.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        if not first():
            raise UserError(
                f"Memory ran out with {batch_gpu} images at a time. This size fitted before. End other programs on the "
                f"device and resume with --resume=latest, or also reduce --batch-gpu to {max(batch_gpu // 2, 1)}."
            ) from None
        size = trial().largest([size for size in shares(batch_gpu, D) if size < batch_gpu])
        advice = "A single image does not fit either. Choose smaller images or a smaller --cbase."
        if size is not None:
            advice = f"Use --batch-gpu={size} or --batch-gpu=auto: both keep the batch and need more rounds per step."
        raise UserError(f"{batch_gpu} images at a time do not fit into memory. {advice}") from None
