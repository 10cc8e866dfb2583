"""Dual-branch discriminator against plain convolutions, its own and that of published checkpoints."""

import argparse
import io
import math

import pytest
import torch
import torch.nn.functional as F

from dnnlib import UserError
from semantic import published
from semantic.discriminator import DualBranchDiscriminator
from tests.helpers import assert_close
from tests.semantic.helpers import WIDTHS, build_discriminator, random_tensor
from tests.semantic.plain import plain_conv, plain_deviation, plain_linear, plain_logits


@pytest.mark.parametrize(("count", "resolution", "batch"), [(2, 32, 4), (3, 64, 2), (13, 32, 8), (3, 32, 1)])
def test_logits_equal_plain_convolutions(count, resolution, batch):
    D = build_discriminator(count, resolution)
    images, masks = random_tensor(batch, 3, resolution, resolution), random_tensor(batch, count, resolution, resolution)
    logits = D(images, None, mask=masks)
    assert logits.shape == (batch, 1)
    assert_close(logits, plain_logits(D.state_dict(), images, masks), 1e-4)
    assert_close(D(images, None), plain_logits(D.state_dict(), images), 1e-4)


def test_gradients_equal_those_of_plain_convolutions():
    D = build_discriminator()
    images, masks = random_tensor(4, 3, 32, 32).requires_grad_(), random_tensor(4, 3, 32, 32, seed=2).requires_grad_()
    inputs = [images, masks, *D.parameters()]
    state = dict(D.named_buffers()) | dict(D.named_parameters())
    actual = torch.autograd.grad(D(images, None, mask=masks).square().sum(), inputs)
    plain = torch.autograd.grad(plain_logits(state, images, masks).square().sum(), inputs)
    for one, other in zip(actual, plain, strict=True):
        assert_close(one, other, 1e-3)


def test_a_narrower_mask_branch_ends_in_the_same_features():
    D = DualBranchDiscriminator(0, 32, 3, 5, channels={4: 6, 8: 4, 16: 4, 32: 2}, mask_width=0.5)
    shapes = {name: list(p.shape) for name, p in D.named_parameters()}
    assert shapes["image.b32.conv0.weight"] == [2, 2, 3, 3]
    assert shapes["mask.b32.conv0.weight"] == [1, 1, 3, 3]
    assert shapes["mask.b32.fromrgb.weight"] == [1, 5, 1, 1]
    assert shapes["mask.b8.conv1.weight"] == [6, 2, 3, 3]
    images, masks = random_tensor(2, 3, 32, 32), random_tensor(2, 5, 32, 32)
    assert_close(D(images, None, mask=masks), plain_logits(D.state_dict(), images, masks), 1e-4)


def test_without_a_mask_the_mask_branch_is_left_alone():
    D = build_discriminator()
    images = random_tensor(2, 3, 32, 32)
    D(images, None).sum().backward()
    assert all(parameter.grad is None for parameter in D.mask.parameters())
    assert all(parameter.grad is not None for parameter in D.image.parameters())
    zero = D(images, None, mask=torch.zeros(2, 3, 32, 32))
    assert (zero - D(images, None)).abs().max() > 1e-3, "no mask is not a mask of zeros: the branch has biases"


def test_statistics_of_a_batch_are_taken_in_groups_of_four():
    D = build_discriminator()
    images, masks = random_tensor(8, 3, 32, 32), random_tensor(8, 3, 32, 32, seed=2)
    logits = D(images, None, mask=masks)
    changed = images.clone()
    changed[6] += 1
    moved = (D(changed, None, mask=masks) - logits).abs().flatten() > 1e-6
    assert moved.tolist() == [n % 2 == 0 for n in range(8)]


def test_class_labels_change_the_logits():
    D = build_discriminator(c_dim=3)
    with torch.no_grad():
        for name, parameter in D.mapping.named_parameters():
            if name.startswith("fc"):
                parameter.mul_(100)  # stored divided by the learning rate multiplier
    images, masks = random_tensor(4, 3, 32, 32), random_tensor(4, 3, 32, 32, seed=2)
    logits = [D(images, F.one_hot(torch.full((4,), label), 3).float(), mask=masks) for label in range(3)]
    assert logits[0].shape == (4, 1)
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    assert (logits[1] - logits[2]).abs().max() > 1e-3
    logits[0].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in D.parameters())


def test_initialisation():
    torch.manual_seed(0)
    D = DualBranchDiscriminator(0, 32, 3, 3, channel_base=1024, channel_max=64)
    for name, parameter in D.named_parameters():
        if name.endswith("weight"):
            assert abs(parameter.std() - 1) < 0.35, name
        else:
            assert (parameter == 0).all(), name


@pytest.mark.parametrize("shape", [(2, 2, 32, 32), (2, 3, 16, 16), (3, 3, 32, 32)])
def test_masks_that_do_not_fit_are_refused(shape):
    with pytest.raises((UserError, ValueError)):
        build_discriminator()(random_tensor(2, 3, 32, 32), None, mask=torch.zeros(shape))


