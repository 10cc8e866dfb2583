"""The tables of adaptations tell what rows hold, and runs for them neither end early nor lose what they measure."""

import json
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
from semantic.adaptation import stopping
from semantic.adaptation.stopping import Bounds
from semantic.regions import Regions
from tests.benchmarks.adaptation import PLAN, Merged, Run, stop_row, table_row
from tests.benchmarks.adaptation_run import Observer, unseen_images
from tests.networks import tiny_generator
from tests.runs import make_archive, only_run, run
from tests.semantic.helpers import build_discriminator
from training.run.snapshots import save_networks

RUN = Run("avataaars", "all:0", 400, 1)
REAL = {"similarity": 0.2, "nearest": 0.1, "swd": 40.0}


def rows(*distances):
    """The first distance is the source's; the last snapshot is nearer to images that are not trained on."""
    shared = {"drift": {"hair": 0.1, "face": 0.3}, "msssim": 0.25, "nearest": 0.15}
    return [{"kimg": i / 10, "swd": d, "test": d + 1, "minutes": i / 2, **shared} for i, d in enumerate(distances)]


def test_runs_have_names_and_folders_of_their_own():
    assert len({Run.read(name).folder(Path()) for name in PLAN}) == len(PLAN)
    assert Run.read("avataaars/all:0/400/1") == RUN
    with pytest.raises(UserError, match="DOMAIN/MODE/IMAGES/SEED"):
        Run.read("avataaars/all")


def test_the_best_snapshot_is_in_the_table():
    cells = table_row(RUN, rows(70, 60, 50, 55), REAL).split(" | ")
    assert cells[4:8] == ["0.2", "71.0", "51.0 (40.0)", "0.200"]
    assert cells[-1] == "1.0 |"


def test_the_rule_is_compared_with_the_whole_run():
    line = stop_row(RUN, rows(70, 60, 50, 55, 54, 53, 47), REAL, Bounds(patience=3))
    assert line.split(" | ")[4:] == ["0.5 of 0.6", "51.0 at 0.2", "48.0 at 0.6", "6.2% |"]


def test_masks_are_judged_in_the_regions_of_the_domain():
    G = tiny_generator(names=["background", "skin", "hair"])
    z, c = torch.randn(2, G.z_dim), torch.zeros(2, 0)
    planes = G(z, c, noise_mode="const", return_mask=True).mask
    merged = Merged(G, Regions(["background", "head"]), {"skin": "head", "hair": "head"})
    found = merged(z, c, noise_mode="const", return_mask=True).mask
    torch.testing.assert_close(found, torch.stack([planes[:, 0], planes[:, 1] + planes[:, 2]], dim=1))


def test_an_observed_run_goes_on_and_measures_images_that_it_is_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "AdaptationMonitor", Observer)
    monkeypatch.setattr(stopping, "reason_to_end", lambda *_: "it ends at once")
    G, data = tiny_generator(names=["background", "skin", "hair"]), make_archive(tmp_path / "drawn.zip", masks=False)
    source = tmp_path / "source.pkl"
    save_networks(source, None, G=G, D=build_discriminator(segmentation=True), G_ema=G, augment_pipe=None)
    options = (
        "--cfg=semantic-adapt",
        "--batch=4",
        "--workers=0",
        "--device=cpu",
        "--tick=0.004",
        "--subset=8",
        "--aug=noaug",
    )
    result = run(tmp_path / "runs", *options, f"--resume={source}", f"--data={data}", steps=2)
    assert result.exit_code == 0, result.output
    run_dir = only_run(tmp_path / "runs")
    found = [json.loads(line) for line in (run_dir / "adaptation.jsonl").read_text().splitlines()]
    assert [row["kimg"] for row in found] == [0, 0.004, 0.008]
    assert all(row["test"] > 0 for row in found)
    assert found[1]["minutes"] < found[2]["minutes"]
    kwargs = json.loads((run_dir / "training_options.json").read_text())["training_set_kwargs"]
    assert len(unseen_images(kwargs)) == 9  # of 16 images, 8 are in the run and one of these is set aside
    assert torch.isfinite(torch.tensor([row["test"] for row in found])).all()
