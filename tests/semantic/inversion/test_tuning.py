"""Tuning brings one photo nearer, holds the rest, and is saved as a difference."""

import copy

import numpy as np
import pytest
import torch

from dnnlib import UserError
from semantic.inversion.distance import Distance, Targets
from semantic.inversion.space import CodeSpace
from semantic.inversion.tuning import (
    NearbyEdit,
    TuningSchedule,
    early_parameters,
    hold_shapes,
    nearby_codes,
    save_tuned,
    tune,
)
from semantic.tuned import apply_tuned
from tests.semantic.helpers import COUNT

SPACE = CodeSpace(torch.zeros(5), torch.eye(5), torch.ones(5))


def tuned(G, **options):
    pivot = G.eval().mapping(torch.ones(1, 4), None)
    out = G.synthesis(pivot, noise_mode="const", return_mask=True)
    target = Targets((out.image * 0.8 + 0.1).clamp(-1, 1), out.mask.argmax(dim=1))
    schedule = TuningSchedule(**{"num_steps": 12, "samples": 3, "learning_rate": 3e-3} | options)
    return tune(G, SPACE, Distance(), target, pivot, schedule, hide_progress=True), pivot, target


def away(G, ws, target):
    distance = Distance()
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    return distance(out.image, out.mask, distance.prepare(target)).item()


def test_the_photo_comes_nearer_and_the_network_itself_stays(G):
    before = copy.deepcopy(G.state_dict())
    network, pivot, target = tuned(G)
    assert away(network, pivot, target) < away(G, pivot, target)
    assert all(torch.equal(G.state_dict()[name], value) for name, value in before.items())


def test_texture_and_rendering_are_tuned_before_shapes(G):
    early = {name for name, _ in early_parameters(G.synthesis)}
    assert {"local.weight", "local.feature_weight", "render.b32.conv.weight"} <= early
    assert not early & {"local.depth_weight", "local.position.weight"}
    held = G.synthesis.local.depth_layers
    G.synthesis.local.weight.grad = torch.ones_like(G.synthesis.local.weight)
    hold_shapes(G.synthesis)
    gradient = G.synthesis.local.weight.grad
    assert not gradient[:held].any()
    assert gradient[held:].all()


def test_codes_nearby_change_one_region_of_the_photo_or_all(G):
    pivot = G.mapping(torch.ones(1, 4), None)
    mask = torch.full([1, COUNT, 8, 8], -1.0)
    mask[:, 0], mask[:, 2, :4] = 0, 1  # the other regions are not in the picture
    codes, regions, shares = zip(*nearby_codes(G, pivot, mask, TuningSchedule(samples=12), seed=0), strict=True)
    assert all(code.shape == pivot.shape for code in codes)
    assert all(0.1 <= share <= 1 for share in shares)
    assert regions == (0, 2, 0, 2, 0, None, 2, 0, 2, 0, 2, None)
    for region, code in zip(regions, codes, strict=True):
        if region is not None:
            slots = (code != pivot)[0].any(dim=1).nonzero().flatten().tolist()
            assert slots == sorted(G.regions.slots(region).values())


def make_edit(kept):
    """An edit of 4 by 4 pixels. Its region has all pixels whose details are not all kept."""
    return NearbyEdit(
        ws=torch.zeros(1, 5, 5),
        region=1,
        image=torch.ones(1, 3, 4, 4),
        mask=torch.ones(1, COUNT, 4, 4),
        inside=kept < 1,
        kept=kept,
        size=torch.tensor(0.0),
    )


def test_an_edit_leaves_the_photo_around_its_region():
    kept = torch.full([1, 1, 4, 4], 0.5)
    kept[..., :2] = 1
    untuned = torch.zeros(1, 3, 4, 4), torch.zeros(1, COUNT, 4, 4)
    tuned = torch.full((2, 3, 4, 4), 0.5), torch.full((2, COUNT, 4, 4), 0.25)
    image, mask = make_edit(kept).wanted(*tuned, untuned)
    assert (image[..., :2] == 1.5).all()
    assert (image[..., 2:] == 1.25).all()
    assert (mask[..., :2] == 1.25).all()
    assert (mask[..., 2:] == 1.125).all()


def test_the_leak_of_an_edit_is_the_share_of_its_change_outside_its_region():
    kept = torch.ones(1, 1, 4, 4)
    kept[..., 3] = 0
    before, after = torch.zeros(2, 3, 4, 4)
    after[..., 3], after[:, 0, 0] = 0.6, 0.2  # 12 values inside, 3 outside
    assert make_edit(kept).leak(torch.stack([before, after])).item() == pytest.approx(0.6 / 7.8)


def test_what_is_saved_gives_the_tuned_network_back(G, tmp_path):
    network, pivot, _ = tuned(G)
    save_tuned(tmp_path / "tuned.npz", G, network)
    again = copy.deepcopy(G)
    apply_tuned(again, tmp_path / "tuned.npz")
    first, second = (x.synthesis(pivot, noise_mode="const") for x in (network, again))
    assert torch.allclose(first, second, atol=1e-4 * first.abs().max().item())
    with np.load(tmp_path / "tuned.npz") as arrays:
        assert all(arrays[name].any() for name in arrays.files if name != "network")


def test_another_network_and_damaged_files_are_refused_in_one_line(G, tmp_path):
    path = tmp_path / "tuned.npz"
    save_tuned(path, G, tuned(G, num_steps=1)[0])
    other = copy.deepcopy(G)
    other.synthesis.render.b32.conv.bias.data += 1
    with pytest.raises(UserError, match="tuned for another network"):
        apply_tuned(other, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"Expected the tuned\.npz"):
        apply_tuned(G, path)
