"""The table of what would run where."""

import pytest
import torch
from click.testing import CliRunner

from semantic import doctor
from torch_utils.ops import proof, triton_support


def table(*args):
    result = CliRunner().invoke(doctor.main, ["--device=cpu", *args])
    assert result.exit_code == 0, result.output
    return dict(line.split("  ", 1) for line in result.stdout.splitlines())


def test_the_table_names_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    rows = table()
    for name in ("PyTorch", "Device", "Kernels", "oneDNN", "Loader", "ffmpeg", "Cache folder", "Extra [lmdb]"):
        assert name in rows, rows
    assert torch.__version__ in rows["PyTorch"]
    assert str(tmp_path / "cache") in rows["Cache folder"]
    assert "plain forms run" in rows["Kernels"]


def test_a_cache_that_cannot_be_written_and_missing_extras_say_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.triton_support, "runs_on", lambda x: False)
    rows = table()
    assert "DNNLIB_CACHE_DIR" in rows["Cache folder"]
    assert "pip install" in rows["Extra [onnx]"]


@pytest.mark.parametrize(("why", "text"), [("", "proven"), ("fails (X)", "the plain form runs: fails (X)")])
def test_kernels_are_told_one_by_one(monkeypatch, why, text):
    monkeypatch.setattr(triton_support, "runs_on", lambda x: True)
    monkeypatch.setattr(doctor, "_use_kernels", lambda device, dtype: None)
    monkeypatch.setattr(proof, "results", lambda: {"bias_act (lrelu)": why})
    assert table()["bias_act (lrelu)"].strip() == text
