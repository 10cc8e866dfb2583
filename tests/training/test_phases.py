"""Optimizer steps: lazy regularization, rounds, freezing."""

import pytest
import torch

from torch_utils.training_stats import report
from training.phases import build_phases

ADAM = {"class_name": "torch.optim.Adam", "lr": 0.01, "betas": [0, 0.99], "eps": 1e-8}
SGD = {"class_name": "torch.optim.SGD", "lr": 1}


def test_lazy_regularization_corrects_learning_rate_and_betas():
    main, reg = build_phases("D", torch.nn.Linear(2, 1), {**ADAM, "betas": [0.5, 0.99]}, 16)
    assert (main.name, main.interval, reg.name, reg.interval) == ("Dmain", 1, "Dreg", 16)
    assert main.optimizer is reg.optimizer
    (group,) = main.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.01 * 16 / 17)
    assert group["betas"] == pytest.approx([0.5 ** (16 / 17), 0.99 ** (16 / 17)])
    assert ADAM["lr"] == 0.01


def test_without_an_interval_one_phase_does_both():
    (phase,) = build_phases("G", torch.nn.Linear(2, 1), ADAM, None)
    assert (phase.name, phase.interval) == ("Gboth", 1)
    (group,) = phase.optimizer.param_groups
    assert (group["lr"], list(group["betas"])) == (0.01, [0, 0.99])


def test_gradients_flow_only_within_a_phase():
    network = torch.nn.Linear(2, 1)
    (phase,) = build_phases("G", network, {**SGD}, None)
    assert not any(p.requires_grad for p in network.parameters())
    phase.begin()
    assert all(p.requires_grad for p in network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    phase.end()
    assert not any(p.requires_grad for p in network.parameters())
    phase.begin()
    assert all(p.grad is None for p in network.parameters())


def test_rounds_give_the_step_of_the_whole_batch():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    steps = []
    for rounds in (1, 4):
        torch.manual_seed(1)
        network = torch.nn.Linear(3, 1)
        (phase,) = build_phases("D", network, {**SGD}, None)
        phase.begin()
        for part in x.split(8 // rounds):
            network(part).square().mean().backward()
        phase.end(rounds=rounds)
        steps.append(network.weight.clone())
    assert torch.allclose(steps[0], steps[1], atol=1e-6)


NAN, INF = float("nan"), float("inf")
FUSED = {**ADAM, "betas": [0.5, 0.9], "fused": True}  # decides on the device, as on a GPU


def one_step(phase, network, gradient, moved=None):
    phase.begin()
    network.weight.grad = torch.tensor([gradient])
    if moved is not None:
        phase.running[0].fill_(moved)
    phase.end()


@pytest.mark.parametrize("options", [{**ADAM, "betas": [0.5, 0.9]}, FUSED])
@pytest.mark.parametrize("gradient", [[NAN, 1.0], [1.0, -INF]])
def test_a_step_that_is_not_finite_leaves_no_trace(options, gradient):
    """Parameters, both moments, the optimizer's step count and running means stay as they were."""
    found = []
    for broken in (False, True):
        torch.manual_seed(0)
        network, mean = torch.nn.Linear(2, 1, bias=False), torch.zeros([])
        (phase,) = build_phases("D", network, options, None, running=[mean])
        phase.deferred = "fused" in options
        one_step(phase, network, [0.3, -2.0], moved=1.0)
        if broken:
            before = network.weight.clone()
            one_step(phase, network, gradient, moved=NAN)
            one_step(phase, network, gradient, moved=2.0)
            assert torch.equal(network.weight, before)
            assert mean == 1
            assert (phase.in_row, phase.skipped) == (2, 2)
        one_step(phase, network, [-1.0, 4.0])
        assert phase.in_row == 0
        state = phase.optimizer.state[network.weight]
        found.append([network.weight.clone(), *(state[name].clone() for name in ("step", "exp_avg", "exp_avg_sq"))])
    assert phase.take_skipped() == 2
    assert phase.take_skipped() == 0
    for expected, tensor in zip(*found, strict=True):
        assert torch.equal(expected, tensor)


def test_statistics_do_not_steer():
    """A step with finite gradients is taken, whatever is reported beside it."""
    network = torch.nn.Linear(2, 1, bias=False)
    (phase,) = build_phases("D", network, SGD, None)
    before = network.weight.clone()
    phase.begin()
    network.weight.grad = torch.ones(1, 2)
    report("Loss/term", torch.tensor([NAN, INF]))
    phase.end()
    assert torch.equal(network.weight, before - 1)
    assert phase.skipped == 0


def test_the_diagnosis_names_broken_gradients():
    network = torch.nn.Linear(2, 1)
    (phase,) = build_phases("D", network, ADAM, None)
    one_step(phase, network, [1.0, 1.0])
    one_step(phase, network, [NAN, 1.0])
    assert phase.diagnosis() == "phase Dboth: the gradient of weight"
    phase.begin()
    network.weight.grad, network.bias.grad = torch.tensor([[1.0, INF]]), torch.tensor([NAN])
    phase.end()
    assert phase.diagnosis() == "phase Dboth: the gradient of weight and 1 more"


def test_a_phase_that_is_cancelled_leaves_no_trace():
    network, mean = torch.nn.Linear(2, 1), torch.zeros([])
    (phase,) = build_phases("D", network, ADAM, None, running=[mean])
    phase.begin()
    network(torch.ones(1, 2)).sum().backward()
    mean.fill_(3)
    phase.cancel()
    assert mean == 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_a_smaller_rate_is_a_share_of_the_whole_one():
    network = torch.nn.Linear(2, 1)
    main, reg = build_phases("G", network, ADAM, 4)
    main.set_rate(0.5)
    reg.set_rate(0.5)
    assert main.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 4 / 5 / 2)
    main.set_rate(1.0)
    assert main.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 4 / 5)


def test_frozen_parameters_stay():
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    before = {name: p.clone() for name, p in network.named_parameters()}
    phases = build_phases("G", network, ADAM, 4, frozen=["a."])
    for phase in phases:
        phase.begin()
        assert not network["a"].weight.requires_grad
        network["b"](network["a"](torch.ones(3, 2))).sum().backward()
        phase.end()
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("a."), name


def test_a_phase_without_gradients_changes_nothing():
    """A regularization of weight 0 reports no gradients; Adam's momentum must not move the weights then."""
    network = torch.nn.Linear(2, 1)
    main, reg = build_phases("G", network, {**ADAM, "betas": [0.9, 0.99]}, 4)
    main.begin()
    network(torch.ones(1, 2)).sum().backward()
    main.end()
    before = network.weight.clone()
    reg.begin()
    reg.end(rounds=2)
    assert torch.equal(network.weight, before)
