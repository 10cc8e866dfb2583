import math

import numpy as np
import pytest
import torch

from dnnlib import UserError
from semantic import masks
from semantic.editing import codes, latents, transforms
from semantic.editing.transforms import RegionTransform
from semantic.regions import Regions

REGIONS = Regions(["background", "hair", "nose"], transparent=["nose"])


def random_ws(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, REGIONS.num_ws, 5, generator=torch.Generator().manual_seed(seed))


def pixel_grid(size: int) -> torch.Tensor:
    axis = torch.linspace(-1, 1, size)
    return torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)])


def test_seeds_give_upstreams_z():
    z = latents.seed_latents([7, 0], 4)
    assert z.dtype == torch.float32
    assert np.allclose(z[0], np.random.RandomState(7).randn(1, 4)[0])
    assert latents.seed_latents([], 4).shape == (0, 4)


@pytest.mark.parametrize(("part", "taken"), [("shape", {4}), ("texture", {5}), ("both", {4, 5})])
def test_mixing_takes_only_the_slots_of_the_part(part, taken):
    ws, donor = random_ws(2), random_ws(1, seed=1)
    before = ws.clone()
    mixed = codes.mix_regions(ws, donor, REGIONS, ["hair"], part)
    for slot in range(REGIONS.num_ws):
        expected = donor[0, slot].expand(2, -1) if slot in taken else ws[:, slot]
        assert torch.equal(mixed[:, slot], expected)
    assert torch.equal(ws, before)


def test_a_whole_region_takes_all_codes_of_its_local_generator():
    layers = 4
    ws, donor = (torch.randn(n, layers * len(REGIONS), 5) for n in (2, 1))
    mixed = codes.mix_regions(ws, donor, REGIONS, ["hair", 0], "whole")
    for k in range(len(REGIONS)):
        own = slice(k * layers, (k + 1) * layers)
        taken = REGIONS.names[k] == "hair" or k == 0
        assert torch.equal(mixed[:, own], donor[:, own].expand(2, -1, -1) if taken else ws[:, own])
    with pytest.raises(UserError, match="Whole regions need expanded latents"):
        codes.mix_regions(random_ws(1), random_ws(1), REGIONS, ["hair"], "whole")


def test_one_source_meets_many_donors():
    mixed = codes.mix_regions(random_ws(1), random_ws(3, seed=1), REGIONS, [0])
    assert torch.equal(mixed[:, 2:4], random_ws(3, seed=1)[:, 2:4])
    assert torch.equal(mixed[:, 4:], random_ws(1)[:, 4:].expand(3, -1, -1))


def test_unfit_latents_and_parts_are_refused():
    with pytest.raises(UserError, match=r"W\+ latents"):
        codes.mix_regions(torch.zeros(1, 30, 5), random_ws(1), REGIONS, [1])
    with pytest.raises(UserError, match="no part 'color'"):
        codes.mix_regions(random_ws(1), random_ws(1), REGIONS, [1], "color")
    with pytest.raises(UserError, match="Unknown region 'tail'"):
        codes.mix_regions(random_ws(1), random_ws(1), REGIONS, ["tail"])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_loop_passes_its_keys(count):
    keys = random_ws(count)
    path = codes.loop_codes(keys, 4 * count)
    assert path.shape == (4 * count, *keys.shape[1:])
    assert torch.allclose(path[::4], keys, atol=1e-5)


def test_loop_is_closed_and_smooth():
    keys = random_ws(4)
    path = codes.loop_codes(keys, 400)
    step = torch.cat([path, path[:2]]).diff(dim=0)
    largest = step.norm(dim=(1, 2)).max()
    assert step.diff(dim=0).norm(dim=(1, 2)).max() < 0.05 * largest  # no jump and no corner, the seam included


