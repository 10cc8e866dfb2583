"""Wider networks start from what narrower ones compute."""

import copy

import pytest
import torch

import training.discriminator
import training.networks
from dnnlib import UserError
from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator
from tests.runs import SEMANTIC, make_archive, only_run, run
from training import warm_start, widening

REGIONS = {"names": ["background", "eye", "hair"]}


def perturbed(network):
    """Away from initial values that hide errors, such as zero biases, ones as gains, zero strengths of noise."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


def semantic_pair(channels):
    sizes = {
        "coarse_size": 16, "coarse_channels": 4, "local_channels": 3, "local_layers": 4, "depth_layers": 2,
        "min_feat_size": 8, "channels": channels,
    }  # fmt: skip
    G = Generator(4, 0, 5, 32, 3, REGIONS, {"num_layers": 1}, sizes)
    D = DualBranchDiscriminator(
        0, 32, 3, 3, channels={**channels, 4: 6, 8: 6}, mask_width=0.5, segmentation=True,
        epilogue_kwargs={"mbstd_group_size": 2},
    )  # fmt: skip
    return perturbed(G), perturbed(D)


def stylegan2_pair(channel_base, architecture="resnet", channel_max=16, c_dim=0, cmap_dim=None):
    G = training.networks.Generator(
        4, c_dim, 5, 32, 3, {"num_layers": 1},
        {"channel_base": channel_base, "channel_max": channel_max, "architecture": architecture},
    )  # fmt: skip
    D = training.discriminator.Discriminator(
        c_dim, 32, 3, architecture=architecture, channel_base=channel_base, channel_max=channel_max, cmap_dim=cmap_dim,
        epilogue_kwargs={"mbstd_group_size": 1},
    )  # fmt: skip
    return perturbed(G), perturbed(D)


def test_a_wider_semantic_pair_computes_the_same():
    G, D = semantic_pair({8: 6, 16: 4, 32: 2})
    wide_G, wide_D = semantic_pair({8: 8, 16: 7, 32: 6})
    said = warm_start.copy_networks({"G": G, "D": D, "G_ema": G}, {"G": wide_G, "D": wide_D})
    assert said == "Wider than the network to resume: G, D. At first G makes the same pictures."
    z = torch.randn(4, 4)
    for theirs, ours in zip(G(z, None, return_mask=True, noise_mode="const"),
                            wide_G(z, None, return_mask=True, noise_mode="const"), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    image, mask = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32)
    for theirs, ours in zip(D(image, None, mask, return_segmentation=True),
                            wide_D(image, None, mask, return_segmentation=True), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_wider_stylegan2_computes_the_same(architecture, c_dim):
    G, D = stylegan2_pair(64, architecture, 32, c_dim)
    wide_G, wide_D = stylegan2_pair(96, architecture, 32, c_dim, cmap_dim=D.b4.cmap_dim)
    assert wide_D.b4.conv.weight.shape[0] > D.b4.conv.weight.shape[0]
    warm_start.copy_networks({"G": G, "D": D, "G_ema": G}, {"G": wide_G, "D": wide_D})
    z, image, c = torch.randn(4, 4), torch.randn(4, 3, 32, 32), torch.eye(4)[:, :c_dim]
    torch.testing.assert_close(wide_G(z, c, noise_mode="const"), G(z, c, noise_mode="const"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wide_D(image, c), D(image, c), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", ["local_layers", "coarse_channels", "local_channels"])
def test_what_is_no_width_of_rendering_is_refused_in_one_line(option):
    (G, _), sizes = semantic_pair({8: 6, 16: 4, 32: 2}), {}
    sizes[option] = {"local_layers": 6, "coarse_channels": 8, "local_channels": 4}[option]
    other = Generator(*G.init_args[:-1], {**G.init_args[-1], **sizes})
    with pytest.raises(UserError, match=r"has shape .* there and .* here"):
        warm_start.copy_networks({"G_ema": G}, {"G": other})


def test_other_regions_come_first():
    G, _ = semantic_pair({8: 6, 16: 4, 32: 2})
    sizes = {**G.init_args[-1], "channels": {8: 8, 16: 7, 32: 6}}
    arguments = [*G.init_args[:5], {"names": ["background", "hair"]}, G.init_args[6], sizes]
    with pytest.raises(UserError, match=r"First transfer the regions"):
        warm_start.copy_networks({"G_ema": G}, {"G": Generator(*arguments)})


def test_new_channels_learn():
    G, _ = semantic_pair({8: 6, 16: 4, 32: 2})
    wide, _ = semantic_pair({8: 8, 16: 7, 32: 6})
    warm_start.copy_networks({"G_ema": G}, {"G": wide})
    wide.requires_grad_(True)
    wide(torch.randn(2, 4), None, noise_mode="const").square().mean().backward()
    head = wide.synthesis.render.b32.to_rgb.weight
    assert (head[:, 2:] == 0).all()
    assert (head.grad[:, 2:] != 0).all()


def test_a_narrower_network_is_refused_in_one_line():
    G, _ = semantic_pair({8: 8, 16: 7, 32: 6})
    narrow, _ = semantic_pair({8: 6, 16: 4, 32: 2})
    before = copy.deepcopy(narrow.state_dict())
    with pytest.raises(UserError, match=r"has shape .* there and .* here.*narrower"):
        warm_start.copy_networks({"G_ema": G}, {"G": narrow})
    assert all(torch.equal(tensor, before[key]) for key, tensor in narrow.state_dict().items() if "render" in key)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [((3, 2), (3, 2), True), ((3, 2), (4, 5), True), ((3, 2), (2, 5), False), ((3, 2, 1), (3, 2, 3), False),
     ((3,), (4,), True), ((3, 2), (3, 2, 1), False)],
)  # fmt: skip
def test_only_channels_may_be_more(theirs, ours, expected):
    assert widening.only_wider(torch.zeros(theirs), torch.zeros(ours)) is expected


def test_a_run_goes_on_wider(semantic_run, tmp_path):
    data, source = make_archive(tmp_path / "faces.zip", count=8), f"--resume={semantic_run}/network-snapshot-000000.pkl"
    result = run(tmp_path / "runs", *SEMANTIC, f"--data={data}", source, "--cbase=256", steps=1)
    assert result.exit_code == 0, result.output
    line = "Wider than the network to resume: G, D, G_ema. At first G makes the same pictures."
    assert line in (only_run(tmp_path / "runs") / "log.txt").read_text()
