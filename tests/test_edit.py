"""edit.py, mostly with a small random network."""

import json
import math
import sys
import zipfile

import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import edit
import legacy
from semantic.editing import text
from semantic.editing.directions import Direction, save_directions
from semantic.editing.latents import seed_latents
from semantic.placement import Placement
from semantic.tuned import TUNED_DIGEST, network_digest
from tests.networks import tiny_generator
from tests.semantic.editing.clip_stub import open_clip_stub
from training.images import to_uint8

HAIR, GLASSES = 2, 3


@pytest.fixture(scope="module")
def G():
    return tiny_generator()


@pytest.fixture
def run(tmp_path, monkeypatch, G):
    """Call the script in an empty folder; returns its result and its output folder."""
    monkeypatch.setattr(legacy, "load_network", lambda path: {"G_ema": G})
    monkeypatch.chdir(tmp_path)

    def call(*options):
        result = CliRunner().invoke(edit.main, ["--network=net.pkl", "--outdir=out", "--device=cpu", *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def directions(tmp_path, G):
    step = torch.zeros(3, G.w_dim)
    step[1, 0] = step[2, 1] = 1.0
    save_directions(tmp_path / "d.npz", [Direction("hair/volume", "pca", "hair", "both", "for tests", step)], G)
    return "--directions=d.npz"


def codes(G, *seeds, psi=0.7):
    return G.mapping(seed_latents(seeds, G.z_dim), None, truncation_psi=psi)


def pixels(G, ws, **options) -> np.ndarray:
    return to_uint8(G.synthesis(ws, noise_mode="const", **options))[0].transpose(1, 2, 0)


def picture(path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path)).astype(int)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_edits_are_done_in_the_order_of_the_options(run, tmp_path, G):
    """Truncated after a swap is not the same as before; options of different names keep their order."""
    donor, own = codes(G, 5)[:, 6], codes(G, 3)[:, 6]
    average = G.mapping.w_avg
    orders = {
        ("--swap=hair:5:shape", "--psi=hair:0.5"): average + 0.5 * (donor - average),
        ("--psi=hair:0.5", "--swap=hair:5:shape"): donor,
        ("--psi=hair:0.5", "--drop=glasses", "--psi=hair:0.5"): average + 0.25 * (own - average),
    }
    for options, expected in orders.items():
        result = run("--seeds=3", *options)
        assert result.exit_code == 0, result.output
        with np.load(tmp_path / "out" / "edit.npz") as file:
            assert np.allclose(file["w"][:, 6], expected, atol=1e-5), options
            assert [text.split(":")[0] for text in file["edits"].tolist()] == [text.split(":")[0] for text in options]


def test_picture_mask_and_codes_of_an_edit(run, tmp_path, G):
    assert run("--seeds=3", "--swap=hair:5").exit_code == 0
    assert names(tmp_path / "out") == ["edit.npz", "edit.png", "edit_mask.png"]
    ws = codes(G, 3)
    ws[:, 6:8] = codes(G, 5)[:, 6:8]
    assert np.abs(picture(tmp_path / "out" / "edit.png") - pixels(G, ws)).max() <= 1
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    colors = np.array(G.regions.colors)[out.mask[0].argmax(dim=0)]
    assert np.array_equal(picture(tmp_path / "out" / "edit_mask.png"), colors)


def test_codes_that_were_written_can_be_edited_further(run, tmp_path, directions):
    first = ("--swap=hair:5:whole", "--transform=hair:dx=0.2,scale=1.3")
    then = ("--drop=glasses", "--apply=hair/volume:-1", "--transform=hair:rotate=20")
    assert run("--seeds=3", directions, *first, *then).exit_code == 0
    expected = picture(tmp_path / "out" / "edit.png")
    assert run("--seeds=3", *first, "--outdir=half").exit_code == 0
    result = run("--latents=half/edit.npz", directions, *then, "--outdir=whole")
    assert result.exit_code == 0, result.output
    assert np.abs(picture(tmp_path / "whole" / "edit.png") - expected).max() <= 1
    assert run("--latents=whole/edit.npz", "--outdir=again").exit_code == 0  # no edit at all
    assert np.array_equal(picture(tmp_path / "again" / "edit.png"), picture(tmp_path / "whole" / "edit.png"))


def test_the_options_in_a_file_of_codes_give_the_same_picture(run, tmp_path, directions):
    options = ["--transform=hair:dx=0.1,rotate=-7", "--apply=hair/volume:0.3", "--swap=skin:4:shape"]
    assert run("--seeds=3", directions, *options).exit_code == 0
    with np.load(tmp_path / "out" / "edit.npz") as file:
        written = file["edits"].tolist()
    assert run("--seeds=3", directions, *written, "--outdir=again").exit_code == 0
    assert np.array_equal(picture(tmp_path / "again" / "edit.png"), picture(tmp_path / "out" / "edit.png"))


def test_several_images_are_numbered(run, tmp_path, G):
    assert run("--seeds=3,12", "--drop=hair").exit_code == 0
    assert [n for n in names(tmp_path / "out") if n.endswith(".npz")] == ["edit0003.npz", "edit0012.npz"]
    np.savez(tmp_path / "three.npz", w=codes(G, 1, 2, 3).numpy())
    assert run("--latents=three.npz", "--outdir=more").exit_code == 0
    assert [n for n in names(tmp_path / "more") if n.endswith(".npz")] == [f"edit{i:02d}.npz" for i in range(3)]
    assert np.abs(picture(tmp_path / "more" / "edit02.png") - pixels(G, codes(G, 3))).max() <= 1


def test_a_folder_of_codes_and_a_projectors_folder(run, tmp_path, G):
    for seed in (1, 2):
        (tmp_path / "found" / f"photo{seed}").mkdir(parents=True)
        np.savez(tmp_path / "found" / f"photo{seed}" / "projected_w.npz", w=codes(G, seed).numpy())
    assert run("--latents=found", "--outdir=all").exit_code == 0
    assert [n for n in names(tmp_path / "all") if n.endswith(".npz")] == ["edit00.npz", "edit01.npz"]
    assert run("--latents=found/photo2", "--outdir=one").exit_code == 0
    assert np.array_equal(picture(tmp_path / "one" / "edit.png"), picture(tmp_path / "all" / "edit01.png"))


def projected(folder, G, seed, size=(90, 70), scale=1.7):
    """A projector's folder of a photo that the network knows exactly, enlarged into noise."""
    folder.mkdir(parents=True)
    width, height = size
    matrix = ((scale, 0.0, 12.0), (0.0, scale, 9.0))
    placement = Placement(photo=str(folder / "me.png"), photo_size=size, resolution=32, matrix=matrix)
    random = np.random.default_rng(seed).integers(0, 256, [height, width, 3]).astype(np.float32)
    out = G.synthesis(codes(G, seed), noise_mode="const")
    drawn, cover = placement.to_photo((out[0].clamp(-1, 1) + 1) * 127.5)
    photo = drawn.permute(1, 2, 0).numpy() * cover[0, :, :, None].numpy() + random * (1 - cover[0, :, :, None].numpy())
    PIL.Image.fromarray(photo.round().astype(np.uint8)).save(folder / "me.png")
    placement.save(folder / "placement.json")
    np.savez(folder / "projected_w.npz", w=codes(G, seed).numpy())
    return folder


def test_an_edit_goes_back_into_its_photo(run, tmp_path, G):
    folder = projected(tmp_path / "found", G, 3)
    photo = picture(folder / "me.png")
    result = run("--photo=found", "--swap=hair:5:texture")
    assert result.exit_code == 0, result.output
    found = picture(tmp_path / "out" / "photo.png")
    assert found.shape == photo.shape
    changed = (found != photo).any(axis=2)
    assert changed.any()
    crop = np.zeros(photo.shape[:2], bool)
    crop[9 : 9 + math.ceil(32 * 1.7), 12 : 12 + math.ceil(32 * 1.7)] = True
    assert not changed[~crop].any()
    assert run("--photo=found", "--swap=hair:5:texture", "--no-blend", "--outdir=flat").exit_code == 0
    flat = picture(tmp_path / "flat" / "photo.png")
    assert (flat[~crop] == photo[~crop]).all()
    assert (flat != found).any()
    assert run("--photo=found", "--outdir=same").exit_code == 0  # nothing is edited
    assert np.array_equal(picture(tmp_path / "same" / "photo.png"), photo)


def test_a_photo_comes_with_the_network_that_was_tuned_to_it(run, tmp_path, G):
    projected(tmp_path / "found", G, 3)
    name = f"synthesis.render.b{G.img_resolution}.to_rgb.bias"
    change = np.array([0.5, 0.0, 0.0], np.float32)
    np.savez(tmp_path / "found" / "tuned.npz", **{TUNED_DIGEST: np.array(network_digest(G)), name: change})
    plain = pixels(G, codes(G, 3))
    result = run("--photo=found")
    G.load_state_dict(tiny_generator().state_dict())
    assert result.exit_code == 0, result.output
    assert "Tuned: found/tuned.npz" in result.output
    assert (picture(tmp_path / "out" / "edit.png") - plain)[..., 0].mean() > 20


def test_an_edit_of_earlier_goes_back_as_well(run, tmp_path, G):
    """What was edited is remembered in the codes' file."""
    projected(tmp_path / "found", G, 3)
    assert run("--photo=found", "--swap=hair:5:texture").exit_code == 0
    assert run("--photo=found", "--latents=out/edit.npz", "--outdir=again").exit_code == 0
    assert np.array_equal(picture(tmp_path / "again" / "photo.png"), picture(tmp_path / "out" / "photo.png"))


def test_many_photos_at_once(run, tmp_path, G):
    for seed in (1, 2):
        projected(tmp_path / "found" / f"p{seed}", G, seed)
    assert run("--photo=found", "--drop=hair").exit_code == 0
    assert {"photo00.png", "photo01.png"} <= set(names(tmp_path / "out"))


def test_a_photo_that_moved_is_looked_for_beside_its_placement(run, tmp_path, G):
    projected(tmp_path / "found", G, 3)
    placement = json.loads((tmp_path / "found" / "placement.json").read_text())
    placement["photo"] = "elsewhere/me.png"
    (tmp_path / "found" / "placement.json").write_text(json.dumps(placement))
    assert run("--photo=found", "--drop=hair").exit_code == 0
    (tmp_path / "found" / "me.png").unlink()
    assert "elsewhere/me.png of found does not exist" in run("--photo=found", "--drop=hair").output


def test_a_photo_in_a_zip_is_found(run, tmp_path, G):
    folder = projected(tmp_path / "found", G, 3)
    assert run("--photo=found", "--drop=hair", "--outdir=expected").exit_code == 0
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(folder / "me.png", "faces/me.png")
    (folder / "me.png").unlink()
    placement = json.loads((folder / "placement.json").read_text())
    placement["photo"] = "photos.zip/faces/me.png"
    (folder / "placement.json").write_text(json.dumps(placement))
    assert run("--photo=found", "--drop=hair").exit_code == 0
    assert np.array_equal(picture(tmp_path / "out" / "photo.png"), picture(tmp_path / "expected" / "photo.png"))


def test_sheet_and_video_show_growing_strengths(run, tmp_path, G, directions):
    result = run("--seeds=3", directions, "--apply=hair/volume:2", "--sheet", "--video", "--frames=4")
    assert result.exit_code == 0, result.output
    assert {"edit-sheet.png", "edit.mp4"} <= set(names(tmp_path / "out"))
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "out" / "edit.mp4"))
    size = next(reader)["size"]
    frames = [np.frombuffer(f, np.uint8).astype(int) for f in reader]
    assert (size, len(frames)) == ((512, 256), 4)
    assert np.abs(frames[0] - frames[2]).mean() < 3  # sin 0, sin π
    assert np.abs(frames[1] - frames[3]).mean() > np.abs(frames[0] - frames[2]).mean()
    sheet = PIL.Image.open(tmp_path / "out" / "edit-sheet.png")
    assert sheet.width > 7 * 192
    assert sheet.height > 2 * 192


