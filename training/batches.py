"""Batches of the data set on the training device, in the order that follows from the run's seed."""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dnnlib import UserError
from torch_utils import distributed
from torch_utils.sampler import RunSampler

SHARED_MEMORY = "/dev/shm"


class Batches:
    """An endless sequence of batches, split into the parts that a process handles at a time.

    Args:
        training_set: yields items with `_asdict`, see `training.dataset.Item`.
        device: device of the batches.
        batch_size: images per step, over all processes.
        batch_gpu: images that one process handles at a time.
        seed, images_seen: determine the order of the items and the position in it.
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
        share = batch_size // world_size
        loader = torch.utils.data.DataLoader(
            training_set,
            sampler=sampler,
            batch_size=share,
            pin_memory=device.type == "cuda",
            worker_init_fn=_init_worker,
            **with_room_for_workers(loader_kwargs, batch_bytes(training_set, share)),
        )
        self._iterator = iter(loader)
        labels = np.stack([training_set.get_label(i) for i in range(len(training_set))])
        self._labels = torch.from_numpy(labels).to(device)

    def next(self) -> list[dict[str, torch.Tensor]]:
        """Returns the next batch as a list of parts of `batch_gpu` items. Each part maps names to tensors.

        Raises:
            UserError: an item cannot be read, or a process of the loader ended.
        """
        with _reported_worker_errors():
            item = next(self._iterator)
        batch = {name: t.to(self.device, non_blocking=True) for name, t in item._asdict().items()}
        parts = {name: t.split(self.batch_gpu) for name, t in batch.items()}
        return [dict(zip(parts, part, strict=True)) for part in zip(*parts.values(), strict=True)]

    def close(self) -> None:
        """End the loader's processes. They ignore the signals that would otherwise end them."""
        end_workers = getattr(self._iterator, "_shutdown_workers", None)
        if end_workers is not None:
            end_workers()

    def random_labels(self, count: int) -> torch.Tensor:
        """Returns labels of random items of the data set: [count, label_dim]."""
        return self._labels[torch.randint(len(self._labels), [count], device=self.device)]


def batch_bytes(training_set: Any, count: int) -> int:
    """Returns the size in bytes of a batch of `count` items."""
    return count * sum(np.asarray(array).nbytes for array in training_set[0])


def with_room_for_workers(loader_kwargs: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Returns options of the loader, without worker processes if shared memory is too small for their batches.

    Containers often have 64 MB of shared memory. In this case a line for the user names the remedy.

    Args:
        loader_kwargs: options of `torch.utils.data.DataLoader`.
        size: size of a batch in bytes.
    """
    workers = loader_kwargs.get("num_workers", 0)
    needed = size * (workers * (loader_kwargs.get("prefetch_factor") or 2) + 1)
    free = _free_shared_memory()
    if workers == 0 or free is None or free >= needed:
        return dict(loader_kwargs)
    tqdm.write(
        f"Shared memory: {free / 2**20:.0f} MB, but {workers} loader processes need {needed / 2**20:.0f} MB. Loading "
        f"in the training process, as with --workers=0. For a container, set more with --shm-size=1g."
    )
    of_processes = ("num_workers", "prefetch_factor", "persistent_workers")
    return {name: value for name, value in loader_kwargs.items() if name not in of_processes}


def _free_shared_memory() -> int | None:
    """Returns the free bytes of the memory that loader processes share, or None if the system does not report it."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else None
    except OSError:
        return None


@contextlib.contextmanager
def _reported_worker_errors() -> Iterator[None]:
    """Report in one line why a process of the loader ended.

    Raises:
        UserError: the process ran out of memory, or was killed.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if re.search(r"shared memory|\(shm\)|/torch_|Bus error", text):
            raise UserError(
                "Shared memory is too small for the batches of the loader's processes. Use --workers=0, or give the "
                "container more with --shm-size=1g."
            ) from error
        if "DataLoader worker" in text and re.search(r"killed|exited unexpectedly", text):
            raise UserError(
                "A process of the loader was killed, perhaps for lack of memory. --workers=0 needs the least memory."
            ) from error
        raise


def _init_worker(_: int) -> None:
    """Leave signals to the whole group, such as Ctrl-C, to the main process. Limit decoding to one thread."""
    for number in distributed.STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
