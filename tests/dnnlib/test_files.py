"""Files appear whole or not at all, and mistakes are told in one line."""

import json
import os

import click
import pytest

from dnnlib import UserError, append_line, atomic_open, atomic_path, remove_temporary, write_json


def test_new_content_appears_only_at_the_end(tmp_path):
    path = tmp_path / "a" / "b" / "notes.txt"
    with atomic_open(path) as file:
        file.write("ünï")
        file.flush()
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "ünï"
    assert os.listdir(path.parent) == ["notes.txt"]


def write_and_fail(path, failure):
    with atomic_open(path, "wb") as file:
        file.write(b"new")
        raise failure


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), UserError("no")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)):
        write_and_fail(path, failure)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["old.bin"]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="No space left on device") as caught:
        write_and_fail(tmp_path / "a", OSError(28, "No space left on device"))
    assert str(tmp_path / "a") in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Choose another output folder"), atomic_open(tmp_path / "file" / "a"):
        pass


def test_a_folder_in_the_way_stays(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="Cannot write"), atomic_open(tmp_path / "taken") as file:
        file.write("x")
    assert os.listdir(tmp_path) == ["taken"]


def test_the_temporary_path_keeps_the_suffix_and_hides(tmp_path):
    with atomic_path(tmp_path / "clip.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"x")
    assert (tmp_path / "clip.mp4").read_bytes() == b"x"


def test_others_may_read_what_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_open(tmp_path / "a") as file:
            file.write("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_files_and_their_names_reach_the_disk(tmp_path, monkeypatch):
    """Both are synced: the content before the file gets its name, the folder after."""
    synced, real = [], os.fsync

    def note(handle):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        real(handle)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", note)
    with atomic_open(tmp_path / "a.bin", "wb") as file:
        file.write(b"x")
    assert len(synced) == 2
    assert synced[0].startswith(".a-")
    assert synced[1] == tmp_path.name


def test_what_killed_processes_left_is_removed(tmp_path):
    with atomic_path(tmp_path / "clip.tar.gz") as temporary:
        temporary.write_bytes(b"")
        left = temporary.name
        kept = ["notes.txt", ".hidden", ".a-abcdefgh.txt", "a-abcdefgh.tmp.txt"]
        for name in kept:
            (tmp_path / name).touch()
        (tmp_path / ".folder-abcdefgh.tmp.d").mkdir()
        assert left in os.listdir(tmp_path)
        remove_temporary(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted([*kept, ".folder-abcdefgh.tmp.d"])
        temporary.touch()


def test_lines_are_appended(tmp_path):
    for line in ("one", "zwö"):
        append_line(tmp_path / "a.txt", line)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "one\nzwö\n"


def test_a_line_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    append_line(tmp_path / "a.txt", "one")
    real, calls = os.write, []

    def full(handle, data):
        if calls:
            raise OSError(28, "No space left on device")
        calls.append(None)
        return real(handle, data[:3])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"a\.txt: No space left on device"):
            append_line(tmp_path / "a.txt", "two and more")
    assert (tmp_path / "a.txt").read_text() == "one\n"
    append_line(tmp_path / "a.txt", "three")
    assert (tmp_path / "a.txt").read_text() == "one\nthree\n"


def test_a_log_that_cannot_be_opened_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="Choose another output folder"):
        append_line(tmp_path / "missing" / "a.txt", "x")


def test_write_json_reads_back(tmp_path):
    data = {"names": ["a"], "value": 0.1, "none": None}
    write_json(tmp_path / "a.json", data)
    assert json.loads((tmp_path / "a.json").read_text()) == data
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"bad": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == data


def test_a_user_error_is_one_line_and_exits_with_1(capsys):
    error = UserError("first\n  second\tthird")
    assert str(error) == error.message == "first second third"
    assert isinstance(error, click.ClickException)
    assert error.exit_code == 1
    error.show()
    assert capsys.readouterr().err == "Error: first second third\n"


def test_a_file_that_another_program_holds_open_is_waited_for(tmp_path, monkeypatch):
    """As on Windows, where a file that is open cannot be replaced."""
    replace, refusals = os.replace, [PermissionError(13, "in use")] * 2

    def held(source, target):
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr("os.replace", held)
    monkeypatch.setattr("dnnlib.files.HELD_OPEN_PAUSES", (0, 0, 0))
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").read_text() == "1\n"
    refusals = [PermissionError(13, "in use")] * 9
    with pytest.raises(UserError, match="Cannot write"):
        write_json(tmp_path / "a.json", 2)
    assert os.listdir(tmp_path) == ["a.json"]
