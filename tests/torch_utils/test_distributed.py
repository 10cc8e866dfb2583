"""Several processes work as one would alone: gradients, data, statistics, requests to stop, errors."""

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dnnlib import UserError, write_json
from torch_utils import distributed, misc, training_stats
from torch_utils.interrupt import StopRequest
from torch_utils.sampler import derive_seed
from training.batches import Batches
from training.phases import build_phases

DESCENT = {"class_name": "tests.torch_utils.test_distributed.Descent", "lr": 0.5}


class Descent:
    """Plain gradient descent; PyTorch's optimizers take seconds to import in every process."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = parameters, lr

    def zero_grad(self, set_to_none):
        for parameter in self.parameters:
            parameter.grad = None

    def step(self):
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.sub_(self.lr * parameter.grad)


class Number(NamedTuple):
    number: np.ndarray
    label: np.ndarray


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return Number(torch.tensor(float(i)).numpy(), self.get_label(i))

    def get_label(self, i):
        return torch.zeros(0).numpy()


def trained_weights(steps=3, batch_size=8, batch_gpu=2):
    """Weights after a few steps on batches of numbers, in rounds of `batch_gpu`."""
    torch.manual_seed(derive_seed(0, 0, 0))
    network = torch.nn.ModuleList([torch.nn.Linear(1, 3), torch.nn.Linear(3, 1), torch.nn.Linear(1, 1)])
    phases = build_phases("D", network, DESCENT, 2)
    batches = Batches(Numbers(), torch.device("cpu"), batch_size, batch_gpu, 5, 0, {})
    for step in range(steps):
        real = batches.next()
        for phase in phases:
            if step % phase.interval == 0:
                phase.begin()
                for part in real:  # the third layer gets no gradient
                    out = network[1](torch.tanh(network[0](part["number"].unsqueeze(1) / 12)))
                    (out - 1).square().mean().backward()
                phase.end(rounds=len(real))
    return torch.cat([p.flatten() for p in network.parameters()])


def weights_after_trouble(value):
    """A weight of 1 after a step with this gradient in this process."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    (phase,) = build_phases("D", network, DESCENT, None)
    phase.begin()
    network.weight.grad = torch.tensor([[value]])
    phase.end()
    return distributed.gather([network.weight.item(), float(phase.in_row)])


def order(steps=3):
    """Which items each of a few global batches holds, sorted."""
    batches = Batches(Numbers(), torch.device("cpu"), 8, 4, 5, 0, {})
    found = []
    for _ in range(steps):
        numbers = torch.zeros(12)
        for part in batches.next():
            numbers += torch.bincount(part["number"].long(), minlength=12)
        found.append(distributed.all_reduce(numbers).tolist())
    return found


