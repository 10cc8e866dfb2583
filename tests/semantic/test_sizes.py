"""The networks of --cfg=semantic at small and large sizes, and at the sizes of the paper."""

import math

import pytest
import torch

from dnnlib import construct_class_by_name
from semantic.loss import SemanticLoss
from semantic.presets import semantic_options
from semantic.regions import CELEBAMASK, Regions
from tests.semantic.helpers import region_names


def networks(resolution, regions, c_dim=0):
    options = semantic_options(resolution, regions, "fp32")
    size = {"c_dim": c_dim, "img_resolution": resolution, "img_channels": 3}
    return options, *(construct_class_by_name(**kwargs, **size) for kwargs in (options.G_kwargs, options.D_kwargs))


@pytest.mark.parametrize(("resolution", "count", "c_dim"), [(32, 2, 0), (32, 13, 0), (64, 3, 2)])
def test_small_sizes_train(resolution, count, c_dim):
    regions = Regions(region_names(count), transparent=[count - 1])
    options, G, D = networks(resolution, regions, c_dim)
    kwargs = {k: v for k, v in options.loss_kwargs.items() if k != "class_name"}
    assert options.loss_kwargs.class_name == "semantic.loss.SemanticLoss"
    loss = SemanticLoss(torch.device("cpu"), G, D, **kwargs)
    z, c = torch.randn(1, G.z_dim), torch.ones(1, c_dim)
    real = {
        "image": torch.zeros(1, 3, resolution, resolution, dtype=torch.uint8),
        "mask": torch.zeros(1, resolution, resolution, dtype=torch.uint8),
        "label": c,
    }
    for trained, other, phase in ((G, D, "Gmain"), (D, G, "Dmain")):
        trained.requires_grad_(True)
        other.requires_grad_(False)
        loss.accumulate_gradients(phase, real, z, c, 1)
        for name, parameter in trained.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    out = G(z, c, return_mask=True)
    assert out.image.shape == (1, 3, resolution, resolution)
    assert out.mask.shape == (1, count, resolution, resolution)


@pytest.fixture
def no_numbers(monkeypatch):
    """Weights have shapes but take no memory: each is one zero seen many times."""
    monkeypatch.setattr(torch, "randn", lambda *size, **kwargs: torch.zeros([]).expand(*size))


@pytest.mark.parametrize("resolution", [128, 256, 512, 1024])
@pytest.mark.parametrize("count", [2, 13, 40])
def test_large_sizes_can_be_built(no_numbers, resolution, count):
    _, G, D = networks(resolution, Regions(region_names(count)))
    assert G.synthesis.render.resolutions[-1] == resolution
    assert len(G.regions) == D.num_regions == count


@pytest.mark.parametrize("resolution", [256, 512, 1024])
def test_sizes_of_the_paper(no_numbers, resolution):
    options, G, D = networks(resolution, CELEBAMASK)
    local, render = G.synthesis.local, G.synthesis.render
    assert (G.z_dim, G.w_dim, G.num_ws, G.mapping.num_layers) == (512, 512, 2 + 26, 8)
    assert G.synthesis.grid.shape == (2, 64, 64)
    assert local.weight.shape == (10, 13, 64, 64)
    assert local.feature_weight.shape == (13, 512, 64)
    assert local.position.weight.shape == (64, 2 * (2 * round(math.log2(resolution)) + 1))
    assert (local.depth_layers, local.num_expanded) == (6, 130)
    assert len(G.regions.base_slots) == 2
    assert G.regions == CELEBAMASK
    assert render.residual_refine

    channels = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    width, size = 512, 16
    while size < resolution:
        entered = width + 512 if size == 64 else width
        size *= 2
        stage = getattr(render, f"b{size}")
        assert stage.up.weight.shape == (channels[size], entered, 3, 3)
        assert stage.conv.weight.shape == (channels[size], channels[size], 3, 3)
        width = channels[size]
    assert not hasattr(render, "b16")
    for branch, planes in ((D.image, 3), (D.mask, 13)):
        assert getattr(branch, f"b{resolution}").fromrgb.weight.shape == (channels[resolution], planes, 1, 1)
        for size in branch.resolutions:
            block = getattr(branch, f"b{size}")
            assert block.conv0.weight.shape == (channels[size], channels[size], 3, 3)
            assert block.conv1.weight.shape == (channels[size // 2], channels[size], 3, 3)
    assert D.b4.conv.weight.shape == (512, 513, 3, 3)
    assert D.b4.fc.weight.shape == (512, 512 * 16)

    assert 16 <= options.batch_size <= 32
    assert (options.loss_kwargs.r1_gamma, options.loss_kwargs.r1_gamma_mask) == (10, 1000)
    assert options.loss_kwargs.mask_weight == 100
    assert options.ema_kimg == 10
    for optimizer in (options.G_opt_kwargs, options.D_opt_kwargs):
        assert optimizer.lr == 0.002
        assert tuple(optimizer.betas) == (0, 0.99)
