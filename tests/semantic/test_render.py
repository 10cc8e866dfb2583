"""Render network against plain convolutions, stage by stage."""

import math

import pytest
import torch
import torch.nn.functional as F

from dnnlib import UserError
from semantic.render import RenderConv, RenderHead, RenderNetwork, channel_table
from tests.helpers import assert_close
from tests.semantic.local.test_generators import plain_conv1x1, random_tensor, randomize
from tests.semantic.plain import plain_low_pass, plain_lrelu


def plain_upsample(x):
    """Twice the resolution: zeros between the pixels, then the low-pass at gain 4."""
    channels, height, width = x.shape
    spread = torch.zeros(channels, 2 * height, 2 * width, dtype=x.dtype)
    spread[:, ::2, ::2] = x
    return plain_low_pass(spread, 2, 1, gain=4)


def plain_render_conv(state, x, up, noise):
    weight, gain = state["weight"], state["gain"]
    kernels = []
    for kernel in weight / math.sqrt(weight[0].numel()):
        kernel = torch.stack([plane * g for plane, g in zip(kernel, gain, strict=True)])
        kernels.append(kernel / torch.sqrt((kernel**2).sum() + 1e-8))
    kernels = torch.stack(kernels)
    if up:
        y = F.conv_transpose2d(x[None], kernels.transpose(0, 1), stride=2)[0]
        y = plain_low_pass(y, 1, 1, gain=4)
    else:
        y = F.conv2d(x[None], kernels, padding=1)[0]
    if noise is not None:
        y = y + state["noise_strength"] * noise
    return plain_lrelu(y + state["bias"][:, None, None])


def plain_head(state, x):
    weight = state["weight"] * state["gain"] / math.sqrt(len(x))
    return plain_conv1x1(x, weight) + state["bias"][:, None, None]


def part(state, prefix):
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(prefix + ".")}


