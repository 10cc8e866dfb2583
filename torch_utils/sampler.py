"""The order of the data and the seeds of a run. Both depend only on the run's seed and on the images seen."""

from collections.abc import Iterator

import numpy as np
import torch


class RunSampler(torch.utils.data.Sampler):
    """Endless passes over the data, each in a new order, from any position of a run.

    Position p of a run is item `permutation(seed, p // size)[p % size]`. Each process reads every `world_size`-th
    position, so a global batch holds the same items for any number of processes.

    Args:
        size: number of items.
        seed: seed of the run.
        rank, world_size: number of this process, and number of processes.
        start: images that the run has already seen.
        shuffle: False keeps the order of the data.
    """

    def __init__(
        self, size: int, seed: int = 0, rank: int = 0, world_size: int = 1, start: int = 0, shuffle: bool = True
    ):
        self.size, self.seed, self.rank, self.world_size = size, seed, rank, world_size
        self.start, self.shuffle = start, shuffle

    def __iter__(self) -> Iterator[int]:
        epoch, order = -1, None
        position = self.start + self.rank
        while True:
            if position // self.size != epoch:
                epoch = position // self.size
                order = np.arange(self.size)
                if self.shuffle:
                    np.random.default_rng([self.seed, epoch]).shuffle(order)
            yield int(order[position % self.size])
            position += self.world_size


def derive_seed(seed: int, *keys: int) -> int:
    """Returns a seed of 63 bits that follows from `seed` and `keys`, all integers from 0 up.

    A training step uses the keys (process, images seen). A resumed run therefore repeats the same draws.
    """
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint64)[0] >> np.uint64(1))
