"""The order of the data: a pure function of the seed and of the images seen."""

from itertools import islice

import pytest
import torch

from torch_utils.sampler import RunSampler, derive_seed
from training.batches import Batches
from training.dataset import Item


def first(count, **kwargs):
    return list(islice(RunSampler(**kwargs), count))


def test_every_pass_shows_every_item_once_in_a_new_order():
    order = first(40, size=10, seed=3)
    passes = [order[i : i + 10] for i in range(0, 40, 10)]
    for one in passes:
        assert sorted(one) == list(range(10))
    assert len({tuple(one) for one in passes}) == 4


def test_seeds_give_different_orders_and_repeat_themselves():
    assert first(10, size=10, seed=1) == first(10, size=10, seed=1)
    assert first(10, size=10, seed=1) != first(10, size=10, seed=2)


@pytest.mark.parametrize("start", [1, 9, 10, 33])
def test_start_continues_where_the_run_was(start):
    assert first(30, size=10, seed=3, start=start) == first(30 + start, size=10, seed=3)[start:]


@pytest.mark.parametrize("world_size", [2, 3, 4, 12])
@pytest.mark.parametrize("start", [0, 12])
def test_processes_share_one_order(world_size, start):
    """A global batch of 12 holds the same items, however many processes share it."""
    whole = first(60, size=7, seed=3, start=start)
    parts = [first(60 // world_size, size=7, seed=3, rank=r, world_size=world_size, start=start)
             for r in range(world_size)]  # fmt: skip
    assert [item for step in zip(*parts, strict=True) for item in step] == whole


def test_without_shuffling_the_data_keep_their_order():
    assert first(7, size=3, shuffle=False) == [0, 1, 2, 0, 1, 2, 0]


def test_derived_seeds_differ_in_everything_and_suit_torch():
    keys = [(seed, rank, nimg) for seed in range(4) for rank in range(4) for nimg in range(0, 64, 4)]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert derive_seed(3, 1, 64) == derive_seed(3, 1, 64)
    for seed in (*seeds, derive_seed(1 << 60, 1000, 1 << 40)):
        torch.manual_seed(seed)


class Numbers(torch.utils.data.Dataset):
    """Item i is an image full of i, with label i."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i == getattr(self, "broken", None):
            raise OSError("broken item")
        return Item(torch.full([1, 2, 2], i, dtype=torch.uint8).numpy(), self.get_label(i))

    def get_label(self, i):
        return torch.tensor([float(i)]).numpy()


def batches(data=None, seen=0, **kwargs):
    return Batches(data or Numbers(), torch.device("cpu"), 6, 2, 3, seen, kwargs)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_follow_the_order_in_parts(workers):
    source = batches(num_workers=workers)
    try:
        order = iter(RunSampler(10, 3))
        for _ in range(4):
            parts = source.next()
            assert len(parts) == 3
            for part in parts:
                expected = torch.tensor([[float(next(order))] for _ in range(2)])
                assert (part["label"] == expected).all()
                assert (part["image"] == expected.view(2, 1, 1, 1)).all()
                assert part["image"].dtype == torch.uint8
    finally:
        source.close()


def test_batches_continue_after_the_images_seen():
    steps = batches()
    for _ in range(3):
        expected = steps.next()
    resumed = batches(seen=12).next()
    assert [part["label"].tolist() for part in resumed] == [part["label"].tolist() for part in expected]


def test_random_labels_come_from_the_data():
    torch.manual_seed(0)
    labels = batches().random_labels(500)
    assert labels.shape == (500, 1)
    assert set(labels.flatten().tolist()) == set(map(float, range(10)))


def test_no_loader_process_outlives_a_broken_item():
    """They ignore SIGTERM, so a run that fails must end them itself."""
    data = Numbers()
    data.broken = next(islice(RunSampler(10, 3), 6, None))
    source = batches(data, num_workers=1)
    workers = source._iterator._workers
    try:
        source.next()
        with pytest.raises(OSError, match="broken item"):
            source.next()
    finally:
        source.close()
    assert not any(worker.is_alive() for worker in workers)