def plain_render(state, features, coarse_mask, resolution, min_feat_size, residual_refine, noise=True):
    """One sample at a time; the stored noise, or none. Returns image and mask."""
    images, masks = [], []
    coarse_size = features.shape[-1]
    for f, coarse in zip(features, coarse_mask, strict=True):
        x = F.avg_pool2d(f[None], coarse_size // min_feat_size)[0]
        image = mask = None
        size = min_feat_size
        while size < resolution:
            if size == coarse_size:
                x = torch.cat([x, f])
            size *= 2
            stage = part(state, f"b{size}")
            for name in ("up", "conv"):
                layer = part(stage, name)
                x = plain_render_conv(layer, x, name == "up", layer["noise_const"] if noise else None)
            rgb, seg = plain_head(part(stage, "to_rgb"), x), plain_head(part(stage, "to_seg"), x)
            image = rgb if image is None else plain_upsample(image) + rgb
            mask = seg if mask is None else plain_upsample(mask) + seg
            if residual_refine and size == coarse_size:
                mask = mask + coarse
        images.append(image)
        masks.append(mask)
    return torch.stack(images), torch.stack(masks)


WIDTHS = {4: 2, 8: 5, 16: 4, 32: 3, 64: 2}

CONFIGURATIONS = [
    {"num_regions": 2, "img_resolution": 32, "coarse_size": 16, "min_feat_size": 4},
    {"num_regions": 3, "img_resolution": 64, "coarse_size": 32, "min_feat_size": 8},
    {"num_regions": 13, "img_resolution": 64, "coarse_size": 16, "min_feat_size": 8},
    {"num_regions": 2, "img_resolution": 32, "coarse_size": 32, "min_feat_size": 8},
    {"num_regions": 2, "img_resolution": 32, "coarse_size": 8, "min_feat_size": 8},
]


def build(num_regions, img_resolution, coarse_size, min_feat_size, img_channels=3, residual_refine=True):
    render = RenderNetwork(
        num_regions, img_resolution, img_channels, 4, coarse_size, min_feat_size, WIDTHS, residual_refine
    )
    return randomize(render)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("residual_refine", [True, False])
def test_render_network_equals_plain_convolutions(configuration, residual_refine):
    render = build(**configuration, residual_refine=residual_refine)
    size, count = configuration["coarse_size"], configuration["num_regions"]
    features, coarse = random_tensor(2, 4, size, size), random_tensor(2, count, size, size, seed=2)
    for noise_mode in ("const", "none"):
        image, mask = render(features, coarse, noise_mode=noise_mode)
        plain_image, plain_mask = plain_render(
            render.state_dict(),
            features,
            coarse,
            configuration["img_resolution"],
            configuration["min_feat_size"],
            residual_refine,
            noise=noise_mode == "const",
        )
        assert_close(image, plain_image, 1e-10)
        assert_close(mask, plain_mask, 1e-10)


def test_single_precision_and_one_image_channel():
    render = build(**CONFIGURATIONS[0], img_channels=1)
    features, coarse = random_tensor(1, 4, 16, 16), random_tensor(1, 2, 16, 16)
    plain_image, plain_mask = plain_render(render.state_dict(), features, coarse, 32, 4, True)
    image, mask = render.float()(features.float(), coarse.float(), noise_mode="const")
    assert_close(image, plain_image, 1e-4)
    assert_close(mask, plain_mask, 1e-4)


def test_gradients_equal_those_of_plain_convolutions():
    render = build(**CONFIGURATIONS[0])
    features, coarse = random_tensor(1, 4, 16, 16).requires_grad_(), random_tensor(1, 2, 16, 16).requires_grad_()
    state = dict(render.named_buffers()) | dict(render.named_parameters())
    inputs = [features, coarse, *render.parameters()]
    outputs = render(features, coarse, noise_mode="const"), plain_render(state, features, coarse, 32, 4, True)
    actual, plain = (
        torch.autograd.grad((image * random_tensor(*image.shape)).sum() + mask.square().sum(), inputs)
        for image, mask in outputs
    )
    for one, other in zip(actual, plain, strict=True):
        assert_close(one, other, 1e-9)


@pytest.mark.parametrize("up", [1, 2])
def test_one_convolution(up):
    conv = randomize(RenderConv(5, 3, 8, up))
    x = random_tensor(2, 5, 8 // up, 8 // up)
    for noise_mode in ("const", "none"):
        y = conv(x, noise_mode)
        for n in range(2):
            noise = conv.noise_const if noise_mode == "const" else None
            assert_close(y[n], plain_render_conv(conv.state_dict(), x[n], up == 2, noise), 1e-10)


def test_random_noise_is_one_fresh_plane_a_sample():
    torch.manual_seed(0)
    conv = randomize(RenderConv(2, 3, 32))
    with torch.no_grad():
        conv.weight.zero_()
        conv.noise_strength.fill_(0.5)
        conv.bias.fill_(10)  # keeps the activation on its linear side
        first, second = (conv(torch.zeros(2, 2, 32, 32, dtype=torch.float64), "random") for _ in range(2))
    noise = (first / math.sqrt(2) - 10) / 0.5
    assert noise.mean().abs() < 0.1
    assert abs(noise.std() - 1) < 0.1
    assert_close(noise[:, 1], noise[:, 0], 1e-9)
    assert abs(torch.corrcoef(noise[:, 0].flatten(1))[0, 1]) < 0.2
    assert not torch.equal(first, second)


def test_noise_modes_of_the_network():
    render = build(**CONFIGURATIONS[0])
    features, coarse = (
        random_tensor(1, 4, 16, 16).expand(2, -1, -1, -1),
        random_tensor(1, 2, 16, 16).expand(2, -1, -1, -1),
    )
    for mode in ("const", "none"):
        first, second = (render(features, coarse, noise_mode=mode) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert_close(first[0][0], first[0][1], 1e-10)
    image, mask = render(features, coarse, noise_mode="random")
    assert (image[0] - image[1]).abs().max() > 1e-3, "samples of a batch share their noise"
    assert (mask[0] - mask[1]).abs().max() > 1e-3
    for conv in render.modules():
        if isinstance(conv, RenderConv):
            torch.nn.init.zeros_(conv.noise_strength)
    for mode in ("const", "random"):
        assert_close(
            render(features, coarse, noise_mode=mode)[0], render(features, coarse, noise_mode="none")[0], 1e-12
        )


def test_head():
    head = randomize(RenderHead(4, 3))
    x = random_tensor(2, 4, 5, 5)
    for n in range(2):
        assert_close(head(x)[n], plain_head(head.state_dict(), x[n]), 1e-12)


def test_initialisation():
    torch.manual_seed(0)
    render = RenderNetwork(3, 32, 3, 16, 16, 4, {8: 32, 16: 16, 32: 16})
    for name, parameter in render.named_parameters():
        leaf = name.rsplit(".", 1)[1]
        if leaf == "weight":
            assert abs(parameter.std() - 1) < 0.3, name
        else:
            assert (parameter == {"gain": 1, "bias": 0, "noise_strength": 0}[leaf]).all(), name
    for name, buffer in render.named_buffers():
        if name.endswith("noise_const"):
            assert buffer.shape == (int(name.split(".")[0][1:]),) * 2
            assert abs(buffer.std() - 1) < 0.4


def test_channel_table_of_the_paper():
    assert channel_table(1024) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


@pytest.mark.parametrize(
    "wrong",
    [
        {"img_resolution": 48},
        {"coarse_size": 12},
        {"coarse_size": 64},
        {"min_feat_size": 32},
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(wrong):
    with pytest.raises(UserError) as error:
        build(**CONFIGURATIONS[0] | wrong)
    assert "\n" not in str(error.value)
