"""How many images fit, found by trying."""

import itertools

import pytest
import torch

from dnnlib import UserError
from torch_utils import training_stats
from training.dataset import Item
from training.layers import MinibatchStdLayer
from training.phases import build_phases
from training.run import memory
from training.run.memory import Trial, find_share, shares

ADAM = {"class_name": "torch.optim.Adam", "lr": 0.01}


@pytest.mark.parametrize(
    ("largest", "group", "expected"),
    [(8, None, [8, 4, 2, 1]), (12, 4, [12, 6, 3, 1]), (16, 4, [16, 8, 4, 2, 1]), (1, 4, [1]), (9, 3, [9, 3, 1])],
)
def test_each_size_divides_the_one_before(largest, group, expected):
    D = None if group is None else MinibatchStdLayer(group)
    assert sorted(shares(largest, D), reverse=True) == expected
    for larger, smaller in itertools.pairwise(expected):
        assert larger % smaller == 0


def test_sizes_that_keep_the_groups_come_first():
    assert shares(16, MinibatchStdLayer(8)) == [16, 8, 4, 2, 1]
    assert shares(12, MinibatchStdLayer(3)) == [12, 6, 3, 1]
    assert shares(20, MinibatchStdLayer(5)) == [20, 10, 5, 1]
    assert shares(18, MinibatchStdLayer(2)) == [18, 9, 3, 1]


class Loss:
    """Needs memory for each image; moves a running mean along."""

    def __init__(self, G, limit):
        self.G, self.limit, self.mean, self.sizes = G, limit, torch.zeros([]), []

    def accumulate_gradients(self, phase, real, gen_z, gen_c, gain):
        self.sizes.append(len(real["image"]))
        assert real["image"].shape[1:] == (1, 2, 2)
        self.mean += 1
        training_stats.report("Loss/x", gen_z)
        self.G(gen_z).sum().backward()
        if len(gen_z) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def trial(limit):
    G = torch.nn.Linear(3, 1)
    G.z_dim = 3
    loss = Loss(G, limit)
    phases = build_phases("G", G, ADAM, 4, running=[loss.mean])
    data = [Item(torch.zeros(1, 2, 2, dtype=torch.uint8).numpy(), torch.zeros(0).numpy())]
    return Trial(phases, loss, G, data, torch.device("cpu")), loss, G


def test_the_largest_share_that_fits_is_found_and_nothing_changes():
    attempt, loss, G = trial(limit=3)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    collector = training_stats.Collector("Loss/x")
    assert find_share(attempt, 8, G) == 2
    assert loss.sizes == [8, 4, 2, 2]
    collector.update()
    assert collector.num("Loss/x") == 0
    assert loss.mean == 0
    for name, tensor in G.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None and not p.requires_grad for p in G.parameters())
    assert not attempt.phases[0].optimizer.state


def test_all_processes_take_what_fits_everywhere(monkeypatch):
    attempt, _, G = trial(limit=100)
    monkeypatch.setattr(memory.distributed, "gather", lambda size: [size, 2, 4])
    assert find_share(attempt, 8, G) == 2


def test_nothing_that_fits_is_told():
    attempt, _, G = trial(limit=0)
    with pytest.raises(UserError, match="A single image does not fit"):
        find_share(attempt, 8, G)


@pytest.mark.parametrize(
    ("limit", "first", "message"),
    [
        (3, True, r"8 images at a time do not fit into memory. Use --batch-gpu=2 "),
        (0, True, "A single image does not fit either"),
        (3, False, "This size fitted before.*--batch-gpu to 4"),
    ],
)
def test_advice_names_what_fits(limit, first, message):
    attempt, _, G = trial(limit)
    with pytest.raises(UserError, match=message), memory.report_shortage(lambda: attempt, 8, G, lambda: first):
        attempt._step(8)
