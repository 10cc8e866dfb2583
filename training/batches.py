"""Batches of the data set on the training device, in the order that the run's seed decides."""

import signal
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from torch_utils import distributed
from training.sampler import RunSampler


class Batches:
    """Endless batches, split into the parts that a process handles at a time.

    Args:
        training_set: gives items with `_asdict`, see `training.dataset.Item`.
        device: where the batches go.
        batch_size: images a step, over all processes.
        batch_gpu: images that one process handles at a time.
        seed, images_seen: decide the order and where it starts.
        loader_kwargs: options of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        training_set: Any,
        device: torch.device,
        batch_size: int,
        batch_gpu: int,
        seed: int,
        images_seen: int,
        loader_kwargs: Mapping[str, Any],
    ):
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        self.device = device
        self.batch_gpu = batch_gpu
        sampler = RunSampler(len(training_set), seed, rank, world_size, images_seen)
        loader = torch.utils.data.DataLoader(
            training_set,
            sampler=sampler,
            batch_size=batch_size // world_size,
            pin_memory=device.type == "cuda",
            worker_init_fn=_init_worker,
            **loader_kwargs,
        )
        self._iterator = iter(loader)
        labels = np.stack([training_set.get_label(i) for i in range(len(training_set))])
        self._labels = torch.from_numpy(labels).to(device)

    def next(self) -> list[dict[str, torch.Tensor]]:
        """The next batch as a list of parts of `batch_gpu` items; each part maps names to tensors."""
        batch = {name: t.to(self.device, non_blocking=True) for name, t in next(self._iterator)._asdict().items()}
        parts = {name: t.split(self.batch_gpu) for name, t in batch.items()}
        return [dict(zip(parts, part, strict=True)) for part in zip(*parts.values(), strict=True)]

    def close(self) -> None:
        """End the loader's processes, which ignore the signals that would end them otherwise."""
        end_workers = getattr(self._iterator, "_shutdown_workers", None)
        if end_workers is not None:
            end_workers()

    def random_labels(self, count: int) -> torch.Tensor:
        """Labels of random items of the data set: [count, label_dim]."""
        return self._labels[torch.randint(len(self._labels), [count], device=self.device)]


def _init_worker(_: int) -> None:
    """Leave signals that reach the whole group, such as Ctrl-C, to the main process; decoding needs no threads."""
    for number in distributed.STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
