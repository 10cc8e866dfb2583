"""A generator of a disc and a bar, drawn by rule, and generate.py with it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import generate
import legacy
from semantic.regions import Regions

RESOLUTION, COARSE, W_DIM = 32, 16, 4
REGIONS = Regions(["background", "disc", "bar"], colors=[(20, 20, 20), (200, 40, 40), (40, 40, 200)])


class Painter(torch.nn.Module):
    """Draws a disc on the left and a bar on the right. Texture codes give colours, a shape code the disc's size."""

    def __init__(self, regions: Regions | None):
        super().__init__()
        axis = torch.linspace(-1, 1, COARSE)
        self.grid = torch.stack([axis.expand(COARSE, COARSE), axis[:, None].expand(COARSE, COARSE)])
        self.local = SimpleNamespace(num_expanded=30)
        self.has_regions = regions is not None
        self.calls = []

    def forward(self, ws, noise_mode="random", **options):
        self.calls.append({"count": len(ws), "noise_mode": noise_mode, **options})
        if not self.has_regions:
            assert not options
            return ws[:, 0, :3, None, None].tanh().expand(-1, -1, RESOLUTION, RESOLUTION)
        coords = options.get("coords")
        coords = (self.grid if coords is None else coords).expand(len(ws), 3, 2, COARSE, COARSE)
        radius = 0.3 + 0.1 * ws[:, 4, 0].tanh().view(-1, 1, 1)
        disc = (coords[:, 1] - torch.tensor([-0.4, 0.0]).view(2, 1, 1)).norm(dim=1) < radius
        bar = (coords[:, 2, 0] - 0.6).abs() < 0.2
        depth = torch.stack([torch.zeros_like(disc), 2 * disc - 1, 2 * bar - 1], dim=1).float() * 10
        share = depth.softmax(dim=1)
        keep = options.get("keep_regions")
        if keep is not None:
            share = share * keep[:, :, None, None]
            share = share / share.sum(dim=1, keepdim=True)
        colors = ws[:, 3::2, :3].tanh()
        image = torch.einsum("nkhw,nkc->nchw", share, colors).repeat_interleave(2, 2).repeat_interleave(2, 3)
        mask = (share * 2 - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return SimpleNamespace(image=image, mask=mask, coarse_mask=share * 2 - 1, depth=depth)


class Network(torch.nn.Module):
    def __init__(self, regions: Regions | None = REGIONS, c_dim: int = 0):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = W_DIM, c_dim, W_DIM
        self.img_resolution, self.img_channels, self.num_ws = RESOLUTION, 3, REGIONS.num_ws
        self.synthesis = Painter(regions)
        if regions is not None:
            self.regions = regions

    def mapping(self, z, c, truncation_psi=1):
        shift = (c * torch.arange(c.shape[1])).sum(dim=1, keepdim=True)
        return (z * truncation_psi + shift).unsqueeze(1).repeat(1, self.num_ws, 1) + torch.arange(self.num_ws)[
            :, None
        ] / 9


def run_generate(
    monkeypatch: pytest.MonkeyPatch, out: Path, *options: str, network: Network | None = None, data: dict | None = None
) -> SimpleNamespace:
    """Call the script with options. Returns the result, its network and its output folder."""
    G = network or Network()
    monkeypatch.setattr(legacy, "load_network", lambda path: {"G_ema": G, "training_set_kwargs": data})
    result = CliRunner().invoke(generate.main, ["--network=net.pkl", f"--outdir={out}", "--device=cpu", *options])
    return SimpleNamespace(code=result.exit_code, output=result.output, G=G, out=out, result=result)


def ws_of(G: Network, seeds, psi: float) -> torch.Tensor:
    z = np.stack([np.random.RandomState(seed).randn(W_DIM) for seed in seeds]).astype(np.float32)
    return G.mapping(torch.from_numpy(z), torch.zeros(len(z), G.c_dim), psi)


def picture(path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path))


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
