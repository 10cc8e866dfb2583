"""The kernels compile for a GPU, which their interpreter does not show."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def has_assembler():
    found = find_spec("triton")
    return found is not None and (Path(found.origin).parent / "backends" / "nvidia" / "bin" / "ptxas").exists()


@pytest.mark.skipif(not has_assembler(), reason="there is no Triton with an assembler for NVIDIA's GPUs")
def test_kernels_compile_for_an_h100_and_stay_in_its_registers(tmp_path):
    """In a process of its own, in which no kernel can run any more."""
    table = tmp_path / "table.md"
    command = [sys.executable, "-m", "tests.benchmarks.gpu_compile", "--gpus=90", f"--out={table}"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.read_text().splitlines()]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert len(rows) == 46
    tuned = tuple(map(int, version("triton").split(".")[:2])) >= (3, 7)  # earlier compilers need some more registers
    for row in rows:
        assert int(row["spilled bytes"]) <= (0 if tuned else 512), row
        assert float(row["shared KiB"]) <= 227, row
        products = row["kernel"].startswith(("layers", "fusion"))
        assert row["products"].startswith("wgmma") == products, row
