"""Place and area of regions: running means, gradients of the terms, and that they bring back regions that were lost."""

import pytest
import torch
import torch.nn.functional as F

from semantic.terms.prior import (
    CELLS,
    HALF_LIVES,
    LARGEST_LOG_RATIO,
    RegionMeans,
    mean_shares,
    mean_squares,
)
from tests.helpers import assert_close
from tests.semantic.helpers import (
    COUNT,
    CPU,
    accumulate,
    build_loss,
    check_gradients,
    judge,
    latents,
    plain_reals,
    random_tensor,
)

NONE = torch.zeros([])


def random_shares(count, seed):
    return random_tensor(count, CELLS, CELLS, seed=seed).softmax(dim=0)


def random_squares(count, seed):
    return random_tensor(count, seed=seed).square() + 0.1


def descend(depth, real, steps):
    """Move depths [N, K, CELLS, CELLS] along the term's gradient, in place; the prior at the end."""
    prior = RegionMeans(depth.shape[1], CPU)
    for _ in range(steps):
        prior.observe("real", real, NONE, 8)
        batch = mean_shares(depth.softmax(dim=1) * 2 - 1)
        prior.observe("generated", batch, NONE, 8)
        (gradient,) = torch.autograd.grad(prior.share_term(batch), depth)
        with torch.no_grad():
            depth -= 30 * gradient
    return prior


def filled(count=3):
    prior = RegionMeans(count, CPU)
    prior.observe("real", random_shares(count, 1), random_squares(count, 1), 8)
    prior.observe("generated", random_shares(count, 2), random_squares(count, 2), 8)
    return prior


@pytest.mark.parametrize("side", [8, 32])
def test_shares_are_those_of_cells(side):
    mask = random_tensor(2, 3, side, side)
    found, step = mean_shares(mask), side // CELLS
    for k in range(3):
        for row in range(CELLS):
            for column in range(CELLS):
                cell = mask[:, k, row * step : (row + 1) * step, column * step : (column + 1) * step]
                assert abs(found[k, row, column] - (cell.mean() + 1) / 2) < 1e-5


def test_means_are_plain_at_first_and_then_running():
    prior = RegionMeans(2, CPU)
    batches = [random_shares(2, seed) for seed in range(4)]
    for batch in batches:
        prior.observe("generated", batch, batch[:, 0, 0], 8)
    assert_close(prior.shares["generated"], torch.stack(batches).mean(dim=0), 1e-5)
    assert_close(prior.squares["generated"], prior.shares["generated"][:, 0, 0], 1e-5)
    assert prior.shares["real"].abs().max() == 0
    prior.images["generated"] += 1000
    for count in (HALF_LIVES["generated"], 8):
        before = prior.shares["generated"].clone()
        prior.observe("generated", batches[0], batches[0][:, 0, 0], count)
        kept = 0.5 ** (count / HALF_LIVES["generated"])
        assert_close(prior.shares["generated"], batches[0] + kept * (before - batches[0]), 1e-5)


def test_the_divergence_is_that_of_kullback_and_leibler():
    prior = filled()
    real, generated = prior.shares["real"], prior.shares["generated"]
    plain = sum(
        real[k, y, x] * torch.log(real[k, y, x] / generated[k, y, x])
        for k in range(3)
        for y in range(CELLS)
        for x in range(CELLS)
    )
    assert_close(prior.divergence(), plain / CELLS**2, 1e-4)


def test_the_gradient_is_that_of_the_divergence_at_the_mean():
    prior = filled()
    at = prior.shares["generated"].clone().requires_grad_()
    prior.shares["generated"] = at
    (plain,) = torch.autograd.grad(prior.divergence(), at)
    prior.shares["generated"] = at.detach()
    batch = random_shares(3, 5).requires_grad_()
    (actual,) = torch.autograd.grad(prior.share_term(batch), batch)
    assert_close(actual, plain, 1e-4)


def test_squares_are_those_of_the_areas_of_samples():
    mask = random_tensor(4, 3, 8, 8)
    plain = torch.stack([sum(((mask[n, k].mean() + 1) / 2) ** 2 for n in range(4)) / 4 for k in range(3)])
    assert_close(mean_squares(mask), plain, 1e-5)


def test_the_gradient_of_the_squares_is_that_of_their_ratio():
    prior = filled()
    real, at = prior.squares["real"], prior.squares["generated"].clone().requires_grad_()
    ratio = (at / real).log()
    prior.squares["generated"] = at.detach()
    assert (ratio.abs() < LARGEST_LOG_RATIO).any()
    assert_close(prior.log_square_ratio(), ratio.detach().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO), 1e-4)
    value = (prior.shares["real"].mean(dim=(1, 2)) * ratio.square() / 2).sum()
    (plain,) = torch.autograd.grad(value, at)
    batch = random_squares(3, 5).requires_grad_()
    (actual,) = torch.autograd.grad(prior.square_term(batch), batch)
    inside = ratio.abs() < LARGEST_LOG_RATIO
    assert_close(actual[inside], plain[inside], 1e-4)


