"""Order and seeds of a run, pure functions of the run's seed and of the images seen."""

from collections.abc import Iterator

import numpy as np
import torch


class RunSampler(torch.utils.data.Sampler):
    """Endless passes over the data, each in a new order, from any point of a run.

    Position p of a run shows item `permutation(seed, p // size)[p % size]`. Processes take every `world_size`-th
    position, so one global batch holds the same items however many processes share it.

    Args:
        size: number of items.
        seed: seed of the run.
        rank, world_size: this process among all.
        start: images that the run has seen already.
        shuffle: False keeps the data's own order.
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
    """Seed of random draws that follows from `seed` and `keys`, all whole numbers from 0 up: 63 bits.

    A training step draws by (seed, process, images seen). A resumed run draws as the uninterrupted one would have.
    """
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint64)[0] >> np.uint64(1))
