"""Training through the command line: what a run leaves, how it goes on, how it ends."""

import json
import os
import re
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
from tests.runs import (
    REGIONS,
    SEMANTIC,
    SMALL,
    STEP,
    difference,
    only_run,
    run,
    state,
    statistics,
    without_timing,
)  # fmt: skip
from torch_utils import distributed
from torch_utils.interrupt import StopRequest
from training import launch
from training.batches import Batches


def test_a_run_leaves_what_the_guide_says(semantic_run):
    assert semantic_run.name == "00000-faces-mirror-semantic-kimg0.024-batch4-cbase64"
    assert sorted(path.name for path in semantic_run.iterdir() if "tfevents" not in path.name) == [
        ".lock",
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
    assert lines[0]["Progress/augment"]["mean"] == pytest.approx(4 * 4 / 100e3)  # one adjustment upwards at step 0


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
    assert "holds labels, which are not used. Add --cond=1" in lines[1]
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
    assert "Resume with --resume=latest" in result.stdout
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
    assert "has reached its 0.024 kimg. To train longer, give a larger --kimg" in result.stderr
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


def test_regions_of_the_user_replace_those_of_the_archive(archive, tmp_path):
    regions = json.dumps({"names": ["sky", "one", "two"], "transparent": ["two"]})
    args = (*SEMANTIC, f"--data={archive}", "--dry-run", f"--regions={regions}")
    found = json.loads(run(tmp_path, *args).stdout)["G_kwargs"]["regions"]
    assert (found["names"], found["transparent"]) == (["sky", "one", "two"], [2])
    found = json.loads(run(tmp_path, *args, "--transparent=one").stdout)["training_set_kwargs"]["regions"]
    assert found["transparent"] == [1]
    assert json.loads(run(tmp_path, *args, "--transparent=").stdout)["G_kwargs"]["regions"]["transparent"] == []


@pytest.mark.parametrize("configuration", [SEMANTIC, SMALL])
def test_learning_rates_of_the_user(configuration, archive, tmp_path):
    args = (*configuration, f"--data={archive}", "--dry-run")
    default = json.loads(run(tmp_path, *args).stdout)
    options = json.loads(run(tmp_path, *args, "--glr=0.0001", "--dlr=0.0003").stdout)
    assert options["G_opt_kwargs"] == {**default["G_opt_kwargs"], "lr": 0.0001}
    assert options["D_opt_kwargs"] == {**default["D_opt_kwargs"], "lr": 0.0003}


def test_the_guide_names_every_option_and_no_other():
    guide = (Path(train.__file__).parent / "docs" / "training.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", guide))
    options = {name for parameter in train.main.params for name in parameter.opts if name.startswith("--")}
    launcher = {"nnodes", "nproc-per-node", "rdzv-endpoint", "rdzv-backend", "rdzv-id", "max-restarts"}
    assert named - options <= {"--help", *(f"--{name}" for name in launcher)}
    assert options - named == set()


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
    monkeypatch.setattr(
        "training.run.progress._tensorboard", lambda folder: writers.append(Writer(folder)) or writers[0]
    )
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
        "MASTER_PORT": 0,  # any
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
    assert "Resume with --resume=latest" in out
    seen = state(only_run(tmp_path))["run"]["images_seen"]
    assert run(tmp_path, "--resume=latest", "--workers=0", steps=seen // STEP + 1).exit_code == 0
    assert state(only_run(tmp_path))["run"]["images_seen"] == seen + STEP
