"""Runs of --cfg=semantic-adapt: what each mode trains, how they end, what they refuse."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import legacy
from semantic.adaptation import stopping
from tests.networks import tiny_generator
from tests.runs import make_archive, only_run, run
from tests.semantic.helpers import build_discriminator
from training.archive import create_archive, encode_png, image_name
from training.networks import Generator
from training.run.snapshots import save_networks

NAMES = ["background", "skin", "hair"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A network of three regions whose G differs from its average."""
    path = tmp_path_factory.mktemp("source") / "source.pkl"
    average, G = tiny_generator(names=NAMES), tiny_generator(seed=1, names=NAMES)
    D = build_discriminator(segmentation=True)
    save_networks(path, None, G=G, D=D, G_ema=average, augment_pipe=None)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("images") / "drawn.zip", count=8, masks=False)


def adapt(outdir, source, data, *args, steps=2):
    options = ("--cfg=semantic-adapt", "--batch=4", "--workers=0", "--device=cpu", f"--resume={source}")
    return run(outdir, *options, f"--data={data}", *args, steps=steps)


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "adaptation.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("options", "p"), [((), 0.3), (("--aug=fixed", "--p=0.1"), 0.1)])
def test_images_are_augmented_from_the_start(options, p, source, images, tmp_path):
    result = adapt(tmp_path, source, images, "--dry-run", *options)
    assert json.loads(result.stdout)["augment_p"] == p


KEPT = {
    "style": ("mapping.", "synthesis.local.weight", "synthesis.local.bias", "synthesis.local.position."),
    "lowrank": ("mapping.", "synthesis.local.bias", "synthesis.local.position."),
    "all": (),
    "frozen": ("mapping.", "synthesis.local."),
}


@pytest.mark.parametrize("mode", list(KEPT))
def test_a_mode_keeps_and_trains_the_same_parts_of_G_and_of_its_average(source, images, tmp_path, mode):
    result = adapt(tmp_path, source, images, f"--adapt={mode}", "--aug=noaug")
    assert result.exit_code == 0, result.output
    before = legacy.load_network(source)
    after = legacy.load_network(only_run(tmp_path) / "network-best.pkl")
    start = before.G_ema.state_dict()
    for key in ("G", "G_ema"):
        state = after[key].state_dict()
        assert state.keys() == start.keys()
        kept = {name for name in state if name.startswith(KEPT[mode])} if KEPT[mode] else set()
        same = {name for name in state if torch.equal(state[name], start[name])}
        assert kept <= same
        changed = {"synthesis.local.affine_weight", "synthesis.local.weight", "synthesis.render.b32.conv.weight"}
        assert not (changed - kept) & same
    first = [name for name in before.D.state_dict() if name.startswith("image.b32.") and "weight" in name]
    assert all(torch.equal(after.D.state_dict()[name], before.D.state_dict()[name]) for name in first)


def test_every_snapshot_gives_a_row_after_that_of_the_source(source, images, tmp_path):
    result = adapt(tmp_path, source, images, "--tick=0.004", steps=2)
    assert result.exit_code == 0, result.output
    found = rows(only_run(tmp_path))
    assert [row["kimg"] for row in found] == [0, 0.004, 0.008]
    assert all(row.keys() == {"kimg", "swd", "drift", "msssim", "nearest"} for row in found)
    assert set(found[0]["drift"].values()) == {0}
    assert max(found[-1]["drift"].values()) > 0
    assert "Held-out SWD" in (only_run(tmp_path) / "log.txt").read_text()


def test_a_run_ends_by_itself_and_says_why_and_cannot_go_on(source, images, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "patch_distance", lambda images, others: 50.0)  # nothing gains
    result = adapt(tmp_path, source, images, "--tick=0.004", steps=20)
    assert result.exit_code == 0, result.output
    run_dir = only_run(tmp_path)
    assert len(rows(run_dir)) == 5
    assert "The adaptation ends here: the distance to held-out images has not shrunk over 3 snapshots" in result.output
    assert "Stopped" not in result.output
    assert (run_dir / "network-best.pkl").is_file()
    again = run(tmp_path, "--resume=latest", "--device=cpu", "--workers=0")
    assert again.exit_code == 1
    assert "has ended" in again.output
    assert "network-best.pkl" in again.output


def test_rows_of_a_run_that_goes_on_follow_those_before(source, images, tmp_path):
    assert adapt(tmp_path, source, images, "--tick=0.004", "--adapt=lowrank", steps=2).exit_code == 0
    before = rows(only_run(tmp_path))
    result = run(tmp_path, "--resume=latest", "--device=cpu", "--workers=0", steps=3)
    assert result.exit_code == 0, result.output
    assert rows(only_run(tmp_path))[:3] == before
    assert len(rows(only_run(tmp_path))) == 4


