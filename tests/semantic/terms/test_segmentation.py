"""The discriminator that finds regions, and what it teaches, against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from semantic.discriminator import DualBranchDiscriminator
from semantic.presets import Semantic, semantic_options
from semantic.regions import Regions
from semantic.terms.segmentation import segmentation_loss
from tests.helpers import assert_close
from tests.semantic.helpers import (
    COUNT,
    accumulate,
    build_discriminator,
    build_loss,
    check_gradients,
    gradients,
    latents,
    plain_reals,
    random_tensor,
    randomize,
)
from tests.semantic.plain import plain_conv, plain_features, plain_logits
from training import warm_start


@pytest.fixture
def D():
    network = DualBranchDiscriminator(0, 32, 3, COUNT, channels={4: 3, 8: 3, 16: 2, 32: 2}, segmentation=True)
    return randomize(network, seed=5).requires_grad_(False)


def plain_scores(state, image):
    features = plain_features(state, "image", image)
    x = features[-1]
    for number in range(len(features) - 2, -1, -1):
        x = plain_conv(x, state[f"segmentation.coarse.{number}.weight"])
        x = x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) + features[number]
        x = plain_conv(x, state[f"segmentation.fine.{number}.weight"], state[f"segmentation.fine.{number}.bias"])
    x = plain_conv(x, state["segmentation.scores.weight"])
    x = x + state["segmentation.scores.bias"][:, None, None]
    size = image.shape[-1]
    scores = torch.zeros(len(x) // 4, size, size)
    for k in range(len(scores)):
        for row in range(2):
            for column in range(2):
                scores[k, row::2, column::2] = x[4 * k + 2 * row + column]
    return scores


@pytest.mark.parametrize(("count", "resolution"), [(3, 32), (13, 64)])
def test_scores_equal_plain_convolutions(count, resolution):
    D = build_discriminator(count, resolution, segmentation=True)
    images, masks = random_tensor(2, 3, resolution, resolution), random_tensor(2, count, resolution, resolution)
    logits, scores = D(images, None, mask=masks, return_segmentation=True)
    assert_close(logits, plain_logits(D.state_dict(), images, masks), 1e-4)
    assert scores.shape == (2, count, resolution, resolution)
    for image, found in zip(images, scores, strict=True):
        assert_close(found, plain_scores(D.state_dict(), image), 1e-4)


def test_logits_are_the_same_with_and_without_the_scores():
    D = build_discriminator(segmentation=True)
    images, masks = random_tensor(2, 3, 32, 32), random_tensor(2, 3, 32, 32)
    assert torch.equal(D(images, None, mask=masks, return_segmentation=True)[0], D(images, None, mask=masks))


def plain_segmentation_loss(scores, mask):
    regions = range(mask.shape[1])
    truth = mask.argmax(dim=1)
    weights = [max((truth == k).float().mean().item(), 1e-4) ** -0.5 for k in regions]
    value, total = 0.0, 0.0
    for n in range(len(scores)):
        shares = torch.exp(scores[n]) / torch.exp(scores[n]).sum(dim=0)
        for k in regions:
            there = truth[n] == k
            value = value - weights[k] * torch.log(shares[k][there]).sum()
            total += weights[k] * there.sum().item()
    return value / total


def test_the_loss_is_a_weighted_cross_entropy():
    scores, mask = random_tensor(2, 4, 8, 8).requires_grad_(), random_tensor(2, 4, 8, 8, seed=2)
    mask[:, 3] = -9  # a region that is nowhere
    mask.requires_grad_()
    value = segmentation_loss(scores, mask)
    assert_close(value, plain_segmentation_loss(scores, mask), 1e-5)
    (actual,) = torch.autograd.grad(value, scores)
    (plain,) = torch.autograd.grad(plain_segmentation_loss(scores, mask), scores)
    assert_close(actual, plain, 1e-5)


def judge(loss, D, images, masks):
    images, masks = loss.augment_pipe(images, mask=masks)
    logits, scores = D(images, None, mask=masks, return_segmentation=True)
    return logits, plain_segmentation_loss(scores, masks)


def test_G_is_taught_by_the_masks_of_its_own_pairs(G, D, fixed_noise):
    loss = build_loss(G, D, style_mixing_prob=0, mask_weight=0, segmentation_weight=3)
    actual = accumulate(loss, G, "Gmain")
    G.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    logits, term = judge(loss, D, out.image, out.mask)
    check_gradients(actual, G, F.softplus(-logits).mean() + 3 * term)


def test_D_is_taught_by_real_pairs_alone(G, D, fixed_noise):
    loss = build_loss(G, D, style_mixing_prob=0, segmentation_weight=3)
    actual = accumulate(loss, D, "Dmain")
    D.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    fake, _ = judge(loss, D, out.image, out.mask)
    real, term = judge(loss, D, *plain_reals())
    check_gradients(actual, D, F.softplus(fake).mean() + F.softplus(-real).mean() + 3 * term)


def test_R1_leaves_the_head_alone(G, D):
    accumulate(build_loss(G, D, segmentation_weight=3), D, "Dreg")
    assert all(gradient is None for name, gradient in gradients(D).items() if name.startswith("segmentation."))


@pytest.mark.parametrize("phase", ["Gmain", "Dmain"])
def test_reduced_precision_runs(G, D, phase):
    trained = G if phase == "Gmain" else D
    loss = build_loss(G, D, segmentation_weight=3, precision="bf16")
    assert all(g.isfinite().all() for g in accumulate(loss, trained, phase).values() if g is not None)


@pytest.mark.parametrize("resolution", [64, 256])
def test_only_the_tuned_recipe_has_it(resolution):
    regions = Regions(["sky", "one"])
    tuned, paper = (semantic_options(resolution, regions, "fp32", recipe) for recipe in ("tuned", "paper"))
    assert tuned.D_kwargs.segmentation
    assert tuned.loss_kwargs.segmentation_weight > 0
    assert not paper.D_kwargs.segmentation
    assert paper.loss_kwargs.segmentation_weight == 0


def test_networks_to_resume_get_a_head_or_lose_it_with_the_run():
    for theirs in (False, True):
        for ours in (False, True):
            source = build_discriminator(segmentation=theirs)
            own = {"class_name": "semantic.discriminator.DualBranchDiscriminator", "segmentation": ours}
            kwargs = warm_start.inherit_arguments(own, source, Semantic.from_data)
            assert kwargs.segmentation == ours
            target = build_discriminator(segmentation=ours)
            warm_start.copy_networks({"D": source}, {"D": target})
            images = random_tensor(2, 3, 32, 32)
            assert torch.equal(target(images, None), source(images, None))
