"""Training through the command line: what a run leaves, how it goes on, how it ends."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import legacy
import train
import training.networks
from dnnlib import EasyDict, UserError
from semantic.discriminator import DualBranchDiscriminator
from semantic.presets import semantic_options
from semantic.regions import Regions
from tests.helpers import shared_file
from tests.runs import (
    REGIONS,
    SEMANTIC,
    SMALL,
    STEP,
    difference,
    make_archive,
    only_run,
    run,
    state,
    statistics,
    without_timing,
)  # fmt: skip
from torch_utils import distributed
from torch_utils.interrupt import StopRequest
from training import launch, transfer
from training.archive import image_name
from training.batches import Batches
from training.options import FROM_DATA, inherit_architecture


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """16 pairs of 32² with 3 regions, and 2 classes of labels."""
    path = tmp_path_factory.mktemp("data") / "faces.zip"
    return make_archive(path, labels=lambda count: [[image_name(i), i % 2] for i in range(count)])


@pytest.fixture(scope="module")
def semantic_run(tmp_path_factory, archive):
    """Six steps, a tick every two, a snapshot every two ticks."""
    outdir = tmp_path_factory.mktemp("runs")
    result = run(outdir, *SEMANTIC, f"--data={archive}", "--tick=0.008", "--snap=2", "--mirror=1", steps=6)
    assert result.exit_code == 0
    return only_run(outdir)


def test_a_run_leaves_what_the_guide_says(semantic_run):
    assert semantic_run.name == "00000-faces-mirror-semantic-kimg0.024-batch4-cbase64"
    assert sorted(path.name for path in semantic_run.iterdir() if "tfevents" not in path.name) == [
        "fakes000000.png",
        "fakes000000_mask.png",
        "fakes_init.png",
        "fakes_init_mask.png",
        "log.txt",
        "network-snapshot-000000.pkl",
        "reals.png",
        "reals_mask.png",
        "stats.jsonl",
        "training-state-000000.pt",
        "training_options.json",
    ]


def test_statistics_have_the_names_that_tools_look_for(semantic_run):
    lines = statistics(semantic_run)
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2]
    assert [line["Progress/kimg"]["mean"] for line in lines] == [0.008, 0.016, 0.024]
    names = """Loss/scores/fake Loss/scores/real Loss/signs/fake Loss/signs/real Loss/G/loss Loss/D/loss
        Loss/r1_penalty Loss/r1_penalty_mask Loss/mask_consistency Loss/pl_penalty Loss/G/reg Loss/D/reg
        Progress/kimg Progress/augment Timing/sec_per_kimg Timing/total_sec Resources/peak_gpu_mem_gb"""
    for line in lines:
        timestamp = line.pop("timestamp")
        assert abs(time.time() - timestamp) < 3600
        assert set(names.split()) <= set(line)
        for figure in line.values():
            assert set(figure) == {"num", "mean", "std"}
    assert [line["Loss/scores/real"]["num"] for line in lines] == [8, 8, 8]
    assert lines[0]["Progress/augment"]["mean"] == pytest.approx(4 * 4 / 500e3)  # one adjustment upwards at step 0


def test_options_explain_the_run(semantic_run, archive):
    options = json.loads((semantic_run / "training_options.json").read_text())
    assert options["G_kwargs"]["class_name"] == "semantic.generator.Generator"
    assert options["D_kwargs"]["class_name"] == "semantic.discriminator.DualBranchDiscriminator"
    assert options["loss_kwargs"]["class_name"] == "semantic.loss.SemanticLoss"
    assert options["training_set_kwargs"]["path"] == archive
    assert options["training_set_kwargs"]["regions"]["names"] == REGIONS["names"][:3]
    assert (options["batch_size"], options["total_kimg"], options["seed"]) == (4, 0.024, 0)


def test_the_log_has_a_line_a_tick_and_one_of_the_bar(semantic_run):
    log = (semantic_run / "log.txt").read_bytes()
    assert b"\r" not in log
    lines = log.decode().splitlines()
    assert lines[0].startswith("Run directory: ")
    assert [line.split()[1] for line in lines if line.startswith("tick")] == ["0", "1", "2"]
    assert len([line for line in lines if line.startswith("Training:")]) <= 1


def test_pictures_show_data_and_samples(semantic_run):
    pictures = {name: np.array(PIL.Image.open(semantic_run / f"{name}.png"))
                for name in ("reals", "reals_mask", "fakes_init", "fakes_init_mask", "fakes000000")}  # fmt: skip
    assert {picture.shape for picture in pictures.values()} == {(64, 12 * 32, 3)}
    for name in ("reals_mask", "fakes_init_mask"):
        colors = set(map(tuple, pictures[name].reshape(-1, 3).tolist()))
        assert colors <= set(map(tuple, REGIONS["colors"][:3]))
    assert (pictures["fakes000000"] != pictures["fakes_init"]).any()


def test_the_snapshot_loads(semantic_run):
    data = legacy.load_network(semantic_run / "network-snapshot-000000.pkl")
    assert data.G_ema.regions.names == REGIONS["names"][:3]
    assert data.training_set_kwargs["resolution"] == 32
    assert 0 < data.augment_pipe.p < 1e-3
    z = torch.randn(2, data.G_ema.z_dim)
    out = data.G_ema(z, None, return_mask=True)
    assert out.image.shape == (2, 3, 32, 32)
    assert out.mask.shape == (2, 3, 32, 32)
    assert data.D(out.image, None, mask=out.mask).shape == (2, 1)
    averaged, current = data.G_ema.mapping.fc0.weight, data.G.mapping.fc0.weight
    assert not torch.equal(averaged, current)


def test_interrupted_and_continued_is_the_same_run(semantic_run, tmp_path, archive, monkeypatch):
    """Ctrl-C in the third of six steps, in the middle of a tick; then --resume=latest, twice."""
    steps, next_batch = [], Batches.next

    def interrupt_third(self):
        steps.append(None)
        if len(steps) == 4:  # that of the fourth step is fetched at the end of the third
            signal.raise_signal(signal.SIGINT)
        return next_batch(self)

    monkeypatch.setattr(Batches, "next", interrupt_third)
    result = run(tmp_path, *SEMANTIC, f"--data={archive}", "--tick=0.008", "--snap=2", "--mirror=1", steps=6)
    assert result.exit_code == launch.EXIT_INTERRUPTED == 75
    assert len(steps) == 4
    assert "SIGINT: finishing this step and saving" in result.stdout
    assert "go on with --resume=latest" in result.stdout
    run_dir = only_run(tmp_path)
    assert state(run_dir)["run"]["images_seen"] == 3 * STEP
    assert len(statistics(run_dir)) == 1
    assert legacy.load_network(run_dir / "network-snapshot-000000.pkl").G is not None
    with open(run_dir / "stats.jsonl", "a") as file:  # of a run that went on and died without saving
        file.write(json.dumps({"Progress/kimg": {"mean": 0.016}}) + '\n{"Progress/k')

    result = run(tmp_path, "--resume=latest", "--workers=0", "--device=cpu")
    assert result.exit_code == 0
    assert len(steps) == 4 + 3
    assert only_run(tmp_path) == run_dir
    expected, found = state(semantic_run), state(run_dir)
    for part in ("G", "D", "G_ema", "G_opt", "D_opt", "loss", "augment_pipe", "controller", "recovery"):
        assert not difference(expected[part], found[part]), part
    assert found["run"].pop("elapsed") > 0
    expected["run"].pop("elapsed")
    assert found["run"] == expected["run"]
    assert len(statistics(run_dir)) == 3
    assert without_timing(statistics(run_dir)) == without_timing(statistics(semantic_run))
    for name in ("fakes000000.png", "fakes000000_mask.png", "reals.png", "fakes_init.png"):
        assert (run_dir / name).read_bytes() == (semantic_run / name).read_bytes(), name
    options = [json.loads((folder / "training_options.json").read_text()) for folder in (run_dir, semantic_run)]
    assert options[0] == options[1]

    result = run(tmp_path, "--resume=latest")
    assert result.exit_code == 1
    assert "has reached its 0.024 kimg: give a larger --kimg" in result.stderr
    assert run(tmp_path, "--resume=latest", "--workers=0", "--device=cpu", steps=7).exit_code == 0
    assert state(run_dir)["run"]["images_seen"] == 7 * STEP
    assert json.loads((run_dir / "training_options.json").read_text())["total_kimg"] == 0.028


def test_the_second_ctrl_c_stops_at_once(tmp_path, archive, monkeypatch):
    def save_networks(path, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on after the second Ctrl-C")

    def interrupted_batch(self):
        if not asked:
            asked.append(signal.raise_signal(signal.SIGINT))
        return next_batch(self)

    asked, next_batch = [], Batches.next
    monkeypatch.setattr(StopRequest, "ECHO", -1)
    monkeypatch.setattr(Batches, "next", interrupted_batch)
    monkeypatch.setattr("training.training_loop.save_networks", save_networks)
    result = run(tmp_path, "--cfg=auto", *SMALL, f"--data={archive}", steps=5)
    assert result.exit_code == 1
    assert "Aborted!" in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())  # there was no state yet, so nothing to go on from


def frozen_and_others(D, count):
    """Tensors of the first `count` layers of D, and those of its other layers."""
    block = {name: t for name, t in [*D.named_parameters(), *D.named_buffers()] if "resample_filter" not in name}
    first = ("b32.fromrgb.", "b32.conv0.", "b32.conv1.", "b32.skip.")[:count]
    return ({n: t for n, t in block.items() if n.startswith(first)},
            {n: t for n, t in block.items() if not n.startswith(first)})  # fmt: skip


def test_plain_training_with_labels_and_transfer_from_it(tmp_path, archive):
    options = ("--cfg=auto", *SMALL, f"--data={archive}", "--cond=1", "--subset=6", "--mirror=1")
    result = run(tmp_path, *options, "--aug=fixed", "--p=0.5", steps=2)
    assert result.exit_code == 0
    first = only_run(tmp_path)
    assert first.name == "00000-faces-cond-mirror-subset6-auto-kimg0.008-batch4-cbase64-p0.5-fixed"
    assert "Training for 0.008 kimg on 12 images of 32²" in result.stdout
    assert not list(first.glob("*_mask.png"))
    assert "Loss/mask_consistency" not in statistics(first)[-1]
    assert statistics(first)[-1]["Progress/augment"]["mean"] == 0.5
    source = legacy.load_network(first / "network-snapshot-000000.pkl")
    assert (source.G.c_dim, source.D.c_dim) == (2, 2)
    assert float(source.augment_pipe.p) == 0.5

    resume = f"--resume={first / 'network-snapshot-000000.pkl'}"
    result = run(tmp_path, *options, "--aug=noaug", "--freezed=2", resume, steps=1)
    assert result.exit_code == 0
    second = max(tmp_path.iterdir())
    assert second.name.startswith("00001-")
    assert second.name.endswith("-noaug-resumenetworksnapshot00000-freezed2")
    assert (second / "fakes_init.png").read_bytes() == (first / "fakes000000.png").read_bytes()
    tuned = legacy.load_network(second / "network-snapshot-000000.pkl")
    assert tuned.augment_pipe is None
    frozen, others = frozen_and_others(tuned.D, 2)
    before, before_others = frozen_and_others(source.D, 2)
    assert frozen.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.items())
    assert not any(torch.equal(tensor, before_others[name]) for name, tensor in others.items() if "weight" in name)


def test_adaptation_with_frozen_local_generators_keeps_them(semantic_run, tmp_path):
    data = make_archive(tmp_path / "paintings.zip", count=6, masks=False)
    snapshot = semantic_run / "network-snapshot-000000.pkl"
    options = ("--cfg=semantic-adapt", "--batch=4", "--workers=0", "--device=cpu", f"--data={data}")
    result = run(tmp_path / "runs", *options, f"--resume={snapshot}", "--freeze-local", "--mask-weight=1", steps=1)
    assert result.exit_code == 0
    before = legacy.load_network(snapshot).G.state_dict()
    after = legacy.load_network(only_run(tmp_path / "runs") / snapshot.name).G.state_dict()
    for name, tensor in after.items():
        if name.startswith(("mapping.fc", "synthesis.local.")):
            assert torch.equal(tensor, before[name]), name
    changed = "synthesis.render.b32.conv.weight"
    assert not torch.equal(after[changed], before[changed])


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
        "missing archive": ((*semantic, f"--data={folder}/nothing.zip"), r"no file or folder .*nothing\.zip"),
        "broken zip": ((*semantic, f"--data={folder}/cut.zip"), r"cut\.zip is not a zip archive, or it is broken off"),
        "no zip": ((*plain, f"--data={folder}/text.zip"), r"text\.zip is not a zip archive"),
        "image without mask": ((*semantic, data("w.zip", without=[3])), r"1 of 6 images have no mask: .*3\.png in"),
        "mask of another size": ((*semantic, data("s.zip", mask_side=16)), "is 16x16, but its image is 32x32"),
        "mask index outside": ((*semantic, data("i.zip", indices=9)), "holds the class index 8, but there are 3 regio"),
        "oblong images": ((*plain, data("o.zip", width=16, masks=False)), "16x32, but must be square"),
        "size not a power of two": ((*plain, data("p.zip", side=24, masks=False)), "24x24, but must be square"),
        "no masks": ((*semantic, data("n.zip", masks=False)), "no masks in .*--masks, or train on images only"),
        "too small": ((*semantic, data("t.zip", side=16)), "needs 32² or more, but .* is 16²"),
        "other regions than resumed": (
            (*semantic, data("k.zip", regions=4), f"--resume={snapshot}"),
            "its G is .*3 regions: background skin hair.*this run's is .*4 regions: background skin hair hat",
        ),
        "other resolution than resumed": (
            (*semantic, data("r.zip", side=64, masks=True), f"--resume={snapshot}"),
            "its G is .*32×32×3.*this run's is .*64×64×3",
        ),
        "other network than resumed": ((*plain, good, f"--resume={snapshot}"), r"its G is a semantic\.generator\.Gen"),
        "unknown transparent region": ((*semantic, good, "--transparent=hat"), "no region 'hat'. The regions are: bac"),
        "transparent background": ((*semantic, good, "--transparent=0"), "is the background and cannot be transparent"),
        "regions not JSON": ((*semantic, good, "--regions={names}"), "is not JSON"),
        "regions file not JSON": ((*semantic, good, f"--regions={folder}/notes.json"), r"notes\.json is not JSON"),
        "regions file missing": ((*semantic, good, f"--regions={folder}/no.json"), r"Cannot read --regions=.*no\.json"),
        "regions file not text": ((*semantic, good, f"--regions={archive}"), "is not a text file"),
        "regions without names": ((*semantic, good, '--regions={"names": 3}'), "Cannot read --regions: expected"),
        "too few regions": ((*semantic, good, '--regions={"names": ["a", "b"]}'), "but there are 2 regions"),
        "indivisible batch": ((*plain, good, "--gpus=3"), "--batch=4 cannot be shared by 3 processes"),
        "indivisible share": ((*plain, good, "--batch-gpu=3"), "--batch-gpu=3 must divide the 4 images"),
        "nothing to continue": (("--resume=latest",), "found no training-state-"),
        "missing network": ((*plain, good, f"--resume={folder}/no.pkl"), r"no\.pkl: there is no such file, nor a net"),
        "not a network": ((*plain, good, f"--resume={archive}"), "is a zip archive, not a network file"),
        "no folder for runs": ((*plain, good, f"--outdir={archive}/x"), "Cannot make a run folder under .*Choose anot"),
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
    assert re.fullmatch("Error: .*metric.*\n", result.stderr)
    assert not list(tmp_path.iterdir())


def test_wrong_options_are_named(archive, tmp_path):
    for args, message in (
        (["--mask-weight=1"], "--mask-weight needs --cfg=semantic"),
        (["--regions={}"], "--regions needs --cfg=semantic"),
        (["--cfg=semantic-adapt", "--gamma-mask=1"], "--gamma-mask needs --cfg=semantic"),
        (["--p=0.5"], "--p needs --aug=fixed"),
        (["--aug=fixed"], "--aug=fixed needs --p"),
        (["--aug=noaug", "--target=0.5"], "--target needs --aug=ada"),
        (["--freeze-local"], "--freeze-local needs --cfg=semantic-adapt"),
        (["--cfg=semantic-adapt"], "needs --resume=NETWORK"),
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


def test_regions_of_the_user_replace_those_of_the_archive(archive, tmp_path):
    regions = json.dumps({"names": ["sky", "one", "two"], "transparent": ["two"]})
    args = (*SEMANTIC, f"--data={archive}", "--dry-run", f"--regions={regions}")
    found = json.loads(run(tmp_path, *args).stdout)["G_kwargs"]["regions"]
    assert (found["names"], found["transparent"]) == (["sky", "one", "two"], [2])
    found = json.loads(run(tmp_path, *args, "--transparent=one").stdout)["training_set_kwargs"]["regions"]
    assert found["transparent"] == [1]
    assert json.loads(run(tmp_path, *args, "--transparent=").stdout)["G_kwargs"]["regions"]["transparent"] == []


def test_the_guide_names_every_option_and_no_other():
    guide = (Path(train.__file__).parent / "docs" / "training.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", guide))
    options = {name for parameter in train.main.params for name in parameter.opts if name.startswith("--")}
    launcher = {"nnodes", "nproc-per-node", "rdzv-endpoint", "rdzv-backend", "rdzv-id", "max-restarts"}
    assert named - options <= {"--help", *(f"--{name}" for name in launcher)}
    assert options - named == set()


@pytest.fixture
def copied_run(semantic_run, tmp_path):
    shutil.copytree(semantic_run, tmp_path / "runs" / semantic_run.name)
    return tmp_path / "runs" / semantic_run.name


def test_continuing_keeps_the_options_of_the_run(copied_run):
    result = run(copied_run.parent, "--resume=latest", "--gamma=3", "--batch=8")
    assert result.exit_code == 1
    assert re.search("keeps the options of .*: leave --batch --gamma away", result.stderr)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
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


class Writer:
    """Stands for TensorBoard's."""

    def __init__(self, folder):
        self.folder, self.scalars = folder, []

    def add_scalar(self, name, value, global_step, walltime):
        self.scalars.append((name, value, global_step))

    def flush(self):
        pass

    def close(self):
        self.scalars.append("closed")


