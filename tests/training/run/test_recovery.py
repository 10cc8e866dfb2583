"""Going back after values that were not finite."""

import math

import pytest
import torch

from dnnlib import UserError
from training.run.recovery import Recovery, RollBack, find_broken, go_back
from training.run.snapshots import load_state, save_state


def test_each_return_halves_the_rate_until_the_run_gives_up(tmp_path):
    path = tmp_path / "training-state-000001.pt"
    save_state(path, {"run": {"images_seen": 1000}, "recovery": Recovery([], 10).state_dict(), "logs": {}})
    lines, recovery = [], Recovery([], 10)
    for number, (images_seen, until) in enumerate([(1500, 21500), (1600, 41500), (41500, 61500)], start=1):
        assert go_back(str(tmp_path), "a gradient was not finite", images_seen, lines.append) == str(path)
        recovery.load_state_dict(load_state(path)["recovery"])
        assert (recovery.rollbacks, recovery.until) == (number, until)
        assert f"The learning rate is multiplied by {0.5**number:g} until {until / 1000:g} kimg" in lines[-1]
    with pytest.raises(UserError, match="again after 3 roll backs"):
        go_back(str(tmp_path), "a gradient was not finite", 61500, lines.append)
    go_back(str(tmp_path), "a gradient was not finite", 61501, lines.append)  # this failure is a new one
    recovery.load_state_dict(load_state(path)["recovery"])
    assert recovery.rollbacks == 1
    assert len(lines) == 4


def test_there_is_nothing_to_go_back_to_before_the_first_state(tmp_path):
    with pytest.raises(UserError, match="before its first state: a gradient was not finite"):
        go_back(str(tmp_path), "a gradient was not finite", 8, print)


def test_the_first_broken_tensor_of_a_tree_is_named():
    tree = {"a": [torch.ones(2), (torch.ones(1), torch.tensor([1, math.inf]))], "b": torch.tensor(math.nan), "c": None}
    assert find_broken(tree, "part") == "part.a.1.1"
    del tree["a"][1]
    assert find_broken(tree, "part") == "part.b"
    tree["b"] = torch.tensor([2**40])
    assert find_broken(tree, "part") is None


def test_a_state_that_is_not_finite_is_refused():
    network = torch.nn.Linear(2, 2)
    Recovery([], 10).require_finite({"G": network}, 4)
    network.bias.data[1] = math.nan
    with pytest.raises(RollBack, match=r"G\.bias was not finite when the state was to be saved"):
        Recovery([], 10).require_finite({"D": torch.nn.Linear(1, 1), "G": network}, 4)
