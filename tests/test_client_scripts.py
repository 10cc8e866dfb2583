"""Scripts as other people write them, against upstream's names, on a plain and on a semantic network."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dnnlib
import legacy
from tests.helpers import assert_close, shared_file
from tests.networks import small_networks
from torch_utils import misc

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["plain", "semantic"])
def snapshot(request, tmp_path):
    legacy.save_network(small_networks(request.param), tmp_path / "network.pkl")
    return tmp_path / "network.pkl"


def project(network_pkl, outdir, device="cpu", num_steps=3):
    """A projector: codes in float64 from NumPy, noise maps that are optimised too, options of StyleGAN2's blocks."""
    with open(network_pkl, "rb") as f:
        G = pickle.load(f)["G_ema"].eval().requires_grad_(False).to(device)
    z_samples = np.random.RandomState(123).randn(50, G.z_dim)
    w_samples = G.mapping(torch.from_numpy(z_samples).to(device), None)[:, :1, :].cpu().numpy().astype(np.float64)
    w_avg = np.mean(w_samples, axis=0, keepdims=True)
    noise_bufs = {name: buf for name, buf in G.synthesis.named_buffers() if "noise_const" in name}
    assert noise_bufs
    w_opt = torch.tensor(w_avg, device=device, requires_grad=True)
    assert w_opt.dtype == torch.float64
    optimizer = torch.optim.Adam([w_opt, *noise_bufs.values()], lr=0.1)
    for buf in noise_bufs.values():
        buf[:] = torch.randn_like(buf)
        buf.requires_grad = True
    target = torch.zeros(1, G.img_channels, G.img_resolution, G.img_resolution)
    losses = []
    for _ in range(num_steps):
        ws = w_opt.repeat([1, G.mapping.num_ws, 1])
        images = G.synthesis(ws, noise_mode="const", force_fp32=True, fused_modconv=False)
        loss = (images - target).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        image = G.synthesis(w_opt.repeat([1, G.num_ws, 1]), noise_mode="const")
    np.savez(outdir / "projected_w.npz", w=w_opt.detach().repeat([1, G.num_ws, 1]).numpy())
    for buf in noise_bufs.values():
        buf.requires_grad = False
    return G, image


def tune(G, w, num_steps=2):
    """Pivotal tuning: a copy of the generator learns."""
    G = copy.deepcopy(G).train().requires_grad_(True).float()
    optimizer = torch.optim.Adam(G.parameters(), lr=3e-3)
    for _ in range(num_steps):
        loss = G.synthesis(w, noise_mode="const", force_fp32=True).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return G


def test_project_tune_save_and_read_again(snapshot, tmp_path):
    G, image = project(snapshot, tmp_path)
    w = torch.from_numpy(np.load(tmp_path / "projected_w.npz")["w"])
    assert w.dtype == torch.float64
    assert_close(G.synthesis(w, noise_mode="const"), image)
    tuned = tune(G, w)
    expected = tuned.eval().synthesis(w.half(), noise_mode="const").detach()
    with open(tmp_path / "tuned.pkl", "wb") as f:
        pickle.dump(dict(G=tuned, D=None, G_ema=tuned, training_set_kwargs=None), f)
    found = [pickle.loads((tmp_path / "tuned.pkl").read_bytes()), legacy.load_network(tmp_path / "tuned.pkl")]
    with open(tmp_path / "tuned.pkl", "rb") as f:
        found.append(legacy.load_network_pkl(f))
    for data in found:
        assert type(data["G_ema"]) is type(G)
        assert data["G"] is data["G_ema"]
        assert torch.equal(data["G_ema"].synthesis(w.half(), noise_mode="const"), expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["plain", "semantic"])
def test_any_network_pickles_and_reads_back(kind, protocol):
    data = small_networks(kind)
    content = pickle.dumps(data, protocol=protocol)
    for found in (pickle.loads(content), legacy.load_network_pkl(io.BytesIO(content))):
        for key in ("G", "D", "G_ema"):
            expected = dict(data[key].named_buffers()) | data[key].state_dict()
            tensors = dict(found[key].named_buffers()) | found[key].state_dict()
            assert tensors.keys() == expected.keys()
            assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())
            assert found[key].init_kwargs == data[key].init_kwargs


def factorise(network_pkl):
    """Closed-form factorisation: directions in W that change the styles most, from the weights of all affine layers."""
    with dnnlib.util.open_url(str(network_pkl)) as f:
        G = legacy.load_network_pkl(f)["G_ema"]
    weights = [p for name, p in misc.named_params_and_buffers(G) if ".affine" in name and name.endswith("weight")]
    assert weights
    matrix = torch.cat([weight.reshape(-1, weight.shape[-1]) for weight in weights])
    matrix = matrix / matrix.norm(dim=0, keepdim=True)
    directions = torch.linalg.svd(matrix, full_matrices=False).Vh
    assert directions.shape == (G.w_dim, G.w_dim)
    return G, directions


def test_factorise_and_walk(snapshot):
    G, directions = factorise(snapshot)
    w = G.mapping(torch.randn(1, G.z_dim), None, truncation_psi=0.7)
    start = G.synthesis(w, noise_mode="const")
    steps = torch.stack([w + 3 * direction for direction in (directions[0], -directions[0])]).flatten(0, 1)
    images = G.synthesis(steps, noise_mode="const", force_fp32=True)
    misc.assert_shape(images, [2, G.img_channels, G.img_resolution, G.img_resolution])
    assert all((image - start[0]).abs().max() > 1e-3 for image in images)


def test_options_of_blocks_change_nothing_on_a_semantic_network():
    G = small_networks("semantic")["G_ema"]
    ws = G.mapping(torch.randn(2, 8), None)
    expected = G.synthesis(ws, noise_mode="const")
    assert torch.equal(
        G.synthesis(ws, noise_mode="const", force_fp32=True, fused_modconv=True, update_emas=False), expected
    )
    assert G(torch.zeros(1, 8), None, noise_mode="none", force_fp32=True).shape == (1, 3, 32, 32)
    assert_close(G.synthesis(ws.double(), noise_mode="const"), expected)
    assert_close(G.synthesis(ws.half(), noise_mode="const"), expected, 0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(G.synthesis(ws, noise_mode="const", force_fp32=True), expected)
        assert not torch.equal(G.synthesis(ws, noise_mode="const"), expected)


def test_the_line_of_the_readme_works_with_nothing_imported():
    """In a process that has only the path of this project: the bundled network, and an official pickle."""
    official = shared_file("fixtures", "stylegan2_ada_small.pkl")
    numbers = shared_file("fixtures", "stylegan2_ada_small_io.npz")
    program = f"""
import pickle, sys
import numpy as np, torch
with open({str(official)!r}, 'rb') as f:
    G = pickle.load(f)['G_ema']
assert 'legacy' not in sys.modules
io = {{k: torch.from_numpy(v) for k, v in np.load({str(numbers)!r}).items()}}
w = G.mapping(io['z'], io['c'], truncation_psi=0.7)
image = G.synthesis(w, noise_mode='const', force_fp32=True)
assert (image - io['image']).abs().max() < 1e-4 * io['image'].abs().max()
with open({legacy.resolve("faces128")!r}, 'rb') as f:
    G = pickle.load(f)['G_ema']
assert {{t.dtype for t in G.state_dict().values()}} == {{torch.float32}}
img = G(torch.randn(1, G.z_dim), None, truncation_psi=0.5, noise_mode='const')
assert img.shape == (1, 3, 128, 128) and img.dtype == torch.float32
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
