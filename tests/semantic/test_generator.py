"""The whole generator against loops, and its two latent layouts."""

import math

import pytest
import torch
import torch.nn.functional as F

from dnnlib import UserError
from semantic.generator import Generator
from tests.helpers import assert_close
from tests.semantic.helpers import region_names
from tests.semantic.local.test_generators import plain_expand, plain_local, random_tensor, randomize
from tests.semantic.plain import plain_lrelu
from tests.semantic.test_fusion import plain_mask, plain_weights
from tests.semantic.test_render import part, plain_render

DEFAULTS = {
    "count": 3, "resolution": 32, "coarse_size": 16, "min_feat_size": 8, "local_layers": 4, "base_layers": 1,
    "depth_layers": 2, "transparent": (), "residual_refine": True, "detach_texture": False,
}  # fmt: skip

CONFIGURATIONS = [
    {"count": 2, "base_layers": 0},
    {"resolution": 64, "coarse_size": 32, "transparent": (2,), "residual_refine": False},
    {"count": 13, "base_layers": 2, "transparent": (10, 12), "detach_texture": True},
    {"local_layers": 3, "depth_layers": 3, "min_feat_size": 16},
    {"base_layers": 2, "coarse_size": 32, "transparent": (1, 2)},
]


def settings(**kwargs):
    return DEFAULTS | kwargs


def build(double=True, c_dim=0, **kwargs):
    s = settings(**kwargs)
    names = ("coarse_size", "min_feat_size", "local_layers", "base_layers", "depth_layers", "residual_refine")
    G = Generator(
        4, c_dim, 4, s["resolution"], 3,
        regions={"names": region_names(s["count"]), "transparent": list(s["transparent"])},
        mapping_kwargs={"num_layers": 2},
        synthesis_kwargs={
            "coarse_channels": 3, "local_channels": 4, "channels": {8: 3, 16: 3, 32: 2, 64: 2},
            "detach_texture": s["detach_texture"], **{name: s[name] for name in names},
        },
    )  # fmt: skip
    randomize(G)
    with torch.no_grad():
        for name, parameter in G.mapping.named_parameters():
            if name.startswith("fc"):
                parameter.mul_(100)  # stored divided by the learning rate multiplier
    G.mapping.float()
    return G if double else G.float()


def plain_synthesis(G, s, expanded, coords, keep_regions=None, noise=True):
    """Image, mask, 2m-1 and depths, without batching over samples, regions or layers."""
    state = G.synthesis.state_dict()
    _, features, depth = plain_local(part(state, "local"), expanded, coords, s["resolution"], s["depth_layers"])
    mask = plain_mask(depth, keep_regions)
    weights = plain_weights(mask, s["transparent"])
    fused = []
    for n in range(len(expanded)):
        fused.append(sum(weights[n, k] * features[n, k] for k in range(s["count"])))
    coarse = 2 * mask - 1
    image, full = plain_render(
        part(state, "render"), torch.stack(fused), coarse, s["resolution"], s["min_feat_size"], s["residual_refine"],
        noise,
    )  # fmt: skip
    return image, full, coarse, depth


def plain_grid(size):
    line = [-1 + 2 * i / (size - 1) for i in range(size)]
    return torch.tensor([[line for _ in line], [[y for _ in line] for y in line]], dtype=torch.float64)


def check_output(out, plain, tolerance=1e-9):
    for name, expected in zip(("image", "mask", "coarse_mask", "depth"), plain, strict=True):
        assert_close(getattr(out, name), expected, tolerance)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_synthesis_equals_loops(configuration):
    s = settings(**configuration)
    G, count, size = build(**configuration), s["count"], s["coarse_size"]
    ws = random_tensor(2, s["base_layers"] + 2 * count, 4)
    assert G.num_ws == G.synthesis.num_ws == ws.shape[1]
    expanded = plain_expand(ws, count, s["local_layers"], s["base_layers"], s["depth_layers"])
    G.synthesis.grid = plain_grid(size)  # float32 of the default grid would limit the comparison
    plain = plain_synthesis(G, s, expanded, plain_grid(size))
    check_output(G.synthesis(ws, noise_mode="const", return_mask=True), plain)
    check_output(G.synthesis(expanded, noise_mode="const", return_mask=True), plain)
    assert_close(G.synthesis(ws, noise_mode="const"), plain[0], 1e-9)
    assert_close(plain[2].sum(dim=1), torch.full_like(plain[2][:, 0], 2 - count), 1e-6)


