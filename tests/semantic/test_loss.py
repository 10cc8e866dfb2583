"""The joint loss against its formulas, with plain autograd."""

import math

import pytest
import torch
import torch.nn.functional as F

from semantic.loss import SemanticLoss, mask_consistency, mix_region_codes
from semantic.regions import Regions
from tests.helpers import assert_close
from tests.networks import tiny_generator
from tests.semantic.helpers import (
    BATCH,
    COARSE,
    COUNT,
    CPU,
    RESOLUTION,
    accumulate,
    build_loss,
    check_gradients,
    judge,
    latents,
    plain_reals,
    random_tensor,
    reals,
    region_names,
    repeatable_noise,
)
from training.augment import AugmentPipe


def plain_consistency(coarse, mask):
    total, count = 0.0, 0
    step = mask.shape[-1] // coarse.shape[-1]
    for n in range(coarse.shape[0]):
        for k in range(coarse.shape[1]):
            for y in range(coarse.shape[2]):
                for x in range(coarse.shape[3]):
                    tile = mask[n, k, y * step : (y + 1) * step, x * step : (x + 1) * step]
                    total = total + (coarse[n, k, y, x] - tile.sum() / step**2) ** 2
                    count += 1
    return total / count


@pytest.mark.parametrize("sizes", [(8, 32), (8, 8), (4, 16)])
def test_mask_consistency(sizes):
    coarse, full = sizes
    mask = random_tensor(1, 3, full, full)
    target = random_tensor(1, 3, coarse, coarse, seed=2)
    assert_close(mask_consistency(target, mask), plain_consistency(target, mask), 1e-5)