PUBLISHED = {
    "size": 32, "latent": 8, "n_mlp": 2, "channel_multiplier": 2, "seg_dim": 3, "local_layers": 4, "local_channel": 4,
    "base_layers": 1, "depth_layers": 2, "coarse_size": 16, "coarse_channel": 5, "min_feat_size": 8,
    "residual_refine": True, "detach_texture": False, "transparent_dims": (2,),
}  # fmt: skip


def published_generator():
    """State of a generator with the published names and shapes."""
    count, layers, width, features, latent = 3, 4, 4, 5, 8
    shapes = {"pos_embed.weights": (width, 2 * (2 * 5 + 1), 1, 1)}
    for i in (1, 2):
        shapes |= {f"style.{i}.weight": (latent, latent), f"style.{i}.bias": (latent,)}
    for k in range(count):
        for layer in range(layers):
            prefix = f"local_nets.{k}.linears.{layer}"
            shapes[f"{prefix}.conv.weight"] = (1, width, width, 1, 1)
            shapes[f"{prefix}.conv.modulation.weight"] = (width, latent)
            shapes[f"{prefix}.conv.modulation.bias"] = (width,)
            shapes[f"{prefix}.activate.bias"] = (width,)
        for head, planes in (("to_feat", features), ("to_depth", 1)) if k > 0 else (("to_feat", features),):
            shapes[f"local_nets.{k}.{head}.conv.weight"] = (planes, width, 1, 1)
            shapes[f"local_nets.{k}.{head}.conv.modulation"] = (1, width, 1, 1)
            shapes[f"local_nets.{k}.{head}.bias"] = (1, planes, 1, 1)
            shapes[f"local_nets.{k}.{head}.upsample.kernel"] = (4, 4)
    entering = features
    for i, size in enumerate((16, 32)):
        entering += features if size // 2 == 16 else 0
        for j in (2 * i, 2 * i + 1):
            shapes[f"render_net.convs.{j}.weight"] = (WIDTHS[size], entering, 3, 3)
            shapes[f"render_net.convs.{j}.modulation"] = (1, entering, 1, 1)
            shapes[f"render_net.convs.{j}.noise.weight"] = (1,)
            shapes[f"render_net.convs.{j}.activate.bias"] = (WIDTHS[size],)
            shapes[f"render_net.noises.noise_{j}"] = (1, 1, size, size)
            entering = WIDTHS[size]
        shapes[f"render_net.convs.{2 * i}.blur.kernel"] = (4, 4)
        for head, planes in (("to_rgbs", 3), ("to_segs", count)):
            shapes[f"render_net.{head}.{i}.conv.weight"] = (planes, entering, 1, 1)
            shapes[f"render_net.{head}.{i}.conv.modulation"] = (1, entering, 1, 1)
            shapes[f"render_net.{head}.{i}.bias"] = (1, planes, 1, 1)
            shapes[f"render_net.{head}.{i}.upsample.kernel"] = (4, 4)
    return random_state(shapes)


