"""The folder of a run: numbered, held, put back to a state."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from dnnlib import UserError
from training.run import folder
from training.run.folder import (
    check_options,
    discard_start,
    find_runs,
    lock_run,
    log_sizes,
    next_run_dir,
    read_options,
    report_damaged_options,
    rewind,
)
from training.run.snapshots import save_state


def test_runs_are_numbered_on(tmp_path):
    assert next_run_dir(tmp_path / "runs", "a").endswith("00000-a")
    (tmp_path / "runs" / "00007-b").mkdir()
    (tmp_path / "runs" / "notes").mkdir()
    assert os.path.basename(next_run_dir(tmp_path / "runs", "c")) == "00008-c"


def test_runs_are_found_newest_first_and_a_run_itself(tmp_path):
    assert find_runs(tmp_path / "nothing") == find_runs(tmp_path) == []
    for name in ("00002-a", "00010-b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "00099-file").touch()
    assert [path.name for path in find_runs(tmp_path)] == ["00010-b", "00002-a"]
    (tmp_path / "00010-b" / "training_options.json").touch()
    assert find_runs(tmp_path / "00010-b") == [tmp_path / "00010-b"]


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff", b"[" * 100_000])
def test_options_that_cannot_be_read_are_told_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "training_options.json").write_bytes(content)
    with pytest.raises(UserError, match=r"Cannot read .*training_options\.json"):
        read_options(tmp_path)


HOLDER = """
import os, sys, time
import filelock
lock = filelock.FileLock(os.path.join(sys.argv[1], ".lock"))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_run_is_held_by_one_process_and_freed_when_that_dies(tmp_path, monkeypatch):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(folder, "WAIT", 0.3)
        said = []
        with pytest.raises(UserError, match="Another process works in"), lock_run(tmp_path, said.append):
            pass
        assert len(said) == 1
        holder.kill()
        monkeypatch.setattr(folder, "WAIT", 30)
        with lock_run(tmp_path, said.append):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert os.listdir(tmp_path) == [".lock"]


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_where_there_are_no_locks_a_run_goes_without(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with lock_run(tmp_path, print):
        pass


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(UserError, match=r"Cannot open .*Read-only file system"), lock_run(tmp_path, print):
        pass


def metric_line(kimg, value):
    return json.dumps({"results": {"m": value}, "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl"}) + "\n"


def test_a_run_is_put_back_to_where_a_state_was_saved(tmp_path):
    """Half lines, later lines, later states and unfinished files go; the results of the state's own snapshot stay."""
    (tmp_path / "log.txt").write_text("one\n")
    (tmp_path / "metric-m.jsonl").write_text(metric_line(1, 1))
    state = {"run": {}, "logs": log_sizes(tmp_path)}
    assert state["logs"] == {"log.txt": 4, "metric-m.jsonl": len(metric_line(1, 1))}
    for name in ("training-state-000001.pt", "training-state-000002.pt", "training-state-000004.pt"):
        save_state(tmp_path / name, state)
    with open(tmp_path / "log.txt", "a") as file:
        file.write("two\nthr")
    (tmp_path / "stats.jsonl").write_text("{}\n{")  # there was none yet
    with open(tmp_path / "metric-m.jsonl", "a") as file:
        file.write(metric_line(2, 2) + metric_line(1, 1) + metric_line(4, 4) + metric_line(2, 2) + '{"res')
    (tmp_path / "metric-new.jsonl").write_text(metric_line(4, 4))
    for name in (".training-state-000004-ab12_x9z.tmp.pt", ".fakes-abcdefgh.tmp.png", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "fakes000004.png").touch()
    rewind(tmp_path, tmp_path / "training-state-000002.pt", state)
    assert (tmp_path / "log.txt").read_text() == "one\n"
    assert (tmp_path / "stats.jsonl").read_text() == ""
    assert (tmp_path / "metric-m.jsonl").read_text() == metric_line(1, 1) + metric_line(2, 2) + metric_line(1, 1)
    assert sorted(os.listdir(tmp_path)) == [
        ".hidden", "fakes000004.png", "log.txt", "metric-m.jsonl", "stats.jsonl", "training-state-000001.pt",
        "training-state-000002.pt",
    ]  # fmt: skip


def test_a_log_that_lost_its_end_keeps_whole_lines(tmp_path):
    (tmp_path / "stats.jsonl").write_text("a\nb\nc")
    rewind(tmp_path, tmp_path / "training-state-000002.pt", {"run": {}, "logs": {"stats.jsonl": 100}})
    assert (tmp_path / "stats.jsonl").read_text() == "a\nb\n"


def test_only_a_start_without_a_state_is_discarded(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.txt").touch()
    save_state(tmp_path / "b" / "training-state-000000.pt", {"run": {}})
    for name in ("a", "b", "c"):
        discard_start(tmp_path / name)
    assert os.listdir(tmp_path) == ["b"]


def take(run_dir: str, size: int, names: Sequence[str] = (), rate: float | None = None, seed: int = 0) -> None:
    """Stands for the training loop."""


@pytest.mark.parametrize(
    ("options", "good"),
    [
        ({"size": 1}, True),
        ({"size": 1, "names": ["a"], "rate": 2, "seed": 0}, True),
        ({"size": 1, "rate": None}, True),
        ({"size": 1, "seed": 3_000_000_000}, True),
        ({}, False),
        ({"size": 1, "other": 1}, False),
        ({"size": 0}, False),
        ({"size": True}, False),
        ({"size": "1"}, False),
        ({"size": 1 << 40}, False),
        ({"size": 1, "names": "abc"}, False),
        ({"size": 1, "names": [1]}, False),
        ({"size": 1, "rate": -1.0}, False),
        ({"size": 1, "rate": float("nan")}, False),
        ({"size": 1, "seed": -1}, False),
    ],
)
def test_stored_options_are_compared_with_what_the_loop_takes(tmp_path, options, good):
    if good:
        check_options(options, take)
        return
    with (
        pytest.raises(UserError, match=r"training_options\.json does not describe"),
        report_damaged_options(tmp_path, True),
    ):
        check_options(options, take)
