"""Mistakes of the user of train.py: each ends in one plain line."""

import multiprocessing
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.runs import (
    SEMANTIC,
    SMALL,
    make_archive,
    run,
)  # fmt: skip


def mistakes(archive, folder, snapshot):
    """Arguments that lead nowhere, and what is said about them."""

    def data(name, **kwargs):
        return f"--data={make_archive(folder / name, count=6, **kwargs)}"

    good = f"--data={archive}"
    (folder / "cut.zip").write_bytes(Path(archive).read_bytes()[:-500])
    (folder / "text.zip").write_bytes(b"no zip at all")
    (folder / "notes.json").write_text('{"names": ["background",')
    semantic, plain = ("--cfg=semantic",), ("--cfg=auto",)
    return {
        "missing archive": (
            (*semantic, f"--data={folder}/nothing.zip"),
            r"File or folder .*nothing\.zip does not exist",
        ),
        "broken zip": ((*semantic, f"--data={folder}/cut.zip"), r"cut\.zip is not a zip archive, or it is incomplete"),
        "no zip": ((*plain, f"--data={folder}/text.zip"), r"text\.zip is not a zip archive"),
        "image without mask": (
            (*semantic, data("w.zip", without=[3])),
            r"1 of 6 images have no mask, such as .*3\.png in",
        ),
        "mask of another size": ((*semantic, data("s.zip", mask_side=16)), "is 16x16, but its image is 32x32"),
        "mask index outside": ((*semantic, data("i.zip", indices=9)), "holds the class index 8, but there are 3 regio"),
        "oblong images": ((*plain, data("o.zip", width=16, masks=False)), "16x32, but must be square"),
        "size not a power of two": ((*plain, data("p.zip", side=24, masks=False)), "24x24, but must be square"),
        "no masks": ((*semantic, data("n.zip", masks=False)), "no masks in .*--masks, or train on images only"),
        "too small": ((*semantic, data("t.zip", side=16)), "needs 32² or more, but .* is 16²"),
        "other resolution than resumed": (
            (*semantic, data("r.zip", side=256, masks=True), f"--resume={snapshot}"),
            "its G is .*32×32×3.*this run's is .*256×256×3",
        ),
        "other network than resumed": ((*plain, good, f"--resume={snapshot}"), r"its G is a semantic\.generator\.Gen"),
        "unknown transparent region": (
            (*semantic, good, "--transparent=hat"),
            "Unknown region 'hat'. The regions are: bac",
        ),
        "transparent background": ((*semantic, good, "--transparent=0"), "is the background and cannot be transparent"),
        "regions not JSON": ((*semantic, good, "--regions={names}"), "is not JSON"),
        "regions file not JSON": ((*semantic, good, f"--regions={folder}/notes.json"), r"notes\.json is not JSON"),
        "regions file missing": ((*semantic, good, f"--regions={folder}/no.json"), r"Cannot read --regions=.*no\.json"),
        "regions file not text": ((*semantic, good, f"--regions={archive}"), "is not a text file"),
        "regions without names": ((*semantic, good, '--regions={"names": 3}'), "Cannot read --regions. Expected"),
        "too few regions": ((*semantic, good, '--regions={"names": ["a", "b"]}'), "but there are 2 regions"),
        "indivisible batch": ((*plain, good, "--gpus=3"), "3 processes cannot share --batch=4"),
        "indivisible share": ((*plain, good, "--batch-gpu=3"), "--batch-gpu=3 must divide the 4 images"),
        "nothing to continue": (("--resume=latest",), "found no training-state-"),
        "missing network": ((*plain, good, f"--resume={folder}/no.pkl"), r"no\.pkl: There is no file "),
        "no network in the folder": ((*plain, good, f"--resume={folder}"), r"--resume=\S+: There is no network-sn"),
        "not a network": ((*plain, good, f"--resume={archive}"), "is a zip archive, not a network file"),
        "no folder for runs": (
            (*plain, good, f"--outdir={archive}/x"),
            "Cannot create a run folder under .*Choose anot",
        ),
        "no labels": ((*plain, data("l.zip", labels=None), "--cond=1"), "--cond=1 needs labels, but .* has none"),
        "too large a subset": ((*plain, good, "--subset=17", "--mirror=1"), "--subset=17 asks for more than the 16 im"),
    }


