"""The kernels compile for a GPU, which their interpreter does not show."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="Triton brings its assembler for Linux")
def test_kernels_compile_for_an_h100_and_stay_in_its_registers(tmp_path):
    """In a process of its own, in which no kernel can run any more."""
    table = tmp_path / "table.md"
    command = [sys.executable, "-m", "tests.benchmarks.gpu_compile", "--gpus=90", f"--out={table}"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.read_text().splitlines()]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert len(rows) == 46
    for row in rows:
        assert row["spilled bytes"] == "0", row
        assert float(row["shared KiB"]) <= 227, row
        products = row["kernel"].startswith(("layers", "fusion"))
        assert row["products"].startswith("wgmma") == products, row
