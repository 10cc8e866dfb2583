"""The network that comes with the project."""

import json
import os

import numpy as np
import pytest
import torch

import legacy
from legacy import BUNDLED, find_network
from semantic.editing.codes import mix_regions
from semantic.editing.latents import seed_latents
from semantic.encoder import load_encoder, start_of
from semantic.inversion.distance import psnr
from semantic.regions import CELEBAMASK


@pytest.fixture(scope="module")
def network():
    return legacy.load_network(find_network())


@pytest.fixture(scope="module")
def about():
    return json.loads(find_network().with_suffix(".json").read_text())


def test_it_is_found_small_and_explained(network, about):
    assert find_network().parent == BUNDLED
    assert find_network().stat().st_size <= 20 * 2**20
    assert network.G_ema.regions.names == CELEBAMASK.names
    assert about["command"].startswith("python -m tests.benchmarks.quality faces")
    options = about["training_options"]
    assert options["G_kwargs"]["synthesis_kwargs"] == network.G_ema.init_kwargs["synthesis_kwargs"]
    assert "/" not in options["training_set_kwargs"]["path"] + network.training_set_kwargs.path


def test_a_small_network_of_half_the_side_comes_with_it():
    assert find_network().name == "faces128.pkl"
    small = legacy.resolve("faces64")
    assert os.path.getsize(small) < 3e6
    network = legacy.load_network(small)
    assert network.G_ema.img_resolution == network.G.img_resolution == 64
    assert network.D(torch.zeros(1, 3, 64, 64), None, mask=torch.zeros(1, 13, 64, 64)).isfinite().all()


def test_training_can_go_on_from_it(network):
    logits = network.D(torch.zeros(1, 3, 128, 128), None, mask=torch.zeros(1, 13, 128, 128))
    assert logits.isfinite().all()
    assert network.G is not None


def test_pictures_and_masks_are_those_of_faces(network):
    G = network.G_ema
    out = G(seed_latents(range(16), G.z_dim), None, truncation_psi=0.7, noise_mode="const", return_mask=True)
    shares = torch.bincount(out.mask.argmax(dim=1).flatten(), minlength=13) / out.mask[:, 0].numel()
    for name, low, high in (
        ("background", 0.3, 0.7),
        ("face", 0.08, 0.3),
        ("hair", 0.05, 0.4),
        ("cloth", 0.01, 0.2),
        ("eye", 0.001, 0.03),
        ("mouth", 0.001, 0.03),
        ("nose", 0.001, 0.04),
    ):
        assert low < shares[G.regions.index(name)] < high, name
    assert out.image.mean(dim=(1, 2, 3)).std() > 0.01  # they differ


def test_hair_of_another_seed_changes_hair_above_all(network):
    G = network.G_ema
    ws, donor = G.mapping(seed_latents(range(16), G.z_dim), None, truncation_psi=0.7).chunk(2)
    one, two = (
        G.synthesis(w, noise_mode="const", return_mask=True)
        for w in (ws, mix_regions(ws, donor, G.regions, ["hair"], part="texture"))
    )
    hair = (one.mask.argmax(dim=1) == G.regions.index("hair")) | (two.mask.argmax(dim=1) == G.regions.index("hair"))
    change = (two.image - one.image).abs().mean(dim=1)
    assert change[hair].mean() > 5 * change[~hair].mean()


def test_figures_are_finite_and_of_all_snapshots(about):
    rows = about["snapshots"]
    assert len(rows) >= 2
    assert np.isfinite([row["swd2k_mean"] for row in rows]).all()
    assert rows[-1]["swd2k_mean"] < 1.05 * min(row["swd2k_mean"] for row in rows)
    assert rows[-1]["region_leak100_texture_mean"] < 0.9 * rows[0]["region_leak100_texture_mean"]


def test_edits_stay_local_masks_fit_and_faces_vary(about):
    last = about["snapshots"][-1]
    assert last["region_leak100_texture_mean"] < 0.12
    assert last["region_leak100_shape_mean"] < 0.2
    assert last["coarse_fit500_mean"] > 0.85
    assert last["mask_fit500_difference"] < 0.1
    assert abs(last["msssim1k"] / last["msssim1k_real"] - 1) < 0.2


def test_its_encoder_finds_samples_at_once(network):
    path = find_network().with_name("faces128-encoder.pkl")
    assert path.stat().st_size <= 8 * 2**20
    G = network.G_ema
    assert load_encoder(path, G).mismatch(G) is None
    ws = G.mapping(seed_latents(range(2000, 2008), G.z_dim), None, truncation_psi=0.7)
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    found = start_of(network, find_network())(out.image.clamp(-1, 1), out.mask.argmax(dim=1))
    assert float(psnr(G.synthesis(found, noise_mode="const"), out.image).mean()) > 24
