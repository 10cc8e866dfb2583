"""A training that is killed again and again, and continued each time, is the training that nobody killed.

A short version runs always; twenty kills of one process, and of two, with TORTURE=1 (`make torture`).
"""

import os
from random import Random

import pytest

from tests.torture.kills import differences, kill_and_resume, kill_one_rank
from tests.torture.zygote import PLACES

LONG = os.environ.get("TORTURE") == "1"
ONLY_LONG = pytest.mark.skipif(not LONG, reason="takes minutes: make torture")
SMALL = ["--cfg=semantic", "--batch=4", "--cbase=32", "--device=cpu", "--snap=1", "--tick=0.008", "--mirror=1"]
AGAIN = ["--resume=latest", "--device=cpu"]


def killed_as_often(trainings, data, tmp_path, places, kimg, processes=1, seed=0):
    """Differences between a training that was killed so often and one that was not."""
    new = [*SMALL, f"--data={data}", f"--kimg={kimg}", f"--gpus={processes}", "--workers=0"]
    resume = [*AGAIN, f"--gpus={processes}", "--workers=0"]
    code, log = trainings.run([f"--outdir={tmp_path / 'whole'}", *new])
    assert code == 0, log[-2000:]
    (whole,) = (tmp_path / "whole").iterdir()
    outdirs = [tmp_path / f"killed{i}" for i in range(10)]
    for outdir in outdirs:
        outdir.mkdir()
    killed, hits = kill_and_resume(trainings, new, resume, outdirs, places, Random(seed))
    print(f"killed {len(hits)} times: {', '.join(hits)}")
    return differences(whole, killed)


def twenty(seed):
    """Ten random moments, and ten places in the middle of writing."""
    places = [*PLACES, *PLACES[:4], *[None] * 10]
    Random(seed).shuffle(places)
    return places


def test_three_kills_leave_no_trace(trainings, data, tmp_path):
    assert not killed_as_often(trainings, data, tmp_path, places=["half a state", None, "before a rename"], kimg=0.024)


@ONLY_LONG
def test_twenty_kills_leave_no_trace(trainings, data, tmp_path):
    assert not killed_as_often(trainings, data, tmp_path, twenty(1), kimg=0.12, seed=1)


@ONLY_LONG
def test_twenty_kills_of_two_processes_leave_no_trace(trainings, data, tmp_path):
    assert not killed_as_often(trainings, data, tmp_path, twenty(2), kimg=0.12, processes=2, seed=2)


@ONLY_LONG
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_ends_the_other_with_one_message(trainings, data, tmp_path, seed):
    args = [*SMALL, f"--data={data}", "--kimg=100", "--gpus=2", "--workers=0", f"--outdir={tmp_path}"]
    seconds, code, log = kill_one_rank(trainings, args, tmp_path, Random(seed))
    assert seconds < 30
    assert code == 1
    assert "Traceback" not in log
    assert log.count("Error: ") == 1, log[-2000:]
    assert "Error: SIGKILL ended one of the 2 processes" in log.splitlines()[-1]