def group_work(folder):
    """All that this file asks of a group, in one start of two processes; at the end the second one fails."""
    rank = distributed.get_rank()
    found = {"ranks": distributed.all_reduce(torch.tensor([1.0, float(rank)])).tolist()}
    found["world_size"] = distributed.get_world_size()

    torch.manual_seed(rank)
    module = torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        module.weight.normal_()
        module.running_mean.normal_()
    distributed.broadcast_module(module)
    state = torch.cat([module.weight.detach(), module.running_mean])
    found["broadcast_differs"] = (distributed.all_reduce(state.clone()) / 2 - state).abs().max().item()
    found["broadcast"] = state.tolist()

    weights = trained_weights()
    found["weights"] = weights.tolist()
    found["weights_differ"] = (distributed.all_reduce(weights.clone()) / 2 - weights).abs().max().item()
    found["order"] = order()

    collector = training_stats.Collector("test/.*")
    training_stats.report("test/all", torch.tensor([1.0, 2.0]) + 2 * rank)
    training_stats.report0("test/first", 7 + rank)
    state = collector.state_dict()
    found["waiting"] = [share["test/all"]["cpu"].tolist() for share in state["sums"]]
    collector.update()
    found["statistics"] = collector.as_dict()
    state["sums"] = state["sums"][:1]
    collector.load_state_dict(state)
    collector.update()
    found["from_another_number"] = collector.as_dict()["test/all"]["num"]

    found["gathered"] = distributed.gather({"rank": rank})
    found["from_first"] = distributed.from_first(lambda: {"rank": rank})
    with distributed.alone():
        found["alone"] = [distributed.get_world_size(), distributed.all_reduce(torch.ones([])).item()]
    tensors = {"a": torch.ones(3), "b": torch.tensor([1.0, 2.0, rank]), "c": torch.tensor([rank])}
    found["same"] = distributed.find_difference({"a": tensors["a"]})
    found["different"] = distributed.find_difference(tensors)
    apart = torch.nn.Linear(2, 1)
    with torch.no_grad():
        apart.weight.fill_(1)
        apart.bias.fill_(rank)
    misc.check_ddp_consistency(apart, ignore_regex=r".*\.bias")
    with pytest.raises(UserError) as caught:
        misc.check_ddp_consistency(apart)
    found["inconsistent"] = str(caught.value)
    ddp = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    with misc.ddp_sync(ddp, sync=False):
        (ddp(torch.ones(1, 1)).sum() * (rank + 1)).backward()
    found["not_synced"] = ddp.module.weight.grad.item()
    with misc.ddp_sync(ddp, sync=True):
        (ddp(torch.ones(1, 1)).sum() * (rank + 1)).backward()
    found["synced"] = ddp.module.weight.grad.item()
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 3.0]) * (1 + rank)
    distributed.average_gradients([weight])
    found["averaged"] = weight.grad.tolist()
    found["kept"] = [weights_after_trouble(value if rank else 1.0) for value in (float("nan"), float("-inf"), 1.0)]

    with StopRequest(lambda line: None) as stop:
        if rank == 1:
            signal.raise_signal(signal.SIGTERM)
        found["heard"] = stop.requested_anywhere()
    with StopRequest(lambda line: None) as stop:
        found["heard_early"] = stop.requested_anywhere()
        if rank == 0:
            (folder / "ready").touch()
        deadline = time.monotonic() + 60
        while not stop.requested_anywhere() and time.monotonic() < deadline:
            time.sleep(0.02)
        found["heard_in_time"] = time.monotonic() < deadline
    if rank == 0:
        write_json(folder / "found.json", found)
    distributed.barrier()
    if rank == 1:
        raise UserError("the mistake of the second process")
    distributed.barrier()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes found, the parent of which got a Ctrl-C, and how they ended."""
    folder = tmp_path_factory.mktemp("group")

    def interrupt():
        while not (folder / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(UserError) as caught:
        distributed.spawn(group_work, 2, folder)
    assert [signal.getsignal(number) for number in StopRequest.SIGNALS] == before
    return {**json.loads((folder / "found.json").read_text()), "mistake": caught.value.message}


def test_alone_everything_is_the_same_call():
    assert (distributed.get_rank(), distributed.get_world_size(), distributed.is_distributed()) == (0, 1, False)
    assert distributed.all_reduce(torch.tensor(3.0)) == 3
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full([2], 5.0)
    distributed.average_gradients([weight])
    assert weight.grad.tolist() == [5, 5]
    distributed.barrier()
    distributed.shutdown()


def test_processes_know_each_other(together):
    assert together["ranks"] == [2, 1]
    assert together["world_size"] == 2


def test_all_get_the_parameters_and_buffers_of_the_first(together):
    torch.manual_seed(0)
    expected = torch.cat([torch.empty(2).normal_(), torch.empty(2).normal_()])
    assert together["broadcast"] == pytest.approx(expected.tolist())
    assert together["broadcast_differs"] == 0


def test_two_processes_step_as_one_with_the_whole_batch(together):
    assert together["weights_differ"] == 0
    assert together["weights"] == pytest.approx(trained_weights(batch_gpu=8).tolist(), abs=1e-6)


def test_two_processes_see_the_data_of_one(together):
    assert together["order"] == order()


def test_statistics_cover_all_processes(together):
    assert together["statistics"]["test/all"] == {"num": 4, "mean": 2.5, "std": pytest.approx(1.25**0.5)}
    assert together["statistics"]["test/first"] == {"num": 1, "mean": 7, "std": 0}
    assert together["waiting"] == [[2, 3, 5], [2, 7, 25]]
    assert together["from_another_number"] == 2


def test_small_things_travel_between_processes(together):
    assert together["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert together["from_first"] == {"rank": 0}
    assert together["alone"] == [1, 1]
    assert together["averaged"] == [1.5, 4.5]


def test_what_is_not_finite_in_one_process_is_skipped_in_all(together):
    assert together["kept"] == [[[1, 1], [1, 1]], [[1, 1], [1, 1]], [[0.5, 0], [0.5, 0]]]


def test_replicas_that_drift_are_found(together):
    assert together["same"] is None
    assert together["different"] == ["b", 1]
    assert together["inconsistent"] == "Linear.bias of process 1 differs from process 0."
    # Gradients 1 and 2 are kept apart at first. Then 1 + 1 and 2 + 2 are averaged.
    assert (together["not_synced"], together["synced"]) == (1, 3)


def test_a_request_to_one_process_reaches_all(together):
    assert together["heard"]


def test_the_launchers_ctrl_c_reaches_all(together):
    assert not together["heard_early"]
    assert together["heard_in_time"]


def test_a_mistake_in_any_process_is_told_once_and_ends_all(together):
    assert together["mistake"] == "the mistake of the second process"


def threads_left_behind():
    """Names of native threads of this process after it has left its group."""
    importlib.import_module("torch._dynamo")  # as optimizers do, once the group is there
    distributed.barrier()
    distributed.shutdown()
    deadline = time.monotonic() + 5
    while foreign := [name for name in thread_names() if "gloo" in name or "store" in name]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)  # one that has been joined may still be listed
    return foreign


def thread_names():
    names = []
    for comm in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            names.append(comm.read_text().strip())
    return names


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")
def test_who_leaves_a_group_takes_its_threads_along():
    """Such a thread may abort a process that ends."""
    assert distributed.spawn(threads_left_behind, 2) == []


MEMBER = distributed._member


def dying_member(rank, *args):
    MEMBER(rank, *args)
    if rank == 1:
        os.abort()


def test_a_process_that_aborts_after_all_were_done_spoils_nothing(monkeypatch):
    monkeypatch.setattr(distributed, "_member", dying_member)
    assert distributed.spawn(str, 2, "done") == "done"


def fail_or_die():
    if distributed.get_rank() == 0:
        time.sleep(1)
        os.abort()
    raise ZeroDivisionError("the bug")


def test_a_bug_is_told_rather_than_the_death_of_another():
    with pytest.raises(RuntimeError, match="the bug"):
        distributed.spawn(fail_or_die, 2)


def be_killed_or_wait():
    if distributed.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()  # says that the connection is lost in words of its own


def test_what_the_system_kills_is_told_rather_than_what_follows():
    with pytest.raises(UserError, match="SIGKILL ended one of the 2 processes"):
        distributed.spawn(be_killed_or_wait, 2)


def test_an_answer_may_be_larger_than_a_pipe():
    assert distributed.spawn(bytes, 2, 300_000) == bytes(300_000)


def share_between_processes():
    rank = distributed.get_rank()
    return distributed.gather([distributed.broadcast(f"of {rank}"), distributed.gather_to_first(rank)])


def test_values_of_the_first_and_for_the_first():
    assert distributed.broadcast(1) == 1
    assert distributed.gather_to_first(1) == [1]
    assert distributed.spawn(share_between_processes, 2) == [["of 0", [0, 1]], ["of 0", []]]
