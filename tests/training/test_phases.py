"""Optimizer steps: lazy regularization, rounds, freezing."""

import pytest
import torch

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


def test_broken_gradients_do_not_break_the_weights():
    network = torch.nn.Linear(4, 1, bias=False)
    before = network.weight.clone()
    (phase,) = build_phases("D", network, {**SGD}, None)
    phase.begin()
    network.weight.grad = torch.tensor([[float("nan"), float("inf"), -float("inf"), 2.0]])
    phase.end()
    assert torch.allclose(before - network.weight, torch.tensor([[0, 1e5, -1e5, 2.0]]))


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
