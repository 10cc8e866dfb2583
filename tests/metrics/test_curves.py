import sys

import numpy as np
import PIL.Image
import pytest

from dnnlib import UserError
from metrics import curves, metric_main


def write_run(path, values, name="fid1k"):
    path.mkdir()
    for kimg, value in values:
        result = {"results": {name: value}, "metric": name}
        metric_main.report_metric(result, path, path / f"network-snapshot-{kimg:06d}.pkl")
    return path


def test_the_last_result_of_a_snapshot_counts_and_broken_lines_do_not(tmp_path):
    run = write_run(tmp_path / "a", [(100, 9.0), (0, 30.0), (100, 8.0), (200, float("nan"))])
    with open(run / "metric-fid1k.jsonl", "a") as file:
        file.write('{"results": {"fid1k"')
    assert curves.read_curves(run) == {"fid1k": [(0, 30), (100, 8)]}
    with pytest.raises(UserError, match=r"metric-swd\.jsonl"):
        curves.read_curves(run, ["swd"])


def test_ticks_are_round_and_cover_the_range():
    assert curves.axis_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert curves.axis_ticks(3.2, 4.1) == pytest.approx([3.2, 3.4, 3.6, 3.8, 4.0, 4.2])
    for low, high in [(5, 5), (0, 0), (-3e-5, 2e-4), (1e6, 3e9)]:
        ticks = curves.axis_ticks(low, high)
        assert ticks[0] <= low <= high <= ticks[-1] * (1 + 1e-9)
        assert 2 <= len(ticks) <= 8


def test_the_picture_has_a_panel_a_result_and_a_colour_a_run(tmp_path):
    one = write_run(tmp_path / "one", [(0, 30.0), (100, 20.0), (200, 10.0)])
    two = write_run(tmp_path / "two", [(0, 25.0), (200, 5.0)])
    metric_main.report_metric({"results": {"swd_mean": 1.0}, "metric": "swd"}, one, one / "network-snapshot-000000.pkl")
    pytest.importorskip("matplotlib", reason="curves are drawn by matplotlib, an extra")
    curves.plot_runs([one, two], tmp_path / "plot.png")
    pixels = np.asarray(PIL.Image.open(tmp_path / "plot.png"))
    assert pixels.shape[1] == 2 * curves.PANEL[0]
    panel, legend = pixels[: curves.PANEL[1], : curves.PANEL[0]], pixels[curves.PANEL[1] :]
    for part in (panel, legend):
        for colour in curves.COLORS[:2]:
            rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert (part == rgb).all(axis=2).sum() > 20
    falls = np.argwhere((panel == [0x00, 0x72, 0xB2]).all(axis=2))
    assert falls[falls[:, 1].argmin(), 0] < falls[falls[:, 1].argmax(), 0]  # a smaller value is further down


def test_a_mean_stands_for_what_it_is_the_mean_of():
    names = ["fid1k", "leak_shape_mean", "leak_shape_hair", "leak_texture_mean", "leak_texture_hair", "fit", "fit_mean",
             "fit_hair", "fit_real_mean", "stats_total", "leak_shapely"]  # fmt: skip
    kept = [
        "fid1k",
        "leak_shape_mean",
        "leak_texture_mean",
        "fit",
        "fit_mean",
        "fit_real_mean",
        "stats_total",
        "leak_shapely",
    ]
    assert curves.headlines(names) == kept


def test_a_name_that_is_no_picture_is_refused(tmp_path):
    run = write_run(tmp_path / "a", [(0, 1.0)])
    with pytest.raises(UserError, match=r"\.png"):
        curves.plot_runs([run], tmp_path / "plot.txt")


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    run = write_run(tmp_path / "a", [(0, 1.0)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"semantic-stylegan\[plots\]"):
        curves.plot_runs([run], tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
