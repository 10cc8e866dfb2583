"""The plain reference computes what the networks compute, and the table comes out."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dataset_tool
from dnnlib import EasyDict
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf
from semantic.dataset import MaskedImageDataset
from semantic.regions import Regions
from tests.benchmarks import drawn_leak, editor
from tests.benchmarks.__main__ import main
from tests.benchmarks.ablations import mean_and_spread, regions_in_masks
from tests.benchmarks.measure import Clock, Row, markdown
from tests.benchmarks.photographs import leak_shares, report
from tests.benchmarks.reference import PlainDiscriminator, PlainSynthesis
from tests.benchmarks.rows import Setting
from tests.benchmarks.strays import beside_head, drawn_strays, strays
from tests.benchmarks.strays import main as measure_strays
from tests.helpers import assert_close
from tests.semantic.browser.small import generator


@pytest.fixture(scope="module")
def networks():
    G, D, _ = Setting(Clock(), resolution=32).networks(13)
    with torch.no_grad():
        for parameter in (*G.parameters(), *D.parameters()):
            if parameter.ndim < 3:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return G, D


def test_the_reference_computes_the_same(networks):
    G, D = networks
    ws = torch.randn(2, G.num_ws, G.w_dim)
    with torch.no_grad():
        ours = G.synthesis(ws, noise_mode="const", return_mask=True)
        plain = PlainSynthesis(G.synthesis)(ws, noise_mode="const", return_mask=True)
        for one, other in zip(ours, plain, strict=True):
            assert_close(one, other, 1e-5)
        logits = D(ours.image, None, mask=ours.mask), PlainDiscriminator(D)(ours.image, None, mask=ours.mask)
        assert_close(*logits, 1e-4)


def test_gradients_of_the_reference_are_the_same(networks):
    G, _ = networks
    ws = torch.randn(1, G.num_ws, G.w_dim)
    gradients = []
    for synthesis in (G.synthesis, PlainSynthesis(G.synthesis)):
        out = synthesis(ws, noise_mode="none", return_mask=True)
        loss = out.image.square().mean() + out.mask.square().mean()
        gradients.append(torch.autograd.grad(loss, list(G.synthesis.parameters()), allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, 1e-4)


def test_command_prints_one_table(tmp_path):
    path = tmp_path / "table.md"
    options = ["--only=local,iteration", "--resolution=32", "--regions=2", "--batches=1", "--batch=1", "--seconds=0.01"]
    result = CliRunner().invoke(main, [*options, f"--out={path}"])
    assert result.exit_code == 0, result.output
    text = path.read_text()
    for name in (
        "local generators + fusion, K=2, N=1, forward",
        "Dreg, every 16 steps",
        "peak memory",
        "python -m tests",
    ):
        assert name in text


def test_unknown_names_end_in_one_line():
    result = CliRunner().invoke(main, ["--only=nothing"])
    assert result.exit_code == 1
    assert "no benchmark 'nothing'" in result.output
    assert "Traceback" not in result.output


def test_ratios_say_how_many_times_better():
    assert Row("seconds", 3, 1.5).ratio == 2
    assert Row("rate", 3, 6, "/s").ratio == 2
    assert Row("alone", None, 6).ratio is None
    assert "2.00x" in markdown([Row("seconds", 3, 1.5)])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from what Linux tells of a process")
def test_peak_memory_counts_what_is_freed_again():
    def function():
        for _ in range(3):
            torch.ones(2**22).sum()

    needed = Clock().peak_memory(function)
    assert 2**23 < needed < 2**26


def test_texture_edits_of_drawn_faces_stay_in_their_regions():
    result = CliRunner().invoke(drawn_leak.main, ["--count=3", "--resolution=32"])
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.output.splitlines()[2:]]
    assert len(rows) == 16
    assert all(0 <= float(value) < 0.3 for part, _, *values in rows if part == "texture" for value in values)


def test_strays_are_parts_that_stand_beside_the_head():
    regions = Regions(["background", "face", "eye", "mouth", "nose", "ear", "hair", "neck", "hat"])
    planes = torch.zeros(1, 9, 24, 24)
    planes[0, 0] = 0.5
    parts = {
        "face": (slice(0, 13), slice(0, 13)),
        "eye": (slice(2, 11), slice(2, 11)),  # so large that its middle is far from the face around it
        "nose": (slice(2, 5), slice(14, 15)),  # near enough
        "ear": (slice(0, 2), slice(18, 20)),  # ears stick out
        "mouth": (slice(20, 22), slice(20, 22)),
    }
    for name, (rows, columns) in parts.items():
        planes[0, :, rows, columns] = 0
        planes[0, regions.index(name), rows, columns] = 1

    class Drawing:
        z_dim = 4

        def __call__(self, z, c, **options):
            return SimpleNamespace(mask=planes.expand(len(z), -1, -1, -1))

    Drawing.regions = regions
    assert strays(Drawing(), 3).tolist() == [[0, 4, 0]] * 3


def test_strays_of_drawings_are_few(tmp_path):
    path = tmp_path / "faces.zip"
    size = ["--width=32", "--height=32", "--max-images=16", "--workers=1"]
    result = CliRunner().invoke(dataset_tool.main, ["--source=procedural", f"--dest={path}", *size])
    assert result.exit_code == 0, result.output
    found = drawn_strays(path, 20)
    assert found.shape == (16, 3)
    assert found.mean() < 1
    regions = MaskedImageDataset(path=str(path)).regions
    mask = np.zeros([32, 32], int)
    mask[28:30, 28:31] = regions.index("mouth")
    assert beside_head(mask, regions) == [0, 6, 0]
    nothing = CliRunner().invoke(measure_strays, [])
    assert nothing.exit_code == 2
    assert "nothing to measure" in nothing.output


def test_ablations_count_regions_and_give_a_spread_where_there_is_one():
    names = ("mean", "real_mean", "real_hat", "difference", "ratio", "hair", "eye")
    assert regions_in_masks({"swd2k_mean": 1, **{f"mask_fit500_{name}": 0.5 for name in names}}) == 2
    assert mean_and_spread([1.5]) == "1.5"
    assert mean_and_spread([1, 2, 3]) == "2 ± 1"


def test_requests_of_the_editor_are_timed_by_kind():
    desk = Desk(NetworkShelf(lambda path: EasyDict(G_ema=generator(), D=None), {"small": "small.pkl"}), "small")
    rows = list(editor.measure(desk, 2, "cpu"))
    desk.close()
    assert [name for name, _, _ in rows] == ["seed", "texture", "shape", "move", "on and off", "truncation"]
    assert all(0 < median <= percentile for _, _, (median, percentile, _) in rows)
    steps = [editor.scenes(step) for step in range(3)]
    assert all(steps[0][name] != steps[1][name] != steps[2][name] for name in steps[0])  # none is drawn already


def test_leaks_of_photographs_are_added_before_their_share_is_taken():
    rows = [{"leak": {"hair": [1, 2, 0, 1]}}, {"leak": {"hair": [1, 8, 1, 1], "hat": [1, 1, 1, 1]}}]
    assert leak_shares(rows, "leak", 0) == {"hair": 0.2, "hat": 1}
    assert leak_shares(rows, "leak", 2) == {"hair": 0.5, "hat": 1}


def test_photographs_are_reported_by_medians():
    rows = [
        {"name": str(i), "W+": [level, 0.5, 0.25], "leak": {"hair": [1, 2, 1, 2]}, "moves": {}}
        for i, level in enumerate((20, 25, 90))
    ]
    rows[0]["moves"]["hair/area"], rows[1]["moves"]["hair/area"] = -0.1, 0.3
    lines = list(report(rows))
    assert lines[0] == "W+: 25.00 dB, MS-SSIM 0.500, mask IoU 0.250 (3 photographs)"
    assert lines[-1] == "moves, hair/area: rises in 50% of 2, median +0.1000"
