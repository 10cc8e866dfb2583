import io
import json
import zipfile

import numpy as np
import PIL.Image
import pytest
import requests
import torch
from click.testing import CliRunner

import calc_metrics
import legacy
from dnnlib import write_json
from legacy import find_network
from metrics import detectors
from semantic import generator as compositional
from semantic.procedural import ProceduralFaces
from training.networks import Generator

RESOLUTION = 16


class TinyDetector(torch.nn.Module):
    """Colours of four quarters of the picture."""

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor, return_features: bool = False, no_output_bias: bool = False):
        features = torch.nn.functional.avg_pool2d(x.float() * (self.gain / 255), 8).flatten(1)
        return features if return_features else torch.softmax(features * 9, dim=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(detectors, "_unreachable", set())
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path):
    """24 drawn faces with masks."""
    return write_faces(tmp_path / "faces.zip", RESOLUTION)


def write_faces(path, resolution):
    faces = ProceduralFaces(resolution, seed=3)
    with zipfile.ZipFile(path, "w") as file:
        for i in range(24):
            for folder, pixels in zip(("", "masks/"), faces.render(i), strict=True):
                buffer = io.BytesIO()
                PIL.Image.fromarray(pixels).save(buffer, "png")
                file.writestr(f"{folder}00000/img{i:08d}.png", buffer.getvalue())
        regions = {"names": list(faces.regions.names), "colors": [list(c) for c in faces.regions.colors]}
        file.writestr("dataset.json", json.dumps({"labels": None, "regions": regions}))
    return path


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    G = Generator(8, 0, 8, RESOLUTION, 3, synthesis_kwargs=dict(channel_base=64, channel_max=8))
    path = tmp_path / "network-snapshot-000010.pkl"
    legacy.save_network(dict(G=G, D=None, G_ema=G, augment_pipe=None, training_set_kwargs=None), path)
    return path


@pytest.fixture
def detector(tmp_path):
    path = tmp_path / "tiny.pt"
    torch.jit.script(TinyDetector()).save(str(path))
    return path


def call(*options: object) -> tuple[int, list[dict], str]:
    """Exit code, results and messages of the command."""
    answer = CliRunner().invoke(calc_metrics.main, [str(option) for option in options])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer.exit_code, [json.loads(x) for x in answer.stdout.splitlines() if x.startswith("{")], answer.stderr


def test_goes_the_whole_way_with_any_detector_and_the_second_time_from_the_cache(
    network, archive, detector, cache, monkeypatch
):
    options = [f"--network={network}", f"--data={archive}", f"--detector={detector}", "--device=cpu"]
    options.append("--metrics=fid1k_full,kid1k_full,pr1k3_full,is1k,ppl1k_wend")
    code, first, _ = call(*options)
    assert code == 0
    names = [name for result in first for name in result["results"]]
    expected = [
        "fid1k_full",
        "kid1k_full",
        "pr1k3_full_precision",
        "pr1k3_full_recall",
        "is1k_mean",
        "is1k_std",
        "ppl1k_wend",
    ]
    assert names == expected
    assert all(np.isfinite(value) for result in first for value in result["results"].values())
    assert first[0]["results"]["fid1k_full"] > 0
    assert len(list(cache.glob("metrics/faces-*.npz"))) == 3

    def closed(*_):
        raise AssertionError("the images were read again")

    monkeypatch.setattr("metrics.metric_utils.iterate_dataset", closed)
    code, second, _ = call(*options)
    assert code == 0
    assert [result["results"] for result in second] == [result["results"] for result in first]


def test_other_images_or_another_detector_do_not_meet_in_the_cache(network, archive, detector, cache):
    options = [f"--network={network}", f"--data={archive}", "--metrics=fid1k_full"]
    first = call(*options, f"--detector={detector}")[1][0]["results"]
    with zipfile.ZipFile(archive, "a") as file:
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (RESOLUTION, RESOLUTION), "red").save(buffer, "png")
        file.writestr("00000/img00000099.png", buffer.getvalue())
        file.writestr("masks/00000/img00000099.png", _grey_png())
    second = call(*options, f"--detector={detector}")[1][0]["results"]
    assert second != first
    torch.jit.script(TinyDetector(gain=2)).save(str(detector))
    third = call(*options, f"--detector={detector}")[1][0]["results"]
    assert third["fid1k_full"] == pytest.approx(4 * second["fid1k_full"], rel=1e-5)


def test_help_and_a_call_without_options_list_the_metrics_of_regions_too():
    for options in (["--help"], []):
        answer = CliRunner().invoke(calc_metrics.main, options)
        for name in ("fid50k_full", "swd", "region_leak", "mask_fit", "mask_stats", "coarse_fit", "region_fid"):
            assert f"\n  {name}" in answer.output, (options, name)