def test_directions_are_found_listed_and_added(run, tmp_path):
    assert run("--find=pca", "--regions=hair,skin", "--count=2", "--dest=d.npz").exit_code == 0
    assert run("--find=sefa", "--regions=hair", "--part=texture", "--count=1", "--dest=d.npz").exit_code == 0
    result = run(
        "--find=boundary",
        "--regions=hair",
        "--score=brightness,saturation",
        "--count=120",
        "--batch=40",
        "--dest=d.npz",
    )
    assert result.exit_code == 0, result.output
    assert "hair/brightness: brightness +" in result.output
    listed = run("--list=d.npz").output
    found = [line.split()[:4] for line in listed.splitlines()[1:]]
    assert found == [
        ["hair/pc1", "pca", "hair", "both"],
        ["hair/pc2", "pca", "hair", "both"],
        ["skin/pc1", "pca", "skin", "both"],
        ["skin/pc2", "pca", "skin", "both"],
        ["hair/texture-sefa1", "sefa", "hair", "texture"],
        ["hair/brightness", "boundary", "hair", "texture"],
        ["hair/saturation", "boundary", "hair", "texture"],
    ]
    assert run("--seeds=1", "--directions=d.npz", "--apply=skin/pc2:1.5").exit_code == 0


def test_scores_that_do_not_depend_on_codes_are_skipped_and_leave_the_file(run, tmp_path, monkeypatch):
    find = ["--find=boundary", "--regions=hair,skin", "--score=brightness", "--count=60", "--batch=20", "--dest=d.npz"]
    usual, calls = edit.finding.score_direction, []

    def no_step(codes, *args):
        calls.append(0)
        return (torch.zeros(codes.shape[1]), 0.0) if len(calls) != 2 else usual(codes, *args)

    monkeypatch.setattr(edit.finding, "score_direction", no_step)
    result = run(*find)
    assert result.exit_code == 0, result.output
    assert "Skipped: brightness of hair does not depend on its texture codes in 60 samples. Choose" in result.output
    before = run("--list=d.npz").output
    assert [line.split()[0] for line in before.splitlines()[1:]] == ["skin/brightness"]
    result = run(*find)
    assert result.exit_code == 1
    assert "Error: brightness of skin does not depend" in result.output
    assert run("--list=d.npz").output == before


