"""Parts of one network in another."""

import importlib

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import generate
from dnnlib import UserError
from semantic.adaptation.layer_swap import blended, load_blended
from tests.networks import tiny_generator
from tests.semantic.helpers import random_tensor
from training.run.snapshots import save_networks


@pytest.fixture(scope="module")
def pair():
    return tiny_generator(seed=0), tiny_generator(seed=1)


def hidden(G):
    """Hidden maps [N, K, C, P] and pseudo-depths [N, K, P] of the local generators."""
    ws = random_tensor(2, G.num_ws, G.w_dim)
    return G.synthesis.local(G.synthesis.expand(ws), G.synthesis.grid)


@torch.no_grad()
def test_a_region_comes_from_the_other_network_and_no_other_does(pair):
    G, other = pair
    other.synthesis.local.position.load_state_dict(G.synthesis.local.position.state_dict())  # shared by all regions
    found, ours, theirs = (hidden(network) for network in (blended(G, other, "hair"), G, other))
    for map_found, map_ours, map_theirs in zip(found, ours, theirs, strict=True):
        for k, name in enumerate(G.regions.names):
            wanted = map_theirs if name == "hair" else map_ours
            assert torch.allclose(map_found[:, k], wanted[:, k], atol=1e-6), name


def test_the_features_of_the_region_come_along(pair):
    G, other = pair
    found = blended(G, other, "skin").synthesis.local
    assert torch.equal(found.feature_weight[1], other.synthesis.local.feature_weight[1])
    assert torch.equal(found.feature_weight[2], G.synthesis.local.feature_weight[2])
    assert torch.equal(found.depth_bias[0], other.synthesis.local.depth_bias[0])  # of region 1: the background has none


def test_rendering_comes_from_a_resolution_upwards(pair):
    G, other = pair
    state, ours, theirs = (network.state_dict() for network in (blended(G, other, "32+"), G, other))
    for name, tensor in state.items():
        assert torch.equal(tensor, (theirs if ".render.b32." in name else ours)[name]), name


def test_blends_apply_in_turn_and_leave_the_network_as_it_is(pair):
    G, other = pair
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    taken = load_blended({"G_ema": G}, ["hair:b.pkl", "16+:b.pkl"], lambda path: {"G_ema": other})
    assert torch.equal(taken.synthesis.local.weight[:, 2], other.synthesis.local.weight[:, 2])
    assert torch.equal(taken.synthesis.render.b16.up.weight, other.synthesis.render.b16.up.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())


def test_what_does_not_fit_is_told(pair):
    G, other = pair
    wide, regions = tiny_generator(w_dim=16), tiny_generator(names=["sky", "tree"])
    for part, network, text in [
        ("beard", other, "beard"),
        ("64+", other, r"no stage of 64. Its stages are 16, 32\."),
        ("hair", wide, "takes 10 codes of 16 numbers"),
        ("hair", regions, r"other regions \(sky, tree\)"),
        ("hair", torch.nn.Identity(), "One network has no regions"),
    ]:
        with pytest.raises(UserError, match=text):
            blended(G, network, part)
    with pytest.raises(UserError, match="Expected PART:FILE"):
        load_blended({"G_ema": G}, ["hair"], lambda path: {"G_ema": other})


SCRIPTS = ("generate", "edit", "projector", "style_mixing", "calc_metrics", "train_encoder", "visualizer")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_that_takes_a_network_can_blend(name):
    script = importlib.import_module(name)
    assert "blend" in {parameter.name for parameter in script.main.params}


@pytest.fixture
def files(pair, tmp_path):
    for name, G in zip(("a.pkl", "b.pkl"), pair, strict=True):
        save_networks(tmp_path / name, None, G=G, D=None, G_ema=G, augment_pipe=None)
    return tmp_path


def generate_images(folder, *args):
    out = folder / "out"
    options = [f"--network={folder / 'a.pkl'}", "--seeds=1-2", f"--outdir={out}", "--device=cpu", *args]
    result = CliRunner().invoke(generate.main, options)
    assert result.exit_code == 0, result.output
    return out


def test_a_blend_gives_the_images_of_the_blended_network(pair, files):
    G, other = pair
    out = generate_images(files, f"--blend=hair:{files / 'b.pkl'}")
    z = np.random.RandomState(1).randn(1, G.z_dim)
    with torch.no_grad():
        image = blended(G, other, "hair")(torch.from_numpy(z).float(), None, noise_mode="const")
    expected = (image[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
    found = np.asarray(PIL.Image.open(out / "seed0001.png")).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_a_comparison_shows_both_networks_and_is_the_same_for_one(files):
    def halves(other):
        sheet = np.asarray(PIL.Image.open(generate_images(files, f"--compare={files / other}") / "compare.png"))
        inked = (sheet[-100:-40] < 250).any(axis=(0, 2))  # below the labels, at the lower row of pictures
        starts = np.flatnonzero(inked[1:] & ~inked[:-1])[-4:] + 1
        return [sheet[-100:-40, start : start + 60] for start in starts]

    image, mask, other_image, other_mask = halves("a.pkl")
    assert np.array_equal(image, other_image)
    assert np.array_equal(mask, other_mask)
    image, mask, other_image, other_mask = halves("b.pkl")
    assert not np.array_equal(image, other_image)
    assert not np.array_equal(mask, other_mask)