def test_a_network_with_regions_has_metrics_of_its_own(archive, detector, tmp_path):
    torch.manual_seed(0)
    regions = json.loads(zipfile.ZipFile(archive).read("dataset.json"))["regions"]
    widths = dict(coarse_size=16, coarse_channels=8, local_channels=4, min_feat_size=8, channel_base=64, channel_max=8)
    G = compositional.Generator(8, 0, 8, 32, 3, regions, synthesis_kwargs=widths)
    kwargs = dict(class_name="semantic.dataset.MaskedImageDataset", path=str(tmp_path / "large.zip"))
    write_faces(tmp_path / "large.zip", 32)
    legacy.save_network(dict(G=G, D=None, G_ema=G, augment_pipe=None, training_set_kwargs=kwargs), tmp_path / "G.pkl")
    options = ["--metrics=region_leak2,coarse_fit2,mask_stats8,region_fid8", f"--detector={detector}"]
    code, results, messages = call(f"--network={tmp_path / 'G.pkl'}", *options)
    assert code == 0, messages
    assert [result["metric"] for result in results] == ["region_leak2", "coarse_fit2", "mask_stats8", "region_fid8"]
    leak, fit, stats, _ = (result["results"] for result in results)
    assert 0 <= leak["region_leak2_shape_mean"] <= 1
    assert 0 <= fit["coarse_fit2"] <= 1
    assert stats["mask_stats8_total"] > 0
    with zipfile.ZipFile(archive, "a") as file:
        other = {**regions, "names": [*regions["names"][:-1], "hat pin"]}
        file.writestr("dataset.json", json.dumps({"labels": None, "regions": other}))
    code, _, messages = call(f"--network={tmp_path / 'G.pkl'}", f"--data={archive}", *options)
    assert (code, "hat pin, but the network has" in messages) == (1, True)


def test_a_folder_does_not_hide_a_network_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "faces64").mkdir()
    monkeypatch.chdir(tmp_path)
    code, results, messages = call("--network=faces64", "--metrics=coarse_fit4")
    assert code == 0, messages
    assert results[0]["results"]["coarse_fit4"] > 0.9


def _grey_png() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("L", (RESOLUTION, RESOLUTION)).save(buffer, "png")
    return buffer.getvalue()


def test_two_processes_agree_with_one(network, archive, detector, capfd, tmp_path, monkeypatch):
    options = [f"--network={network}", f"--data={archive}", f"--detector={detector}", "--device=cpu"]
    options.append("--metrics=fid1k_full,kid1k_full,swd1k")
    code, one, _ = call(*options)
    assert code == 0
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "another"))
    assert call(*options, "--gpus=2")[0] == 0
    two = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    for a, b in zip(one, two, strict=True):
        assert (a["num_gpus"], b["num_gpus"]) == (1, 2)
        assert b["results"] == pytest.approx(a["results"], rel=1e-6)


def test_without_data_a_run_directory_tells_them_and_keeps_the_results(network, archive, tmp_path):
    kwargs = dict(class_name="semantic.dataset.MaskedImageDataset", path=str(archive), resolution=RESOLUTION)
    write_json(tmp_path / "training_options.json", {"training_set_kwargs": kwargs})
    code, results, _ = call(f"--network={network}", "--metrics=swd")
    assert code == 0
    entry = json.loads((tmp_path / "metric-swd.jsonl").read_text())
    assert entry == results[0]
    assert entry["snapshot_pkl"] == network.name
    assert set(entry["results"]) == {"swd_16", "swd_mean"}
    code, _, _ = call("--plot", tmp_path, "--dest", tmp_path / "plot.png")
    assert code == 0
    assert PIL.Image.open(tmp_path / "plot.png").size[0] > 100


def test_without_a_detector_one_line_says_where_it_goes_and_the_others_run(network, archive, cache, monkeypatch):
    def unreachable(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr("dnnlib.util.requests.get", unreachable)
    monkeypatch.setattr("dnnlib.util.time.sleep", lambda _: None)
    code, results, messages = call(f"--network={network}", f"--data={archive}", "--metrics=fid1k,msssim1k")
    assert code == 1
    assert [result["metric"] for result in results] == ["msssim1k"]
    left_out = [line for line in messages.splitlines() if line.startswith("Skipped")]
    assert len(left_out) == 1
    assert str(cache) in left_out[0]
    assert "--detector" in left_out[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics=fid"], "Unknown metric 'fid'"),
        (["--metrics=swd"], "--data"),
        (["--metrics=swd", "--data=nothing.zip"], "nothing.zip"),
        (["--metrics=fid1k", "--detector=nothing.pt"], "nothing.pt"),
        (["run"], "--plot"),
    ],
)
def test_mistakes_end_in_one_line(network, options, message):
    code, results, messages = call(f"--network={network}", "--verbose=0", *options)
    assert code in (1, 2)
    assert results == []
    assert message in messages.splitlines()[-1]


def test_a_file_that_is_no_detector_is_refused(network, archive, tmp_path):
    (tmp_path / "no.pt").write_bytes(b"not a network")
    code, _, messages = call(
        f"--network={network}", f"--data={archive}", f"--detector={tmp_path / 'no.pt'}", "--metrics=fid1k"
    )
    assert code == 1
    assert "TorchScript" in messages.splitlines()[-1]


def test_without_a_network_the_bundled_one_is_measured(monkeypatch):
    asked = []
    monkeypatch.setattr(calc_metrics, "compute", lambda names, opts: asked.append((names, opts.network)) or True)
    result = CliRunner().invoke(calc_metrics.main, ["--metrics=coarse_fit2", "--device=cpu"])
    assert result.exit_code == 0, result.output
    assert asked == [(["coarse_fit2"], str(find_network()))]
