"""The loss of adaptation against its formulas, with plain autograd."""

import copy

import torch
import torch.nn.functional as F

from semantic.adaptation import AdaptationLoss
from tests.semantic.helpers import CPU, LinearAugmentation, accumulate, check_gradients, latents, plain_reals, reals


def build_adaptation(G, D, **kwargs):
    return AdaptationLoss(CPU, G, D, augment_pipe=LinearAugmentation(), style_mixing_prob=0, **kwargs)


def move(G):
    """Train G a little, so that it differs from its source."""
    with torch.no_grad():
        for parameter in G.synthesis.parameters():
            parameter.add_(0.05 * torch.cos(torch.arange(parameter.numel()) * 1.7).view_as(parameter))


def judge(loss, D, images):
    return D(loss.augment_pipe(images), torch.zeros(len(images), 0))


def test_G_keeps_the_masks_of_its_source_and_D_judges_images_alone(G, D, fixed_noise):
    source, loss = copy.deepcopy(G), build_adaptation(G, D, mask_weight=7)
    move(G)
    actual = accumulate(loss, G, "Gmain")
    target = source.synthesis(source.mapping(*latents()), noise_mode="const", return_mask=True)
    G.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    drift = (out.coarse_mask - target.coarse_mask).pow(2).mean()
    drift = drift + (out.mask.clamp(-1, 1) - target.mask.clamp(-1, 1)).pow(2).mean()
    assert drift > 1e-4
    own = {name.removeprefix("synthesis."): grad for name, grad in actual.items()}
    check_gradients(own, G.synthesis, torch.log1p(torch.exp(-judge(loss, D, out.image))).mean() + 7 * drift)


def test_D_needs_no_masks(G, D, fixed_noise):
    loss = build_adaptation(G, D)
    D.requires_grad_(True)
    real = {name: tensor for name, tensor in reals().items() if name != "mask"}
    loss.accumulate_gradients("Dboth", real, *latents(), 4)
    actual = {name: parameter.grad for name, parameter in D.named_parameters()}
    assert all(gradient is None for name, gradient in actual.items() if name.startswith("mask."))
    fake = G.synthesis(G.mapping(*latents()), noise_mode="random")
    images = plain_reals()[0].requires_grad_()
    real_logits = judge(loss, D, images)
    (slope,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    value = F.softplus(judge(loss, D, fake)).mean() + F.softplus(-real_logits).mean()
    check_gradients(actual, D, value + 4 * 10 / 2 * slope.square().sum(dim=(1, 2, 3)).mean())


def test_the_source_stays_the_same_after_a_resume(G, D):
    loss = build_adaptation(G, D)
    before = {name: tensor.clone() for name, tensor in G.synthesis.state_dict().items()}
    move(G)
    again = build_adaptation(G, D)  # its source would be the network that has moved
    again.load_state_dict(loss.state_dict())
    for name, tensor in again.terms["mask"].source.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_without_a_weight_masks_drift_freely(G, D):
    assert build_adaptation(G, D, mask_weight=0).terms == {}
    assert set(build_adaptation(G, D).terms) == {"mask"}
