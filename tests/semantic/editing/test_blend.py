"""Blending: what stays, what changes, and that a flat change leaves no seam."""

import math

import numpy as np
import pytest
import torch

from semantic.editing.blend import FEATHER, MARGIN, Render, blend, canvas_placement, fill_by_label, side_effects
from semantic.placement import Placement

R = 32
REACH = R * (MARGIN + FEATHER)


def placed(size, scale, angle=0.0, corner=(20.0, 10.0)):
    a, b = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return Placement(photo="x.png", photo_size=size, resolution=R, matrix=((a, -b, corner[0]), (b, a, corner[1])))


def render(color, disc_color, radius=8.0, region=1) -> Render:
    """A disc of a region in the middle of a plain background."""
    axis = torch.arange(R) + 0.5 - R / 2
    disc = (axis[:, None] ** 2 + axis**2).sqrt() < radius
    colors = torch.tensor([color, disc_color]).T.reshape(3, 2, 1, 1)
    image = torch.where(disc, colors[:, 1], colors[:, 0])
    mask = torch.full([3, R, R], -1.0)
    mask[0], mask[region] = torch.where(disc, -1.0, 1.0), torch.where(disc, 1.0, -1.0)
    return Render(image, mask)


GREY, RED, BLUE = (0.0, 0.0, 0.0), (0.6, -0.4, -0.4), (-0.4, -0.4, 0.6)


def noise_photo(width, height):
    return np.random.default_rng(0).integers(60, 190, [height, width, 3], np.uint8)


def far_from_disc(placement, radius) -> np.ndarray:
    """Pixels of the photo that are further from the disc than the feather reaches, bool [H, W]."""
    width, height = placement.photo_size
    a, b = placement.matrix[0][0], placement.matrix[1][0]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    center = np.array(placement.matrix) @ [R / 2, R / 2, 1]
    distance = np.hypot(x - center[0], y - center[1]) / math.hypot(a, b)
    return distance > radius + REACH + 1.5


@pytest.mark.parametrize(("scale", "angle"), [(3.0, 0), (5.2, 30), (0.6, -10), (1.0, 0)])
def test_pixels_away_from_the_edited_region_stay_bit_for_bit(scale, angle):
    photo, placement = noise_photo(240, 200), placed((240, 200), scale, angle, corner=(60.0, 20.0))
    after = render((0.3, 0.3, 0.3), BLUE)  # the background changed as well, but was not edited
    found = blend(photo, placement, render(GREY, RED), after, [1])
    far = far_from_disc(placement, 8)
    assert (found[far] == photo[far]).all()
    assert (found[~far] != photo[~far]).any(axis=1).mean() > 0.5
    assert found.dtype == np.uint8


def test_what_lies_outside_the_crop_stays():
    photo, placement = noise_photo(100, 80), placed((100, 80), 1.5, corner=(30.0, 20.0))
    found = blend(photo, placement, render(GREY, RED, radius=99), render(GREY, BLUE, radius=99), [1])
    outside = np.ones([80, 100], bool)
    outside[20:68, 30:78] = False
    assert (found[outside] == photo[outside]).all()
    assert (found[40:48, 50:58] != photo[40:48, 50:58]).any()
    edge = np.abs(found[40, 30].astype(int) - photo[40, 30]).max()
    assert edge < 20  # fades towards the edge beyond which the photo goes on


def test_edges_of_the_crop_that_are_edges_of_the_photo_do_not_fade():
    photo, placement = np.full([96, 96, 3], 128, np.uint8), placed((96, 96), 3.0, corner=(0.0, 0.0))
    found = blend(photo, placement, render(GREY, GREY, radius=99), render(GREY, BLUE, radius=99), [1])
    assert np.ptp(found.reshape(-1, 3).astype(int), axis=0).max() <= 2


def test_nothing_edited_changes_nothing():
    photo, placement = noise_photo(100, 80), placed((100, 80), 1.5)
    same = render(GREY, RED)
    assert (blend(photo, placement, same, same, [1]) == photo).all()
    assert (blend(photo, placement, same, render(GREY, BLUE), []) == photo).all()
    assert (blend(photo, placement, same, render(GREY, BLUE), [2]) == photo).all()  # a region that is not there


@pytest.mark.parametrize("radius", [3.0, 8.0])
def test_detail_stays_under_a_strong_change_of_colour(radius):
    photo, placement = np.full([160, 160, 3], 128, np.uint8), placed((160, 160), 5.0, corner=(0.0, 0.0))
    photo[:, ::2] = 100
    found = blend(photo, placement, render(GREY, GREY, radius), render(GREY, (0.4, -0.4, -0.4), radius), [1])
    inside = found[76:84, 76:84].astype(int)
    assert np.abs(np.abs(inside[:, 1:] - inside[:, :-1]) - 28).max() <= 1


def test_an_edited_background_is_new_everywhere():
    photo, placement = np.full([160, 160, 3], 128, np.uint8), placed((160, 160), 5.0, corner=(0.0, 0.0))
    found = blend(photo, placement, render(GREY, RED, 8), render(BLUE, RED, 7), [0]).astype(int)
    ring = far_from_disc(placement, 8 - REACH) & ~far_from_disc(placement, 10 - REACH)
    assert (found[ring][:, 2] > 180).all()


