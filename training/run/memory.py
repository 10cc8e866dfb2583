"""How many images a device holds at a time, found by trying."""

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
    """`largest`, its half, and so on: the sizes to try, each a divisor of the one before.

    Sizes at which the groups of D's minibatch deviation stay as they are come first: smaller ones change what D sees.
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
    """A training step that leaves no trace, to see whether it fits.

    Args:
        phases, loss, G, training_set, device: those of the run.
    """

    def __init__(self, phases: Sequence[Phase], loss: Any, G: Any, training_set: Any, device: torch.device):
        self.phases = list(phases)
        self.loss = loss
        self.z_dim = G.z_dim
        self.item = {name: torch.as_tensor(array) for name, array in training_set[0]._asdict().items()}
        self.device = device

    def fits(self, size: int) -> bool:
        """Whether all phases of a step run with `size` images at a time, with room for what optimizers keep."""
        try:
            with distributed.alone(), training_stats.muted():
                self._step(size)
            return True
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold the tensors that did not fit
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
        """The first of `sizes` that fits, None where none does."""
        return next((size for size in sizes if self.fits(size)), None)


def find_share(trial: Trial, largest: int, D: torch.nn.Module) -> int:
    """The most images, of `largest`, that every process can handle at a time; all must call this together.

    Raises:
        UserError: not even one image fits.
    """
    found = [0 if size is None else size for size in distributed.gather(trial.largest(shares(largest, D)))]
    if min(found) == 0:
        raise UserError(
            "Not even one image at a time fits into the memory: choose smaller images or a smaller --cbase."
        )
    return min(found)


@contextlib.contextmanager
def report_shortage(
    trial: Callable[[], Trial], batch_gpu: int, D: torch.nn.Module, first: Callable[[], bool]
) -> Iterator[None]:
    """Turn a lack of memory into a line that says what to do.

    Args:
        trial: makes the trial with which a size that fits is found.
        batch_gpu: images that are handled at a time.
        first: tells whether this is the first step; a later one has fitted before.

    Raises:
        UserError: the memory does not suffice.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        if not first():
            raise UserError(
                f"Memory ran out with {batch_gpu} images at a time, which fitted before: end what else uses the device "
                f"and go on with --resume=latest, perhaps with --batch-gpu={max(batch_gpu // 2, 1)}."
            ) from None
        size = trial().largest([size for size in shares(batch_gpu, D) if size < batch_gpu])
        advice = "choose smaller images or a smaller --cbase, not even 1 does"
        if size is not None:
            advice = f"--batch-gpu={size} does and gives the same batches in more rounds (or --batch-gpu=auto)"
        raise UserError(f"{batch_gpu} images at a time do not fit into the memory: {advice}.") from None
