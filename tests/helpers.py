"""What several tests need."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(*parts: str) -> Path:
    """A path under the shared folder beside the checkout; skips the test where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared/{'/'.join(parts)} is not there")
    return path


def assert_close(actual, expected, tolerance=1e-4):
    """Largest difference under `tolerance` of the largest magnitude of `expected`."""
    import torch

    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    scale = expected.abs().max().item() or 1.0
    worst = (actual.double() - expected.double()).abs().max().item()
    assert worst <= tolerance * scale, f"differs by {worst:.3g} where magnitudes reach {scale:.3g}"
