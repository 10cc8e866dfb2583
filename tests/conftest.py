"""Settings of all tests."""

import signal

import pytest
import torch

from tests.runs import SEMANTIC, make_archive, only_run, run
from training.archive import image_name

torch.set_num_threads(1)  # many small products: threads cost more than they give
# A shell without job control starts programs in the background with Ctrl-C ignored, and they hand that on.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """16 pairs of 32² with 3 regions, and 2 classes of labels."""
    path = tmp_path_factory.mktemp("data") / "faces.zip"
    return make_archive(path, labels=lambda count: [[image_name(i), i % 2] for i in range(count)])


@pytest.fixture(scope="session")
def semantic_run(tmp_path_factory, archive):
    """Six steps, a tick every two, a snapshot every two ticks."""
    outdir = tmp_path_factory.mktemp("runs")
    result = run(outdir, *SEMANTIC, f"--data={archive}", "--tick=0.008", "--snap=2", "--mirror=1", steps=6)
    assert result.exit_code == 0
    return only_run(outdir)
