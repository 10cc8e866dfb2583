import json
import os
import signal
import zipfile
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import generate
import legacy
from dnnlib import UserError
from semantic.dataset import MaskedImageDataset
from semantic.editing import latents
from semantic.pictures import sheets
from semantic.regions import Regions
from training.archive import create_archive, encode_png, image_name
from training.images import to_uint8

RESOLUTION, COARSE, W_DIM = 32, 16, 4
REGIONS = Regions(["background", "disc", "bar"], colors=[(20, 20, 20), (200, 40, 40), (40, 40, 200)])


class Painter(torch.nn.Module):
    """A disc on the left and a bar on the right; texture codes give colours, the disc's shape code its size."""

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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the script with options; returns the result, its network and its output folder."""

    def call(*options: str, network: Network | None = None, data: dict | None = None) -> SimpleNamespace:
        G = network or Network()
        monkeypatch.setattr(legacy, "load_network", lambda path: {"G_ema": G, "training_set_kwargs": data})
        out = tmp_path / "out"
        result = CliRunner().invoke(generate.main, ["--network=net.pkl", f"--outdir={out}", "--device=cpu", *options])
        return SimpleNamespace(code=result.exit_code, output=result.output, G=G, out=out, result=result)

    return call


def ws_of(G: Network, seeds, psi: float) -> torch.Tensor:
    z = np.stack([np.random.RandomState(seed).randn(W_DIM) for seed in seeds]).astype(np.float32)
    return G.mapping(torch.from_numpy(z), torch.zeros(len(z), G.c_dim), psi)


def picture(path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path))


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


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


def test_data_set_is_an_archive_that_loads(run):
    done = run("--dataset=5", "--batch=2", "--seeds=10")
    assert done.code == 0, done.output
    data = MaskedImageDataset(done.out / "dataset.zip")
    assert len(data) == 5
    assert data.regions.names == REGIONS.names
    out = done.G.synthesis(ws_of(done.G, [12], 1), return_mask=True)
    assert np.array_equal(data[2].image, to_uint8(out.image)[0])
    assert np.array_equal(data[2].mask, out.mask[0].argmax(dim=0).numpy())


def test_data_set_of_a_conditional_network_is_labelled(run):
    done = run("--dataset=12", network=Network(c_dim=3))
    with zipfile.ZipFile(done.out / "dataset.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
    assert {label for _, label in labels} == {0, 1, 2}
    again = run("--dataset=12", "--class=2", network=Network(c_dim=3))
    with zipfile.ZipFile(again.out / "dataset.zip") as archive:
        assert {label for _, label in json.loads(archive.read("dataset.json"))["labels"]} == {2}


def drawn_labels(done):
    with zipfile.ZipFile(done.out / "dataset.zip") as archive:
        return [label for _, label in json.loads(archive.read("dataset.json"))["labels"]]


def test_classes_that_no_image_has_are_not_drawn(run, tmp_path):
    assert set(drawn_labels(run("--dataset=12", network=Network(c_dim=4), data={"classes": [1, 3]}))) == {1, 3}
    labels = [[image_name(i), 1 + i % 2] for i in range(4)]
    data = {"path": write_labels(tmp_path / "old.zip", labels)}  # of a network that does not know its classes
    assert set(drawn_labels(run("--dataset=12", network=Network(c_dim=3), data=data))) == {1, 2}
    told = run("--seeds=1", "--class=0", network=Network(c_dim=3), data={"classes": [1, 2]})
    assert "the training data had no image of class 0, only 1, 2" in told.output
    assert "classes: 1, 2" in run("--seeds=1", network=Network(c_dim=3), data={"classes": [1, 2]}).output


def write_labels(path, labels):
    with create_archive(path) as add:
        for name, _ in labels:
            add(name, encode_png(np.zeros([RESOLUTION, RESOLUTION, 3], np.uint8)))
        add("dataset.json", json.dumps({"labels": labels}).encode())
    return str(path)


def test_vectors_are_given_and_drawn(run, tmp_path):
    vectors = {"classes": []}
    done = run("--class=0.5,1,-2", "--seeds=1", "--save-latents", network=Network(c_dim=3), data=vectors)
    assert done.code == 0, done.output
    assert np.allclose(np.load(done.out / "seed0001.npz")["w"], ws_of(done.G, [1], 1) + 1 - 4)
    for options, message in (
        (("--class=1",), "3 numbers"),
        (("--class=1,2",), "2 numbers, but labels of this network have 3"),
        (("--class=nan,1,2",), "finite"),
        (("--class=a",), "neither a class nor a vector"),
        ((), "Set --class to 3 numbers"),
        (("--dataset=2",), "to draw labels from"),
    ):
        done = run(*options, network=Network(c_dim=3), data=vectors)
        assert done.code in (1, 2)
        assert message in done.output.replace("\n", " "), done.output
    labels = [[image_name(i), [0.5 * i, 1, 2]] for i in range(4)]
    data = {**vectors, "path": write_labels(tmp_path / "vectors.zip", labels)}
    drawn = drawn_labels(run("--dataset=6", network=Network(c_dim=3), data=data))
    assert all(label in [vector for _, vector in labels] for label in drawn)
    assert len({tuple(label) for label in drawn}) > 1


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_truncation_must_be_finite(run, number):
    done = run(f"--trunc={number}", "--seeds=0")
    assert (done.code, "is not a finite number" in done.output) == (2, True)
    assert not done.out.exists()


def test_filter_keeps_the_better_pairs_and_says_what_was_dropped(run, monkeypatch):
    def sees_discs_in_the_left_half(images):
        scores = torch.zeros(len(images), 3, RESOLUTION, RESOLUTION)
        scores[:, 1, :, : RESOLUTION // 2] = 1
        return scores

    monkeypatch.setattr(generate, "build_parser", lambda networks, device: sees_discs_in_the_left_half)
    done = run("--dataset=4", "--filter=0.5", "--balance", "--batch=3", "--seeds=10")
    assert done.code == 0, done.output
    report = json.loads((done.out / "dataset-filter.json").read_text())
    assert (report["made"], report["kept"]) == (8, 4)
    dropped = {found["seed"] for found in report["dropped"]}
    assert dropped | set(report["kept_seeds"]) == set(range(10, 18))
    assert report["regions"]["disc"]["shown_made"] == 1
    assert "Kept 4 of 8 pairs. Of the dropped pairs" in done.output
    data = MaskedImageDataset(done.out / "dataset.zip")
    assert len(data) == 4
    out = done.G.synthesis(ws_of(done.G, [report["kept_seeds"][1]], 1), return_mask=True)
    assert np.array_equal(data[1].image, to_uint8(out.image)[0])


def test_class_is_needed_checked_and_used(run):
    assert "Set --class to one of its classes: 0, 1, 2" in run(network=Network(c_dim=3)).output
    assert "no class 3" in run("--class=3", network=Network(c_dim=3)).output
    done = run("--class=2", "--seeds=1", "--save-latents", network=Network(c_dim=3))
    assert np.allclose(np.load(done.out / "seed0001.npz")["w"], ws_of(done.G, [1], 1) + 2)
    assert "--class is ignored" in run("--class=1", "--seeds=1").output


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


def test_newest_snapshot_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(legacy, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"train\.py"):
        legacy.find_network()
    for run_name, kimg, age in [("00000-a", "000400", 50), ("00001-b", "000020", 10), ("00001-b", "000000", 20)]:
        path = tmp_path / "training-runs" / run_name / f"network-snapshot-{kimg}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert legacy.find_network().parts[-2:] == ("00001-b", "network-snapshot-000020.pkl")
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "faces.pkl").touch()
    assert legacy.find_network().name == "faces.pkl"
    assert legacy.choose_network(None) == str(legacy.find_network())
    assert legacy.choose_network("training-runs") == str(legacy.newest_snapshot("training-runs"))
    assert legacy.choose_network("faces64") == legacy.NAMED["faces64"]
    assert legacy.choose_network("https://example.com/a.pkl") == "https://example.com/a.pkl"


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
