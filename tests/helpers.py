"""What several tests need."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(*parts: str) -> Path:
    """A path under the shared folder beside the checkout; skips the test where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared/{'/'.join(parts)} is not there")
    return path


def why_no_interpreter() -> str | None:
    """Why Triton's interpreter cannot run kernels here, or None."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    if triton < (3, 5) and numpy >= (2, 4):
        return "the interpreter of this Triton does not work with this NumPy"
    return None


def assert_close(actual, expected, tolerance=1e-4):
    """Largest difference under `tolerance` of the largest magnitude of `expected`."""
    import torch

    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    scale = expected.abs().max().item() or 1.0
    worst = (actual.double() - expected.double()).abs().max().item()
    assert worst <= tolerance * scale, f"differs by {worst:.3g} where magnitudes reach {scale:.3g}"
