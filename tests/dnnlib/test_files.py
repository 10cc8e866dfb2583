"""Files appear whole or not at all, and mistakes are told in one line."""

import json
import os

import click
import pytest

from dnnlib import UserError, atomic_open, atomic_path, write_json


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