def test_tensorboard_gets_the_same_figures(archive, tmp_path, monkeypatch):
    writers = []
    monkeypatch.setattr("training.progress._tensorboard", lambda folder: writers.append(Writer(folder)) or writers[0])
    assert run(tmp_path, "--cfg=auto", *SMALL, f"--data={archive}", steps=1).exit_code == 0
    (line,) = statistics(only_run(tmp_path))
    del line["timestamp"]
    assert [(name, figure["mean"], 4) for name, figure in line.items()] == writers[0].scalars[:-1]
    assert writers[0].scalars[-1] == "closed"
    assert writers[0].folder == str(only_run(tmp_path))


def test_two_processes_train_together(archive, tmp_path):
    result = run(tmp_path, *SEMANTIC, f"--data={archive}", "--gpus=2", "--tick=0.008", steps=2)
    assert result.exit_code == 0, result.output
    run_dir = only_run(tmp_path)
    assert "semantic2" in run_dir.name
    (line,) = statistics(run_dir)
    assert line["Loss/scores/real"]["num"] == 8
    assert line["Progress/kimg"] == {"num": 1, "mean": 0.008, "std": 0}
    assert legacy.load_network(run_dir / "network-snapshot-000000.pkl").G_ema is not None


def test_under_torchrun_a_process_joins_the_group(archive, tmp_path, monkeypatch):
    """What torchrun tells its processes, here a group of one."""
    group = {
        "RANK": 0,
        "WORLD_SIZE": 1,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": distributed.free_port(),
    }
    for name, value in group.items():
        monkeypatch.setenv(name, str(value))
    joined, training = [], launch.train
    monkeypatch.setattr(launch, "train", lambda *args: joined.append(distributed.is_distributed()) or training(*args))
    assert run(tmp_path, "--cfg=auto", *SMALL, f"--data={archive}", steps=1).exit_code == 0
    assert joined == [True]
    assert not distributed.is_distributed()
    assert state(only_run(tmp_path))["run"]["images_seen"] == STEP