def test_glasses_on_every_fourth_face_are_not_a_quarter_of_them_on_every_face():
    real = torch.full([8, 2, CELLS, CELLS], -1.0)
    real[::4, 1] = 0.6
    real[:, 0] = -real[:, 1]
    depth = (random_tensor(8, 1, 1, 1) * 0.1 - 1.4).repeat(1, 1, CELLS, CELLS).requires_grad_()
    prior = RegionMeans(2, CPU)
    for _ in range(3000):
        prior.observe("real", mean_shares(real), mean_squares(real), 8)
        mask = torch.cat([-depth, depth], dim=1).softmax(dim=1) * 2 - 1
        shares, squares = mean_shares(mask), mean_squares(mask)
        prior.observe("generated", shares, squares, 8)
        (gradient,) = torch.autograd.grad(prior.share_term(shares) + prior.square_term(squares), depth)
        with torch.no_grad():
            depth -= 3 * gradient
    areas = ((mask[:, 1].mean(dim=(1, 2)) + 1) / 2).sort().values
    assert abs(areas.mean() - 0.2) < 0.03
    assert areas.square().mean() / mean_squares(real)[1] > 0.8
    assert areas[0] < 0.1 < 0.5 < areas[-1]


def test_a_region_that_comes_back_at_once_pulls_within_bounds():
    prior = RegionMeans(2, CPU)
    prior.observe("real", torch.full([2, CELLS, CELLS], 0.5), NONE, 8)
    gone, back = (torch.full([2, CELLS, CELLS], value) for value in (0.0, 1.0))
    for _ in range(100):
        prior.observe("generated", gone, NONE, 8)
    prior.observe("generated", back, NONE, 8)
    (gradient,) = torch.autograd.grad(prior.share_term(back.requires_grad_()), back)
    bound = 0.5 / (1 - 0.5 ** (8 / HALF_LIVES["generated"]))
    assert gradient.abs().max() * CELLS**2 <= bound * 1.001


def test_a_region_behind_all_others_comes_back():
    real = random_shares(3, 1)
    depth = torch.zeros(2, 3, CELLS, CELLS)
    depth[:, 2] = -12
    depth.requires_grad_()
    assert descend(depth, real, steps=400).divergence() < 0.01


def prior_loss(G, D, **kwargs):
    return build_loss(G, D, style_mixing_prob=0, mask_weight=0, prior_weight=5, **kwargs)


def test_G_is_drawn_to_the_mean_of_real_masks(G, D, fixed_noise):
    loss = prior_loss(G, D)
    accumulate(loss, D, "Dmain")
    actual = accumulate(loss, G, "Gmain")
    G.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    real = mean_shares(plain_reals()[1])
    batch = mean_shares(out.coarse_mask)
    value = -(real / batch.detach() * batch).sum(dim=0).mean()
    theirs, ours = mean_squares(plain_reals()[1]), mean_squares(out.coarse_mask)
    ratio = (ours.detach() / theirs).log().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    value = value + (real.mean(dim=(1, 2)) * ratio / ours.detach() * ours).sum()
    logits = judge(loss, D, out.image, out.mask)
    check_gradients(actual, G, F.softplus(-logits).mean() + 5 * value)


def test_nothing_is_asked_of_the_first_step_of_G_which_comes_before_the_data(G, D):
    loss = prior_loss(G, D)
    shares = random_shares(COUNT, 3).requires_grad_()
    loss.terms["prior"].means.observe("generated", shares, random_squares(COUNT, 3), 8)
    (gradient,) = torch.autograd.grad(loss.terms["prior"].means.share_term(shares), shares)
    assert (gradient == 0).all()


def test_without_a_weight_there_is_no_term(G, D):
    assert build_loss(G, D).terms == {}


def test_means_go_on_with_the_run(G, D):
    loss, again = prior_loss(G, D), prior_loss(G, D)
    accumulate(loss, D, "Dmain")
    accumulate(loss, G, "Gmain")
    again.load_state_dict(loss.state_dict())
    running = loss.terms["prior"].running()
    assert all(tensor.any() for tensor in running)
    for one, other in zip(running, again.terms["prior"].running(), strict=True):
        assert torch.equal(one, other)
    assert all(any(tensor is kept for kept in loss.running()) for tensor in running)
