"""generate.py: pictures, sheets, loops, and mistakes."""

import functools
import os
import signal

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import generate
import legacy
from semantic.editing import latents
from semantic.pictures import sheets
from tests.painter import REGIONS, RESOLUTION, W_DIM, Network, names, picture, run_generate, ws_of
from training.images import to_uint8


@pytest.fixture
def run(tmp_path, monkeypatch):
    return functools.partial(run_generate, monkeypatch, tmp_path / "out")


def disc_center(index_mask: np.ndarray) -> np.ndarray:
    """(x, y) of the middle of the disc in grid units."""
    y, x = np.nonzero(index_mask == 1)
    return np.array([x.mean(), y.mean()]) / (RESOLUTION - 1) * 2 - 1


def test_one_picture_a_seed(run):
    done = run("--seeds=0-2,7", "--trunc=0.5", "--noise-mode=none", "--batch=3")
    assert done.code == 0, done.output
    assert names(done.out) == ["seed0000.png", "seed0001.png", "seed0002.png", "seed0007.png"]
    assert [(call["count"], call["noise_mode"]) for call in done.G.synthesis.calls] == [(3, "none"), (1, "none")]
    expected = to_uint8(done.G.synthesis(ws_of(done.G, [7], 0.5), return_mask=True).image)[0].transpose(1, 2, 0)
    assert np.array_equal(picture(done.out / "seed0007.png"), expected)


def test_masks_and_latents_come_on_request(run):
    done = run("--seeds=3", "--save-masks", "--save-latents")
    assert names(done.out) == ["seed0003.npz", "seed0003.png", "seed0003_mask.png", "seed0003_mask_index.png"]
    index = picture(done.out / "seed0003_mask_index.png")
    assert index.shape == (RESOLUTION, RESOLUTION)
    assert set(np.unique(index)) == {0, 1, 2}
    assert np.array_equal(picture(done.out / "seed0003_mask.png"), np.array(REGIONS.colors, np.uint8)[index])
    w = np.load(done.out / "seed0003.npz")["w"]
    assert w.shape == (1, REGIONS.num_ws, W_DIM)
    assert np.allclose(w, ws_of(done.G, [3], 1))


def test_saved_latents_give_the_same_picture(run):
    first = run("--seeds=3", "--save-latents")
    again = run(f"--projected-w={first.out / 'seed0003.npz'}")
    assert again.code == 0, again.output
    assert np.array_equal(picture(again.out / "proj00.png"), picture(first.out / "seed0003.png"))


def test_networks_without_regions_do_the_plain_things(run):
    done = run("--seeds=0-1", "--save-latents", network=Network(regions=None))
    assert done.code == 0, done.output
    assert names(done.out) == ["seed0000.npz", "seed0000.png", "seed0001.npz", "seed0001.png"]


@pytest.mark.parametrize(
    "option",
    ["--mix-regions", "--interpolate-regions", "--components", "--transform=disc:dx=1", "--dataset=2", "--save-masks"],
)
def test_region_modes_need_regions(run, option):
    done = run(option, network=Network(regions=None))
    assert done.code == 1
    assert "this network has no regions" in done.output
    assert done.output.count("\n") == 2  # which network, and why not
    assert not done.out.exists()


def test_mixing_sheet_shows_what_mixing_gives(run, monkeypatch):
    drawn = []
    draw = sheets.mixing_sheet
    monkeypatch.setattr(sheets, "mixing_sheet", lambda *args: drawn.append(args) or draw(*args))
    done = run("--mix-regions", "--rows=1,2", "--cols=5,6", "--regions=bar,disc", "--part=texture", "--save-masks")
    assert done.code == 0, done.output
    assert names(done.out) == ["mix-regions-masks.png", "mix-regions.png"]
    sources, donors, mixes, columns, rows = drawn[0]
    assert [(c.title, c.subtitle) for c in columns[:2]] == [
        ("bar texture", "from seed 5"),
        ("bar texture", "from seed 6"),
    ]
    assert [c.title for c in columns[2:]] == ["disc texture"] * 2
    assert [r.title for r in rows] == ["seed 1", "seed 2"]

    G, ws, donor_ws = done.G, ws_of(done.G, [1, 2], 0.7), ws_of(done.G, [5, 6], 0.7)

    def cell(codes):
        return sheets.image_cells(G.synthesis(codes, return_mask=True).image, 192)[0]

    assert np.array_equal(sources[1], cell(ws[1:]))
    assert np.array_equal(donors[3], cell(donor_ws[1:]))
    mixed = ws[1:].clone()
    mixed[0, 5] = donor_ws[1, 5]  # texture of the disc, region 1
    assert np.array_equal(mixes[1][3], cell(mixed))