def test_the_photos_own_detail_stays_under_a_change_of_colour():
    """The change of the render is added: stripes that the network never drew are still there."""
    width, height = 160, 160
    photo = np.full([height, width, 3], 128, np.uint8)
    photo[:, ::2] = 100
    placement = placed((width, height), 5.0, corner=(0.0, 0.0))
    found = blend(photo, placement, render(GREY, GREY), render(GREY, (0.2, 0.0, -0.2)), [1]).astype(int)
    inside = found[70:90, 70:90]
    change = inside - photo[70:90, 70:90]
    assert np.abs(change.reshape(-1, 3).mean(axis=0) - [25.5, 0, -25.5]).max() < 1
    assert np.abs(change - change.mean(axis=(0, 1))).max() <= 1


def test_where_a_region_leaves_the_photo_gets_what_is_around_it():
    """The network paints the background it uncovers in another grey; pixels around tell the difference."""
    size, placement = (160, 160), placed((160, 160), 5.0, corner=(0.0, 0.0))
    photo = np.full([160, 160, 3], 180, np.uint8)
    disc = ~far_from_disc(placement, 8 - REACH - 1.5)
    photo[disc] = (200, 60, 60)
    assert photo.shape[:2] == size[::-1]
    found = blend(photo, placement, render(GREY, RED, radius=8), render(GREY, RED, radius=4), [1]).astype(int)
    uncovered = disc & far_from_disc(placement, 5 - REACH - 1.5)
    ring = found[uncovered & ~far_from_disc(placement, 7 - REACH - 1.5)]
    assert np.abs(ring - 180).max() < 12


def with_patch(base: Render, color, box) -> Render:
    """The render with a rectangle in another colour. Its labels stay."""
    image = base.image.clone()
    image[:, box[0] : box[1], box[2] : box[3]] = torch.tensor(color)[:, None, None]
    return Render(image, base.mask)


BESIDE, APART = (14, 18, 23, 29), (1, 4, 1, 4)


def test_what_changes_beside_a_region_follows_the_edit():
    """The ends of the hair, which the network draws in another region, turn blue with the hair."""
    photo, placement = np.full([160, 160, 3], 128, np.uint8), placed((160, 160), 5.0, corner=(0.0, 0.0))
    before, after = render(GREY, RED), render(GREY, BLUE)
    for box in (BESIDE, APART):
        before, after = with_patch(before, RED, box), with_patch(after, (-0.4, 0.4, -0.4), box)
    photo[70:90, 115:145] = photo[5:20, 5:20] = (204, 77, 77)
    found = blend(photo, placement, before, after, [1]).astype(int)
    followed, kept = found[75:85, 130:140], found[:24, :24]
    assert (followed[..., 0] < 140).all()
    assert (kept == photo[:24, :24]).all()  # does not touch the region
    unmoved = blend(photo, placement, render(GREY, RED), render(GREY, BLUE), [1])
    assert (unmoved[75:85, 136:] == photo[75:85, 136:]).all()


def test_a_change_of_a_whole_region_is_no_side_effect():
    change = torch.full([3, R, R], 0.3)
    area = torch.zeros(R, R, dtype=torch.bool)
    area[12:20, 12:20] = True
    labels = area.long()
    assert not side_effects(change, area, labels, 1).any()
    change[:, 12:20, 20:24] = 1.5
    found = side_effects(change, area, labels, 1)
    assert found[15, 20:23].all()
    assert not found[:8].any()


def test_uncovered_background_continues_the_photo():
    """The network draws a haze where hair was. The photo's background is plain, and stays so."""
    photo, placement = np.full([160, 160, 3], 180, np.uint8), placed((160, 160), 5.0, corner=(0.0, 0.0))
    photo[~far_from_disc(placement, 8 - REACH - 1.5)] = (200, 60, 60)
    haze = with_patch(render(GREY, RED, radius=4), (0.3, 0.1, 0.1), (12, 20, 21, 25))
    found = blend(photo, placement, render(GREY, RED, radius=8), haze, [1]).astype(int)
    assert np.abs(found[70:90, 110:120] - 180).max() <= 2


def test_fill_keeps_to_labels():
    labels = torch.zeros(16, 16, dtype=torch.long)
    labels[:, 8:] = 1
    known = torch.ones(16, 16, dtype=torch.bool)
    known[4:12, 5:11] = False
    values = torch.where(labels == 0, 1.0, 5.0)[None]
    filled = fill_by_label(values, known, known, labels)
    assert torch.allclose(filled, values, atol=1e-5)
    left = labels == 0
    assert torch.equal(fill_by_label(values, left, left, labels)[0, :, 8:], torch.zeros(16, 8))  # nothing is known
    assert torch.allclose(fill_by_label(values, left, known, labels), values, atol=1e-5)  # less sure, but known


def test_the_canvas_is_as_fine_as_the_photo_within_limits():
    for scale, expected in ((0.5, R), (1, R), (3, 4 * R), (500, 8 * R)):
        placement = placed((4000, 3000), float(scale))
        canvas = canvas_placement(placement)
        assert canvas.resolution == expected
        assert torch.allclose(canvas.corners(), placement.corners())