def test_every_mistake_ends_in_one_plain_line(archive, semantic_run, tmp_path):
    wrong = {}
    for name, (args, message) in mistakes(archive, tmp_path, semantic_run / "network-snapshot-000000.pkl").items():
        result = run(tmp_path / "runs", *SMALL, "--kimg=0.004", *args)
        if result.exit_code != 1 or not re.fullmatch(f"Error: .*{message}.*\n", result.stderr):
            wrong[name] = (result.exit_code, result.stderr)
    assert not wrong


def test_a_damaged_file_ends_a_running_training_in_a_line_of_its_own(tmp_path, monkeypatch):
    """The bar is on the line before, and no loader process stays, though they ignore SIGTERM."""
    data = make_archive(tmp_path / "d.zip", indices=9)
    monkeypatch.setattr("training.training_loop.Previews.save_reals", lambda self: None)
    result = run(tmp_path / "runs", *SEMANTIC, f"--data={data}", "--workers=1", steps=8)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: masks/00000/img00000015.png in ")
    assert not multiprocessing.active_children()


def test_an_unknown_metric_is_told_before_anything_is_made(archive, tmp_path):
    result = run(tmp_path, *SMALL, f"--data={archive}", "--metrics=fid50k_full,fid50k_fulll")
    assert result.exit_code == 1
    assert re.fullmatch("Error: .*Unknown metric.*\n", result.stderr)
    assert not list(tmp_path.iterdir())


def test_wrong_options_are_named(archive, tmp_path):
    for args, message in (
        (["--mask-weight=1"], "--mask-weight needs --cfg=semantic"),
        (["--regions={}"], "--regions needs --cfg=semantic"),
        (["--cfg=semantic-adapt", "--octaves=4"], "--octaves needs --cfg=semantic"),
        (["--p=0.5"], "--p needs --aug=fixed"),
        (["--aug=fixed"], "--aug=fixed needs --p"),
        (["--aug=noaug", "--target=0.5"], "--target needs --aug=ada"),
        (["--freeze-local"], "--freeze-local needs --cfg=semantic-adapt"),
        (["--cfg=semantic-adapt"], "Name it with --resume"),
        (["--locality=2"], "--locality needs --cfg=semantic"),
        (["--octaves=3"], "--octaves needs --cfg=semantic"),
        (["--recipe=paper"], "--recipe needs --cfg=semantic"),
        (["--cfg=paper2048"], "'paper2048' is not one of"),
        (["--kimg=nan"], "nan is not a finite number"),
        (["--kimg=0"], "not in the range"),
        (["--gamma=-1"], "not in the range"),
    ):
        result = run(tmp_path, f"--data={archive}", *args)
        assert result.exit_code == 2, args
        assert message in result.stderr, args
    assert "--data is missing" in run(tmp_path).stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_gpu_is_told(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = run(tmp_path, f"--data={archive}", "--device=cuda")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "No GPU was found" in result.stderr
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    result = run(tmp_path, f"--data={archive}", "--device=cuda", "--gpus=3")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: --gpus=3 asks for more GPUs than this machine has (2).\n",
    )


@pytest.fixture
def copied_run(semantic_run, tmp_path):
    shutil.copytree(semantic_run, tmp_path / "runs" / semantic_run.name)
    return tmp_path / "runs" / semantic_run.name


def test_continuing_keeps_the_options_of_the_run(copied_run):
    result = run(copied_run.parent, "--resume=latest", "--gamma=3", "--batch=8")
    assert result.exit_code == 1
    assert re.search(r"keeps the options of .*\. Remove --batch --gamma", result.stderr)


def exchange_moments(run_dir):
    """As if the network had its parameters in another order."""
    path = run_dir / "training-state-000000.pt"
    state = torch.load(path, weights_only=True)
    moments = state["D_opt"]["state"]
    moments[0], moments[1] = moments[1], moments[0]
    torch.save(state, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (exchange_moments, "D_opt has exp_avg of shape .* for a parameter of shape"),
        (lambda run: (run / "training-state-000000.pt").write_bytes(b"no state"), "Cannot read the training state"),
        (
            lambda run: torch.save({"run": {}}, run / "training-state-000000.pt"),
            "does not fit the run's data and option",
        ),
        (lambda run: (run / "training_options.json").write_text("{"), "Cannot read .*training_options.json"),
        (lambda run: (run / "training_options.json").unlink(), "Cannot read .*training_options.json"),
    ],
)
def test_a_damaged_run_is_told_in_one_line(copied_run, damage, message):
    damage(copied_run)
    result = run(copied_run.parent, "--resume=latest", "--workers=0", "--device=cpu", steps=9)
    assert result.exit_code == 1
    assert re.fullmatch(f"Error: .*{message}.*\n", result.stderr)