def test_whole_regions_are_mixed_with_their_base_codes(semantic_run, tmp_path, monkeypatch):
    drawn = []
    draw = sheets.mixing_sheet
    monkeypatch.setattr(sheets, "mixing_sheet", lambda *args: drawn.append(args) or draw(*args))
    snapshot = semantic_run / "network-snapshot-000000.pkl"
    options = ["--regions=hair", "--part=whole", "--rows=1", "--cols=5", "--frames=3", f"--outdir={tmp_path}"]
    options += [f"--network={snapshot}", "--device=cpu", "--mix-regions", "--interpolate-regions"]
    result = CliRunner().invoke(generate.main, options)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == ["interpolate-hair.mp4", "mix-regions.png"]
    _, _, mixes, columns, _ = drawn[0]
    assert columns[0].title == "whole hair"
    G = legacy.load_network(snapshot)["G_ema"]
    codes = G.mapping(latents.seed_latents([1, 5], G.z_dim), None, truncation_psi=0.7)
    expanded, donor = G.synthesis.expand(codes).split(1)
    layers = expanded.shape[1] // 3
    expanded = torch.cat([expanded[:, : 2 * layers], donor[:, 2 * layers :]], dim=1)  # hair is region 2
    with torch.no_grad():
        image = G.synthesis(expanded, noise_mode="const")
    assert np.abs(mixes[0][0] - sheets.image_cells(image, mixes.shape[2])[0].astype(int)).max() <= 1


def test_mixing_sheet_needs_no_options(run):
    done = run("--mix-regions")
    assert done.code == 0, done.output
    assert sum(call["count"] for call in done.G.synthesis.calls) == 4 + 3 + 4 * 3


def test_loops_are_closed_videos_of_image_and_mask(run):
    done = run("--interpolate-regions", "--regions=disc", "--frames=9", "--fps=10", "--seeds=1-2", "--batch=4")
    assert done.code == 0, done.output
    assert names(done.out) == ["interpolate-disc.mp4"]
    reader = imageio_ffmpeg.read_frames(str(done.out / "interpolate-disc.mp4"))
    size = next(reader)["size"]
    frames = [np.frombuffer(f, np.uint8).reshape(size[1], size[0], 3).astype(int) for f in reader]
    assert size == (512, 512)  # two rows of image and mask
    assert len(frames) == 9
    own = to_uint8(done.G.synthesis(ws_of(done.G, [2], 0.7), return_mask=True).image)[0, :, 16, 9]
    assert np.abs(frames[0][256 + 132, 76] - own).max() < 12
    assert np.abs(frames[0][132, 256 + 76] - REGIONS.colors[1]).max() < 12
    seam, middle = (np.abs(frames[0] - frames[i]).mean() for i in (-1, 4))
    assert seam < middle


def test_components_add_one_region_after_the_other(run):
    done = run("--components", "--seeds=0,4")
    assert done.code == 0, done.output
    assert names(done.out) == ["seed0000-components.png", "seed0004-components.png"]
    assert done.G.synthesis.calls[0]["keep_regions"].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_seed_is_the_same_image_in_all_modes_of_a_call(run):
    done = run("--components", "--transform=disc:dx=0.1", "--seeds=3", "--save-latents")
    assert done.code == 0, done.output
    assert done.output.count("seed0003.npz") == 1
    assert np.allclose(np.load(done.out / "seed0003.npz")["w"], ws_of(done.G, [3], 0.7))


def test_transform_moves_its_region_and_no_other(run):
    run("--seeds=0", "--save-masks")
    done = run("--seeds=0", "--transform=disc:dx=0.3,dy=-0.25", "--save-masks")
    assert done.code == 0, done.output
    assert {"seed0000-before-after.png", "seed0000-transform.png"} <= set(names(done.out))
    before = picture(done.out / "seed0000_mask_index.png")
    after = picture(done.out / "seed0000-transform_mask_index.png")
    assert np.allclose(disc_center(after) - disc_center(before), [0.3, -0.25], atol=0.08)
    assert np.array_equal(before == 2, after == 2)


