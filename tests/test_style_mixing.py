"""style_mixing.py with a plain and a semantic network."""

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import legacy
import style_mixing
from semantic.editing.latents import seed_latents
from semantic.tuned import TUNED_DIGEST, network_digest
from tests.networks import tiny_generator
from training.images import to_uint8
from training.networks import Generator


@pytest.fixture(scope="module", params=["plain", "semantic"])
def G(request):
    if request.param == "semantic":
        return tiny_generator()
    return Generator(8, 0, 8, 32, 3, synthesis_kwargs={"channel_base": 256, "channel_max": 16}).eval()


@pytest.fixture
def run(tmp_path, monkeypatch, G):
    monkeypatch.setattr(legacy, "load_network", lambda path: {"G_ema": G})

    def call(*options):
        options = ["--network=net.pkl", f"--outdir={tmp_path}/out", "--device=cpu", *options]
        return CliRunner().invoke(style_mixing.main, options)

    return call


def picture(path):
    return np.asarray(PIL.Image.open(path)).astype(int)


def test_pairs_and_grid(run, tmp_path, G):
    result = run("--rows=1,2", "--cols=5,6,1", "--styles=0-2", "--trunc=0.8", "--batch=4")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    pairs = {"1-1", "2-2", "5-5", "6-6", "1-5", "1-6", "2-5", "2-6", "2-1"}
    assert {path.name for path in out.iterdir()} == {f"{pair}.png" for pair in pairs} | {"grid.png"}

    row, col = G.mapping(seed_latents([2, 6], G.z_dim), None, truncation_psi=0.8).split(1)
    mixed = row.clone()
    mixed[:, :3] = col[:, :3]
    expected = to_uint8(G.synthesis(mixed, noise_mode="const"))[0].transpose(1, 2, 0)
    assert np.abs(picture(out / "2-6.png") - expected).max() <= 1
    grid = picture(out / "grid.png")
    assert grid.shape == (3 * 32, 4 * 32, 3)
    assert np.array_equal(grid[64:96, 64:96], picture(out / "2-6.png"))
    assert np.array_equal(grid[:32, 64:96], picture(out / "6-6.png"))
    assert np.array_equal(grid[64:96, :32], picture(out / "2-2.png"))
    assert not grid[:32, :32].any()


def test_a_tuned_network_mixes_with_its_changes(run, tmp_path, G):
    name = f"synthesis.render.b{G.img_resolution}.to_rgb.bias" if hasattr(G, "regions") else "synthesis.b32.torgb.bias"
    change = np.array([0.5, 0.0, 0.0], np.float32)
    np.savez(tmp_path / "tuned.npz", **{TUNED_DIGEST: np.array(network_digest(G)), name: change})
    options = ("--rows=1", "--cols=2", "--styles=0")
    before = dict(G.named_parameters())[name].detach().clone()
    assert run(*options).exit_code == 0
    plain = picture(tmp_path / "out" / "1-2.png")
    try:
        assert run(*options, f"--tuned={tmp_path / 'tuned.npz'}").exit_code == 0
    finally:
        dict(G.named_parameters())[name].data.copy_(before)
    assert (picture(tmp_path / "out" / "1-2.png") - plain)[..., 0].mean() > 20


def test_styles_that_are_not_there(run, G):
    result = run("--styles=3,40")
    assert result.exit_code == 1
    assert f"There is no style 40. This network has styles 0 to {G.num_ws - 1}." in result.output
