"""Networks for larger pictures start from what those for smaller ones compute."""

import json

import pytest
import torch
import torch.nn.functional as F

import legacy
import training.discriminator
import training.networks
from dnnlib import UserError
from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator
from tests.runs import SEMANTIC, SMALL, difference, make_archive, only_run, run, state
from training import growing, warm_start

REGIONS = {"names": ["background", "eye", "hair"]}
SIZES = {
    "coarse_size": 16, "coarse_channels": 4, "local_channels": 3, "local_layers": 4, "depth_layers": 2, "octaves": 4,
    "min_feat_size": 8,
}  # fmt: skip


def perturbed(network):
    """Away from initial values that hide errors, such as zero biases, ones as gains, zero strengths of noise."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


def semantic_pair(resolution, widths, **D_kwargs):
    G = Generator(4, 0, 5, resolution, 3, REGIONS, {"num_layers": 1}, {**SIZES, **widths})
    epilogue = {"mbstd_group_size": 2}
    D = DualBranchDiscriminator(
        0, resolution, 3, 3, **widths, mask_width=0.5, segmentation=True, epilogue_kwargs=epilogue, **D_kwargs
    )
    return perturbed(G), perturbed(D)


def stylegan2_pair(resolution, channel_base, architecture="resnet", c_dim=0, cmap_dim=None):
    widths = {"channel_base": channel_base, "channel_max": 32}
    G = training.networks.Generator(4, c_dim, 5, resolution, 3, {"num_layers": 1}, widths)
    D = training.discriminator.Discriminator(
        c_dim, resolution, 3, architecture, **widths, cmap_dim=cmap_dim, epilogue_kwargs={"mbstd_group_size": 1}
    )
    return perturbed(G), perturbed(D)


def enlarged(images, factor):
    """Images at a larger size: each doubling puts three quarters of the nearest sample beside a quarter of the next."""
    taps = torch.tensor([1.0, 3, 3, 1]) / 4
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 4, 4)
    while factor > 1:
        images, factor = F.conv_transpose2d(images, kernel, stride=2, padding=1, groups=images.shape[1]), factor // 2
    return images


def reduced(images, factor):
    """Images at a smaller size: each halving averages four samples a side by 1, 3, 3, 1."""
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 4, 4)
    while factor > 1:
        images, factor = F.conv2d(images, kernel, stride=2, padding=1, groups=images.shape[1]), factor // 2
    return images


def decibels(ours, theirs):
    """Peak signal-to-noise ratio of pictures in [-1, 1]."""
    return 10 * torch.log10(4 / (ours - theirs).square().mean().clamp(min=1e-20))


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("wider", [1, 2])
def test_a_grown_semantic_pair_computes_the_same(factor, wider):
    G, D = semantic_pair(32, {"channel_base": 768, "channel_max": 48})
    widths = {"channel_base": 768 * wider, "channel_max": 48}
    arguments = D.grown_arguments({}, D, 32 * factor)
    large_G, large_D = semantic_pair(32 * factor, widths, **arguments)
    said = warm_start.copy_networks({"G": G, "D": D, "G_ema": G}, {"G": large_G, "D": large_D})
    assert said.startswith(f"Grown from 32² to {32 * factor}². At first G makes resampled pictures.")
    assert ("Wider" in said) == (wider > 1)
    z = torch.randn(4, 4)
    theirs, ours = (network(z, None, return_mask=True, noise_mode="const") for network in (G, large_G))
    assert decibels(ours.image, enlarged(theirs.image, factor)) > 100
    assert decibels(ours.mask, enlarged(theirs.mask, factor)) > 100
    assert decibels(ours.coarse_mask, theirs.coarse_mask) > 100
    image, mask = (torch.randn(4, 3, 32 * factor, 32 * factor) for _ in range(2))
    judged = D(reduced(image, factor), None, reduced(mask, factor))
    torch.testing.assert_close(large_D(image, None, mask), judged, rtol=1e-3, atol=1e-3)
    judged = D(reduced(image, factor), None)
    torch.testing.assert_close(large_D(image, None), judged, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_grown_stylegan2_computes_the_same(factor, architecture, c_dim):
    G, D = stylegan2_pair(16, 512, architecture, c_dim)
    large_G, large_D = stylegan2_pair(16 * factor, 768, architecture, c_dim, cmap_dim=D.b4.cmap_dim)
    warm_start.copy_networks({"G": G, "D": D, "G_ema": G}, {"G": large_G, "D": large_D})
    z, image, c = torch.randn(4, 4), torch.randn(4, 3, 16 * factor, 16 * factor), torch.eye(4)[:, :c_dim]
    expected = enlarged(G(z, c, noise_mode="const"), factor)
    assert decibels(large_G(z, c, noise_mode="const"), expected) > 100
    torch.testing.assert_close(large_D(image, c), D(reduced(image, factor), c), rtol=1e-3, atol=1e-3)


def test_all_frequencies_but_new_ones_keep_their_weight():
    sizes = {"channel_base": 1024, "channel_max": 16, "octaves": None}
    G = Generator(4, 0, 5, 32, 3, REGIONS, {"num_layers": 1}, {**SIZES, **sizes})
    large = Generator(4, 0, 5, 64, 3, REGIONS, {"num_layers": 1}, {**SIZES, **sizes})
    warm_start.copy_networks({"G_ema": perturbed(G)}, {"G": large.eval()})
    assert (large.synthesis.local.position.weight[:, 2 + 4 * 5 :] == 0).all()
    z = torch.randn(2, 4)
    ours, theirs = (network(z, None, return_mask=True, noise_mode="const") for network in (large, G))
    assert decibels(ours.coarse_mask, theirs.coarse_mask) > 100


def test_new_stages_learn():
    G, D = semantic_pair(32, {"channel_base": 1024, "channel_max": 16})
    widths = {"channel_base": 1024, "channel_max": 16}
    large_G, large_D = semantic_pair(64, widths, **D.grown_arguments({}, D, 64))
    warm_start.copy_networks({"G_ema": G, "D": D}, {"G": large_G, "D": large_D})
    for network in (large_G, large_D):
        network.requires_grad_(True)
    out = large_G(torch.randn(4, 4), None, return_mask=True)
    logits, scores = large_D(out.image, None, out.mask, return_segmentation=True)
    (logits.square().mean() + scores.square().mean() + scores.mean()).backward()
    for name in ("to_rgb", "to_seg"):
        assert (getattr(large_G.synthesis.render.b64, name).weight.grad != 0).all()
    for branch in (large_D.image, large_D.mask):
        assert (branch.b64.skip.weight.grad != 0).all()
    assert (large_D.segmentation.scores.weight.grad != 0).any()


def test_steps_of_the_segmentation_head_stay_at_their_resolution():
    G, D = semantic_pair(32, {"channel_base": 1024, "channel_max": 16})
    _, large = semantic_pair(64, {"channel_base": 1024, "channel_max": 16}, **D.grown_arguments({}, D, 64))
    warm_start.copy_networks({"G_ema": G, "D": D}, {"D": large})
    for ours, theirs in zip(large.segmentation.fine[1:], D.segmentation.fine, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
    assert (large.segmentation.scores.weight == 0).all()


def test_explicit_widths_are_halved_for_new_stages():
    assert growing.extended_channels({"4": 8, "8": 6, "16": 3}, 16, 64) == {4: 8, 8: 6, 16: 3, 32: 1, 64: 1}
    D = DualBranchDiscriminator(0, 16, 3, 3, channels={4: 8, 8: 6, 16: 12})
    arguments = D.grown_arguments({"channels": {4: 8, 8: 6, 16: 12}}, D, 32)
    assert arguments == {"channels": {4: 8, 8: 6, 16: 12, 32: 6}, "mask_least": {32: 6}}


def test_other_regions_come_before_growing():
    G, _ = semantic_pair(32, {"channel_base": 1024})
    other = Generator(4, 0, 5, 64, 3, {"names": ["background", "hat", "hair"]}, {"num_layers": 1}, SIZES)
    with pytest.raises(UserError, match=r"First transfer the regions, with data of 32², then grow"):
        warm_start.copy_networks({"G_ema": G}, {"G": other})


@pytest.mark.parametrize("resolution", [32, 256, 1024])
def test_networks_do_not_shrink_or_grow_by_other_factors(resolution):
    G = training.networks.Generator(4, 0, 5, 64, 3, synthesis_kwargs={"channel_max": 4})
    other = training.networks.Generator(4, 0, 5, resolution, 3, synthesis_kwargs={"channel_max": 4})
    if resolution == 256:
        assert growing.growth(G, other) == 4
        return
    with pytest.raises(UserError, match=r"Networks can resume at 64², 128², 256²:"):
        warm_start.copy_networks({"G_ema": G}, {"G": other})


def test_generators_without_colours_of_their_own_in_each_stage_do_not_grow():
    small, large = (
        training.networks.Generator(4, 0, 5, r, 3, synthesis_kwargs={"channel_max": 4, "architecture": "resnet"})
        for r in (16, 32)
    )
    with pytest.raises(UserError, match=r"Only generators of architecture skip can grow, not resnet"):
        warm_start.copy_networks({"G_ema": small}, {"G": large})


def test_discriminators_too_narrow_to_pass_colours_on_are_refused_in_one_line():
    small, large = (training.discriminator.Discriminator(0, r, 3, channel_base=128) for r in (16, 32))
    with pytest.raises(UserError, match=r"D needs 6 channels at 32², but has 4. Set a larger --cbase"):
        warm_start.copy_networks({"D": small}, {"D": large})


def test_a_run_grows_a_network_and_resumes_exactly(semantic_run, tmp_path):
    data = make_archive(tmp_path / "64.zip", count=8, side=64)
    source = f"--resume={semantic_run}/network-snapshot-000000.pkl"
    grown = [*SEMANTIC, f"--data={data}", source, "--aug=noaug", "--cbase=512"]
    result = run(tmp_path / "whole", *grown, steps=2)
    assert result.exit_code == 0, result.output
    said = (only_run(tmp_path / "whole") / "log.txt").read_text()
    assert "Grown from 32² to 64². At first G makes resampled pictures. Wider than the network to resume" in said
    assert run(tmp_path / "halves", *grown, steps=1).exit_code == 0
    assert run(tmp_path / "halves", "--resume=latest", steps=2).exit_code == 0
    whole, halves = (state(only_run(tmp_path / name)) for name in ("whole", "halves"))
    for name in ("G", "D", "G_ema", "G_opt", "D_opt"):
        assert not difference(whole[name], halves[name]), name


def test_a_run_of_a_plain_configuration_grows_a_network(tmp_path):
    G, D = stylegan2_pair(16, 128)
    networks = {"G": G, "D": D, "G_ema": G, "augment_pipe": None, "training_set_kwargs": None}
    legacy.save_network(networks, tmp_path / "small.pkl")
    data = make_archive(tmp_path / "32.zip", count=8, masks=False)
    options = [*SMALL, "--cfg=auto", f"--data={data}", f"--resume={tmp_path / 'small.pkl'}", "--cbase=256"]
    result = run(tmp_path / "runs", *options, steps=1)
    assert result.exit_code == 0, result.output
    assert "Grown from 16² to 32²" in (only_run(tmp_path / "runs") / "log.txt").read_text()


def test_a_network_that_grows_may_have_one_frequency_more(semantic_run, tmp_path):
    data = make_archive(tmp_path / "64.zip", count=8, side=64)
    start = (*SEMANTIC, f"--data={data}", "--dry-run", f"--resume={semantic_run}/network-snapshot-000000.pkl")
    plain, more, most = (run(tmp_path, *start, *options) for options in ((), ("--octaves=5",), ("--octaves=6",)))
    octaves = [json.loads(r.stdout)["G_kwargs"]["synthesis_kwargs"]["octaves"] for r in (plain, more)]
    assert octaves == [4, 5]
    assert json.loads(plain.stdout)["D_kwargs"]["mask_least"] == {"64": 6}
    assert "--octaves=6 is too large: there are 5 frequencies" in most.stderr
