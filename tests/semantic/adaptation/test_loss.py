"""The loss of adaptation against its formulas, with plain autograd."""

import pytest
import torch
import torch.nn.functional as F

from semantic.adaptation import AdaptationLoss, source
from semantic.adaptation.data import NO_MASK
from tests.semantic.helpers import (
    COUNT,
    CPU,
    LinearAugmentation,
    accumulate,
    build_discriminator,
    check_gradients,
    latents,
    plain_reals,
    random_tensor,
    reals,
)


@pytest.fixture(autouse=True)
def no_segmenter(monkeypatch):
    """Without a head in D a segmenter would learn for minutes; here it finds all regions everywhere."""
    monkeypatch.setattr(
        source,
        "build_parser",
        lambda networks, device: (
            lambda images: images.new_zeros(1, COUNT, 1, 1).expand(len(images), -1, *images.shape[2:])
        ),
    )


def build_adaptation(G, D, **kwargs):
    return AdaptationLoss(CPU, G, D, augment_pipe=LinearAugmentation(), style_mixing_prob=0, **kwargs)


def move(G):
    """Train G a little, so that it differs from its source."""
    with torch.no_grad():
        for parameter in G.synthesis.parameters():
            parameter.add_(0.05 * torch.cos(torch.arange(parameter.numel()) * 1.7).view_as(parameter))


def judge(loss, D, images):
    return D(loss.augment_pipe(images), torch.zeros(len(images), 0))


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


def test_real_samples_with_a_mask_are_judged_with_it_and_all_others_alone(G):
    D = build_discriminator().requires_grad_(False)
    loss = build_adaptation(G, D, masked_share=0.5)
    real = reals()
    real["mask"][[0, 2]] = NO_MASK
    logits = loss.discriminate(loss.real_samples(real), real["label"])
    images, masks = loss.augment_pipe(plain_reals()[0], mask=plain_reals()[1])
    with_mask, alone = [1, 3], [0, 2]
    assert torch.allclose(logits[with_mask], D(images[with_mask], None, mask=masks[with_mask]), atol=1e-5)
    assert torch.allclose(logits[alone], D(images[alone], None), atol=1e-5)
    assert not torch.allclose(logits[with_mask], D(images[with_mask], None), atol=1e-3)


def test_without_any_pair_in_a_batch_the_mask_branch_has_gradients_of_zero(G):
    D = build_discriminator().requires_grad_(True)
    loss = build_adaptation(G, D, masked_share=0.01)
    real = {**reals(), "mask": torch.full_like(reals()["mask"], NO_MASK)}
    loss.discriminate(loss.real_samples(real), real["label"]).sum().backward()
    found = [parameter.grad for name, parameter in D.named_parameters() if name.startswith("mask.")]
    assert all(grad is not None and not grad.any() for grad in found)


def test_the_source_stays_the_same_after_a_resume(G, D):
    loss = build_adaptation(G, D)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    move(G)
    again = build_adaptation(G, D)  # its source would be the network that has moved
    again.load_state_dict(loss.state_dict())
    for name, tensor in again.source.G.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_mean_code_stays_where_the_mapping_is_not_trained(G, D):
    before = G.mapping.w_avg.clone()
    build_adaptation(G, D, trains_mapping=False).generate(*latents())
    assert torch.equal(G.mapping.w_avg, before)
    build_adaptation(G, D).generate(*latents())
    assert not torch.equal(G.mapping.w_avg, before)


def test_masks_are_kept_by_default_and_drift_freely_without_a_weight(G, D):
    assert build_adaptation(G, D, mask_weight=0).terms == {}
    assert set(build_adaptation(G, D).terms) == {"mask"}
    loss = build_adaptation(G, D)
    assert loss.terms["mask"].fake(loss.generate(*latents())) > 0  # final masks differ from coarse ones
    move(G)
    kept = accumulate(loss, G, "Gmain")["synthesis.local.depth_weight"].clone()
    G.zero_grad()
    free = accumulate(build_adaptation(G, D, mask_weight=0), G, "Gmain")["synthesis.local.depth_weight"]
    assert not torch.allclose(kept, free)


def test_likeness_within_regions_is_kept(G, D, fixed_noise):
    loss = build_adaptation(G, D, mask_weight=0, correspondence_weight=1)
    term = loss.terms["correspondence"]
    G.requires_grad_(True)
    term.step(*latents())
    still = max(p.grad.abs().max().item() for p in G.synthesis.parameters() if p.grad is not None)
    G.zero_grad()
    with torch.no_grad():
        G.synthesis.local.affine_weight.add_(random_tensor(*G.synthesis.local.affine_weight.shape))
    term.step(*latents())
    moved = max(p.grad.abs().max().item() for p in G.synthesis.parameters() if p.grad is not None)
    assert moved > 100 * still


def test_edits_are_kept_in_their_regions_if_the_term_has_a_weight(G, D):
    assert "locality" not in build_adaptation(G, D).terms
    loss = build_adaptation(G, D, locality_weight=2)
    G.requires_grad_(True)
    loss.generator_step(*latents())
    assert loss.terms["locality"].edits.sums.any()


def test_the_parser_is_the_head_of_the_source_else_one_that_learns_once(G, D, monkeypatch):
    with_head = build_discriminator(segmentation=True).requires_grad_(False)
    kept = source.Source(G, with_head)
    images = random_tensor(2, 3, 32, 32)
    before = with_head(images, None, return_segmentation=True)[1]
    with torch.no_grad():
        with_head.segmentation.scores.weight.add_(1)
    assert torch.allclose(kept.find(images), before, atol=1e-5)
    built = []
    monkeypatch.setattr(source, "build_parser", lambda networks, device: built.append(networks) or (lambda x: x))
    without = source.Source(G, D)
    assert without.find(images) is images
    assert without.find(images) is images
    assert len(built) == 1
    assert built[0]["G_ema"] is without.G