def test_directions_beside_the_network_need_no_option(tmp_path, monkeypatch, G, directions):
    monkeypatch.setattr(legacy, "load_network", lambda path: {"G_ema": G})
    (tmp_path / "d.npz").rename(tmp_path / "net-directions.npz")
    options = [f"--network={tmp_path}/net.pkl", "--seeds=1", "--apply=hair/volume:1", f"--outdir={tmp_path}/out"]
    assert CliRunner().invoke(edit.main, [*options, "--device=cpu"]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        ([], "Name images with --seeds, --latents or --photo", 2),
        (["--seeds=1", "--latents=x.npz"], "Choose one", 2),
        (["--seeds=1", "--apply=hair/volume:1"], "no direction 'hair/volume'", 1),
        (["--seeds=1", "--swap=tail:3"], "Unknown region 'tail'", 1),
        (["--seeds=1", "--transform=hair"], "changes nothing", 1),
        (["--seeds=1", "--psi=hair:x"], "PSI must be a finite number", 1),
        (["--seeds=1", "--sheet"], "show edits", 2),
        (["--latents=other.npz"], "this network takes [N, 10, 8]", 1),
        (["--latents=nothing"], "no latents in nothing", 1),
        (["--photo=nothing"], "no photo in nothing", 1),
        (["--seeds=1,2", "--photo=found"], "1 photos for 2 images", 1),
        (["--seeds=1", "--directions=other.npz"], "Expected a .npz file that edit.py --find wrote", 1),
        (["--find=pca"], "--find needs --regions", 2),
        (["--find=pca", "--regions=hair", "--score=area"], "other methods take none", 2),
        (["--find=boundary", "--regions=hair", "--score=size"], "no score 'size'", 1),
        (["--list=other.npz"], "Expected a .npz file that edit.py --find wrote", 1),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, G, options, message, code):
    np.savez(tmp_path / "other.npz", w=np.zeros([1, 14, 512], np.float32))
    (tmp_path / "nothing").mkdir()
    projected(tmp_path / "found", G, 3)
    result = run(*options)
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output
    assert len([line for line in result.output.splitlines() if line.startswith("Error")]) == 1
    assert not (tmp_path / "out").exists()