def test_ctrl_c_from_outside_saves_and_the_run_goes_on(archive, tmp_path):
    command = [sys.executable, "train.py", f"--outdir={tmp_path}", "--cfg=auto", *SMALL, f"--data={archive}",
               "--workers=1", "--tick=0.004", "--snap=1000", "--kimg=1000"]  # fmt: skip
    process = subprocess.Popen(
        command,
        cwd=Path(train.__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/stats.jsonl")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: loader processes hear it too
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert "go on with --resume=latest" in out
    seen = state(only_run(tmp_path))["run"]["images_seen"]
    assert run(tmp_path, "--resume=latest", "--workers=0", steps=seen // STEP + 1).exit_code == 0
    assert state(only_run(tmp_path))["run"]["images_seen"] == seen + STEP


def test_networks_to_resume_bring_their_own_widths():
    source = shared_file("fixtures", "stylegan2_ada_small.pkl")
    G = legacy.load_network(source)["G_ema"]
    options = EasyDict(
        G_kwargs=EasyDict(class_name="training.networks.Generator", z_dim=512, w_dim=512),
        D_kwargs=EasyDict(class_name="training.networks.Discriminator", channel_base=16384),
    )
    inherit_architecture(options, str(source))
    assert options.G_kwargs.z_dim == G.z_dim
    assert not {"c_dim", "img_resolution", "img_channels"} & set(options.G_kwargs)


def test_what_a_network_to_resume_was_not_given_has_its_default():
    D = DualBranchDiscriminator(0, 32, 3, 3, channel_max=4, block_kwargs={"freeze_layers": 1})
    own = {
        "class_name": "semantic.discriminator.DualBranchDiscriminator", "num_regions": 5, "mask_width": 0.5,
        "mapping_kwargs": {"num_layers": 2}, "block_kwargs": {"conv_clamp": 256}, "channel_max": 8,
    }  # fmt: skip
    found = transfer.inherit_arguments(own, D, FROM_DATA)
    assert found == {
        "class_name": own["class_name"], "num_regions": 5, "mapping_kwargs": {}, "channel_max": 4,
        "block_kwargs": {"conv_clamp": 256, "freeze_layers": 1},
    }  # fmt: skip


def test_networks_to_resume_keep_arguments_by_position_and_the_precision_of_the_run():
    G = training.networks.Generator(4, 0, 5, 8, 3, synthesis_kwargs={"channel_max": 4})
    own = {"class_name": "training.networks.Generator", "z_dim": 512, "w_dim": 512, "num_fp16_res": 4}
    found = transfer.inherit_arguments(own, G, FROM_DATA)
    assert (found.z_dim, found.w_dim, found.num_fp16_res) == (4, 5, 4)
    assert found.synthesis_kwargs == {"channel_max": 4}


@pytest.mark.parametrize("resolution", [32, 256])
def test_recipes_differ_below_256_only(resolution):
    regions = Regions(["sky", "one", "two"])
    tuned, paper = (semantic_options(resolution, regions, "fp32", recipe) for recipe in ("tuned", "paper"))
    assert (tuned == paper) == (resolution == 256)
    loss = paper.loss_kwargs
    assert (loss.r1_gamma, loss.r1_gamma_mask, loss.mask_weight, loss.locality_weight) == (10, 1000, 100, 0)
    assert (paper.D_kwargs.mask_width, paper.G_reg_interval) == (1, 4)
    layers = paper.G_kwargs.synthesis_kwargs
    assert (layers["local_layers"], layers["depth_layers"]) == (10, 6)


def test_unknown_recipes_are_told():
    with pytest.raises(UserError, match="no recipe 'papr'"):
        semantic_options(64, Regions(["sky", "one"]), "fp32", "papr")


def test_the_papers_recipe_is_in_the_name_of_the_run(archive, tmp_path):
    options = json.loads(run(tmp_path, *SEMANTIC, f"--data={archive}", "--dry-run", "--recipe=paper").stdout)
    assert "-semantic-paper" in options["description"]
    assert options["D_kwargs"]["mask_width"] == 1
