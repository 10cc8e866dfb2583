import copy
import inspect

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dnnlib import UserError
from tests.helpers import assert_close, shared_file
from training.augment import AugmentPipe, augpipe_specs
from training.augment_filters import mirror_pad, mirrored, octave_bands, symlet
from training.augment_transforms import COLOR, GEOMETRY

GEOMETRIC = ["xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"]
COLOURS = ["brightness", "contrast", "lumaflip", "hue", "saturation"]
PUBLISHED_GROUPS = [*GEOMETRIC, *COLOURS, "imgfilter", "cutout", "bgc"]


def options(group):
    return augpipe_specs.get(group, {group: 1})


@pytest.mark.parametrize("group", PUBLISHED_GROUPS)
@pytest.mark.parametrize("percentile", ["0.3", "0.8"])
def test_agrees_with_published_values(group, percentile):
    data = np.load(shared_file("fixtures", "augment_small.npz"))
    augmented = AugmentPipe(**options(group))(torch.from_numpy(data["x"]), debug_percentile=float(percentile))
    assert_close(augmented, data[f"{group}@{percentile}"])


def test_constructor_defaults_are_published_ones():
    defaults = {name: p.default for name, p in inspect.signature(AugmentPipe).parameters.items()}
    strengths = {"xint_max": 0.125, "scale_std": 0.2, "rotate_max": 1, "aniso_std": 0.2, "xfrac_std": 0.125}
    strengths |= {"brightness_std": 0.2, "contrast_std": 0.5, "hue_max": 1, "saturation_std": 1, "imgfilter_std": 1}
    strengths |= {"noise_std": 0.1, "cutout_size": 0.5}
    bands = defaults.pop("imgfilter_bands")
    assert list(bands) == [1, 1, 1, 1]
    groups = [*GEOMETRIC, *COLOURS, "imgfilter", "noise", "cutout"]
    assert defaults == strengths | dict.fromkeys(groups, 0)


def test_named_pipes_grow_letter_by_letter():
    parts = {"b": "blit", "g": "geom", "c": "color", "f": "filter", "n": "noise"}
    for name in ["bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]:
        expected = {}
        for place, letter in enumerate(name):
            expected |= augpipe_specs["cutout" if place == 5 else parts[letter]]
        assert augpipe_specs[name] == expected
    assert set(augpipe_specs["bg"]) == set(GEOMETRIC)
    assert set(augpipe_specs["color"]) == set(COLOURS)
    assert {row.option for row in GEOMETRY} | {row.option for row in COLOR} == set(GEOMETRIC + COLOURS)


@pytest.mark.parametrize("moments", [2, 3, 6])
def test_symlet_is_orthogonal_and_smooth(moments):
    taps = symlet(moments)
    assert len(taps) == 2 * moments
    assert taps.sum() == pytest.approx(1)
    for shift in range(moments):
        overlap = sum(taps[i] * taps[i + 2 * shift] for i in range(len(taps) - 2 * shift))
        assert overlap == pytest.approx(0.5 if shift == 0 else 0, abs=1e-10)
    for power in range(moments):
        assert sum((-1) ** i * i**power * tap for i, tap in enumerate(taps)) == pytest.approx(0, abs=1e-6)


def test_sym6_delays_all_passed_frequencies_nearly_alike():
    w = np.linspace(0.05, np.pi / 2, 50)
    response = np.exp(-1j * np.outer(w, np.arange(12))) @ symlet(6)
    delay = -np.unwrap(np.angle(response)) / w
    assert np.abs(delay - 5).max() < 0.2


def test_octave_bands_add_up_and_keep_their_octaves():
    bands = octave_bands(symlet(2))
    assert bands.shape == (4, 43)
    np.testing.assert_allclose(bands.sum(0), np.eye(43)[21], atol=1e-12)
    np.testing.assert_allclose(bands, bands[:, ::-1], atol=1e-12)
    edges = [0, np.pi / 8, np.pi / 4, np.pi / 2, np.pi]
    for i in range(4):
        w = (edges[i] + edges[i + 1]) / 2
        gains = np.abs(bands @ np.exp(1j * w * np.arange(43)))
        assert gains.argmax() == i


def test_mirroring_matches_numpy_at_any_distance():
    for size in (1, 2, 5):
        expected = np.pad(np.arange(size), 13, mode="reflect")
        assert mirrored(torch.arange(-13, size + 13), size).tolist() == expected.tolist()
    image = torch.rand(2, 3, 4, 5)
    for sides in [(1, 2, 3, 0), (9, 4, 0, 11)]:
        left, right, top, bottom = sides
        expected = np.pad(image.numpy(), [(0, 0), (0, 0), (top, bottom), (left, right)], mode="reflect")
        np.testing.assert_array_equal(mirror_pad(image, *sides).numpy(), expected)


@pytest.mark.parametrize("name", ["bg", "color", "filter", "noise", "cutout", "bgcfnc"])
def test_nothing_happens_at_p_zero(name):
    pipe = AugmentPipe(**augpipe_specs[name])
    pipe.p.zero_()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    mask = torch.rand(3, 2, 16, 16) * 2 - 1
    out_images, out_mask = pipe(images, mask=mask)
    assert_close(out_images, images, 1e-6)
    assert torch.equal(out_mask, mask)


def test_pipe_without_groups_passes_images_through():
    images = torch.rand(2, 7, 9, 9)
    assert torch.equal(AugmentPipe()(images), images)


def test_same_seed_same_result():
    pipe = AugmentPipe(**augpipe_specs["bgcfnc"])
    images = torch.rand(4, 3, 16, 16)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(pipe(images))
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


def test_samples_of_a_batch_differ():
    pipe = AugmentPipe(**augpipe_specs["bgcfnc"])
    out = pipe(torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1))
    assert all(not torch.allclose(out[0], out[i], atol=1e-2) for i in range(1, 4))


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"xflip": 1}, 1 / 2),
        ({"rotate90": 1}, 3 / 4),
        # of a shift by round(4 u), u in (-1, 1), the share that moves in x or y
        ({"xint": 1, "xint_max": 0.5}, 1 - 1 / 8**2),
        ({"scale": 1, "scale_std": 2}, 1),
        ({"rotate": 1}, 1),
        ({"aniso": 1, "aniso_std": 2}, 1),
        ({"xfrac": 1, "xfrac_std": 2}, 1),
        ({"brightness": 1}, 1),
        ({"contrast": 1}, 1),
        ({"lumaflip": 1}, 1 / 2),
        ({"hue": 1}, 1),
        ({"saturation": 1}, 1),
        ({"imgfilter": 1, "imgfilter_bands": [0, 0, 1, 0]}, 1),
        ({"noise": 1}, 1),
        ({"cutout": 1}, 1),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize(("strength", "p"), [(1.0, 0.3), (0.5, 0.8)])
