"""A kernel runs on a device only after it has given there what the plain form gives."""

import pytest
import torch

from dnnlib import UserError
from dnnlib.option_types import KERNELS_VARIABLE
from torch_utils.ops import proof, triton_support

CPU = torch.device("cpu")


def plain(x, w):
    return torch.tanh(x @ w), x.sum() * w


class WrongBackward(torch.autograd.Function):
    """tanh whose first or second derivative is wrong."""

    @staticmethod
    def forward(ctx, x, order):
        ctx.order = order
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        slope = 1 - x.tanh() ** 2
        if ctx.order == "second":
            slope = slope.detach()
        return grad * slope * (1.5 if ctx.order == "first" else 1), None


def unsupported(x, w):
    raise RuntimeError("no kernel image is available\nfor execution on the device")


BROKEN = {
    "values": lambda x, w: (torch.tanh(x @ w) * 1.01, x.sum() * w),
    "first derivatives": lambda x, w: (WrongBackward.apply(x @ w, "first"), x.sum() * w),
    "second derivatives": lambda x, w: (WrongBackward.apply(x @ w, "second"), x.sum() * w),
    "RuntimeError: no kernel image is available for execution on the device": unsupported,
    "in its values by nan": lambda x, w: (torch.tanh(x @ w) * float("nan"), x.sum() * w),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(proof, "ON_CPU", True)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)
    proof.forget()
    yield
    proof.forget()


def draw(generator):
    return [torch.randn(4, 5, generator=generator), torch.randn(5, 3, generator=generator)]


def holds(kernel, name="Product"):
    return proof.holds(name, CPU, kernel, plain, draw, 1e-4)


def test_a_kernel_that_agrees_runs_and_says_nothing(capsys):
    before = torch.get_rng_state()
    with torch.no_grad():
        assert holds(plain)
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr().err == ""
    assert proof.results() == {"Product": ""}


@pytest.mark.parametrize("what", BROKEN)
def test_a_kernel_that_is_wrong_does_not_run_and_one_line_says_why(what, capsys):
    for _ in range(2):
        assert not holds(BROKEN[what])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert what in said
    assert said.startswith("Product on cpu")
    assert "Using the slower plain form" in said


def test_strict_takes_no_plain_form(monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "strict")
    assert holds(plain, "good")
    for _ in range(2):
        with pytest.raises(UserError, match="--kernels=strict"):
            holds(BROKEN["values"], "bad")


def test_plain_never_runs_a_kernel(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton_support, "_installed", lambda: True)
    assert triton_support.runs_on(torch.zeros(1))
    monkeypatch.setenv(KERNELS_VARIABLE, "plain")
    assert not triton_support.runs_on(torch.zeros(1))


def test_another_process_does_not_try_again_until_a_version_changes(monkeypatch, capsys):
    assert holds(plain, "good")
    assert not holds(BROKEN["values"], "bad")
    proof.forget()
    capsys.readouterr()
    assert holds(unsupported, "good")  # not tried, but remembered
    assert not holds(plain, "bad")
    assert "bad on cpu differs" in capsys.readouterr().err
    proof.forget()
    monkeypatch.setattr(proof, "describe", lambda device: "another driver")
    assert not holds(unsupported, "good")


def test_a_lack_of_memory_is_no_fault_of_the_kernel():
    def hungry(x, w):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        holds(hungry)
    assert proof.results() == {}


def test_an_unwritable_cache_costs_no_proof(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file"))
    assert holds(plain)
