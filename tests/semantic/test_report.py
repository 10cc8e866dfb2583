import json
import re

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

from dnnlib import UserError
from semantic import report

COLORS = [[0, 0, 0], [250, 0, 0], [0, 0, 250]]


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "00000-faces-<b>semantic"
    folder.mkdir()
    regions = {"names": ["background", "face", "<hair>"], "colors": COLORS}
    options = {"device": "cpu", "total_kimg": 8, "training_set_kwargs": {"regions": regions}}
    (folder / "training_options.json").write_text(json.dumps(options))
    rows = [
        {"Progress/kimg": {"mean": k}, "Loss/scores/real": {"mean": k / 4}, "Timing/sec_per_kimg": {"mean": 7}}
        for k in range(1, 5)
    ]
    (folder / "stats.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"Progress/kimg": {"me')
    for kimg, value in ((2, 20.5), (4, 12.25)):
        line = {"results": {"swd_mean": value}, "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl"}
        with open(folder / "metric-swd.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    (folder / "adaptation.jsonl").write_text(json.dumps({"kimg": 1, "swd": 3, "drift": {"face": 0.5, "<hair>": 0.1}}))
    quarter = np.zeros([8, 8, 3], np.uint8)
    quarter[:4, :4] = COLORS[1]
    for name in ("reals_mask", "fakes_init", "fakes_init_mask", "fakes000002", "fakes000004", "fakes000004_mask"):
        PIL.Image.fromarray(quarter).save(folder / f"{name}.png")
    return folder


def test_a_page_holds_curves_pictures_areas_and_options_and_needs_nothing_else(run_dir, tmp_path):
    result = CliRunner().invoke(report.main, [str(run_dir), f"--dest={tmp_path / 'page.html'}"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "4 of 8 kimg, 7.0 seconds per kimg on cpu." in page
    assert "00000-faces-&lt;b&gt;semantic" in page
    assert "<b>semantic" not in page
    assert page.count("<polyline") >= 4  # logits, seconds, swd, adaptation
    assert "12.25" in page  # the last swd
    assert "0.3" in page  # the mean drift
    assert [s["text"] for s in shots(page)] == ["start", "2 kimg", "4 kimg"]
    assert ["masks" in s for s in shots(page)] == [True, False, True]
    cells = {name: re.findall(r'<td class="n">([^<]*)</td>', row) for name, row in table_rows(page).items()}
    assert cells["face"] == ["25.00%", "25.00%", "0.500"]  # of the data, of the last snapshot, and the drift
    assert cells["&lt;hair&gt;"] == ["0.00%", "0.00%", "0.100"]
    assert "About 28s are left" in page
    assert "training_set_kwargs.regions.names" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]", page)
    assert "http-equiv" not in page


def table_rows(page):
    """Rows of the table of regions by region."""
    return dict(re.findall(r"<tr><td><i [^>]*></i>([^<]*)</td>(.*?)</tr>", page))


def shots(page):
    return json.loads(re.search(r'id="shots">(.*?)</script>', page, re.S)[1])


def test_a_run_that_has_only_begun_is_shown_and_a_watched_page_reads_itself_again(run_dir, tmp_path):
    for path in run_dir.iterdir():
        if path.name != "training_options.json":
            path.unlink()
    report.write_report(run_dir, tmp_path / "page.html", refresh=30)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "has not finished a tick" in page
    assert '<meta http-equiv="refresh" content="30">' in page


def test_long_runs_are_thinned_to_snapshots_that_include_the_last(run_dir):
    for kimg in range(5, 100):
        PIL.Image.new("RGB", (4, 4)).save(run_dir / f"fakes{kimg:06d}.png")
    found = report.snapshots(run_dir)
    assert len(found) == report.MAX_SNAPSHOTS
    assert (found[0][0], found[-1][0]) == ("start", "99 kimg")


def test_a_folder_without_a_run_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        report.write_report(tmp_path, tmp_path / "page.html")
