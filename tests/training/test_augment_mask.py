import pytest
import torch

from tests.helpers import assert_close
from training.augment import AugmentPipe, augpipe_specs

SIZE = 64
# Four colours at equal distances: a blend of two is never nearest to a third.
PALETTE = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).float()
BLIT = ["xflip", "rotate90", "xint"]


def blobs(count, size=SIZE, regions=4):
    """Labels [N, H, W] of big smooth regions."""
    waves = torch.nn.functional.interpolate(
        torch.randn(count, regions, 5, 5), size=(size, size), mode="bicubic", align_corners=True
    )
    return waves.argmax(1)


def planes(labels, regions=4):
    return torch.nn.functional.one_hot(labels, regions).movedim(-1, 1).float() * 2 - 1


def paint(labels):
    return PALETTE[labels].movedim(-1, 1)


def nearest_colour(images):
    return (images[:, None] - PALETTE[None, :, :, None, None]).square().sum(2).argmin(1)


@pytest.mark.parametrize("group", [*BLIT, "scale", "rotate", "aniso", "xfrac", "bg"])
def test_mask_moves_with_the_image(group):
    torch.manual_seed(0)
    labels = blobs(16)
    pipe = AugmentPipe(**augpipe_specs.get(group, {group: 1}))
    images, mask = pipe(paint(labels), mask=planes(labels))
    agreement = (nearest_colour(images) == mask.argmax(1)).float().mean([1, 2])
    moved = (mask.argmax(1) != labels).flatten(1).any(1)
    assert moved.float().mean() > 0.2
    assert agreement.min() > 0.97
    if group in BLIT:
        assert agreement.min() == 1


@pytest.mark.parametrize("group", ["xflip", "bg"])
def test_left_and_right_change_places_in_mirrored_samples(group):
    """The same samples as without pairs, but for the planes of a pair where a sample is a mirror image."""
    labels = blobs(32)
    pipe = AugmentPipe(**augpipe_specs.get(group, {group: 1}))
    found = []
    for order in (None, [0, 3, 2, 1]):
        torch.manual_seed(0)
        found.append(pipe(paint(labels), mask=planes(labels), mirrored_planes=order))
    (images, plain), (same_images, swapped) = found
    assert torch.equal(images, same_images)
    kept = (swapped == plain).flatten(1).all(1)
    turned = (swapped == plain[:, [0, 3, 2, 1]]).flatten(1).all(1)
    assert torch.equal(turned, ~kept)
    assert 8 < turned.sum() < 24
    if group == "xflip":
        assert torch.equal(turned, (plain != planes(labels)).flatten(1).any(1))


@pytest.mark.parametrize(("percentile", "turned"), [(0.3, False), (0.7, True)])
def test_a_turn_is_no_mirror_image(percentile, turned):
    mask = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    options = dict(rotate90=1, rotate=1, scale=1, aniso=1, xfrac=1)
    for pipe, swaps in ((AugmentPipe(**options), False), (AugmentPipe(xflip=1, **options), turned)):
        images = torch.zeros(2, 3, SIZE, SIZE)
        plain, paired = (pipe(images, percentile, mask, order)[1] for order in (None, [1, 0, 2]))
        assert torch.equal(paired, plain[:, [1, 0, 2]] if swaps else plain)


@pytest.mark.parametrize("group", ["rotate", "scale", "aniso", "xfrac", "bg"])
def test_smooth_planes_move_as_smooth_images(group):
    torch.manual_seed(1)
    wave = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4), size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    images, mask = AugmentPipe(**augpipe_specs.get(group, {group: 1}))(wave, mask=wave)
    assert (images - mask).abs().mean() < 3e-3


@pytest.mark.parametrize("group", BLIT)
@pytest.mark.parametrize("percentile", [0.2, 0.4, 0.6, 0.9])
def test_blitting_copies_planes_exactly(group, percentile):
    torch.manual_seed(0)
    mask = torch.rand(2, 5, SIZE, SIZE) * 2 - 1
    _, moved = AugmentPipe(**{group: 1})(torch.zeros(2, 3, SIZE, SIZE), debug_percentile=percentile, mask=mask)
    if group == "xflip":
        expected = mask.flip(3) if percentile >= 0.5 else mask
    elif group == "rotate90":
        expected = mask.rot90(int(percentile * 4), dims=(2, 3))
    else:
        shift = round((2 * percentile - 1) * 0.125 * SIZE)
        border = torch.nn.functional.pad(mask, [abs(shift)] * 4, mode="reflect")
        expected = border.roll([shift, shift], dims=[2, 3])[:, :, abs(shift) : -abs(shift), abs(shift) : -abs(shift)]
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("size", [SIZE, 50])
@pytest.mark.parametrize("group", ["blit", "geom", "bg"])
def test_planes_keep_range_and_sum(group, size):
    torch.manual_seed(0)
    mask = planes(blobs(8, size, regions=6), regions=6)
    pipe = AugmentPipe(**augpipe_specs[group], scale_std=1.5, xfrac_std=0.5)
    _, mask = pipe(torch.zeros(8, 3, size, size), mask=mask)
    assert mask.min() >= -1 - 1e-5
    assert mask.max() <= 1 + 1e-5
    assert_close(mask.sum(1), torch.full([8, size, size], -4.0), 1e-5)


@pytest.mark.parametrize("name", ["color", "filter", "noise"])
def test_colour_leaves_the_mask_alone(name):
    mask = planes(blobs(4))
    images = torch.rand(4, 3, SIZE, SIZE)
    out_images, out_mask = AugmentPipe(**augpipe_specs[name])(images, mask=mask)
    assert torch.equal(out_mask, mask)
    assert not torch.allclose(out_images, images, atol=1e-2)


def test_cutout_cuts_image_and_mask_alike():
    torch.manual_seed(0)
    images, mask = AugmentPipe(cutout=1)(torch.ones(16, 3, SIZE, SIZE), mask=planes(blobs(16)))
    hole = images[:, 0] == 0
    assert hole.flatten(1).any(1).all()
    assert torch.equal(hole, (mask == 0).all(1))
    assert torch.equal(hole, (mask == 0).any(1))


def test_cutout_alone_keeps_the_rest():
    labels = blobs(4)
    images, mask = AugmentPipe(cutout=1)(paint(labels), mask=planes(labels))
    kept = (images != 0).all(1, keepdim=True)
    assert torch.equal(images, paint(labels) * kept)
    assert torch.equal(mask, planes(labels) * kept)


@pytest.mark.parametrize("name", ["bg", "bgcfnc"])
def test_mask_takes_no_random_numbers(name):
    pipe = AugmentPipe(**augpipe_specs[name])
    images, mask = torch.rand(4, 3, 32, 32), planes(blobs(4, 32))
    torch.manual_seed(5)
    alone, after_alone = pipe(images), torch.rand(1)
    torch.manual_seed(5)
    (joint, _), after_joint = pipe(images, mask=mask), torch.rand(1)
    assert torch.equal(alone, joint)
    assert torch.equal(after_alone, after_joint)


def test_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        AugmentPipe(xflip=1)(torch.rand(2, 3, 16, 16), mask=torch.rand(2, 4, 8, 8))