def test_transform_enlarges_a_region_in_place(run):
    run("--seeds=0", "--save-masks")
    done = run("--seeds=0", "--transform=disc:scale=1.5", "--save-masks")
    before = picture(done.out / "seed0000_mask_index.png")
    after = picture(done.out / "seed0000-transform_mask_index.png")
    assert 1.8 < (after == 1).sum() / (before == 1).sum() < 2.7
    assert np.allclose(disc_center(after), disc_center(before), atol=0.08)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_truncation_must_be_finite(run, number):
    done = run(f"--trunc={number}", "--seeds=0")
    assert (done.code, "is not a finite number" in done.output) == (2, True)
    assert not done.out.exists()


def test_interrupting_leaves_no_half_files(run):
    network = Network()
    paint, calls = network.synthesis.forward, iter(range(9))

    def interrupted(*args, **kwargs):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return paint(*args, **kwargs)

    network.synthesis.forward = interrupted
    done = run("--dataset=8", "--batch=2", network=network)
    assert done.code == 130
    assert done.output.rstrip().splitlines()[-1].startswith("Stopped.")
    assert names(done.out) == []


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--seeds=5-3"], "smaller to a larger", 2),
        (["--seeds=a"], "Write 0-7 or 1,3,5", 2),
        (["--filter=0.5"], "need --dataset=N", 2),
        (["--dataset=2", "--filter=0"], "0 is not in the range", 2),
        (["--seeds=,"], "the list of seeds is empty", 2),
        (["--mix-regions", "--regions=tail"], "Unknown region 'tail'", 1),
        (["--components", "--regions=,"], "names no region", 1),
        (["--transform=disc"], "changes nothing", 1),
        (["--projected-w=missing.npz"], "Cannot open missing.npz", 1),
        (["--frames=1"], "--frames", 2),
    ],
)
def test_mistakes_are_one_line(run, options, message, code):
    done = run(*options)
    assert done.code == code
    assert message in done.output
    assert "Traceback" not in done.output
    assert isinstance(done.result.exception, SystemExit)


def test_latents_of_another_network_are_refused(run, tmp_path):
    np.savez(tmp_path / "w.npz", w=np.zeros([1, 14, 512], np.float32))
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    assert f"takes [N, {REGIONS.num_ws}, {W_DIM}]" in run(f"--projected-w={tmp_path / 'w.npz'}").output
    assert "that holds `w`" in run(f"--projected-w={tmp_path / 'x.npz'}").output
    assert "that holds `w`" in run(f"--projected-w={tmp_path / 'text.npz'}").output


def test_expanded_latents_are_for_plain_pictures(run, tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, w=np.zeros([1, 30, W_DIM], np.float32))
    assert latents.read_latents(path, Network()).shape == (1, 30, W_DIM)
    assert "need W+ latents" in run("--mix-regions", f"--projected-w={path}").output


def test_a_run_directory_stands_for_its_newest_snapshot(tmp_path, monkeypatch):
    (tmp_path / "network-snapshot-000008.pkl").touch()
    asked = []
    monkeypatch.setattr(legacy, "load_network", lambda path: asked.append(path) or {"G_ema": Network()})
    options = [f"--network={tmp_path}", f"--outdir={tmp_path / 'out'}", "--seeds=0", "--device=cpu"]
    assert CliRunner().invoke(generate.main, options).exit_code == 0
    assert asked == [str(tmp_path / "network-snapshot-000008.pkl")]


def test_a_full_gpu_ends_in_one_line(run, monkeypatch):
    def fill(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(generate, "run", fill)
    done = CliRunner().invoke(generate.main, ["--batch=16"])
    assert (done.exit_code, done.output) == (
        1,
        "Error: The GPU is out of memory at --batch=16. Choose a smaller batch.\n",
    )


def test_help_teaches():
    text = CliRunner().invoke(generate.main, ["--help"]).output
    assert "--mix-regions --rows=1,5,9 --regions=hair,eye" in text
    assert "counter-clockwise" in text


def test_a_folder_does_not_hide_a_network_of_that_name(run, tmp_path, monkeypatch):
    (tmp_path / "faces64").mkdir()
    monkeypatch.chdir(tmp_path)
    made = run("--network=faces64", "--seeds=0")
    assert made.code == 0, made.output
    assert "bundled" in made.output.splitlines()[0]