def test_networks_without_regions_are_refused(tmp_path, monkeypatch):
    plain = torch.nn.Module()
    plain.c_dim = 0
    monkeypatch.setattr(legacy, "load_network", lambda path: {"G_ema": plain})
    result = CliRunner().invoke(edit.main, ["--network=x.pkl", "--seeds=1", "--device=cpu"])
    assert "edit.py: this network has no regions" in result.output


def test_hair_of_the_bundled_network_grows_along_its_direction(tmp_path):
    """The directions that come with the network: more hair is more hair."""
    shares = []
    for strength in (-2, 0, 2):
        options = ["--seeds=3", f"--apply=hair/area:{strength}", f"--outdir={tmp_path}", "--device=cpu"]
        result = CliRunner().invoke(edit.main, options)
        assert result.exit_code == 0, result.output
        shares.append((picture(tmp_path / "edit_mask.png") == (110, 60, 20)).all(axis=2).mean())
    assert shares[0] < shares[1] < shares[2]


def test_a_text_changes_the_named_region(run, G, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", open_clip_stub())
    words = ["--seeds=0,1", "--text=red hair", "--text-steps=5", "--clip=tiny", "--clip-weights=random"]
    searches, search = [], text.find_codes
    monkeypatch.setattr(text, "find_codes", lambda *args: searches.append(0) or search(*args))
    result = run("--swap=hair:7:shape", *words, "--regions=hair", "--sheet", "--video", "--frames=6")
    assert result.exit_code == 0, result.output
    assert len(searches) == 2  # one for each image
    own = list(G.regions.slots("hair").values())
    for seed in (0, 1):
        with np.load(f"out/edit000{seed}.npz") as file:
            changed = (file["w"][0] != codes(G, seed)[0].numpy()).any(axis=1)
            others = "--text-steps=5 --clip=tiny --clip-weights=random"
            assert file["edits"].tolist()[1] == f"--text=red hair --regions=hair --part=both {others}"
        assert changed.nonzero()[0].tolist() == own


def test_mistakes_with_texts_are_one_line(run, monkeypatch):
    words = ["--seeds=1", "--text=red hair", "--clip=tiny"]
    monkeypatch.setitem(sys.modules, "open_clip", open_clip_stub())
    mistakes = [
        ([*words], "--text needs --regions", 2),
        ([*words, "--regions=hair", "--part=whole"], "no part 'whole'", 1),
        ([*words, "--regions=hair", "--clip-weights=none.pt"], "cannot open the model tiny", 1),
        (["--seeds=1", "--text= ", "--regions=hair"], "--text is empty", 2),
    ]
    for options, message, code in mistakes:
        result = run(*options)
        assert (result.exit_code, message in result.output) == (code, True), result.output
        assert len([line for line in result.output.splitlines() if line.startswith("Error")]) == 1
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "[text]" in run(*words, "--regions=hair").output


def test_help_teaches():
    text = CliRunner().invoke(edit.main, ["--help"]).output
    assert "--swap=hair:5" in text
    assert "--find=boundary --regions=cloth --score=brightness" in text
