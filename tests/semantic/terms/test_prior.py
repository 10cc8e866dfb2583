"""Place, area and outline of regions: running means, gradients of the terms, and that they bring back what has gone."""

import pytest
import torch
import torch.nn.functional as F

from semantic.terms.prior import (
    CELLS,
    FLOOR,
    HALF_LIVES,
    LARGEST_EXCESS,
    LARGEST_PULL,
    RegionPrior,
    mean_outlines,
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


def random_outlines(count, seed):
    return random_tensor(count, seed=seed + 10).square() + 0.1


def descend(depth, real, steps):
    """Move depths [N, K, CELLS, CELLS] along the term's gradient, in place; the prior at the end."""
    prior = RegionPrior(depth.shape[1], CPU)
    for _ in range(steps):
        prior.observe("real", real, NONE, NONE, 8)
        batch = mean_shares(depth.softmax(dim=1) * 2 - 1)
        prior.observe("generated", batch, NONE, NONE, 8)
        assert torch.equal(prior.excess(), prior.excess().clamp(0, LARGEST_EXCESS))
        (gradient,) = torch.autograd.grad(prior.term(batch), depth)
        with torch.no_grad():
            depth -= 30 * gradient
    return prior


def filled(count=3):
    prior = RegionPrior(count, CPU)
    prior.observe("real", random_shares(count, 1), random_squares(count, 1), random_outlines(count, 1), 8)
    prior.observe("generated", random_shares(count, 2), random_squares(count, 2), random_outlines(count, 2), 8)
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
    prior = RegionPrior(2, CPU)
    batches = [random_shares(2, seed) for seed in range(4)]
    for batch in batches:
        prior.observe("generated", batch, batch[:, 0, 0], batch[:, 1, 1], 8)
    assert_close(prior.means["generated"], torch.stack(batches).mean(dim=0), 1e-5)
    assert_close(prior.squares["generated"], prior.means["generated"][:, 0, 0], 1e-5)
    assert_close(prior.outlines["generated"], prior.means["generated"][:, 1, 1], 1e-5)
    assert prior.means["real"].abs().max() == 0
    prior.images["generated"] += 1000
    for count in (HALF_LIVES["generated"], 8):
        before = prior.means["generated"].clone()
        prior.observe("generated", batches[0], batches[0][:, 0, 0], batches[0][:, 1, 1], count)
        kept = 0.5 ** (count / HALF_LIVES["generated"])
        assert_close(prior.means["generated"], batches[0] + kept * (before - batches[0]), 1e-5)


def test_the_divergence_is_that_of_kullback_and_leibler():
    prior = filled()
    real, generated = prior.means["real"], prior.means["generated"]
    plain = sum(
        real[k, y, x] * torch.log(real[k, y, x] / generated[k, y, x])
        for k in range(3)
        for y in range(CELLS)
        for x in range(CELLS)
    )
    assert_close(prior.divergence(), plain / CELLS**2, 1e-4)


def test_the_gradient_is_that_of_divergence_and_excess_at_the_mean():
    prior = filled()
    real, at = prior.means["real"], prior.means["generated"].clone().requires_grad_()
    prior.means["generated"] = at
    chi_squared = (at - real).clamp(min=0).square() / (real + FLOOR) / 2
    (plain,) = torch.autograd.grad(prior.divergence() + chi_squared.sum() / CELLS**2, at)
    prior.means["generated"] = at.detach()
    inside = prior.excess() < LARGEST_EXCESS
    assert inside.float().mean() > 0.9
    batch = random_shares(3, 5).requires_grad_()
    (actual,) = torch.autograd.grad(prior.term(batch), batch)
    assert_close(actual[inside], plain[inside], 1e-4)


def test_pieces_where_the_data_have_none_go_away():
    real = torch.zeros(2, CELLS, CELLS)
    real[0] = 1
    real[:, 4, 4] = 0.5
    depth = torch.zeros(4, 2, CELLS, CELLS)
    depth[:, 1] = -6
    depth[:, 1, 4, 4] = 0
    depth[0, 1, 0, 0] = 6  # a piece in the corner of one sample
    depth.requires_grad_()
    descend(depth, real, steps=300)
    shares = depth.softmax(dim=1)[:, 1]
    assert shares[0, 0, 0] < 0.01
    assert abs(shares[:, 4, 4].mean() - 0.5) < 0.05


def test_squares_are_those_of_the_areas_of_samples():
    mask = random_tensor(4, 3, 8, 8)
    plain = torch.stack([sum(((mask[n, k].mean() + 1) / 2) ** 2 for n in range(4)) / 4 for k in range(3)])
    assert_close(mean_squares(mask), plain, 1e-5)


def test_the_gradient_of_the_squares_is_that_of_their_ratio():
    prior = filled()
    real, at = prior.squares["real"], prior.squares["generated"].clone().requires_grad_()
    ratio = (at / real).log()
    prior.squares["generated"] = at.detach()
    assert (ratio.abs() < LARGEST_PULL).any()
    assert_close(prior.pull(), ratio.detach().clamp(-LARGEST_PULL, LARGEST_PULL), 1e-4)
    value = (prior.means["real"].mean(dim=(1, 2)) * ratio.square() / 2).sum()
    (plain,) = torch.autograd.grad(value, at)
    batch = random_squares(3, 5).requires_grad_()
    (actual,) = torch.autograd.grad(prior.square_term(batch), batch)
    inside = ratio.abs() < LARGEST_PULL
    assert_close(actual[inside], plain[inside], 1e-4)


def test_glasses_on_every_fourth_face_are_not_a_quarter_of_them_on_every_face():
    real = torch.full([8, 2, CELLS, CELLS], -1.0)
    real[::4, 1] = 0.6
    real[:, 0] = -real[:, 1]
    depth = (random_tensor(8, 1, 1, 1) * 0.1 - 1.4).repeat(1, 1, CELLS, CELLS).requires_grad_()
    prior = RegionPrior(2, CPU)
    for _ in range(3000):
        prior.observe("real", mean_shares(real), mean_squares(real), NONE, 8)
        mask = torch.cat([-depth, depth], dim=1).softmax(dim=1) * 2 - 1
        shares, squares = mean_shares(mask), mean_squares(mask)
        prior.observe("generated", shares, squares, NONE, 8)
        (gradient,) = torch.autograd.grad(prior.term(shares) + prior.square_term(squares), depth)
        with torch.no_grad():
            depth -= 3 * gradient
    areas = ((mask[:, 1].mean(dim=(1, 2)) + 1) / 2).sort().values
    assert abs(areas.mean() - 0.2) < 0.03
    assert areas.square().mean() / mean_squares(real)[1] > 0.8
    assert areas[0] < 0.1 < 0.5 < areas[-1]


def test_outlines_are_counted_in_sides():
    mask = torch.full([2, 2, 16, 16], -1.0)
    mask[0, 1, 4:8, 2:12] = 1  # 4 by 10 pixels, so that 28 steps go around
    mask[:, 0] = -mask[:, 1]
    assert_close(mean_outlines(mask), torch.full([2], 28 / 16 / 2), 1e-6)
    soft = torch.tensor([-1, -0.6, 0.2, 1]).repeat(4, 1).expand(1, 1, 4, 4)
    assert_close(mean_outlines(soft), torch.ones(1), 1e-6)  # as long as a sharp edge through the picture


def test_the_gradient_of_the_outlines_is_that_of_their_ratio_where_they_are_too_long():
    prior = filled(8)
    real, at = prior.outlines["real"], prior.outlines["generated"].clone().requires_grad_()
    ratio = (at / real).log()
    prior.outlines["generated"] = at.detach()
    assert_close(prior.jags(), ratio.detach().clamp(0, LARGEST_PULL), 1e-4)
    (plain,) = torch.autograd.grad((real * ratio.square() / 2).sum(), at)
    batch = random_outlines(8, 5).requires_grad_()
    (actual,) = torch.autograd.grad(prior.outline_term(batch), batch)
    long, within = ratio > 0, ratio < LARGEST_PULL
    assert (long & within).any()
    assert (~long).any()
    assert_close(actual[long & within], plain[long & within], 1e-4)
    assert (actual[~long] == 0).all()


def settled(real, depth, weight):
    """Masks after descending along the term of shares and a weighted one of outlines, which may leave areas alone."""
    prior, depth = RegionPrior(2, CPU), depth.clone().requires_grad_()
    for _ in range(1000):
        prior.observe("real", mean_shares(real), NONE, mean_outlines(real), 8)
        mask = torch.cat([-depth, depth], dim=1).softmax(dim=1) * 2 - 1
        shares, outlines = mean_shares(mask), mean_outlines(mask)
        prior.observe("generated", shares, NONE, outlines, 8)
        (gradient,) = torch.autograd.grad(prior.term(shares) + weight * prior.outline_term(outlines), depth)
        with torch.no_grad():
            depth -= 3 * gradient
    return mask


def test_outlines_grow_no_longer_than_real_ones():
    real = torch.full([1, 2, 32, 32], -1.0)
    real[:, 1, 13:15, 8:24] = 1
    real[:, 0] = -real[:, 1]
    dots = torch.full([1, 1, 32, 32], -1.0)
    dots[:, :, 12:16:2, 8:24:2] = 1
    wanted = mean_outlines(real)[1]
    for weight, least, most in ((0, 1.4, 1.5), (1, 0.9, 1.05)):
        mask = settled(real, dots, weight)
        assert least < mean_outlines(mask)[1] / wanted < most
        assert abs(mask[:, 1].mean() - real[:, 1].mean()) < 0.01


def test_a_region_that_comes_back_at_once_pulls_within_bounds():
    prior = RegionPrior(2, CPU)
    prior.observe("real", torch.full([2, CELLS, CELLS], 0.5), NONE, NONE, 8)
    gone, back = (torch.full([2, CELLS, CELLS], value) for value in (0.0, 1.0))
    for _ in range(100):
        prior.observe("generated", gone, NONE, NONE, 8)
    prior.observe("generated", back, NONE, NONE, 8)
    (gradient,) = torch.autograd.grad(prior.term(back.requires_grad_()), back)
    bound = max(LARGEST_EXCESS, 0.5 / (1 - 0.5 ** (8 / HALF_LIVES["generated"])))
    assert gradient.abs().max() * CELLS**2 <= bound * 1.001


def test_a_region_behind_all_others_comes_back():
    real = random_shares(3, 1)
    depth = torch.zeros(2, 3, CELLS, CELLS)
    depth[:, 2] = -12
    depth.requires_grad_()
    assert descend(depth, real, steps=400).divergence() < 0.01


def prior_loss(G, D, **kwargs):
    weights = {"prior_weight": 5, "prior_outlines": 0.5, **kwargs}
    return build_loss(G, D, style_mixing_prob=0, mask_weight=0, **weights)


def test_G_is_drawn_to_the_mean_of_real_masks(G, D, fixed_noise):
    loss = prior_loss(G, D)
    accumulate(loss, D, "Dmain")
    actual = accumulate(loss, G, "Gmain")
    G.requires_grad_(True)
    out = G.synthesis(G.mapping(*latents()), noise_mode="random", return_mask=True)
    real = mean_shares(plain_reals()[1])
    batch = mean_shares(out.coarse_mask)
    too_much = ((batch.detach() - real) / (real + FLOOR)).clamp(0, LARGEST_EXCESS)
    pull = ((too_much - real / batch.detach()) * batch).sum(dim=0).mean()
    theirs, ours = mean_squares(plain_reals()[1]), mean_squares(out.coarse_mask)
    ratio = (ours.detach() / theirs).log().clamp(-LARGEST_PULL, LARGEST_PULL)
    pull = pull + (real.mean(dim=(1, 2)) * ratio / ours.detach() * ours).sum()
    size = out.coarse_mask.shape[-1]
    theirs = mean_outlines(F.adaptive_avg_pool2d(plain_reals()[1], size))
    ours = mean_outlines(out.coarse_mask)
    pull = pull + 0.5 * (theirs * (ours.detach() / theirs).log().clamp(0, LARGEST_PULL) / ours.detach() * ours).sum()
    logits = judge(loss, D, out.image, out.mask)
    check_gradients(actual, G, F.softplus(-logits).mean() + 5 * pull)


def test_nothing_is_asked_of_the_first_step_of_G_which_comes_before_the_data(G, D):
    loss = prior_loss(G, D)
    shares = random_shares(COUNT, 3).requires_grad_()
    loss.terms["prior"].prior.observe("generated", shares, random_squares(COUNT, 3), random_outlines(COUNT, 3), 8)
    (gradient,) = torch.autograd.grad(loss.terms["prior"].prior.term(shares), shares)
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
