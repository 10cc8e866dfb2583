"""Batched local generators against loops over samples, regions and layers."""

import math

import pytest
import torch
import torch.nn.functional as F

from semantic.local.generators import FourierFeatures, LocalGenerators, pixel_grid
from semantic.regions import Regions
from tests.helpers import assert_close
from tests.semantic.helpers import region_names
from tests.semantic.plain import plain_lrelu
from tests.semantic.test_regions import plain_slot


def randomize(module, seed=0):
    """Random values for every parameter, so that no bias is 0 and no gain is 1; float64."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def random_tensor(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_features(coords, img_resolution):
    """Fourier features of one grid, [2, H, W] -> [2 (2 log2(R) + 1), H, W]."""
    x, y = coords
    rows = [x, y]
    for exponent in range(round(math.log2(img_resolution))):
        f = 2**exponent
        rows += [torch.sin(f * x), torch.sin(f * y), torch.cos(f * x), torch.cos(f * y)]
    return torch.stack(rows)


def plain_expand(ws, count, layers, base_layers, depth_layers):
    codes = [
        torch.stack(
            [sample[plain_slot(k, layer, base_layers, depth_layers)] for k in range(count) for layer in range(layers)]
        )
        for sample in ws
    ]
    return torch.stack(codes)


def plain_conv1x1(x, weight):
    return F.conv2d(x[None], weight[:, :, None, None])[0]


def plain_local(state, expanded, coords, img_resolution, depth_layers, detach_texture=False):
    """One sample, region and layer at a time.

    Returns hidden maps [N, K, C, H, W], features [N, K, F, H, W] and depths [N, K, H, W].
    """
    layers, count, channels, _ = state["weight"].shape
    hidden, features, depths = [], [], []
    for n in range(len(expanded)):
        for k in range(count):
            grid = coords if coords.ndim == 3 else coords[k] if coords.ndim == 4 else coords[n][k]
            inputs = plain_features(grid, img_resolution)
            x = plain_conv1x1(inputs, state["position.weight"] / math.sqrt(len(inputs)))
            for layer in range(layers):
                if layer == depth_layers and detach_texture:
                    x = x.detach()
                w = expanded[n][k * layers + layer]
                affine = state["affine_weight"][layer][k] / math.sqrt(len(w))
                style = F.linear(w[None], affine, state["affine_bias"][layer][k])[0]
                weight = state["weight"][layer][k] / math.sqrt(channels)
                rows = []
                for row in weight:
                    row = row * style
                    rows.append(row / torch.sqrt(torch.sum(row**2) + 1e-8))
                x = plain_conv1x1(x, torch.stack(rows)) + state["bias"][layer][k][:, None, None]
                x = plain_lrelu(x)
                if layer == depth_layers - 1:
                    if k == 0:
                        depth = torch.zeros_like(x[0])
                    else:
                        head = state["depth_weight"][k - 1] * state["depth_gain"][k - 1] / math.sqrt(channels)
                        depth = plain_conv1x1(x, head[None])[0] + state["depth_bias"][k - 1]
            head = state["feature_weight"][k] * state["feature_gain"][k] / math.sqrt(channels)
            features.append(plain_conv1x1(x, head) + state["feature_bias"][k][:, None, None])
            hidden.append(x)
            depths.append(depth)
    size = depths[0].shape

    def batch(maps):
        return torch.stack(maps).reshape(len(expanded), count, -1, *size)

    return batch(hidden), batch(features), batch(depths).squeeze(2)


def build(count=3, layers=4, base_layers=1, depth_layers=2, resolution=32, channels=5, out=6, w_dim=4, detach=False):
    regions = Regions(region_names(count), base_layers=base_layers)
    local = LocalGenerators(regions, w_dim, resolution, channels, out, layers, depth_layers, detach_texture=detach)
    return randomize(local)


CONFIGURATIONS = [
    {"count": 2, "layers": 2, "base_layers": 1, "depth_layers": 1},
    {"count": 3, "layers": 4, "base_layers": 0, "depth_layers": 2},
    {"count": 3, "layers": 3, "base_layers": 1, "depth_layers": 3, "resolution": 64},
    {"count": 2, "layers": 4, "base_layers": 2, "depth_layers": 2, "channels": 1},
    {"count": 13, "layers": 10, "base_layers": 2, "depth_layers": 6, "out": 3},
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_local_generators_equal_a_loop(configuration):
    local = build(**configuration)
    c = {"layers": 4, "base_layers": 1, "depth_layers": 2, "resolution": 32} | configuration
    count, depth_layers = c["count"], c["depth_layers"]
    ws = random_tensor(2, c["base_layers"] + 2 * count, 4)
    expanded = local.expand(ws)
    assert torch.equal(expanded, plain_expand(ws, count, c["layers"], c["base_layers"], depth_layers))
    assert expanded.shape == (2, local.num_expanded, 4)

    grid = pixel_grid(4).double()
    for coords in (grid, random_tensor(count, 2, 3, 4, seed=2), random_tensor(2, count, 2, 3, 4, seed=3)):
        hidden, depth = local(expanded, coords)
        plain_hidden, _, plain_depth = plain_local(local.state_dict(), expanded, coords, c["resolution"], depth_layers)
        assert_close(hidden, plain_hidden.flatten(3), 1e-10)
        assert_close(depth, plain_depth.flatten(2), 1e-10)


def test_every_layer_of_every_region_has_its_own_code():
    local = build(count=2, layers=3, base_layers=1, depth_layers=2)
    expanded = random_tensor(2, 2 * 3, 4)
    hidden, depth = local(expanded, pixel_grid(4).double())
    plain_hidden, _, plain_depth = plain_local(local.state_dict(), expanded, pixel_grid(4).double(), 32, 2)
    assert_close(hidden, plain_hidden.flatten(3), 1e-10)
    assert_close(depth, plain_depth.flatten(2), 1e-10)


def test_single_precision_agrees():
    local = build(count=13, layers=10, base_layers=2, depth_layers=6)
    expanded = random_tensor(1, 130, 4)
    grid = pixel_grid(4).double()
    plain_hidden, _, plain_depth = plain_local(local.state_dict(), expanded, grid, 32, 6)
    hidden, depth = local.float()(expanded.float(), grid.float())
    assert_close(hidden, plain_hidden.flatten(3), 1e-4)
    assert_close(depth, plain_depth.flatten(2), 1e-4)


def test_gradients_equal_those_of_the_loop():
    local = build()
    grid = pixel_grid(4).double()
    expanded = random_tensor(2, local.num_expanded, 4).requires_grad_()
    hidden, depth = local(expanded, grid)
    plain_hidden, _, plain_depth = plain_local(dict(local.named_parameters()), expanded, grid, 32, 2)
    heads = {"feature_weight", "feature_gain", "feature_bias"}
    inputs = [expanded, *(p for name, p in local.named_parameters() if name not in heads)]
    by_hidden, by_depth = random_tensor(*hidden.shape, seed=4), random_tensor(*depth.shape, seed=5)
    actual = torch.autograd.grad((hidden * by_hidden).sum() + (depth * by_depth).sum(), inputs)
    plain_loss = (plain_hidden.flatten(3) * by_hidden).sum() + (plain_depth.flatten(2) * by_depth).sum()
    for one, other in zip(actual, torch.autograd.grad(plain_loss, inputs), strict=True):
        assert_close(one, other, 1e-9)


@pytest.mark.parametrize("detach", [False, True])
def test_detached_texture_stops_gradients_before_the_shape_layers(detach):
    layers, depth_layers = 4, 2
    local = build(count=2, layers=layers, depth_layers=depth_layers, detach=detach)
    expanded = random_tensor(1, local.num_expanded, 4).requires_grad_()
    coords = pixel_grid(4).double().requires_grad_()
    hidden, depth = local(expanded, coords)

    by_texture = torch.autograd.grad(
        hidden.square().sum(),
        [expanded, local.weight, local.bias, local.affine_weight, coords, local.position.weight],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    to_codes = by_texture[0].reshape(2, layers, 4)
    assert (to_codes[:, depth_layers:] != 0).any(dim=-1).all()
    assert (to_codes[:, :depth_layers] != 0).any().item() is not detach
    for gradient in by_texture[1:4]:
        assert (gradient[depth_layers:] != 0).any()
        assert (gradient[:depth_layers] != 0).any().item() is not detach
    for gradient in by_texture[4:]:
        assert (gradient != 0).any().item() is not detach

    by_depth = torch.autograd.grad(depth.square().sum(), [expanded, local.weight, coords])
    to_codes = by_depth[0].reshape(2, layers, 4)
    assert (to_codes[1, :depth_layers] != 0).any(dim=-1).all()
    assert (to_codes[:, depth_layers:] == 0).all()
    assert (to_codes[0] == 0).all(), "the depth of the background is no function of its codes"
    assert (by_depth[2] != 0).any()


def test_values_do_not_depend_on_detaching():
    expanded = random_tensor(1, 3 * 4, 4)
    one, other = (build(detach=detach)(expanded, pixel_grid(4).double()) for detach in (False, True))
    assert_close(one[0], other[0], 1e-12)
    assert_close(one[1], other[1], 1e-12)


def test_background_has_depth_zero():
    _, depth = build()(random_tensor(2, 12, 4), pixel_grid(4).double())
    assert (depth[:, 0] == 0).all()
    assert (depth[:, 1:] != 0).all()


@pytest.mark.parametrize("resolution", [32, 64, 512])
def test_fourier_features_in_order(resolution):
    features = FourierFeatures(3, resolution).double()
    count = 2 * (2 * round(math.log2(resolution)) + 1)
    assert features.weight.shape == (3, count)
    coords = random_tensor(2, 3, 5)
    for channel in range(count):
        with torch.no_grad():
            features.weight.zero_()
            features.weight[0, channel] = math.sqrt(count)
        assert_close(features(coords)[0], plain_features(coords, resolution)[channel].flatten(), 1e-10)
    randomize(features)
    many = random_tensor(2, 3, 2, 4, 5)
    for n in range(2):
        for k in range(3):
            plain = plain_conv1x1(plain_features(many[n, k], resolution), features.weight / math.sqrt(count))
            assert_close(features(many)[n, k], plain.flatten(1), 1e-10)


def test_pixel_grid_includes_both_ends_with_x_first():
    grid = pixel_grid(5)
    assert grid.shape == (2, 5, 5)
    for row in range(5):
        for column in range(5):
            assert grid[0, row, column] == pytest.approx(-1 + column / 2)
            assert grid[1, row, column] == pytest.approx(-1 + row / 2)


def test_moving_one_region_leaves_the_others_alone():
    local = build(count=3)
    expanded = random_tensor(1, 12, 4)
    grid = pixel_grid(4).double()
    coords = grid.repeat(3, 1, 1, 1)
    coords[2] += 0.3
    hidden, depth = local(expanded, grid)
    moved_hidden, moved_depth = local(expanded, coords)
    for k in range(2):
        assert_close(moved_hidden[:, k], hidden[:, k], 1e-12)
        assert_close(moved_depth[:, k], depth[:, k], 1e-12)
    assert (moved_hidden[:, 2] - hidden[:, 2]).abs().max() > 1e-3
    assert (moved_depth[:, 2] - depth[:, 2]).abs().max() > 1e-3


def test_initialisation():
    torch.manual_seed(0)
    local = LocalGenerators(Regions(region_names(5)), 40, 64, 32, 64, 6, 3)
    for name in ("affine_weight", "weight", "feature_weight", "depth_weight"):
        values = getattr(local, name)
        assert values.mean().abs() < 0.15, name
        assert abs(values.std() - 1) < 0.15, name
    for name in ("affine_bias", "feature_gain", "depth_gain"):
        assert (getattr(local, name) == 1).all(), name
    for name in ("bias", "feature_bias", "depth_bias"):
        assert (getattr(local, name) == 0).all(), name


def test_fused_features_equal_the_sum_of_feature_maps():
    for count in (2, 3, 13):
        local = build(count=count)
        expanded = random_tensor(2, count * 4, 4)
        grid = pixel_grid(4).double()
        hidden, _ = local(expanded, grid)
        shares = random_tensor(2, count, 16, seed=7)
        _, features, _ = plain_local(local.state_dict(), expanded, grid, 32, 2)
        plain = torch.zeros(2, 6, 16, dtype=torch.float64)
        for n in range(2):
            for k in range(count):
                plain[n] += shares[n, k] * features[n, k].flatten(1)
        assert_close(local.fuse(hidden, shares), plain, 1e-10)


class WithFuse(torch.nn.Module):
    """Features and depths as functions of codes and coordinates."""

    def __init__(self, local):
        super().__init__()
        self.local = local

    def forward(self, expanded, coords):
        hidden, depth = self.local(expanded, coords)
        return self.local.fuse(hidden, depth.softmax(dim=1)), depth


def test_first_and_second_derivatives():
    local = randomize(LocalGenerators(Regions(region_names(2), base_layers=1), 2, 4, 2, 2, 2, 1), seed=3)
    module = WithFuse(local)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def fused(ws, coords, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (ws, coords))

    inputs = (random_tensor(1, 4, 2).requires_grad_(), random_tensor(2, 1, 2).requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(fused, inputs)
    assert torch.autograd.gradgradcheck(fused, inputs, fast_mode=True)


def test_octaves_above_are_left_out():
    some = randomize(FourierFeatures(3, 64, octaves=4))
    coords = random_tensor(2, 3, 5)
    plain = plain_features(coords, 64)
    assert some.weight.shape == (3, len(plain))
    plain[2 + 4 * 4 :] = 0
    assert_close(some(coords), plain_conv1x1(plain, some.weight / math.sqrt(len(plain))).flatten(1), 1e-10)
    every = randomize(FourierFeatures(3, 64, octaves=7))  # more than there are
    assert torch.equal(every(coords), randomize(FourierFeatures(3, 64))(coords))
