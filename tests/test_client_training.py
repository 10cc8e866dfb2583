"""Training and metric scripts as other people write them, on a plain and on a semantic network."""

import os
import pickle
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

import dnnlib
import legacy
from metrics import metric_main, metric_utils, registry
from semantic.dataset import MaskedImageDataset
from tests.networks import SMALL_PLAIN, SMALL_SEMANTIC, small_networks
from torch_utils import custom_ops, misc, training_stats

KINDS = ("plain", "semantic")


class Features(torch.nn.Module):
    """Stands for a feature network: 12 means of an image, as the published ones are called."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = torch.nn.functional.adaptive_avg_pool2d(img.float(), 2).flatten(1)
        return means if return_features else means.softmax(dim=1)


@pytest.fixture(scope="module")
def detector_url(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "means-2026.pt"
    torch.jit.script(Features()).save(str(path))
    return str(path)


@pytest.fixture
def dataset_kwargs(archive, monkeypatch, tmp_path):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    return dnnlib.EasyDict(
        class_name="training.dataset.ImageFolderDataset", path=archive, use_labels=False, max_size=None, xflip=False
    )


def compute_fid(opts, detector_url, max_real, num_gen):
    """FID as a fork writes it."""
    detector_kwargs = dict(return_features=True)
    mu_real, sigma_real = metric_utils.compute_feature_stats_for_dataset(
        opts=opts, detector_url=detector_url, detector_kwargs=detector_kwargs,
        rel_lo=0, rel_hi=0, capture_mean_cov=True, max_items=max_real,
    ).get_mean_cov()  # fmt: skip
    mu_gen, sigma_gen = metric_utils.compute_feature_stats_for_generator(
        opts=opts, detector_url=detector_url, detector_kwargs=detector_kwargs,
        rel_lo=0, rel_hi=1, capture_mean_cov=True, max_items=num_gen,
    ).get_mean_cov()  # fmt: skip
    if opts.rank != 0:
        return float("nan")
    m = np.square(mu_gen - mu_real).sum()
    s = scipy.linalg.sqrtm(sigma_gen @ sigma_real)
    return float(np.real(m + np.trace(sigma_gen + sigma_real - s * 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_of_a_fork(kind, detector_url, dataset_kwargs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "REGISTRY", list(registry.REGISTRY))

    @metric_main.register_metric
    def own_fid(opts):
        opts.dataset_kwargs.update(max_size=None, xflip=False)
        return dict(own_fid=compute_fid(opts, detector_url, max_real=None, num_gen=20))

    assert metric_main.is_valid_metric("own_fid")
    assert {"own_fid", "fid50k_full", "kid50k_full", "pr50k3_full", "ppl2_wend"} <= set(
        metric_main.list_valid_metrics()
    )
    told = []
    progress = metric_utils.ProgressMonitor(verbose=True, progress_fn=lambda done, total: told.append((done, total)))
    device = torch.device("cpu")
    G = small_networks(kind)["G_ema"]
    result = metric_main.calc_metric(
        metric="own_fid", G=G, dataset_kwargs=dataset_kwargs, num_gpus=1, rank=0, device=device, progress=progress,
        G_kwargs=dict(truncation_psi=0.7), cache=False,
    )  # fmt: skip
    assert set(result) == {"results", "metric", "total_time", "total_time_str", "num_gpus"}
    assert result.results.own_fid > 0
    assert told[0] == (0, 1000)
    assert told[-1] == (1000, 1000)
    assert "own_fid generated" in capsys.readouterr().out
    metric_main.report_metric(result, run_dir=str(tmp_path), snapshot_pkl=str(tmp_path / "network-snapshot.pkl"))
    assert '"own_fid"' in (tmp_path / "metric-own_fid.jsonl").read_text()


@pytest.mark.parametrize("masked", [False, True])
def test_a_feature_loop_over_data_gives_the_statistics_of_the_metrics(masked, detector_url, dataset_kwargs, tmp_path):
    if masked:
        dataset_kwargs.class_name = "semantic.dataset.MaskedImageDataset"
    dataset = dnnlib.util.construct_class_by_name(**dataset_kwargs)
    assert metric_utils.get_feature_detector_name(detector_url) == "means-2026"
    detector = metric_utils.get_feature_detector(detector_url, torch.device("cpu"), num_gpus=1, rank=0, verbose=False)
    assert metric_utils.get_feature_detector(detector_url, torch.device("cpu"), 1, 0, False) is detector
    stats = metric_utils.FeatureStats(capture_all=True, capture_mean_cov=True, max_items=len(dataset))
    for images, _labels in torch.utils.data.DataLoader(dataset=dataset, batch_size=5):
        stats.append_torch(detector(images, return_features=True), num_gpus=1, rank=0)
        assert stats.is_full() == (stats.num_items == 16)
    stats.save(tmp_path / "stats.pkl")
    opts = metric_utils.MetricOptions(G=None, dataset_kwargs=dataset_kwargs, num_gpus=1, rank=0, progress=None)
    expected = metric_utils.compute_feature_stats_for_dataset(
        opts, detector_url, dict(return_features=True), capture_mean_cov=True, data_loader_kwargs=dict(num_workers=0)
    )
    loaded = metric_utils.FeatureStats.load(tmp_path / "stats.pkl")
    for found, figure in zip(loaded.get_mean_cov(), expected.get_mean_cov(), strict=True):
        np.testing.assert_allclose(found, figure, rtol=1e-9)


def train(rank, args):
    """A training script that begins as upstream's does: log, statistics, plugins, data, networks, a few steps."""
    dnnlib.util.Logger(file_name=os.path.join(args.run_dir, "log.txt"), file_mode="a", should_flush=True)
    sync_device = torch.device("cuda", rank) if args.num_gpus > 1 else None
    training_stats.init_multiprocessing(rank=rank, sync_device=sync_device)
    custom_ops.verbosity = "none" if rank != 0 else "brief"
    device = torch.device("cpu")
    torch.manual_seed(args.random_seed * args.num_gpus + rank)

    training_set = dnnlib.util.construct_class_by_name(**args.training_set_kwargs)
    sampler = misc.InfiniteSampler(
        dataset=training_set, rank=rank, num_replicas=args.num_gpus, seed=args.random_seed, window_size=0.5
    )
    iterator = iter(torch.utils.data.DataLoader(dataset=training_set, sampler=sampler, batch_size=4))
    print("Image shape:", training_set.image_shape)
    common = dict(
        c_dim=training_set.label_dim, img_resolution=training_set.resolution, img_channels=training_set.num_channels
    )
    G = dnnlib.util.construct_class_by_name(**args.G_kwargs, **common).train().requires_grad_(False).to(device)
    D = dnnlib.util.construct_class_by_name(**args.D_kwargs, **common).train().requires_grad_(False).to(device)
    with dnnlib.util.open_url(args.resume_pkl) as f:
        resume_data = legacy.load_network_pkl(f)
    for name, module in (("G", G), ("D", D)):
        misc.copy_params_and_buffers(resume_data[name], module, require_all=False)
    z, c = torch.empty([4, G.z_dim], device=device), torch.empty([4, G.c_dim], device=device)
    img = misc.print_module_summary(G, [z, c])
    misc.print_module_summary(D, [img, c])

    collector = training_stats.Collector(regex=".*")
    opts = {G: torch.optim.Adam(G.parameters(), lr=1e-3), D: torch.optim.Adam(D.parameters(), lr=1e-3)}
    for _ in range(2):
        real_img, real_c = next(iterator)
        real_img = real_img.to(device).to(torch.float32) / 127.5 - 1
        for module in (G, D):
            module.requires_grad_(True)
            with misc.ddp_sync(module, sync=True), torch.autograd.profiler.record_function("forward"):
                fake = G(torch.randn([4, G.z_dim]), real_c)
                loss = torch.nn.functional.softplus(-D(fake, real_c) if module is G else D(fake, real_c))
                if module is D:
                    loss = loss + torch.nn.functional.softplus(-D(real_img, real_c))
            training_stats.report(f"Loss/{'G' if module is G else 'D'}", loss)
            loss.mean().backward()
            module.requires_grad_(False)
            for param in module.parameters():
                if param.grad is not None:
                    misc.nan_to_num(param.grad, nan=0, posinf=1e5, neginf=-1e5, out=param.grad)
            opts[module].step()
            opts[module].zero_grad(set_to_none=True)
    training_stats.report0("Progress/kimg", 8 / 1000)
    collector.update()
    print(f"kimg {collector['Progress/kimg']:.3f} time {dnnlib.util.format_time(1)}")
    misc.check_ddp_consistency(G, ignore_regex=r".*\.w_avg")
    with open(os.path.join(args.run_dir, "network-snapshot.pkl"), "wb") as f:
        pickle.dump(dict(G=G, D=D, G_ema=G, training_set_kwargs=dict(args.training_set_kwargs)), f)
    return collector.as_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_script(kind, dataset_kwargs, tmp_path, monkeypatch):
    sizes = dict(z_dim=8, w_dim=8, mapping_kwargs=dnnlib.EasyDict(num_layers=2))
    if kind == "plain":
        G_kwargs = dict(class_name="training.networks.Generator", synthesis_kwargs=SMALL_PLAIN, **sizes)
        D_kwargs = dict(class_name="training.networks.Discriminator", **SMALL_PLAIN)
    else:
        dataset_kwargs.class_name = "semantic.dataset.MaskedImageDataset"
        regions = MaskedImageDataset(dataset_kwargs.path).regions.to_dict()
        G_kwargs = dict(class_name="semantic.generator.Generator", synthesis_kwargs=SMALL_SEMANTIC, **sizes)
        G_kwargs["regions"] = regions
        D_kwargs = dict(class_name="semantic.discriminator.DualBranchDiscriminator", channel_base=256, channel_max=8)
        D_kwargs |= dict(num_regions=len(regions["names"]), segmentation=True)
    legacy.save_network(small_networks(kind), tmp_path / "resume.pkl")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # the script never closes its log
    args = dnnlib.EasyDict(
        run_dir=str(tmp_path), num_gpus=1, random_seed=0, training_set_kwargs=dataset_kwargs, G_kwargs=G_kwargs,
        D_kwargs=D_kwargs, resume_pkl=str(tmp_path / "resume.pkl"),
    )  # fmt: skip
    figures = train(0, args)
    assert figures["Loss/G"].num == figures["Loss/D"].num == 8
    assert np.isfinite(figures["Loss/D"].mean)
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("Image shape: [3, 32, 32]\n")
    assert "synthesis" in log
    assert log.endswith("kimg 0.008 time 1s\n")
    G = legacy.load_network(tmp_path / "network-snapshot.pkl")["G_ema"]
    before = small_networks(kind)["G_ema"]
    assert not torch.equal(G.mapping.fc0.weight, before.mapping.fc0.weight)