def test_region_loop_starts_from_the_image_and_moves_one_region():
    ws = random_ws(2)
    path = codes.loop_regions(ws, random_ws(3, seed=1), REGIONS, ["nose"], frames=8)
    assert path.shape == (8, *ws.shape)
    assert torch.allclose(path[0], ws, atol=1e-6)
    assert torch.allclose(path[:, :, :6], ws[:, :6].expand(8, -1, -1, -1), atol=1e-6)
    assert torch.allclose(path[2, :, 6:], random_ws(3, seed=1)[0, 6:].expand(2, -1, -1), atol=1e-5)


def test_build_up_adds_regions_in_order():
    assert codes.build_up([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 1]]


def test_transform_is_read():
    region, change = transforms.parse_transform("hair: dx=0.1, dy=-.2,scale=1.2,rotate=10", REGIONS)
    assert (region, change) == (1, RegionTransform(0.1, -0.2, 1.2, 10))
    assert transforms.parse_transform("nose:rotate=-5", REGIONS) == (2, RegionTransform(rotate=-5))
    assert str(change) == "dx 0.1, dy -0.2, scale 1.2, rotate 10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tail:dx=1", "Unknown region 'tail'"),
        ("hair:dz=1", "unknown setting 'dz'"),
        ("hair:dx=far", "must be a number"),
        ("hair", "changes nothing"),
        ("hair:scale=0", "scale above 0"),
        ("hair:dx=nan", "finite"),
    ],
)
def test_wrong_transforms_are_one_line(text, message):
    with pytest.raises(UserError, match=message):
        transforms.parse_transform(text, REGIONS)


def test_a_region_is_transformed_once():
    with pytest.raises(UserError, match="name hair"):
        transforms.parse_transforms(["hair:dx=1", "hair:dy=1"], REGIONS)


def test_others_keep_the_pixel_grid():
    grid = pixel_grid(9)
    coords = transforms.region_grid(REGIONS, grid, {"hair": RegionTransform(dx=0.5)})
    assert coords.shape == (3, 2, 9, 9)
    assert torch.equal(coords[0], grid)
    assert torch.equal(coords[2], grid)
    assert not torch.equal(coords[1], grid)


@pytest.mark.parametrize("center", [None, (0.2, -0.3)])
def test_points_of_the_region_appear_where_the_transform_puts_them(center):
    """Forward oracle: a point of the region is turned and scaled as drawn on paper, then moved; there its spot is."""
    change = RegionTransform(dx=0.1, dy=0.2, scale=1.4, rotate=30)
    c = complex(0, 0) if center is None else complex(center[0], -center[1])  # paper: imaginary part is upwards
    point = complex(0.3, 0.1)
    turned = (point - c) * 1.4 * np.exp(1j * math.radians(30)) + c + complex(0.1, -0.2)

    grid = pixel_grid(401)
    centers = None if center is None else torch.tensor([[0.0, 0.0], center, [0.0, 0.0]])
    coords = transforms.region_grid(REGIONS, grid, {1: change}, centers)[1]
    distance = (coords - torch.tensor([point.real, -point.imag]).view(2, 1, 1)).norm(dim=0)
    row, column = divmod(distance.argmin().item(), 401)
    assert grid[0, row, column].item() == pytest.approx(turned.real, abs=0.005)
    assert -grid[1, row, column].item() == pytest.approx(turned.imag, abs=0.005)


def test_centers_can_differ_by_sample():
    grid = pixel_grid(8)
    centers = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    changes = {"hair": RegionTransform(scale=2, rotate=45)}
    coords = transforms.region_grid(REGIONS, grid, changes, centers)
    assert coords.shape == (2, 3, 2, 8, 8)
    for i in range(2):
        assert torch.allclose(coords[i], transforms.region_grid(REGIONS, grid, changes, centers[i]))


def test_centers_of_regions():
    grid = pixel_grid(5)
    mask = torch.full([1, 3, 5, 5], -1.0)
    mask[0, 1, 1, 4] = 1  # second row, last column
    mask[0, 2, 3:5, 0] = 1
    centers = masks.region_centers(mask, grid)
    assert torch.allclose(centers[0], torch.tensor([[0.0, 0.0], [1.0, -0.5], [-1.0, 0.75]]))
