"""Loader processes: with little shared memory, and when one is killed."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dnnlib import UserError
from training import batches
from training.batches import Batches, batch_bytes, with_room_for_workers
from training.dataset import Item


class Images(torch.utils.data.Dataset):
    def __init__(self, read=None):
        self.read = read

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if self.read is not None and torch.utils.data.get_worker_info() is not None:
            self.read()
        return Item(np.full([3, 4, 4], index, np.uint8), np.zeros(2, np.float32))

    def get_label(self, index):
        return np.zeros(2, np.float32)


def load(read, **options):
    return Batches(Images(read), torch.device("cpu"), 4, 4, 0, 0, {"num_workers": 2, "prefetch_factor": 2, **options})


def test_little_shared_memory_does_without_processes_in_one_line(monkeypatch, capsys):
    assert batch_bytes(Images(), 4) == 4 * (48 + 8)
    monkeypatch.setattr(batches.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    options = {"num_workers": 2, "prefetch_factor": 2, "drop_last": True}
    assert with_room_for_workers(options, 200) == options
    assert capsys.readouterr().out == ""
    assert with_room_for_workers(options, 201) == {"drop_last": True}
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "--workers=0" in line
    assert "--shm-size" in line
    assert with_room_for_workers({"num_workers": 0}, 10**9) == {"num_workers": 0}


def test_shared_memory_that_runs_out_later_is_told_in_one_line(monkeypatch):
    def full():
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"
        )

    loader = load(full)
    try:
        with pytest.raises(UserError, match=r"--workers=0.*--shm-size"):
            loader.next()
    finally:
        loader.close()


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_process_of_the_loader_is_told_in_one_line():
    loader = load(lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        with pytest.raises(UserError, match="A process of the loader was killed"):
            loader.next()
    finally:
        loader.close()


def test_other_mistakes_of_a_loader_are_not_hidden():
    def wrong():
        raise RuntimeError("a bug")

    loader = load(wrong)
    try:
        with pytest.raises(RuntimeError, match="a bug"):
            loader.next()
    finally:
        loader.close()
