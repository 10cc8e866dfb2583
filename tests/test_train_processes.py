"""Several processes, one of which dies: the others end, or all start again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import train
from tests.runs import SMALL, STEP, make_archive, only_run, run, state, statistics

PLAIN = ("--cfg=auto", *SMALL, "--tick=0.008", "--snap=1", "--aug=noaug")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("data") / "faces.zip", masks=False)


@contextlib.contextmanager
def started(*command):
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=Path(train.__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.communicate()


def wait_for_ticks(outdir, count, process):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        for path in outdir.glob("*/stats.jsonl"):
            if path.read_text().count("\n") >= count:
                return
        time.sleep(0.05)
    pytest.fail(f"no tick: {process.communicate()}")


def members(process, mark):
    """The training processes below a launcher, by the text that marks their command lines."""
    found = psutil.Process(process.pid).children(recursive=True)
    return sorted((p for p in found if mark in " ".join(p.cmdline())), key=lambda p: p.pid)


def test_a_killed_process_ends_the_other_with_one_line(archive, tmp_path):
    with started("train.py", *PLAIN, f"--outdir={tmp_path}", f"--data={archive}", "--gpus=2", "--kimg=9") as process:
        wait_for_ticks(tmp_path, 1, process)
        both = members(process, "spawn_main")
        assert len(both) == 2
        both[1].send_signal(signal.SIGKILL)
        start = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - start < 30
    assert process.returncode == 1
    assert not any(member.is_running() for member in both)
    said = [line for line in err.replace("\r", "\n").splitlines() if line.strip() and "img" not in line]
    assert said == ["Error: SIGKILL ended one of the 2 processes, so all processes ended. Check that memory suffices."]

    steps = state(only_run(tmp_path))["run"]["images_seen"] // STEP + 2
    assert run(tmp_path, "--resume=latest", "--workers=0", "--device=cpu", steps=steps).exit_code == 0
    assert state(only_run(tmp_path))["run"]["images_seen"] == steps * STEP


def test_torchrun_starts_all_again_and_the_run_goes_on(archive, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1", "--rdzv-backend=c10d",
                "--rdzv-endpoint=127.0.0.1:0")  # fmt: skip
    outdir = tmp_path / "runs"
    options = (*PLAIN, "--resume=latest", f"--outdir={outdir}", f"--data={archive}", "--kimg=0.06")
    with started(*launcher, "train.py", *options) as process:
        wait_for_ticks(outdir, 2, process)
        members(process, "train.py")[1].send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("Run directory: ") == 2
    assert out.count("Resuming at ") == 1
    assert [line["Progress/tick"]["mean"] for line in statistics(only_run(outdir))] == list(range(8))
