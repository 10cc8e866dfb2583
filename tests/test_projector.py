"""projector.py: its files, its figures, and its one-line errors."""

import json
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import legacy
import projector
from semantic.pictures.edited import read_photo
from semantic.placement import Placement
from tests.semantic.conftest import D, G  # noqa: F401
from tests.semantic.helpers import COUNT, RESOLUTION

QUICK = ("--num-steps=2", "--device=cpu", "--align=none")


@pytest.fixture
def network(G, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(projector, "CODES", 100)
    path = tmp_path / "network.pkl"
    legacy.save_network({"G": G, "D": None, "G_ema": G, "augment_pipe": None}, path)
    return path


def photos(folder, count=1, size=(50, 40)):
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, [size[1], size[0], 3], np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
        PIL.Image.fromarray(np.full([size[1], size[0]], 1, np.uint8)).save(folder / f"mask{i}.tif")
    return folder


def masks(folder, count=1, size=(50, 40)):
    folder.mkdir()
    for i in range(count):
        pixels = np.arange(size[0] * size[1]).reshape(size[1], size[0]) * COUNT // (size[0] * size[1])
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def run(*args):
    result = CliRunner().invoke(projector.main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_one_photo_gives_all_files_of_the_contract(network, tmp_path):
    photo = photos(tmp_path / "photos") / "0.png"
    mask = masks(tmp_path / "masks") / "0.png"
    out = tmp_path / "out"
    result = run(
        f"--network={network}", f"--target={photo}", f"--target-mask={mask}", f"--outdir={out}", "--pti-steps=2",
        "--save-video", *QUICK,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "target.png", "target_mask.png", "proj.png", "proj_mask.png", "projected_w.npz", "placement.json", "tuned.npz",
        "proj.mp4", "projections.json",
    }  # fmt: skip
    G = legacy.load_network(network)["G_ema"]  # noqa: F811
    with np.load(out / "projected_w.npz") as arrays:
        assert arrays["w"].shape == (1, G.num_ws, G.w_dim)
    assert Placement.load(out / "placement.json").photo_size == (50, 40)
    for name in ("target.png", "proj_mask.png", "target_mask.png"):
        assert PIL.Image.open(out / name).size == (RESOLUTION, RESOLUTION)
    (row,) = json.loads((out / "projections.json").read_text())
    assert {"psnr", "ssim", "mask_iou", "steps", "seconds"} <= row.keys()
    assert row["steps"] == 2


def test_a_bad_photo_in_a_folder_does_not_stop_the_others(network, tmp_path):
    folder = photos(tmp_path / "photos", count=3)
    (folder / "1.png").write_bytes(b"broken")
    out = tmp_path / "out"
    result = run(f"--network={network}", f"--target={folder}", f"--outdir={out}", "--mask=none", "--batch=2", *QUICK)
    assert result.exit_code == 0, result.output
    assert (out / "0" / "proj.png").is_file()
    assert (out / "2" / "proj.png").is_file()
    assert not (out / "1").exists()
    rows = json.loads((out / "projections.json").read_text())
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    assert "Cannot read" in rows[1]["error"]
    assert "Skipped: Cannot read" in result.output


@pytest.mark.parametrize("packed", [False, True])
def test_placements_say_where_photos_of_folders_and_zips_are(network, tmp_path, packed):
    target = photos(tmp_path / "photos", count=2)
    if packed:
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for name in ("0.png", "1.png"):
                archive.write(target / name, f"faces/{name}")
        target = tmp_path / "photos.zip"
    out = tmp_path / "out"
    result = run(f"--network={network}", f"--target={target}", f"--outdir={out}", "--mask=none", *QUICK)
    assert result.exit_code == 0, result.output
    pixels, _ = read_photo(out / "1")
    assert np.array_equal(pixels, np.asarray(PIL.Image.open(tmp_path / "photos" / "1.png")))


def test_the_tuned_network_is_read_again(network, tmp_path):
    photo, out = photos(tmp_path / "photos") / "0.png", tmp_path / "out"
    common = (f"--network={network}", f"--target={photo}", "--mask=none", *QUICK)
    assert run(*common, f"--outdir={out}", "--pti-steps=1").exit_code == 0
    assert run(*common, f"--outdir={tmp_path / 'again'}", f"--tuned={out / 'tuned.npz'}").exit_code == 0


def test_mistakes_end_in_one_line(network, tmp_path):
    photo = photos(tmp_path / "photos") / "0.png"
    (tmp_path / "empty").mkdir()
    wrong = masks(tmp_path / "masks") / "0.png"
    PIL.Image.fromarray(np.full([40, 50], 77, np.uint8)).save(wrong)
    for arguments, message in [
        ((f"--target={tmp_path / 'empty'}",), "holds no photo"),
        ((f"--target={photo}", f"--target-mask={wrong}"), "holds the class index 77"),
        ((f"--target={photo}", f"--perceptual={tmp_path / 'no.pt'}"), "Cannot read the feature network"),
        ((f"--target={photo}", f"--tuned={photo}", "--mask=none"), "Expected the tuned.npz of projector.py"),
    ]:
        result = run(f"--network={network}", f"--outdir={tmp_path / 'out'}", *arguments, *QUICK)
        assert result.exit_code == 1, result.output
        assert message in result.output
        assert "Traceback" not in result.output


def test_a_network_without_regions_finds_photos_too(tmp_path, monkeypatch):
    from training.networks import Generator

    monkeypatch.setattr(projector, "CODES", 100)
    torch.manual_seed(0)
    plain = Generator(4, 0, 4, 32, 3, synthesis_kwargs={"channel_base": 64, "channel_max": 4})
    path = tmp_path / "plain.pkl"
    legacy.save_network({"G": plain, "D": None, "G_ema": plain}, path)
    photo = photos(tmp_path / "photos") / "0.png"
    result = run(f"--network={path}", f"--target={photo}", f"--outdir={tmp_path / 'out'}", "--pti-steps=1", *QUICK)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out" / "proj_mask.png").exists()
