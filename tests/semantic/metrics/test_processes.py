"""All metrics of regions on one process and on two."""

import os

import pytest
import torch

from metrics.metric_main import calc_metric, load_plugins
from semantic.metrics.mask_fit import compute_mask_fit
from tests.semantic.metrics.hand_made import Replay, Squares, faces, options, write_archive
from torch_utils import distributed

NAMES = ("region_leak6", "coarse_fit6", "mask_stats20", "region_fid24")


class Colours(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return torch.nn.functional.avg_pool2d(x.float() / 255, 64).flatten(1)


def measure(path: str, cache: str) -> dict[str, float]:
    os.environ["DNNLIB_CACHE_DIR"] = cache
    torch.set_num_threads(1)
    load_plugins(["semantic.metrics"])
    images, masks = faces(24, 16)
    G = Replay(images, masks)
    sharing = dict(num_gpus=distributed.get_world_size(), rank=distributed.get_rank(), batch_size=4, progress=False)
    sharing["detector"] = os.path.join(os.path.dirname(path), "colours.pt")
    data = options(G, path).dataset_kwargs
    found = calc_metric("region_leak6", Squares(), **sharing).results
    for name in NAMES[1:]:
        found |= calc_metric(name, G, data, **sharing).results
    fit = compute_mask_fit(options(G, path, **sharing), 20, train_images=48)
    return {**found, **{f"fit_{name}": value for name, value in fit.items()}}


def test_two_processes_agree_with_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", "")  # put back afterwards
    path = write_archive(tmp_path / "faces.zip", *faces(24, 16, seed=1))
    torch.jit.script(Colours()).save(str(tmp_path / "colours.pt"))
    one = measure(str(path), str(tmp_path / "one"))
    two = distributed.spawn(measure, 2, str(path), str(tmp_path / "two"))
    assert two == pytest.approx(one, rel=1e-6, abs=1e-9)
    assert all(any(name.startswith(start) for name in one) for start in (*NAMES, "fit_mean", "fit_real_mean"))
