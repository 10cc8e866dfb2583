"""Statistics are added up where they arise and collected once a tick."""

import math
import weakref

import pytest
import torch

from torch_utils import training_stats
from torch_utils.training_stats import Collector, report, report0


@pytest.fixture(autouse=True)
def no_other_statistics(monkeypatch):
    monkeypatch.setattr(training_stats, "_collectors", weakref.WeakSet())


def test_mean_and_deviation_of_everything_reported():
    collector = Collector()
    report("a", torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    report("a", [8])
    report("b", 0.1)
    collector.update()
    assert collector.names() == ["a", "b"]
    assert (collector.num("a"), collector.sum("a"), collector.mean("a"), collector["a"]) == (5, 20, 4, 4)
    assert collector.std("a") == pytest.approx(math.sqrt((9 + 4 + 1 + 4 + 16) / 5))
    assert collector.mean("b") == 0.1  # numbers keep their precision
    assert collector.as_dict() == {
        "a": {"num": 5, "mean": 4, "std": collector.std("a")},
        "b": {"num": 1, "mean": 0.1, "std": 0},
    }


def test_report_gives_its_value_back_and_cuts_no_gradient():
    x = torch.ones(3, requires_grad=True)
    assert report("a", x * 2).requires_grad
    assert report("a", 3) == 3
    assert report0("a", 3) == 3


def test_each_update_covers_what_came_since_the_last():
    report("a", 100)
    collector = Collector()
    for values in ([1, 2], [5], [7, 9]):
        report("a", values)
        collector.update()
        assert collector.num("a") == len(values)
        assert collector.mean("a") == pytest.approx(sum(values) / len(values))


@pytest.mark.parametrize("keep", [True, False])
def test_a_statistic_that_pauses(keep):
    collector = Collector(keep_previous=keep)
    report("a", 1)
    report("b", 2)
    collector.update()
    report("b", 3)
    collector.update()
    assert collector.names() == (["a", "b"] if keep else ["b"])
    assert collector.mean("b") == 3
    assert collector.num("a") == int(keep)
    assert collector.mean("a") == 1 if keep else math.isnan(collector.mean("a"))


def test_what_is_unknown_is_nan():
    collector = Collector()
    assert (collector.num("x"), collector.sum("x")) == (0, 0)
    assert math.isnan(collector.mean("x"))
    assert math.isnan(collector.std("x"))


def test_empty_reports_do_not_count():
    collector = Collector()
    report("a", [])
    report("a", torch.zeros(0))
    collector.update()
    assert collector.names() == []


def test_collectors_choose_names_and_do_not_disturb_each_other():
    first, second = Collector("Loss/.*"), Collector()
    report("Loss/G", 1)
    report("NoLoss/G", 2)
    first.update()
    second.update()
    assert first.names() == ["Loss/G"]
    assert second.names() == ["Loss/G", "NoLoss/G"]


def test_half_precision_and_long_sums_stay_exact():
    collector = Collector()
    for _ in range(3000):
        report("a", torch.ones(10, dtype=torch.float16))
    report("b", torch.tensor([1e8, 1.0]))
    collector.update()
    assert (collector.num("a"), collector.sum("a"), collector.std("a")) == (30000, 30000, 0)
    assert collector.sum("b") == 1e8 + 1


def test_devices_are_added_up():
    """Stands in for several devices: each has its own sums."""
    collector = Collector()
    report("a", torch.tensor([1.0, 2.0]))
    collector._sums["a"]["meta"] = torch.tensor([1.0, 9.0, 81.0])
    collector.update()
    assert (collector.num("a"), collector.mean("a")) == (3, 4)


def test_a_continued_collector_knows_the_unfinished_tick_to_the_last_bit():
    torch.manual_seed(0)
    batches = [torch.randn(7) * 10**i for i in range(4)]
    whole = Collector()
    for values in batches:
        report("a", values)
        report("old", 5)
    whole.update()
    first, continued = Collector(), Collector()
    report("a", batches[0])
    report("a", batches[1])
    state = first.state_dict()
    continued.load_state_dict(state)
    report("a", batches[2])
    report("a", batches[3])
    for collector in (first, continued):
        collector.update()
        assert collector.as_dict()["a"] == whole.as_dict()["a"]


def test_figures_of_earlier_ticks_are_continued():
    collector, continued = Collector(), Collector()
    report("old", 5)
    collector.update()
    continued.load_state_dict(collector.state_dict())
    continued.update()
    assert continued.as_dict() == {"old": {"num": 1, "mean": 5, "std": 0}}


def test_another_number_of_processes_takes_all_sums():
    collector, continued = Collector(), Collector()
    report("a", [1, 2])
    state = collector.state_dict()
    continued.load_state_dict({**state, "sums": state["sums"] * 3})
    continued.update()
    assert continued.as_dict() == {"a": {"num": 6, "mean": 1.5, "std": 0.5}}


def test_what_is_not_finite_is_left_out():
    collector = Collector()
    report("a", torch.tensor([1.0, math.nan, 3.0, -math.inf]))
    report("b", [1.0])
    collector.update()
    assert (collector.num("a"), collector["a"], collector.std("a")) == (2, 2, 1)


def test_within_muted_nothing_is_reported():
    collector = Collector()
    with training_stats.muted():
        report("a", [1.0, math.nan])
    collector.update()
    assert collector.names() == []


def test_sums_over_processes_are_taken_on_the_chosen_device(monkeypatch):
    monkeypatch.setattr(training_stats, "_sync_device", None)
    monkeypatch.setattr(training_stats.distributed, "is_distributed", lambda: True)
    places = []
    monkeypatch.setattr(
        training_stats.distributed, "all_reduce", lambda t: (places.append(t.device.type), torch.zeros(t.shape))[1]
    )
    collector = Collector()
    for device in (None, "meta"):
        training_stats.init_multiprocessing(rank=0, sync_device=device)
        report("a", 1)
        collector.update()
    report("a", 1)
    collector.update(torch.device("cpu"))
    assert places == ["cpu", "meta", "cpu"]