def test_mask_consistency_trains_both_masks():
    coarse, mask = random_tensor(1, 2, 4, 4, seed=2).requires_grad_(), random_tensor(1, 2, 16, 16).requires_grad_()
    actual = torch.autograd.grad(mask_consistency(coarse, mask), [coarse, mask])
    plain = torch.autograd.grad(plain_consistency(coarse, mask), [coarse, mask])
    for one, other in zip(actual, plain, strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize("augment", [True, False])
def test_generator_step_is_the_non_saturating_loss_and_the_mask_term(G, D, fixed_noise, augment):
    loss = build_loss(G, D, augment, style_mixing_prob=0)
    actual = accumulate(loss, G, "Gmain")
    G.requires_grad_(True)
    z, c = latents()
    out = G.synthesis(G.mapping(z, c), noise_mode="random", return_mask=True)
    logits = judge(loss, D, out.image, out.mask)
    average = F.avg_pool2d(out.mask, RESOLUTION // COARSE)
    value = torch.log1p(torch.exp(-logits)).mean() + 100 * ((out.coarse_mask - average) ** 2).mean()
    check_gradients(actual, G, value)


def test_mask_weight(G, D, fixed_noise):
    actual = accumulate(build_loss(G, D, style_mixing_prob=0, mask_weight=0), G, "Gmain")
    G.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    check_gradients(actual, G, F.softplus(-judge(build_loss(G, D), D, out.image, out.mask)).mean())


def test_discriminator_step_is_the_logistic_loss_on_pairs(G, D, fixed_noise):
    loss = build_loss(G, D, style_mixing_prob=0)
    actual = accumulate(loss, D, "Dmain")
    D.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    fake, real = judge(loss, D, out.image, out.mask), judge(loss, D, *plain_reals())
    value = torch.log1p(torch.exp(fake)).mean() + torch.log1p(torch.exp(-real)).mean()
    check_gradients(actual, D, value)


def plain_r1(loss, D, gamma, gamma_mask):
    """Squared gradients with respect to the samples before augmentation, summed in each and averaged over them."""
    images, masks = (x.requires_grad_() for x in plain_reals())
    logits = judge(loss, D, images, masks)
    by_image, by_mask = torch.autograd.grad(logits.sum(), [images, masks], create_graph=True)
    value = 0.0
    for n in range(BATCH):
        value = value + gamma / 2 * (by_image[n] ** 2).sum() + gamma_mask / 2 * (by_mask[n] ** 2).sum()
    return value / BATCH


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(
    ("gammas", "gain"), [({}, 16), ({"r1_gamma": 3, "r1_gamma_mask": 0}, 1), ({"r1_gamma": 0, "r1_gamma_mask": 7}, 2)]
)
def test_r1_on_image_and_mask_before_augmentation(G, D, augment, gammas, gain):
    loss = build_loss(G, D, augment, **gammas)
    actual = accumulate(loss, D, "Dreg", gain)
    D.requires_grad_(True)
    value = gain * plain_r1(loss, D, gammas.get("r1_gamma", 10), gammas.get("r1_gamma_mask", 1000))
    check_gradients(actual, D, value)


def test_both_parts_of_the_discriminator_at_once(G, D, fixed_noise):
    loss = build_loss(G, D, style_mixing_prob=0)
    actual = accumulate(loss, D, "Dboth")
    D.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    value = F.softplus(judge(loss, D, out.image, out.mask)).mean()
    value = value + F.softplus(-judge(loss, D, *plain_reals())).mean() + plain_r1(loss, D, 10, 1000)
    check_gradients(actual, D, value)


def plain_lengths(G, expanded):
    images = G.synthesis(expanded, noise_mode="random")
    noise = repeatable_noise(images) / math.sqrt(RESOLUTION * RESOLUTION)
    (by_code,) = torch.autograd.grad((images * noise).sum(), expanded, create_graph=True)
    lengths = []
    for sample in by_code:
        total = 0.0
        for layer in sample:
            total = total + (layer**2).sum()
        lengths.append(torch.sqrt(total / len(sample)))
    return torch.stack(lengths)


def test_path_length_on_expanded_latents(G, D, fixed_noise):
    loss = build_loss(G, D, style_mixing_prob=0)
    z, c = latents()
    half = BATCH // 2
    mean = torch.zeros([])
    for gain in (4, 1):
        G.zero_grad()
        actual = accumulate(loss, G, "Greg", gain)
        actual = {name: None if grad is None else grad.clone() for name, grad in actual.items()}
        G.requires_grad_(True)
        expanded = G.synthesis.expand(G.mapping(z[:half], c[:half]))
        assert expanded.shape == (half, COUNT * 3, 5)
        lengths = plain_lengths(G, expanded)
        mean = (mean + 0.01 * (lengths.mean() - mean)).detach()
        check_gradients(actual, G, gain * 0.5 * ((lengths - mean) ** 2).mean())
        assert_close(loss.state_dict()["pl_mean"], mean, 1e-4)
        assert mean > 0


def test_running_mean_of_path_lengths_is_kept(G, D):
    loss = build_loss(G, D)
    accumulate(loss, G, "Greg")
    other = build_loss(G, D)
    assert other.state_dict()["pl_mean"] == 0
    other.load_state_dict(loss.state_dict())
    assert other.state_dict()["pl_mean"] == loss.state_dict()["pl_mean"] > 0


def test_path_length_can_be_left_out(G, D):
    assert all(grad is None for grad in accumulate(build_loss(G, D, pl_weight=0), G, "Greg").values())


def plain_mix(ws, other, count, base_layers, choice):
    mixed = ws.clone()
    for n in range(len(ws)):
        for k in range(count):
            shape, texture = base_layers + 2 * k, base_layers + 2 * k + 1
            if choice[n, k] >= 1:
                mixed[n, texture] = other[n, texture]
            if choice[n, k] == 2:
                mixed[n, shape] = other[n, shape]
    return mixed


@pytest.mark.parametrize(("count", "base_layers"), [(2, 0), (3, 2), (13, 1)])
def test_mixing_codes_region_by_region(count, base_layers):
    regions = Regions(region_names(count), base_layers=base_layers)
    ws, other = random_tensor(5, regions.num_ws, 3), random_tensor(5, regions.num_ws, 3, seed=2)
    choice = torch.randint(0, 3, (5, count), generator=torch.Generator().manual_seed(0))
    assert torch.equal(mix_region_codes(ws, other, regions, choice), plain_mix(ws, other, count, base_layers, choice))


class CodesOnly(torch.nn.Module):
    """A generator of which the loss needs the mapping alone: z is w."""

    def __init__(self, count, base_layers):
        super().__init__()
        self.regions = Regions(region_names(count), base_layers=base_layers)
        self.z_dim = self.w_dim = 2
        self.num_ws = self.regions.num_ws

    def mapping(self, z, c, **kwargs):
        return z.unsqueeze(1).repeat(1, self.num_ws, 1)


def test_style_mixing_draws_three_choices_equally_for_every_sample_and_region():
    torch.manual_seed(0)
    count, base_layers, batch = 4, 2, 3000
    loss = SemanticLoss(CPU, CodesOnly(count, base_layers), None, style_mixing_prob=1)
    z = torch.randn(batch, 2)
    ws = loss.mix_styles(z, torch.zeros(batch, 0), True)
    from_a = (ws == z.unsqueeze(1)).all(dim=2)
    assert from_a[:, :base_layers].all(), "base codes come from A"

    own = from_a[:, base_layers:].unflatten(1, (count, 2))
    shape_a, texture_a = own.unbind(2)
    assert not (~shape_a & texture_a).any(), "the shape of B never comes with the texture of A"
    choices = 2 - shape_a.long() - texture_a.long()
    for k in range(count):
        shares = torch.bincount(choices[:, k], minlength=3) / batch
        assert (shares - 1 / 3).abs().max() < 0.04, f"region {k}: {shares.tolist()}"
        for other in range(k):
            joint = torch.bincount(choices[:, k] * 3 + choices[:, other], minlength=9) / batch
            assert (joint - 1 / 9).abs().max() < 0.03, f"regions {k} and {other} depend on each other"
    joint = torch.bincount(choices[1:, 0] * 3 + choices[:-1, 0], minlength=9) / batch
    assert (joint - 1 / 9).abs().max() < 0.03, "samples depend on each other"

    slots = ws[:, base_layers:]
    for n in range(50):
        donor = {tuple(code.tolist()) for code, a in zip(slots[n], own[n].flatten(), strict=True) if not a}
        assert len(donor) <= 1, "one latent B a sample"


@pytest.mark.parametrize(("probability", "expected"), [(None, 0.3), (0, 0), (1, 1)])
def test_probability_of_style_mixing_concerns_whole_batches(probability, expected):
    torch.manual_seed(0)
    chosen = {} if probability is None else {"style_mixing_prob": probability}
    loss = SemanticLoss(CPU, CodesOnly(5, 1), None, **chosen)
    z = torch.randn(8, 2)
    mixed = [not torch.equal(loss.mix_styles(z, torch.zeros(8, 0), True)[:, -1], z) for _ in range(500)]
    assert abs(sum(mixed) / 500 - expected) <= (0.08 if 0 < expected < 1 else 0)


@pytest.mark.parametrize("name", ["Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth"])
def test_a_phase_leaves_gradients_on_its_own_network_alone(G, D, name):
    trained, other = (G, D) if name[0] == "G" else (D, G)
    accumulate(build_loss(G, D), trained, name)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in trained.parameters())
    assert all(parameter.grad is None for parameter in other.parameters())


def test_discriminator_step_does_not_touch_a_generator_that_could_be_trained(G, D):
    G.requires_grad_(True)
    accumulate(build_loss(G, D), D, "Dboth")
    assert all(parameter.grad is None for parameter in G.parameters())


@pytest.mark.parametrize("phase", ["Gboth", "Dboth"])
def test_reduced_precision_runs(G, D, phase):
    trained = G if phase[0] == "G" else D
    found = accumulate(build_loss(G, D, precision="bf16"), trained, phase)
    assert all(torch.isfinite(grad).all() for grad in found.values() if grad is not None)
    assert any(grad is not None and grad.any() for grad in found.values())


@pytest.mark.parametrize(("names", "turned"), [(["skin", "hair"], [0, 1, 2]), (["left_eye", "right_eye"], [0, 2, 1])])
def test_left_and_right_change_places_where_augmentation_mirrors(names, turned):
    G = tiny_generator(names=["background", *names])
    seen = []

    def judged(images, c, mask):
        seen.append(mask)
        return images.mean(dim=(1, 2, 3)).unsqueeze(1)

    loss = SemanticLoss(CPU, G, judged, AugmentPipe(xflip=1))
    torch.manual_seed(0)
    samples = loss.real_samples({key: value.repeat(8, *[1] * (value.ndim - 1)) for key, value in reals().items()})
    loss.discriminate(samples, torch.zeros(8 * BATCH, 0))
    given = samples.extras["mask"]
    mirrored = given.flip(3)[:, turned]
    same, other = ((seen[0] == mask).flatten(1).all(1) for mask in (given, mirrored))
    assert bool((same ^ other).all())
    assert 8 < other.sum() < 24