def test_regions_left_out_and_moved():
    s = settings(transparent=(2,))
    G = build(transparent=(2,))
    expanded = random_tensor(2, 3 * 4, 4)
    keep = torch.tensor([[1, 0, 1], [1, 1, 0]])
    of_regions, of_samples = random_tensor(3, 2, 16, 16, seed=2), random_tensor(2, 3, 2, 16, 16, seed=3)
    for coords in (plain_grid(16), of_regions, of_samples):
        plain = plain_synthesis(G, s, expanded, coords, keep, noise=False)
        check_output(
            G.synthesis(expanded, noise_mode="none", return_mask=True, keep_regions=keep, coords=coords), plain
        )
        assert (plain[2][0, 1] == -1).all()
    one_for_all = G.synthesis(expanded, noise_mode="none", return_mask=True, keep_regions=keep[0])
    each = G.synthesis(expanded, noise_mode="none", return_mask=True, keep_regions=keep[[0, 0]])
    assert torch.equal(one_for_all.image, each.image)


def test_expanded_latents_hold_one_code_a_layer_a_region():
    G = build(double=False)
    ws = random_tensor(2, G.num_ws, 4).float()
    expanded = G.synthesis.expand(ws)
    assert torch.equal(expanded, plain_expand(ws, 3, 4, 1, 2))
    assert G.synthesis.expand(expanded) is expanded
    before = G.synthesis(expanded, noise_mode="none", return_mask=True)
    changed = expanded.clone()
    changed[:, 1 * 4 + 3] += 1  # last layer of region 1: texture alone
    after = G.synthesis(changed, noise_mode="none", return_mask=True)
    assert_close(after.coarse_mask, before.coarse_mask, 1e-6)
    assert (after.image - before.image).abs().max() > 1e-3


def test_shape_codes_move_the_mask_and_texture_codes_do_not():
    G = build()
    ws = random_tensor(1, G.num_ws, 4)
    before = G.synthesis(ws, noise_mode="none", return_mask=True)
    for name in G.regions.names:
        for part_name, moves in (("shape", name != "background"), ("texture", False)):
            changed = ws.clone()
            changed[:, G.regions.slots(name)[part_name]] += 1
            after = G.synthesis(changed, noise_mode="none", return_mask=True)
            assert ((after.coarse_mask - before.coarse_mask).abs().max() > 1e-6) == moves, (name, part_name)
            assert (after.image - before.image).abs().max() > 1e-6
    changed = ws.clone()
    changed[:, list(G.regions.base_slots)] += 1
    after = G.synthesis(changed, noise_mode="none", return_mask=True)
    assert (after.coarse_mask - before.coarse_mask).abs().max() > 1e-6
    assert (after.depth[:, 0] == 0).all()


def test_texture_gradients_do_not_reach_shape_codes_when_detached():
    for detach in (False, True):
        G = build(detach_texture=detach)
        ws = random_tensor(1, G.num_ws, 4).requires_grad_()
        hidden, _ = G.synthesis.local(G.synthesis.expand(ws), G.synthesis.grid)
        (grads,) = torch.autograd.grad(hidden.square().sum(), ws)
        for k in range(3):
            slots = G.regions.slots(k)
            assert grads[0, slots["texture"]].any()
            assert grads[0, slots["shape"]].any().item() is not detach
        assert grads[0, 0].any().item() is not detach, "base codes are shape codes too"


def test_default_grid_is_the_pixel_grid():
    G = build(double=False)
    assert_close(G.synthesis.grid, plain_grid(16).float(), 1e-6)
    ws = random_tensor(1, G.num_ws, 4).float()
    assert torch.equal(
        G.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const", coords=G.synthesis.grid)
    )


def test_noise_modes():
    G = build(double=False)
    ws = random_tensor(1, G.num_ws, 4).float()
    for mode in ("const", "none"):
        assert torch.equal(G.synthesis(ws, noise_mode=mode), G.synthesis(ws, noise_mode=mode))
    random = [G.synthesis(ws, noise_mode="random") for _ in range(2)]
    assert not torch.equal(*random)
    assert not torch.equal(G.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="none"))
    assert not torch.equal(G.synthesis(ws), G.synthesis(ws)), "training sees random noise"


def plain_mapping(state, z, layers):
    codes = []
    for w in z:
        w = w / torch.sqrt((w**2).mean() + 1e-8)
        for i in range(layers):
            weight, bias = state[f"fc{i}.weight"], state[f"fc{i}.bias"]
            w = plain_lrelu(F.linear(w[None], 0.01 * weight / math.sqrt(len(w)), 0.01 * bias)[0])
        codes.append(w)
    return torch.stack(codes)


def test_images_from_z_and_truncation():
    G = build(double=False).eval()
    z = random_tensor(3, 4).float()
    w = plain_mapping(G.mapping.state_dict(), z, 2)
    G.mapping.w_avg.copy_(random_tensor(4, seed=9))
    centre = G.mapping.w_avg
    ws = G.mapping(z, None)
    assert ws.shape == (3, G.num_ws, 4)
    for slot in range(G.num_ws):
        assert_close(ws[:, slot], w, 1e-5)
    truncated = (centre + 0.5 * (w - centre)).unsqueeze(1).repeat(1, G.num_ws, 1)
    assert_close(G(z, None, truncation_psi=0.5, noise_mode="const"), G.synthesis(truncated, noise_mode="const"), 1e-4)
    truncated[:, 1:] = w.unsqueeze(1)
    cut = G(z, None, truncation_psi=0.5, truncation_cutoff=1, noise_mode="const")
    assert_close(cut, G.synthesis(truncated, noise_mode="const"), 1e-4)


