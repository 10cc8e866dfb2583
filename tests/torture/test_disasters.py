"""A full disk, a folder that cannot be written, a scheduler's SIGTERM: with real disks and real processes."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import legacy
from training.run.snapshots import find_states, load_state

SMALL = ["--cfg=auto", "--batch=4", "--cbase=32", "--device=cpu", "--workers=0", "--snap=1", "--tick=0.004"]
AGAIN = ["--resume=latest", "--device=cpu", "--workers=0"]


def mount(*args):
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk of its own can be made here: {done.stderr.strip()[:100]}")


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of its own, of 20 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("there is no command to mount disks")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def only_error(log):
    """The one line that a failed training ends with."""
    lines = log.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, log[-2000:]
    assert "Traceback" not in log
    assert lines[-1] == errors[0]
    return errors[0]


def unfinished(folder):
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name]


def test_a_full_disk_stops_the_run_and_with_more_room_it_goes_on(trainings, data, disk):
    """The first state fits; networks and the second state beside it do not."""
    code, log = trainings.run([f"--outdir={disk}", *SMALL, f"--data={data}", "--kimg=0.016"])
    assert code == 1
    error = only_error(log)
    assert "No space left on device" in error
    assert str(disk) in error
    assert not unfinished(disk)
    (run_dir,) = disk.iterdir()
    seen = load_state(find_states(run_dir)[0])["run"]["images_seen"]
    assert 0 < seen < 16
    for path in run_dir.glob("*.pkl"):
        legacy.load_network(path)
    mount("-o", "remount,size=100m", str(disk))
    code, log = trainings.run([f"--outdir={disk}", *AGAIN])
    assert code == 0, log[-2000:]
    assert load_state(find_states(run_dir)[0])["run"]["images_seen"] == 16


def test_a_folder_that_cannot_be_written_is_told_in_one_line(trainings, data, disk):
    mount("-o", "remount,size=100m", str(disk))
    new = [f"--outdir={disk}", *SMALL, f"--data={data}", "--kimg=0.004"]
    code, log = trainings.run(new)
    assert code == 0, log[-2000:]
    (run_dir,) = disk.iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()}
    mount("-o", "remount,ro", str(disk))
    for args in (new, [f"--outdir={disk}", *AGAIN, "--kimg=0.008"]):
        code, log = trainings.run(args)
        assert code == 1
        assert "Read-only file system" in only_error(log)
    assert {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before


def test_sigterm_saves_and_the_run_goes_on(trainings, data, tmp_path):
    training = trainings.start([f"--outdir={tmp_path}", *SMALL, f"--data={data}", "--kimg=100", "--tick=50"])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/training-state-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(training.pid, signal.SIGTERM)
    code = trainings.wait(120)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(training.pid, signal.SIGKILL)
    log = training.log.read_text()
    assert code == 75, log[-2000:]
    assert "SIGTERM: finishing this step and saving" in log
    assert "Resume with --resume=latest" in log
    assert "Traceback" not in log
    (run_dir,) = Path(tmp_path).iterdir()
    seen = load_state(find_states(run_dir)[0])["run"]["images_seen"]
    code, log = trainings.run([f"--outdir={tmp_path}", *AGAIN, f"--kimg={(seen + 4) / 1000}"])
    assert code == 0, log[-2000:]
    assert load_state(find_states(run_dir)[0])["run"]["images_seen"] == seen + 4