def test_happens_with_its_probability(settings, share, strength, p):
    torch.manual_seed(0)
    group = next(iter(settings))
    pipe = AugmentPipe(**settings | {group: strength})
    pipe.p.fill_(p)
    count = 1000
    images = torch.rand(1, 3, 8, 8).repeat(count, 1, 1, 1) * 2 - 1
    changed = (pipe(images) - images).abs().flatten(1).amax(1) > 2e-3
    expected = share * strength * p
    deviation = (expected * (1 - expected) / count) ** 0.5
    assert abs(changed.float().mean().item() - expected) < 4 * deviation + 0.015


def test_each_octave_is_drawn_by_itself():
    torch.manual_seed(0)
    pipe = AugmentPipe(imgfilter=1)
    pipe.p.fill_(0.2)
    images = torch.rand(1, 1, 8, 8).repeat(2000, 1, 1, 1)
    changed = (pipe(images) - images).abs().flatten(1).amax(1) > 1e-4
    assert changed.float().mean().item() == pytest.approx(1 - 0.8**4, abs=0.05)


@pytest.mark.parametrize(("band", "share"), [(0, 10 / 13), (3, 1 / 13)])
def test_image_filter_keeps_expected_power(band, share):
    torch.manual_seed(0)
    pipe = AugmentPipe(imgfilter=1, imgfilter_bands=[i == band for i in range(4)])
    sign = 1 - 2.0 * (torch.arange(32) % 2)
    flat_and_checkered = torch.stack([torch.ones(32, 32), sign[:, None] * sign])
    out = pipe(flat_and_checkered.repeat(20, 1, 1, 1)) / flat_and_checkered
    assert out.std([2, 3]).max() < 1e-3
    lowest, highest = out.mean([2, 3]).unbind(1)  # squared gains: the filter acts along both axes
    assert (lowest / highest).log2().std() > 0.5
    drawn, others = (lowest, highest) if band == 0 else (highest, lowest)
    assert_close(share * drawn + (1 - share) * others, torch.ones(20), 1e-3)


def test_order_of_transforms():
    images = torch.rand(1, 3, 16, 16)
    normal = torch.erfinv(torch.tensor(2 * 0.7 - 1))
    out = AugmentPipe(brightness=1, contrast=1)(images, debug_percentile=0.7)
    assert_close(out, (images + 0.2 * normal) * 2 ** (0.5 * normal), 1e-5)
    # A quarter turn clockwise (the third in the other direction), then one pixel right and down.
    mask = torch.rand(1, 2, 16, 16)
    _, out = AugmentPipe(rotate90=1, xint=1)(images, debug_percentile=0.76, mask=mask)
    assert torch.equal(out[:, :, 1:, 1:], mask.rot90(3, dims=(2, 3))[:, :, :-1, :-1])


