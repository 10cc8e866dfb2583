"""Arrays of foreign files: what is read, and that damage and excess end in one line."""

import io
import zipfile

import numpy as np
import pytest

from dnnlib import UserError
from torch_utils.arrays import read_arrays, read_open_arrays


def npz(**members: bytes) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    stream.seek(0)
    return stream


def npy(header: str, data: bytes = b"") -> bytes:
    line = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + data


def test_arrays_come_back_as_they_were(tmp_path):
    given = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array(["x", "yy"]), "c": np.array("z"), "d": np.zeros(0)}
    np.savez(tmp_path / "a.npz", **given)
    found = read_arrays(tmp_path / "a.npz", [*given, "none"], "arrays")
    assert set(found) == set(given)
    for name, array in given.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    with open(tmp_path / "a.npz", "rb") as file:
        assert set(read_open_arrays(file, None, "a.npz", "arrays")) == set(given)


EMPTY_TEXTS = "{'descr': '<U0', 'fortran_order': False, 'shape': (%d,), }"
BAD = {
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x" * 8),
    "many empty texts": npy(EMPTY_TEXTS % 10**8),
    "endless empty texts": npy(EMPTY_TEXTS % 10**14),
    "open bracket": npy("{'descr': ("),
    "open quotes": npy("'''"),
    "no dictionary": npy("[]"),
    "short": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }", b"x" * 8),
    "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
    "no header": b"abc",
}


@pytest.mark.parametrize("name", BAD)
def test_damage_ends_in_one_line(name):
    with pytest.raises(UserError, match=r"^Cannot read x\.npz\. Expected codes\.$"):
        read_open_arrays(npz(w=BAD[name]), ["w"], "x.npz", "codes")


def test_a_limit_holds_for_all_arrays_together():
    zeros = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000,), }", bytes(100_000))
    assert len(read_open_arrays(npz(a=zeros, b=zeros), None, "x.npz", "codes", most=300_000)) == 2
    with pytest.raises(UserError):
        read_open_arrays(npz(a=zeros, b=zeros), None, "x.npz", "codes", most=200_000)
