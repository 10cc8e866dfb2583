import json

import pytest
import torch

from dnnlib import UserError
from metrics import metric_main, registry


class Flat(torch.nn.Module):
    """Images of one colour each, the first three numbers of z."""

    z_dim, c_dim, img_resolution, img_channels = 4, 0, 16, 3

    def forward(self, z, c, truncation_psi=1):
        return (z[:, :3, None, None] * truncation_psi).expand(-1, -1, 16, 16)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", list(registry.REGISTRY))


def test_upstream_names_are_there_and_counts_scale():
    upstream = "fid50k_full kid50k_full pr50k3_full ppl2_wend is50k fid50k kid50k pr50k3 ppl_zfull ppl_wfull ppl_zend"
    assert {*upstream.split(), "ppl_wend", "swd", "msssim"} <= set(metric_main.list_valid_metrics())
    valid = "fid5k_full fid10k kid2k_full kid1k pr5k3_full pr5k10 is10k ppl2k_wend ppl1k_zfull swd16k msssim1k"
    for name in valid.split():
        assert metric_main.is_valid_metric(name), name
    invalid = "fid fid0k fid5 fid5k_half pr5k is10k_full ppl2 swd0k"
    for name in invalid.split():
        assert not metric_main.is_valid_metric(name), name


def test_a_registered_function_gets_options_and_the_numbers_of_its_name():
    @registry.register_metric
    def area(opts):
        return {"area": opts.G.img_resolution**2}

    @registry.register_metric(pattern=r"leak(\d+)k(?:_(\w+))?", names=["leak5k"])
    def leak(opts, thousands, part):
        assert (opts.metric, part) == (f"leak{thousands}k", None)
        return {opts.metric: thousands}

    assert {"area", "leak5k"} <= set(metric_main.list_valid_metrics())
    assert metric_main.calc_metric("area", G=Flat()).results == {"area": 256}
    result = metric_main.calc_metric(metric="leak7k")
    assert result.results == {"leak7k": 7}
    assert set(result) == {"results", "metric", "total_time", "total_time_str", "num_gpus"}


def test_plugins_are_found_by_module_name(tmp_path, monkeypatch):
    (tmp_path / "plugged_metrics.py").write_text(
        "from metrics.registry import register_metric\n\n@register_metric\ndef plugged(opts):\n    return {'x': 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert not metric_main.is_valid_metric("plugged")
    registry.load_plugins(["plugged_metrics"])
    assert metric_main.is_valid_metric("plugged")
    with pytest.raises(UserError, match="no metrics module 'not_there'"):
        registry.load_plugins(["not_there"])


def test_evaluate_loads_plugins_itself(tmp_path, monkeypatch, capsys):
    (tmp_path / "late_metrics.py").write_text(
        "from metrics.registry import register_metric\n\n"
        "@register_metric\ndef late(opts):\n    'Comes late.\\n\\nMore.'\n    return {'late': 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    results, missing = metric_main.evaluate(["late"], plugins=["late_metrics"])
    assert (results[0].results, missing) == ({"late": 1}, [])
    assert json.loads(capsys.readouterr().out)["metric"] == "late"
    assert ("late", "Comes late") in registry.describe_metrics()


def test_unknown_names_and_missing_data_end_in_one_line():
    with pytest.raises(UserError, match="Unknown metric 'fid'"):
        metric_main.calc_metric("fid", G=Flat())
    with pytest.raises(UserError, match="--data"):
        metric_main.calc_metric("swd", G=Flat())


def test_a_metric_leaves_network_and_random_numbers_as_they_were():
    G = Flat().train()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = metric_main.calc_metric("msssim1k", G=G)
    assert G.training
    assert torch.equal(torch.rand(1), expected)
    assert metric_main.calc_metric("msssim1k", G=G).results == first.results
    flatter = metric_main.calc_metric("msssim1k", G=G, G_kwargs={"truncation_psi": 0.1})
    assert flatter.results.msssim1k > first.results.msssim1k


def test_a_report_is_a_line_of_json_printed_and_appended(tmp_path, capsys):
    result = metric_main.calc_metric("msssim1k", G=Flat())
    for _ in range(2):
        metric_main.report_metric(result, tmp_path, str(tmp_path / "network-snapshot-000001.pkl"))
    printed = capsys.readouterr().out.splitlines()
    assert (tmp_path / "metric-msssim1k.jsonl").read_text().splitlines() == printed
    entry = json.loads(printed[1])
    assert entry["snapshot_pkl"] == "network-snapshot-000001.pkl"
    assert set(entry) == {*result, "snapshot_pkl", "timestamp"}