def test_noise_strength_is_half_normal():
    torch.manual_seed(0)
    out = AugmentPipe(noise=1, noise_std=0.1)(torch.zeros(2000, 1, 8, 8))
    strength = out.flatten(1).std(1)
    assert strength.mean().item() == pytest.approx(0.1 * (2 / np.pi) ** 0.5, rel=0.06)
    assert strength.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.06)


def test_cutout_is_one_rectangle_of_half_the_size():
    torch.manual_seed(0)
    for image in AugmentPipe(cutout=1)(torch.ones(50, 3, 16, 16)):
        rows, columns = (image[0] == 0).any(1).nonzero()[:, 0], (image[0] == 0).any(0).nonzero()[:, 0]
        hole = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert not hole.any()
        assert (image == 0).sum() == hole.numel()
        for run in (rows, columns):
            touches = run[0] == 0 or run[-1] == 15
            assert len(run) <= 8
            assert len(run) >= (4 if touches else 8)


@pytest.mark.parametrize(
    ("settings", "percentile"),
    [({"scale": 1, "scale_std": 3}, 0.1), ({"rotate": 1}, 0.7), ({"aniso": 1, "aniso_std": 3}, 0.95)],
)
@pytest.mark.parametrize("size", [(12, 12), (9, 20), (3, 4)])
def test_reflection_goes_on_beyond_one_image(settings, percentile, size):
    height, width = size
    images = torch.rand(1, 3, height, width)
    pipe = AugmentPipe(**settings)
    margin = 160
    wide = np.pad(images.numpy(), [(0, 0), (0, 0), (margin, margin), (margin, margin)], mode="reflect")
    expected = pipe(torch.from_numpy(wide), debug_percentile=percentile)
    expected = expected[:, :, margin : margin + height, margin : margin + width]
    assert_close(pipe(images, debug_percentile=percentile), expected, 2e-4)


def test_shift_moves_by_whole_pixels():
    images = torch.rand(1, 3, 16, 16)
    out = AugmentPipe(xint=1)(images, debug_percentile=0.99)  # 2 pixels right and down
    assert_close(out[:, :, 2:, 2:], images[:, :, :-2, :-2], 1e-4)
    assert_close(out[:, :, 0, 2:], images[:, :, 2, :-2], 1e-4)


@pytest.mark.parametrize("group", COLOURS)
def test_grey_images_follow_grey_colours(group):
    grey = torch.rand(2, 1, 8, 8)
    pipe = AugmentPipe(**{group: 1})
    coloured = pipe(grey.repeat(1, 3, 1, 1), debug_percentile=0.8)
    assert_close(pipe(grey, debug_percentile=0.8), coloured.mean(1, keepdim=True), 1e-5)


def test_colour_needs_grey_or_rgb():
    with pytest.raises(UserError, match="1 or 3 channels"):
        AugmentPipe(hue=1)(torch.rand(1, 4, 8, 8))


@pytest.mark.parametrize("name", ["bg", "color", "filter", "cutout"])
def test_second_derivatives(name):
    pipe = AugmentPipe(**augpipe_specs[name])
    images = torch.rand(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)

    def augment(images, mask):
        images, mask = pipe(images, debug_percentile=0.7, mask=mask)
        return images.square().sum([1, 2, 3]), mask.square().sum([1, 2, 3])

    assert gradcheck(augment, (images, mask), fast_mode=True)
    assert gradgradcheck(augment, (images, mask), fast_mode=True)


def test_gradient_penalty_passes_through():
    torch.manual_seed(0)
    pipe = AugmentPipe(**augpipe_specs["bgcfnc"])
    critic = torch.nn.Conv2d(5, 1, 3)
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    mask = torch.rand(2, 2, 16, 16, requires_grad=True)
    score = critic(torch.cat(pipe(images, mask=mask), dim=1)).square().sum()
    gradients = torch.autograd.grad(score, [images, mask], create_graph=True)
    sum(gradient.square().sum() for gradient in gradients).backward()
    assert critic.weight.grad.isfinite().all()
    assert critic.weight.grad.abs().min() > 0


def test_state_is_the_published_one():
    pipe = AugmentPipe(**augpipe_specs["bgc"])
    shapes = {name: tuple(value.shape) for name, value in pipe.state_dict().items()}
    assert shapes == {"p": (), "Hz_geom": (12,), "Hz_fbank": (4, 43)}
    pipe.p.fill_(0.25)
    twin = copy.deepcopy(pipe)
    assert twin.p.item() == 0.25
    assert twin.init_kwargs == augpipe_specs["bgc"]
