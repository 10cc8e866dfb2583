"""StyleGAN2's networks, against published numbers and plain loops."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import legacy
from dnnlib import UserError
from tests.helpers import assert_close, shared_file
from torch_utils.ops import upfirdn2d
from training.layers import (
    Conv2dLayer,
    FullyConnectedLayer,
    MinibatchStdLayer,
    SynthesisLayer,
    modulated_conv2d,
    normalize_2nd_moment,
)
from training.networks import Discriminator, Generator, MappingNetwork, SynthesisNetwork

ARCHITECTURES = ["orig", "skip", "resnet"]
SMALL = dict(channel_base=64, channel_max=8)


def generator(resolution=16, c_dim=0, **synthesis):
    torch.manual_seed(0)
    return Generator(6, c_dim, 5, resolution, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=SMALL | synthesis)


def discriminator(resolution=16, c_dim=0, **kwargs):
    torch.manual_seed(0)
    return Discriminator(c_dim, resolution, 3, **SMALL | kwargs)


@pytest.fixture(scope="module")
def published():
    network = legacy.load_network(shared_file("fixtures", "stylegan2_ada_small.pkl"))
    numbers = np.load(shared_file("fixtures", "stylegan2_ada_small_io.npz"))
    return network, {name: torch.from_numpy(numbers[name]) for name in numbers}


def test_published_mapping(published):
    network, numbers = published
    ws = network.G_ema.mapping(numbers["z"], numbers["c"], truncation_psi=0.7)
    assert_close(ws, numbers["ws_psi07"])


@pytest.mark.parametrize("fused", [None, True, False])
def test_published_synthesis(published, fused):
    network, numbers = published
    image = network.G_ema.synthesis(numbers["ws_psi07"], noise_mode="const", fused_modconv=fused)
    assert_close(image, numbers["image"])


def test_published_generator(published):
    network, numbers = published
    image = network.G_ema(numbers["z"], None, truncation_psi=0.7, noise_mode="const")
    assert_close(image, numbers["image"])


def test_published_discriminator(published):
    network, numbers = published
    assert_close(network.D(numbers["image"], numbers["c"]), numbers["logits"])


def test_normalize_2nd_moment():
    x = normalize_2nd_moment(torch.randn(4, 9) * 3)
    assert_close(x.square().mean(dim=1), torch.ones(4))


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
def test_fully_connected_layer_is_equalized(activation):
    layer = FullyConnectedLayer(16, 3, activation=activation, lr_multiplier=0.1, bias_init=2)
    x = torch.randn(2, 4, 16)
    y = x @ layer.weight.t() * 0.1 / 4 + 0.2
    if activation == "lrelu":
        y = F.leaky_relu(y, 0.2) * 2**0.5
    assert_close(layer(x), y, 1e-5)
    assert FullyConnectedLayer(1000, 1000, lr_multiplier=0.01).weight.std().item() == pytest.approx(100, rel=0.02)


def test_conv_layer_is_equalized():
    layer = Conv2dLayer(4, 5, 3, activation="lrelu", conv_clamp=0.5)
    layer.bias.data.normal_()
    x = torch.randn(2, 4, 7, 7)
    y = F.leaky_relu(F.conv2d(x, layer.weight / 6, layer.bias, padding=1), 0.2) * 2**0.5
    assert_close(layer(x), y.clamp(-0.5, 0.5), 1e-5)
    assert_close(layer(x, gain=0.25), (y * 0.25).clamp(-0.125, 0.125), 1e-5)


def test_conv_layer_halves_and_doubles():
    x = torch.randn(1, 3, 8, 8)
    assert Conv2dLayer(3, 5, 3, down=2)(x).shape == (1, 5, 4, 4)
    assert Conv2dLayer(3, 5, 3, up=2)(x).shape == (1, 5, 16, 16)


def test_layers_that_do_not_learn_keep_their_names():
    frozen = Conv2dLayer(2, 3, 3, trainable=False)
    assert list(frozen.parameters()) == []
    assert set(frozen.state_dict()) == set(Conv2dLayer(2, 3, 3).state_dict())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_against_one_kernel_a_sample(fused, demodulate):
    torch.manual_seed(0)
    x, weight, styles, noise = (
        torch.randn(3, 4, 6, 6),
        torch.randn(5, 4, 3, 3),
        torch.randn(3, 4),
        torch.randn(3, 1, 6, 6),
    )
    expected = []
    for sample, style in zip(x, styles, strict=True):
        kernel = weight * style[None, :, None, None]
        if demodulate:
            kernel = torch.stack([k / (k.square().sum() + 1e-8).sqrt() for k in kernel])
        expected.append(F.conv2d(sample[None], kernel, padding=1)[0])
    y = modulated_conv2d(x, weight, styles, noise, padding=1, demodulate=demodulate, fused_modconv=fused)
    assert_close(y, torch.stack(expected) + noise, 1e-5)


def test_both_modulated_convolutions_enlarge_alike():
    x, weight, styles = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(3, 4)
    common = dict(up=2, padding=1, resample_filter=upfirdn2d.setup_filter([1, 3, 3, 1]), flip_weight=False)
    a, b = (modulated_conv2d(x, weight, styles, fused_modconv=fused, **common) for fused in (True, False))
    assert a.shape == (3, 5, 12, 12)
    assert_close(a, b, 1e-5)


def test_modulated_convolutions_have_the_same_second_derivatives():
    torch.manual_seed(0)
    found = []
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(3, 3, 3, 3)
    for fused in (True, False):
        styles = torch.ones(2, 3, requires_grad=True)
        w = weight.clone().requires_grad_(True)
        y = modulated_conv2d(x, w, styles, padding=1, fused_modconv=fused)
        (first,) = torch.autograd.grad(y.square().sum(), styles, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [styles, w]))
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-4)


def test_half_precision_scaling_leaves_demodulated_results_as_they_are():
    x, weight, styles = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3) * 300, torch.randn(2, 3) * 300
    exact = modulated_conv2d(x, weight, styles, padding=1, fused_modconv=False)
    half = modulated_conv2d(x.half(), weight, styles, padding=1, fused_modconv=False)
    assert half.dtype == torch.float16
    assert_close(half.float(), exact, 5e-3)


@pytest.mark.parametrize(
    ("batch", "size", "group"), [(8, 4, 4), (6, 4, 3), (5, 4, 1), (7, 7, 7), (3, 4, 3), (4, None, 4)]
)
def test_minibatch_deviation_against_a_loop(batch, size, group):
    x = torch.randn(batch, 6, 3, 3)
    y = MinibatchStdLayer(size, num_channels=2)(x)
    assert y.shape == (batch, 8, 3, 3)
    assert torch.equal(y[:, :6], x)
    step = batch // group
    for n in range(batch):
        members = x[[n % step + i * step for i in range(group)]]
        deviation = (members.var(dim=0, unbiased=False) + 1e-8).sqrt()
        for f in range(2):
            assert_close(y[n, 6 + f], deviation[3 * f : 3 * f + 3].mean().expand(3, 3), 1e-5)


def test_mapping_truncates_towards_the_mean():
    mapping = MappingNetwork(6, 0, 5, num_ws=4, num_layers=2).eval()
    mapping.w_avg.normal_()
    z = torch.randn(3, 6)
    w = mapping(z)
    half = mapping.w_avg + 0.5 * (w - mapping.w_avg)
    assert_close(mapping(z, truncation_psi=0.5), half, 1e-6)
    cut = mapping(z, truncation_psi=0.5, truncation_cutoff=1)
    assert_close(cut[:, :1], half[:, :1], 1e-6)
    assert torch.equal(cut[:, 1:], w[:, 1:])
    assert_close(mapping(z, truncation_psi=0), mapping.w_avg.expand(3, 4, 5), 1e-6)


def test_mapping_follows_the_mean_while_training():
    mapping = MappingNetwork(6, 0, 5, num_ws=1, num_layers=1, w_avg_beta=0.9).train()
    z = torch.randn(50, 6)
    w = mapping(z, skip_w_avg_update=True)
    assert torch.equal(mapping.w_avg, torch.zeros(5))
    mapping(z)
    assert_close(mapping.w_avg, 0.1 * w[:, 0].mean(dim=0), 1e-5)
    mapping.eval()
    before = mapping.w_avg.clone()
    mapping(z)
    assert torch.equal(mapping.w_avg, before)


def test_mapping_alone_and_with_labels():
    assert MappingNetwork(6, 0, 5, num_ws=None)(torch.randn(2, 6), None).shape == (2, 5)
    assert MappingNetwork(6, 0, 5, num_ws=3)(torch.randn(2, 6), torch.zeros(2, 0)).shape == (2, 3, 5)
    labels = MappingNetwork(0, 4, 5, num_ws=None, w_avg_beta=None)
    assert not hasattr(labels, "w_avg")
    one, two = labels(None, torch.eye(4)[:2])
    assert not torch.allclose(one, two)
    both = MappingNetwork(6, 4, 5, num_ws=None, embed_features=3, layer_features=7, num_layers=3)
    assert both.fc0.weight.shape == (7, 9)
    assert both(torch.randn(2, 6), torch.eye(4)[:2]).shape == (2, 5)


@pytest.mark.parametrize(("z", "c"), [((2, 7), (2, 4)), ((2, 6), (2, 3)), ((2, 6), None)])
def test_mapping_says_what_it_takes(z, c):
    mapping = MappingNetwork(6, 4, 5, num_ws=1)
    with pytest.raises(UserError, match=r"expects [zc] of shape"):
        mapping(torch.zeros(z), None if c is None else torch.zeros(c))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generator_architectures(architecture):
    G = generator(architecture=architecture)
    assert G.num_ws == 2 * 2 + 2
    assert hasattr(G.synthesis.b8, "torgb") == (architecture == "skip")
    image = G(torch.randn(2, 6), noise_mode="const")
    assert image.shape == (2, 3, 16, 16)
    image.square().sum().backward()
    missing = [name for name, p in G.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_discriminator_architectures(architecture):
    D = discriminator(architecture=architecture)
    logits = D(torch.randn(3, 3, 16, 16))
    assert logits.shape == (3, 1)
    logits.sum().backward()
    assert [name for name, p in D.named_parameters() if p.grad is None] == []


def test_signal_keeps_its_size_through_the_layers():
    """Equalized layers with gains that fit neither explode nor fade at the start of training."""
    torch.manual_seed(0)
    G = generator(32, channel_base=512, channel_max=64, architecture="orig")
    D = discriminator(32, channel_base=512, channel_max=64)
    x, _ = G.synthesis.b4(None, None, torch.randn(16, 2, 5), noise_mode="none")
    x, _ = G.synthesis.b8(x, None, torch.randn(16, 3, 5), noise_mode="none")
    assert 0.4 < x.square().mean().sqrt().item() < 2.5
    y, _ = D.b32(None, torch.randn(4, 3, 32, 32))
    y, _ = D.b16(y, None)
    assert 0.2 < y.square().mean().sqrt().item() < 2.5


def test_noise_modes():
    G = generator().eval()
    for block in (G.synthesis.b8, G.synthesis.b16):
        block.conv0.noise_strength.data.fill_(1)
    ws = G.mapping(torch.randn(1, 6))
    draw = {mode: [G.synthesis(ws, noise_mode=mode) for _ in range(2)] for mode in ("random", "const", "none")}
    assert torch.equal(*draw["const"])
    assert torch.equal(*draw["none"])
    assert not torch.equal(*draw["random"])
    assert not torch.equal(draw["const"][0], draw["none"][0])
    with pytest.raises(UserError, match="noise mode 'loud'"):
        G.synthesis(ws, noise_mode="loud")


def test_noise_can_be_left_out():
    layer = SynthesisLayer(2, 3, w_dim=4, resolution=8, use_noise=False)
    assert "noise_const" not in layer.state_dict()
    assert layer(torch.randn(1, 2, 8, 8), torch.randn(1, 4)).shape == (1, 3, 8, 8)


def test_training_and_evaluation_draw_the_same():
    G = generator().train()
    ws = G.mapping(torch.randn(2, 6), skip_w_avg_update=True)
    training = G.synthesis(ws, noise_mode="const")
    assert_close(G.eval().synthesis(ws, noise_mode="const"), training, 1e-5)


def test_each_w_feeds_its_own_layers():
    """Slot i moves features from its layer on: the two w of the last block leave the 8x8 image as it is."""
    G = generator(16).eval()
    ws = G.mapping(torch.randn(1, 6))
    moved = ws.clone()
    moved[:, 4:] += 1
    seen = []
    G.synthesis.b8.register_forward_hook(lambda module, args, result: seen.append(result[0]))
    images = [G.synthesis(w, noise_mode="const") for w in (ws, moved)]
    assert torch.equal(*seen)
    assert not torch.allclose(*images)


@pytest.mark.parametrize("c_dim", [0, 4])
def test_labels(c_dim):
    G, D = generator(8, c_dim), discriminator(8, c_dim)
    c = torch.eye(c_dim)[:2] if c_dim else torch.zeros(2, 0)
    image = G(torch.randn(2, 6), c)
    assert D(image, c).shape == (2, 1)
    assert hasattr(D, "mapping") == (c_dim > 0)
    assert D.b4.out.weight.shape[0] == (8 if c_dim else 1)


def test_labels_change_logits():
    D = discriminator(8, 3)
    image = torch.randn(1, 3, 8, 8)
    assert not torch.allclose(D(image, torch.eye(3)[:1]), D(image, torch.eye(3)[1:2]))


@pytest.mark.parametrize("freeze", [0, 1, 4, 6])
def test_freezing_the_first_layers_of_the_discriminator(freeze):
    D = discriminator(16, block_kwargs={"freeze_layers": freeze})
    order = ["b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip"]
    learning = [name for name in order if f"{name}.weight" in dict(D.named_parameters())]
    assert learning == order[freeze:]
    assert set(D.state_dict()) == set(discriminator(16).state_dict())


def test_half_precision_is_for_the_largest_resolutions():
    G, D = generator(32, num_fp16_res=2), discriminator(32, num_fp16_res=2)
    assert [r for r in G.synthesis.block_resolutions if getattr(G.synthesis, f"b{r}").use_fp16] == [16, 32]
    assert [r for r in D.block_resolutions if getattr(D, f"b{r}").use_fp16] == [32, 16]
    every = generator(16, num_fp16_res=9)
    assert [getattr(every.synthesis, f"b{r}").use_fp16 for r in (4, 8, 16)] == [False, True, True]


def test_half_precision_is_left_out_on_the_cpu():
    z = torch.randn(2, 6)
    images = []
    for count in (0, 3):
        G = generator(16, num_fp16_res=count, fp16_channels_last=count > 0).eval()
        images.append(G(z, noise_mode="const"))
    assert images[1].dtype == torch.float32
    assert_close(images[1], images[0], 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half precision needs a GPU")
@pytest.mark.parametrize("half_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_on_a_gpu_comes_close(half_dtype, channels_last):
    options = dict(num_fp16_res=2, conv_clamp=256)
    block = dict(half_dtype=half_dtype, fp16_channels_last=channels_last)
    G, D = generator(32, **options, **block).cuda(), discriminator(32, **options, block_kwargs=block).cuda()
    ws = G.mapping(torch.randn(4, 6, device="cuda"))
    for network in (G.train(), G.eval()):
        image = network.synthesis(ws, noise_mode="const")
        assert image.dtype == torch.float32
        assert_close(image.cpu(), network.synthesis(ws, noise_mode="const", force_fp32=True).cpu(), 0.03)
        assert_close(D(image).cpu(), D(image, force_fp32=True).cpu(), 0.05)


@pytest.mark.parametrize("resolution", [0, 2, 12, 33])
def test_resolutions_that_cannot_be(resolution):
    with pytest.raises(UserError, match="power of two"):
        SynthesisNetwork(4, resolution, 3)
    with pytest.raises(UserError, match="power of two"):
        Discriminator(0, resolution, 3)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"expects ws of shape \[N, 6, 5\]"):
        generator().synthesis(torch.zeros(1, 7, 5))
    with pytest.raises(UserError, match=r"expects images of shape \[N, 3, 16, 16\]"):
        discriminator()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match="architecture 'new'"):
        generator(architecture="new")


def test_preview_is_the_image():
    G = generator(8).eval()
    z = torch.randn(2, 6)
    pictures = G.preview(z, None, noise_mode="const")
    assert list(pictures) == [""]
    assert torch.equal(pictures[""], G(z, None, noise_mode="const"))


def test_networks_explain_how_they_were_built():
    G = generator(8)
    twin = Generator(*G.init_args, **G.init_kwargs)
    assert {n: t.shape for n, t in twin.state_dict().items()} == {n: t.shape for n, t in G.state_dict().items()}
    copied = copy.deepcopy(G)
    assert all(torch.equal(a, b) for a, b in zip(copied.state_dict().values(), G.state_dict().values(), strict=True))
