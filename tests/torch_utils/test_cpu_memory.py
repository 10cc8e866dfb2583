"""Freed memory stays with the process."""

import subprocess
import sys

import pytest
import torch

from torch_utils.cpu_memory import keep_freed_memory

SCRIPT = """
import resource, sys, torch
from torch_utils.cpu_memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory(torch.device("cpu")):
    sys.exit(3)
count = 16 * 2**20
torch.zeros(count).add_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.zeros(count).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    """Faults of four tensors of 64 MiB, one after the other."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library has nothing to set")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_memory_is_used_again_without_page_faults():
    assert page_faults("keep") < page_faults("leave") / 4


def test_other_devices_leave_it_as_it_is():
    assert not keep_freed_memory(torch.device("meta"))