def test_mapping_tracks_the_mean_of_w_while_training():
    G = build(double=False)
    z = random_tensor(3, 4).float()
    start = random_tensor(4, seed=9).float()
    G.mapping.w_avg.copy_(start)
    ws = G.mapping(z, None)
    assert_close(G.mapping.w_avg, 0.995 * start + 0.005 * ws[:, 0].mean(dim=0), 1e-5)


def test_class_labels():
    G = build(double=False, c_dim=3).eval()
    z = random_tensor(2, 4).float()
    images = [G(z, F.one_hot(torch.full((2,), label), 3).float(), noise_mode="none") for label in range(2)]
    assert images[0].shape == (2, 3, 32, 32)
    assert (images[0] - images[1]).abs().max() > 1e-4


def test_preview_shows_image_and_painted_mask():
    G = build(double=False).eval()
    z = random_tensor(2, 4).float()
    pictures = G.preview(z, None, noise_mode="const")
    out = G(z, None, noise_mode="const", return_mask=True)
    assert set(pictures) == {"", "_mask"}
    assert torch.equal(pictures[""], out.image)
    largest = out.mask.argmax(dim=1)
    for k, color in enumerate(G.regions.colors):
        assert_close(
            pictures["_mask"].permute(0, 2, 3, 1)[largest == k],
            (torch.tensor(color) / 127.5 - 1).expand(int((largest == k).sum()), 3),
            1e-6,
        )


def test_rebuilt_from_its_init_kwargs():
    G = build(double=False)
    again = Generator(**G.init_kwargs) if not G.init_args else Generator(*G.init_args, **G.init_kwargs)
    again.load_state_dict(G.state_dict())
    ws = random_tensor(1, G.num_ws, 4).float()
    assert torch.equal(again.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const"))
    assert again.regions == G.regions


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_mode": "loud"},
        {"keep_regions": torch.ones(2, 4)},
        {"keep_regions": torch.ones(1, 3)},
        {"coords": torch.zeros(2, 8, 8)},
        {"coords": torch.zeros(4, 2, 16, 16)},
        {"ws": torch.zeros(2, 8, 4)},
        {"ws": torch.zeros(2, 7, 5)},
        {"ws": torch.zeros(7, 4)},
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_line(wrong):
    with pytest.raises(UserError) as error:
        build(double=False).synthesis(**{"ws": torch.zeros(2, 7, 4), **wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_layers": 3, "depth_layers": 2},
        {"depth_layers": 5},
        {"depth_layers": 0, "base_layers": 0},
        {"count": 1},
        {"transparent": (3,)},
        {"count": 2, "local_layers": 3, "base_layers": 2},  # W+ and expanded latents would be confused
    ],
)
def test_impossible_generators_are_refused_in_one_line(wrong):
    with pytest.raises(UserError) as error:
        build(**wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("detach_texture", [False, True])
def test_first_and_second_derivatives_of_the_whole(detach_texture):
    G = build(count=2, transparent=(1,), local_layers=3, depth_layers=1, detach_texture=detach_texture)
    G.synthesis.requires_grad_(False)
    keep = torch.tensor([[1, 1]])
    ws = random_tensor(1, G.num_ws, 4)
    towards = [random_tensor(*x.shape, seed=i) for i, x in enumerate(G.synthesis(ws, return_mask=True))]

    def project(ws):
        out = G.synthesis(ws, noise_mode="const", return_mask=True, keep_regions=keep)
        return torch.stack([(x * direction).mean() for x, direction in zip(out, towards, strict=True)])

    if detach_texture:  # what is detached differs from the true derivative in the shape codes
        texture = [G.regions.slots(k)["texture"] for k in range(2)]
        inputs = ws[:, texture].clone().requires_grad_()

        def function(codes):
            full = ws.clone()
            full[:, texture] = codes
            return project(full)
    else:
        inputs, function = ws.requires_grad_(), project
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("depth_layers", [2, 4])
def test_fixed_shapes_change_no_value_and_leave_shape_layers_alone(depth_layers):
    G = build(double=False, depth_layers=depth_layers, transparent=(1,)).requires_grad_(True)
    ws = G.mapping(torch.randn(2, G.z_dim), None)
    fixed = G.synthesis.compose(ws, fixed_shapes=True)
    for one, other in zip(fixed, G.synthesis.compose(ws), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not fixed[1].requires_grad
    fixed[0].square().sum().backward()
    local = G.synthesis.local
    assert local.feature_weight.grad.any()
    reached = [local.weight.grad is not None and local.weight.grad[layer].any().item() for layer in range(4)]
    assert reached == [layer >= depth_layers for layer in range(4)]
    assert local.depth_weight.grad is None