def published_discriminator():
    """State of a discriminator with the published names and shapes."""
    shapes = {}
    for branch, planes in (("convs_img", 3), ("convs_seg", 3)):
        shapes[f"{branch}.0.0.weight"] = (WIDTHS[32], planes, 1, 1)
        shapes[f"{branch}.0.1.bias"] = (WIDTHS[32],)
        for i, size in enumerate((32, 16, 8), start=1):
            before, after = WIDTHS[size], WIDTHS[size // 2]
            shapes[f"{branch}.{i}.conv1.0.weight"] = (before, before, 3, 3)
            shapes[f"{branch}.{i}.conv1.1.bias"] = (before,)
            shapes[f"{branch}.{i}.conv2.0.kernel"] = (4, 4)
            shapes[f"{branch}.{i}.conv2.1.weight"] = (after, before, 3, 3)
            shapes[f"{branch}.{i}.conv2.2.bias"] = (after,)
            shapes[f"{branch}.{i}.skip.0.kernel"] = (4, 4)
            shapes[f"{branch}.{i}.skip.1.weight"] = (after, before, 1, 1)
    last = WIDTHS[4]
    shapes |= {"final_conv.0.weight": (last, last + 1, 3, 3), "final_conv.1.bias": (last,)}
    shapes |= {"final_linear.0.weight": (last, last * 16), "final_linear.0.bias": (last,)}
    shapes |= {"final_linear.1.weight": (1, last), "final_linear.1.bias": (1,)}
    return random_state(shapes)


def random_state(shapes):
    return {name: random_tensor(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def plain_published_logits(state, images, masks=None):
    features = []
    for n in range(len(images)):
        total = 0.0
        for branch, batch in (("convs_img", images), ("convs_seg", masks)):
            if batch is None:
                continue
            x = plain_conv(batch[n], state[f"{branch}.0.0.weight"], state[f"{branch}.0.1.bias"])
            for i in (1, 2, 3):
                main = plain_conv(x, state[f"{branch}.{i}.conv1.0.weight"], state[f"{branch}.{i}.conv1.1.bias"])
                main = plain_conv(main, state[f"{branch}.{i}.conv2.1.weight"], state[f"{branch}.{i}.conv2.2.bias"], 2)
                x = (main + plain_conv(x, state[f"{branch}.{i}.skip.1.weight"], stride=2)) / math.sqrt(2)
            total = total + x
        features.append(total)
    logits = []
    for x, deviation in zip(features, plain_deviation(features), strict=True):
        x = torch.cat([x, deviation.expand(1, 4, 4)])
        x = plain_conv(x, state["final_conv.0.weight"], state["final_conv.1.bias"])
        x = plain_linear(x.flatten(), state["final_linear.0.weight"], state["final_linear.0.bias"], activate=True)
        logits.append(plain_linear(x, state["final_linear.1.weight"], state["final_linear.1.bias"], activate=False))
    return torch.stack(logits)


@pytest.fixture
def checkpoint(monkeypatch):
    """Contents of a small published file: narrow, for the published table has 512 channels at these resolutions."""
    monkeypatch.setattr(published, "_channels", lambda args: WIDTHS)
    monkeypatch.setattr(published, "W_AVG_SAMPLES", 10)
    return {"args": argparse.Namespace(**PUBLISHED), "g_ema": published_generator(), "d": published_discriminator()}


def load(contents):
    file = io.BytesIO()
    torch.save(contents, file)
    file.seek(0)
    return published.load(file, name="small.pt")


def test_published_discriminator_gives_the_same_logits(checkpoint):
    D = load(checkpoint).D
    images, masks = random_tensor(4, 3, 32, 32), random_tensor(4, 3, 32, 32, seed=2)
    assert_close(D(images, None, mask=masks), plain_published_logits(checkpoint["d"], images, masks), 1e-4)
    assert_close(D(images, None), plain_published_logits(checkpoint["d"], images), 1e-4)


def test_published_files_without_a_discriminator(checkpoint):
    del checkpoint["d"]
    networks = load(checkpoint)
    assert networks.D is None
    assert networks.G is not networks.G_ema
    assert networks.G_ema(torch.zeros(1, 8), None).shape == (1, 3, 32, 32)


def test_published_training_weights_are_kept_apart_from_their_average(checkpoint):
    checkpoint["g"] = {name: value + 1 for name, value in checkpoint["g_ema"].items()}
    networks = load(checkpoint)
    for name, average in networks.G_ema.named_parameters():
        assert_close(networks.G.get_parameter(name), average + 1, 1e-5)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("g_ema", "style.2.bias"),
        ("g_ema", "local_nets.1.to_depth.bias"),
        ("g_ema", "render_net.noises.noise_2"),
        ("d", "convs_img.0.1.bias"),
        ("d", "convs_seg.2.skip.1.weight"),
        ("d", "final_linear.1.bias"),
    ],
)
def test_published_states_with_an_entry_missing_or_of_another_shape(checkpoint, part, name):
    entry = checkpoint[part].pop(name)
    refused(checkpoint, name)
    checkpoint[part][name] = torch.zeros(*entry.shape, 2)
    refused(checkpoint, name)


@pytest.mark.parametrize("part", ["g_ema", "d"])
def test_published_states_with_something_else_in_them(checkpoint, part):
    checkpoint[part]["one_more.weight"] = torch.zeros(2)
    refused(checkpoint, "one_more")
    refused(checkpoint | {part: [1, 2]}, "small.pt")


def test_published_files_with_unfit_arguments(checkpoint):
    for name in PUBLISHED:
        if name in ("residual_refine", "detach_texture", "transparent_dims", "channel_multiplier"):
            continue  # these may be missing, and the last is not looked at here
        arguments = {k: v for k, v in PUBLISHED.items() if k != name}
        refused({"args": argparse.Namespace(**arguments), "g_ema": {}}, name)
    del checkpoint["d"]
    for wrong in (
        {"size": 48},
        {"size": 0},
        {"seg_dim": 4},
        {"local_layers": 5},
        {"latent": "wide"},
        {"latent": -1},
        {"transparent_dims": (3,)},
    ):
        refused(checkpoint | {"args": argparse.Namespace(**PUBLISHED | wrong)}, "")
    refused(checkpoint | {"args": 3}, "small.pt")
    refused({"g_ema": checkpoint["g_ema"]}, "small.pt")
    refused([checkpoint], "small.pt")


def refused(contents, mentions):
    with pytest.raises(UserError) as error:
        load(contents)
    assert "\n" not in str(error.value)
    assert mentions in str(error.value)
