"""Published checkpoints reproduce the numbers of the published implementation."""

import numpy as np
import pytest
import torch

from semantic import published
from tests.helpers import assert_close, shared_file


@pytest.fixture(scope="module")
def numbers():
    return {
        k: torch.from_numpy(v) for k, v in np.load(shared_file("fixtures", "semantic_stylegan_small_io.npz")).items()
    }


@pytest.fixture(scope="module")
def G():
    with open(shared_file("fixtures", "semantic_stylegan_small.pt"), "rb") as file:
        return published.load(file)["G_ema"]


def synthesize(G, ws, **kwargs):
    with torch.no_grad():
        return G.synthesis(ws, noise_mode="const", return_mask=True, **kwargs)


def test_mapping(G, numbers):
    ws = G.mapping(numbers["z"], None)
    assert ws.shape == numbers["ws"].shape
    assert_close(ws, numbers["w"].unsqueeze(1).expand_as(ws))


def test_synthesis_from_both_latent_layouts(G, numbers):
    assert_close(G.synthesis.expand(numbers["ws"]), numbers["ws_expanded"])
    for ws in (numbers["ws"], numbers["ws_expanded"]):
        out = synthesize(G, ws)
        assert_close(out.image, numbers["image"])
        assert_close(out.mask, numbers["mask_logits"])
        assert_close(out.coarse_mask, numbers["coarse_mask"])
        assert_close(out.depth, numbers["depths"])


def test_truncated_codes(G, numbers):
    out = synthesize(G, numbers["w_mean"].lerp(numbers["ws"], 0.5))
    assert_close(out.image, numbers["trunc_image"])
    assert_close(out.mask, numbers["trunc_mask_logits"])


def test_leaving_regions_out(G, numbers):
    out = synthesize(G, numbers["ws"], keep_regions=numbers["compose_keep"])
    assert_close(out.image, numbers["compose_image"])
    assert_close(out.mask, numbers["compose_mask_logits"])
    assert_close(out.coarse_mask, numbers["compose_coarse"])


def test_moving_a_region(G, numbers):
    coords = G.synthesis.grid.expand(len(G.regions), -1, -1, -1).clone()
    coords[2] = coords[2] * 0.8 + torch.tensor([0.1, -0.2]).view(2, 1, 1)
    out = synthesize(G, numbers["ws"], coords=coords)
    assert_close(out.image, numbers["moved_image"])
    assert_close(out.mask, numbers["moved_mask_logits"])


def test_centre_of_truncation_is_the_mean_of_w(G):
    w = G.mapping(torch.randn(4000, G.z_dim, generator=torch.Generator().manual_seed(7)), None)[:, 0]
    spread = w.std(dim=0) / 4000**0.5
    assert ((w.mean(dim=0) - G.mapping.w_avg).abs() < 6 * spread).all()
    mean_code = G.mapping(torch.randn(2, G.z_dim), None, truncation_psi=0)
    assert_close(mean_code, G.mapping.w_avg.expand_as(mean_code))
