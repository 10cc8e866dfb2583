"""Trainings whose standard output or error breaks, fills, is closed or knows few characters; a terminal that closes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.run.snapshots import find_states, load_state

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.environ.get("TORTURE") != "1", reason="takes minutes: make torture")
SMALL = ["--cfg=auto", "--batch=4", "--cbase=32", "--device=cpu", "--workers=1", "--snap=1"]
WHOLE = [*SMALL, "--tick=0.004", "--kimg=0.012"]
ENDLESS = [*SMALL, "--tick=50", "--kimg=100"]


def command(outdir, *args):
    return [sys.executable, str(ROOT / "train.py"), f"--outdir={outdir}", *args]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def images_seen(outdir):
    (run_dir,) = Path(outdir).iterdir()
    return load_state(find_states(run_dir)[0])["run"]["images_seen"]


def wait_for_state(outdir, process):
    deadline = time.monotonic() + 120
    while not list(Path(outdir).glob("*/training-state-*.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "redirect", ["| head -1", "2>&1 | head -6", "> /dev/full", "> /dev/full 2>&1", ">&-", ">&- 2>&-"]
)
def test_a_training_reaches_its_end_whatever_becomes_of_its_output(tmp_path, data, redirect):
    script = f'( "$@"; echo $? > "{tmp_path}/code" ) {redirect}'
    outdir = tmp_path / "runs"
    args = command(outdir, f"--data={data}", *WHOLE)
    done = subprocess.run(["bash", "-c", script, "bash", *args], env=environment(), capture_output=True, check=False)
    assert (tmp_path / "code").read_text() == "0\n"
    assert b"Traceback" not in done.stdout + done.stderr
    assert images_seen(outdir) == 12


@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "gbk", "cp932", "big5"])
def test_a_training_starts_whatever_its_terminal_shows(tmp_path, data, encoding):
    args = command(tmp_path, f"--data={data}", *WHOLE)
    done = subprocess.run(args, env=environment(PYTHONIOENCODING=encoding), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"images of 32^2" in done.stdout


@pytest.mark.parametrize("tool", ["train", "generate", "calc_metrics", "dataset_tool", "legacy"])
def test_help_is_shown_on_every_terminal(tool):
    for encoding in ("ascii", "cp1251", "gbk"):
        args = [sys.executable, str(ROOT / f"{tool}.py"), "--help"]
        done = subprocess.run(args, env=environment(PYTHONIOENCODING=encoding), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert b"Usage" in done.stdout


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_after_the_reader_of_a_pipe_died_saves_the_run(tmp_path, data, processes):
    """`train.py 2>&1 | tee log`, then Ctrl-C: tee dies first."""
    args = command(tmp_path, f"--data={data}", *ENDLESS, f"--gpus={processes}")
    training = subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for_state(tmp_path, training)
        training.stdout.close()
        training.send_signal(signal.SIGINT)
        assert training.wait(120) == 75
    finally:
        training.kill()
    assert images_seen(tmp_path) > 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminal_that_closes_saves_the_run(tmp_path, data, processes):
    """The terminal's end sends SIGHUP to the whole group, and every write fails from then on."""
    leader, follower = os.openpty()
    args = command(tmp_path, f"--data={data}", *ENDLESS, f"--gpus={processes}")
    training = subprocess.Popen(
        args,
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    )
    os.close(follower)
    try:
        os.set_blocking(leader, False)
        deadline = time.monotonic() + 120
        while not list(Path(tmp_path).glob("*/training-state-*.pt")) and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                os.read(leader, 1 << 16)
            time.sleep(0.05)
        os.close(leader)
        os.killpg(training.pid, signal.SIGHUP)
        assert training.wait(120) == 75
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(training.pid, signal.SIGKILL)
    assert images_seen(tmp_path) > 0


@pytest.mark.parametrize("home", [None, "/nonexistent", "/proc"])
def test_a_user_without_a_home_trains_with_metrics(tmp_path, data, home):
    """As in a container with --user: the cache cannot be written, or there is no home to have it in."""
    known = {name: value for name, value in environment().items() if name not in ("HOME", "DNNLIB_CACHE_DIR")}
    known |= {} if home is None else {"HOME": home}
    if home == "/nonexistent":  # the superuser may write anywhere, so let a file stand in the way
        (tmp_path / "file").touch()
        known["DNNLIB_CACHE_DIR"] = str(tmp_path / "file")
    args = command(tmp_path / "runs", f"--data={data}", *WHOLE, "--metrics=swd")
    done = subprocess.run(args, env=known, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"Traceback" not in done.stderr
    assert images_seen(tmp_path / "runs") == 12
    assert list((tmp_path / "runs").glob("*/metric-swd.jsonl"))
