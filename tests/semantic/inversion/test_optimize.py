"""Codes are found again, each photo for itself."""

import math

import pytest
import torch

from semantic.inversion.distance import Distance, Targets, mask_iou, mask_weights, psnr, pyramid_distance
from semantic.inversion.optimize import Schedule, Stage, free_slots, invert
from semantic.inversion.space import code_space
from tests.semantic.inversion.doll import REGIONS, Doll, codes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def doll():
    return Doll().requires_grad_(False)


@pytest.fixture(scope="module")
def space(doll):
    return code_space(doll, CPU, samples=2000)


def targets(doll, count=3):
    out = doll.synthesis(codes(count), return_mask=True)
    return Targets(out.image, out.mask.argmax(dim=1))


def search(doll, space, wanted, **options):
    start = torch.zeros(len(wanted), doll.num_ws, 4)
    return invert(doll, space, Distance(), wanted, start, Schedule(**options), hide_progress=True)


def test_whitened_codes_have_unit_variance_and_go_back(space):
    w = torch.randn(500, 4, generator=torch.Generator().manual_seed(3))
    white = space.whiten(w)
    assert white.std(dim=0).tolist() == pytest.approx([1] * 4, abs=0.12)
    assert torch.allclose(space.unwhiten(white), w, atol=1e-5)


def test_pictures_and_masks_of_known_codes_are_found_again(doll, space):
    wanted = targets(doll)
    found = search(doll, space, wanted, num_steps=80)
    out = doll.synthesis(found.ws, return_mask=True)
    assert psnr(out.image, wanted.images).min() > 32
    assert (out.mask.argmax(dim=1) == wanted.masks).float().mean() > 0.99


@pytest.mark.parametrize("fast", [False, True])
def test_only_the_first_steps_are_rough_and_only_where_that_is_fast(doll, space, monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast, raising=False)
    kinds, forward = [], doll.synthesis.forward

    def watched(ws, **options):
        kinds.append(torch.is_autocast_enabled("cpu"))
        return forward(ws, **options)

    monkeypatch.setattr(doll.synthesis, "forward", watched)
    found = search(doll, space, targets(doll, 2), num_steps=10, rough=0.6)
    assert kinds[1:] == [fast] * 6 + [False] * 4  # the first call made the targets
    assert found.ws.dtype == found.distance.dtype == torch.float32


def test_slots_stay_together_at_first(doll, space):
    found = search(doll, space, targets(doll, 2), num_steps=5, together=1, rough=0)
    assert torch.allclose(found.ws, found.ws[:, :1].expand_as(found.ws), atol=1e-5)
    assert found.ws.abs().max() > 0.01
    apart = search(doll, space, targets(doll, 2), num_steps=5, together=0, rough=0)
    assert (apart.ws - apart.ws[:, :1]).abs().max() > 0.01


def test_a_photo_gets_the_same_codes_alone_and_among_others(doll, space):
    wanted = targets(doll)
    together = search(doll, space, wanted, num_steps=15)
    alone = search(doll, space, wanted[1:2], num_steps=15)
    assert torch.allclose(together.ws[1:2], alone.ws, atol=1e-4)


def test_a_photo_that_is_found_already_leaves_the_batch_early(doll, space):
    wanted = targets(doll, 2)
    start = torch.stack([codes(2)[0], torch.zeros(doll.num_ws, 4)])
    schedule = Schedule(num_steps=60, patience=10, prior=0, spread=0)
    found = invert(doll, space, Distance(), wanted, start, schedule, hide_progress=True)
    assert found.steps[0] < 30 < found.steps[1]


def test_only_codes_of_regions_in_the_mask_are_free():
    masks = torch.zeros(1, 32, 32, dtype=torch.int64)
    masks[0, 4:9] = 1
    free = free_slots(REGIONS, masks, REGIONS.num_ws)[0]
    for k, there in enumerate([True, True, False, False]):
        assert [bool(free[slot]) for slot in REGIONS.slots(k).values()] == [there, there]
    assert all(free[slot] for slot in REGIONS.base_slots)


def test_the_way_is_recorded_for_a_video(doll, space):
    wanted = targets(doll, 2)
    start = torch.zeros(2, doll.num_ws, 4)
    found = invert(doll, space, Distance(), wanted, start, Schedule(num_steps=12), record_every=4, hide_progress=True)
    assert [x.shape for x in found.way] == [found.ws.shape] * 3


def test_the_learning_rate_rises_then_falls_to_zero():
    stage = Stage(num_steps=100, learning_rate=1, warmup=0.1, momentum=0.9, together=True)
    rates = [stage.rate(step) for step in range(100)]
    assert rates.index(max(rates)) in range(8, 12)
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


def test_codes_of_an_encoder_move_by_small_steps_at_once():
    (stage,) = Schedule(num_steps=20).stages(one_code=False)
    far, near = Schedule(num_steps=20).stages(one_code=True)
    assert not stage.together
    assert (stage.num_steps, far.num_steps + near.num_steps) == (20, 20)
    assert stage.learning_rate < far.learning_rate / 2
    assert Schedule(num_steps=5).stages(one_code=False)[0].learning_rate < stage.learning_rate


def test_photos_further_away_take_larger_steps(doll, space):
    wanted = targets(doll, 2)
    near, far = codes(2)[:1] + 0.01, -3 * codes(2)[1:]
    schedule = Schedule(num_steps=2, rough=0)
    found = invert(
        doll, space, Distance(), wanted, torch.cat([near, far]), schedule, record_every=1, hide_progress=True
    )
    first, second = (space.whiten(ws) for ws in found.way)
    steps = (second - first).abs().amax(dim=(1, 2))
    assert steps[1] > 1.3 * steps[0] > 0


def test_a_photo_without_progress_in_the_first_stage_goes_on_in_the_second(doll, space):
    wanted = targets(doll, 2)
    options = {"num_steps": 16, "together": 0.5, "rough": 0}
    found = search(doll, space, wanted, patience=3, far_rate=1e-6, **options)
    assert (found.steps > 10).all()
    assert (found.distance < search(doll, space, wanted, far_rate=1e-6, near_rate=1e-6, **options).distance).all()


def test_psnr_is_that_of_bytes():
    a, b = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 2 / 255)
    assert psnr(a, b).item() == pytest.approx(20 * math.log10(255), abs=1e-3)


def test_pixels_of_a_mask_weigh_one_over_the_root_of_their_regions_area():
    masks = torch.zeros(1, 10, 10, dtype=torch.int64)
    masks[0, 0, :4] = 1
    weights = mask_weights(masks)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[0, 0, 0] / weights[0, 9, 9]).item() == pytest.approx(math.sqrt(96 / 4), rel=1e-4)


def test_iou_counts_regions_that_either_mask_shows():
    a, b = torch.zeros(1, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4, dtype=torch.int64)
    a[0, :2] = 1
    b[0, :1] = 1
    assert mask_iou(a, b, 5).item() == pytest.approx((8 / 12 + 4 / 8) / 2)


def test_the_distance_of_equal_pictures_is_nothing():
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    distance = Distance()
    assert distance(x, None, distance.prepare(Targets(x))).abs().max() < 1e-4
    assert (pyramid_distance(x, -x) > 0.1).all()
