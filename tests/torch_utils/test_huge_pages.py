"""Large tensors on a CPU come in huge pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SCRIPT = """
import resource
import legacy, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.empty(16 * 2**20).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting):
    """Page faults of a tensor of 64 MiB."""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"} | setting
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(
    not OFFERED.exists() or "[madvise]" not in OFFERED.read_text(), reason="the kernel does not offer them on request"
)
def test_large_tensors_meet_few_page_faults_unless_the_user_says_no():
    assert page_faults({}) < page_faults({"THP_MEM_ALLOC_ENABLE": "0"}) / 4