def test_masks_of_some_images_teach_the_mask_branch(source, tmp_path):
    data = make_archive(tmp_path / "some.zip", count=8, without=range(4))
    result = adapt(tmp_path / "runs", source, rename_regions(data), "--aug=noaug", steps=2)
    assert result.exit_code == 0, result.output
    assert " of 7 training images have masks." in result.output
    after = legacy.load_network(only_run(tmp_path / "runs") / "network-best.pkl")
    before = legacy.load_network(source)
    name = "mask.b16.conv0.weight"
    assert not torch.equal(after.D.state_dict()[name], before.D.state_dict()[name])


def test_a_run_with_masks_goes_on_with_its_archive_elsewhere(source, tmp_path):
    data = rename_regions(make_archive(tmp_path / "some.zip", count=8, without=range(4)))
    assert adapt(tmp_path / "runs", source, data, "--aug=noaug", steps=1).exit_code == 0
    moved = Path(data).rename(tmp_path / "moved.zip")
    options = ("--resume=latest", "--device=cpu", "--workers=0", f"--data={moved}")
    result = run(tmp_path / "runs", *options, steps=2)
    assert result.exit_code == 0, result.output
    assert len(rows(only_run(tmp_path / "runs"))) == 3
    other = rename_regions(make_archive(tmp_path / "other.zip", count=8), ["background", "skin", "hat"])
    result = run(tmp_path / "runs", *options[:3], f"--data={other}", steps=3)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "other regions" in result.stderr


def test_grey_images_teach_a_network_of_colour_images(source, tmp_path):
    path, plain = tmp_path / "grey.zip", tmp_path / "plain.pkl"
    with create_archive(path) as add:
        for i in range(8):
            add(image_name(i), encode_png(np.random.default_rng(i).integers(0, 256, [32, 32], np.uint8)))
    result = adapt(tmp_path / "runs", source, path, "--aug=noaug", steps=1)
    assert result.exit_code == 0, result.output
    save_networks(plain, None, G=None, D=None, G_ema=Generator(8, 0, 8, 32, 3), augment_pipe=None)
    for network, channels in ((f"--resume={plain}", 3), ("--mirror=0", None)):
        result = run(tmp_path / "auto", network, f"--data={path}", "--device=cpu", "--dry-run")
        assert json.loads(result.stdout)["training_set_kwargs"].get("num_channels") == channels


def test_layers_of_D_are_frozen_by_the_option_alone(source, images, tmp_path):
    assert adapt(tmp_path / "first", source, images, "--aug=noaug", steps=1).exit_code == 0
    adapted = only_run(tmp_path / "first") / "network-best.pkl"
    for given, frozen in (("--freezed=0", {}), ("--freezed=2", {"freeze_layers": 2})):
        result = adapt(tmp_path / "second", adapted, images, given, "--dry-run")
        assert json.loads(result.stdout)["D_kwargs"]["block_kwargs"] == frozen


def rename_regions(path, names=NAMES):
    """The archive with other names for its regions."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(files["dataset.json"])
    data["regions"] = {"names": list(names)}
    files["dataset.json"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_mistakes_are_told_in_a_line(source, images, tmp_path):
    large = make_archive(tmp_path / "large.zip", count=6, side=64, masks=False)
    few = make_archive(tmp_path / "few.zip", count=4, masks=False)
    others = rename_regions(make_archive(tmp_path / "others.zip", count=8, without=[1]), ["sky", "tree", "road"])
    plain = tmp_path / "plain.pkl"
    G = Generator(8, 0, 8, 32, 3, synthesis_kwargs={"channel_base": 64})
    save_networks(plain, None, G=G, D=None, G_ema=G, augment_pipe=None)
    for data, network, args, text in [
        (large, source, (), "--width=32 --height=32"),
        (few, source, (), "needs 5 images or more"),
        (images, source, ("--subset=3",), "needs 5 images or more"),
        (others, source, (), "other regions (sky, tree, road)"),
        (images, plain, (), "needs a network with regions"),
        (images, source, ("--freeze-local", "--adapt=all"), "--freeze-local means --adapt=frozen"),
    ]:
        result = adapt(tmp_path / "none", network, data, *args)
        assert result.exit_code in (1, 2), result.output
        assert text in result.output
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_that_multiplies_bfloat16_uses_it(source, images, tmp_path, monkeypatch, fast, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast, raising=False)
    result = adapt(tmp_path, source, images, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f'"precision": "{precision}"' in result.output
