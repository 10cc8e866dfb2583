"""The Triton kernels give what plain PyTorch gives, under Triton's interpreter.

The interpreter must be on before Triton is first imported, and would slow down every other test of the process. So the
tests below run in a process of their own: without TRITON_INTERPRET=1 there is one test, which starts it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import gradgradcheck

from tests.helpers import assert_close, why_no_interpreter
from torch_utils.ops import proof, triton_support
from torch_utils.ops.bias_act import activation_funcs, bias_act
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ROOT = Path(__file__).resolve().parents[2]

needs_triton = pytest.mark.skipif(why_no_interpreter() is not None, reason=str(why_no_interpreter()))
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in a process with TRITON_INTERPRET=1")

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
ROW = torch.tensor([1.0, 3.0, 2.0]) / 6
NEGATIVE = {"alpha": -0.3, "gain": -2.0}
LONG = torch.linspace(1, 2, 9) / 9
IMAGE = torch.arange(1.0, 7.0).reshape(2, 3) / 10
SQUARE = setup_filter([1, 3, 3, 1])


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_all_in_a_process_with_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", __file__]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def signal(*shape, dtype=torch.float64, layout=torch.contiguous_format, seed=0):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype=dtype, memory_format=layout).requires_grad_()


def derivatives(op, inputs, order):
    """The operator's result, its gradients and, for order 2, the gradients of a function of these."""
    y = op(*inputs)
    results = [y]
    for _ in range(order):
        total = sum((result.double() ** 2).sum() for result in results[-len(inputs) :])
        results += torch.autograd.grad(total, inputs, create_graph=True)
    return results


def assert_same(operator, *inputs, f=None, order=2, **options):
    """Kernel and plain path agree, up to the precision of the inputs, where the plain path computes in float64."""

    def kernel(*inputs):
        return operator(*inputs, *([] if f is None else [f]), **options)

    def plain(*inputs):
        return operator(*inputs, *([] if f is None else [f.double()]), **options, impl="ref")

    exact = [x.detach().double().requires_grad_() for x in inputs]
    pairs = list(zip(derivatives(kernel, inputs, order), derivatives(plain, exact, order), strict=True))
    for actual, expected in pairs:
        assert_close(actual.detach(), expected.detach(), TOLERANCES[inputs[0].dtype])
    y = pairs[0][0]
    assert y.dtype == inputs[0].dtype
    assert y.ndim != 4 or y.is_contiguous() == inputs[0].is_contiguous()


@interpreted
@pytest.mark.parametrize("act", activation_funcs)
@pytest.mark.parametrize("options", [{}, {"gain": -0.7, "clamp": 0.5}], ids=str)
def test_bias_act_and_its_derivatives(act, options):
    x, b = signal(2, 3, 2, 3, layout=torch.channels_last), signal(3, seed=1)
    assert_same(bias_act, x, b, act=act, **options)


@interpreted
@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bias_act_keeps_type_and_layout(dtype, layout, act):
    x, b = signal(2, 20, 3, 2, dtype=dtype, layout=layout), signal(20, dtype=torch.float32, seed=1)
    assert_same(bias_act, x, b, act=act, clamp=2)


@interpreted
@pytest.mark.parametrize("act", ["linear", "lrelu", "softplus"])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 3, 2, 2, 2)], ids=str)
def test_bias_act_along_every_dimension(shape, act):
    for dim in range(-1, len(shape)):
        assert_same(bias_act, signal(*shape), signal(shape[dim], seed=1), dim=dim, act=act)
    assert_same(lambda x, **options: bias_act(x, None, 9, act, **options), signal(*shape))  # dim unused


@interpreted
@pytest.mark.parametrize(
    ("act", "options"), [(act, {"clamp": 0.8}) for act in activation_funcs] + [("lrelu", NEGATIVE)]
)
def test_bias_act_passes_gradgradcheck(act, options):
    inputs = signal(2, 3, 2), signal(3, seed=1)
    assert gradgradcheck(lambda x, b: bias_act(x, b, act=act, **options), inputs, fast_mode=True)


@interpreted
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_bias_act_has_a_third_derivative(act):
    def third(impl):
        x, b = signal(2, 3, 2), signal(3, seed=1)
        y = bias_act(x, b, act=act, impl=impl)
        for _ in range(2):
            first, second = torch.autograd.grad((y**3).sum(), (x, b), create_graph=True)
            y = torch.cat([first.flatten(), second])
        return torch.cat([grad.flatten() for grad in torch.autograd.grad((y**2).sum(), (x, b))])

    assert_close(third("cuda"), third("ref"), 1e-6)


@interpreted
def test_bias_act_takes_what_is_not_dense_and_gradients_of_another_layout():
    weight = signal(2, 3, 3, 4, layout=torch.channels_last, seed=2).detach()

    def operator(x, **options):
        return bias_act(x[:, ::2], act="swish", **options) * weight

    assert_same(operator, signal(2, 6, 3, 4))
    x = signal(2, 3, 4)
    (grad,) = torch.autograd.grad(bias_act(x, act="lrelu").sum(), x)  # from a gradient whose strides are all 0
    assert_close(grad, torch.autograd.grad(bias_act(x, act="lrelu", impl="ref").sum(), x)[0], 1e-6)


@interpreted
@pytest.mark.parametrize("act", activation_funcs)
def test_bias_act_keeps_what_is_not_a_number(act):
    assert bias_act(torch.tensor([float("nan"), 1.0]), act=act, clamp=1).isnan().tolist() == [True, False]


@interpreted
@pytest.mark.parametrize("act", ["tanh", "elu", "selu", "softplus"])
def test_activations_are_accurate_near_zero_and_far_from_it(act):
    x = torch.tensor([-80.0, -20.0, -3.0, -0.03, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 0.03, 3.0, 20.0, 80.0])
    y, exact = bias_act(x, act=act).double(), bias_act(x.double(), act=act, impl="ref")
    assert torch.allclose(y, exact, rtol=1e-5, atol=1e-36)


@interpreted
@pytest.mark.parametrize(
    ("f", "options"),
    [
        (SQUARE, {"padding": [2, 1, 2, 1]}),
        (SQUARE, {"up": 2, "padding": [2, 1, 2, 1], "gain": 4.0}),
        (SQUARE, {"down": 2, "padding": [3, 2, 3, 3]}),
        (ROW, {"up": [2, 1], "padding": [3, 0, -1, 2]}),
        (IMAGE, {"padding": [-1, 3, 4, -2], "flip_filter": True}),
        (IMAGE, {"up": 3, "down": [3, 2], "padding": [4, 5, 3, 6]}),
        (IMAGE, {"up": [4, 1], "down": [1, 4], "padding": [6, 5, 4, 7], "flip_filter": True}),
        (None, {"up": 2, "down": [1, 2]}),
        (LONG, {"up": 2, "padding": 5}),
        (LONG.outer(LONG), {"down": 2, "padding": [5, 6, 5, 4]}),
    ],
    ids=lambda value: "x".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else str(value),
)
def test_upfirdn2d_and_its_derivative(f, options):
    def operator(x, f=None, **options):
        return upfirdn2d(x, f, **options)

    assert_same(operator, signal(1, 3, 5, 6, layout=torch.channels_last), f=f, order=1, **options)


@interpreted
@pytest.mark.parametrize("factors", [{"padding": 1}, {"up": 2, "padding": [2, 1]}, {"down": 2}], ids=str)
@pytest.mark.parametrize(
    ("dtype", "layout", "width"),
    [
        (torch.float32, torch.contiguous_format, 6),
        (torch.bfloat16, torch.contiguous_format, 6),
        (torch.float16, torch.contiguous_format, 7),
        (torch.bfloat16, torch.channels_last, 7),
    ],
)
def test_upfirdn2d_keeps_type_and_layout(dtype, layout, width, factors):
    assert_same(upfirdn2d, signal(2, 3, 6, width, dtype=dtype, layout=layout), f=IMAGE, order=1, **factors)


@interpreted
def test_upfirdn2d_takes_any_strides():
    def operator(x, f, **options):
        return upfirdn2d(x[:, ::2, 1:, ::2].transpose(2, 3), f, padding=1, **options)

    assert_same(operator, signal(2, 3, 8, 7), f=IMAGE, order=1)


@interpreted
def test_upfirdn2d_passes_gradgradcheck():
    options = {"up": [2, 1], "down": [1, 2], "padding": 1}
    assert gradgradcheck(lambda x: upfirdn2d(x, IMAGE[:, :2], **options) ** 2, signal(1, 1, 2, 3), fast_mode=True)


@interpreted
def test_wide_offsets_give_the_same(monkeypatch):
    monkeypatch.setattr(triton_support, "needs_wide_index", lambda *tensors: True)
    assert_same(bias_act, signal(2, 3, 5, 6), signal(3), act="lrelu")
    for f in (IMAGE, LONG.outer(LONG)):
        assert_same(upfirdn2d, signal(1, 3, 5, 6), f=f, padding=4, order=0)


@interpreted
def test_a_filter_that_is_trained_gets_its_gradient():
    f = IMAGE.clone().requires_grad_()
    (grad,) = torch.autograd.grad(upfirdn2d(signal(1, 1, 6, 6).float(), f).sum(), f)
    assert grad.abs().sum() > 0


@interpreted
def test_empty_tensors_and_integers_take_the_plain_path():
    assert not triton_support.runs_on(torch.zeros(0, 3))
    assert not triton_support.runs_on(torch.zeros(2, dtype=torch.int32))
    assert bias_act(torch.zeros(0, 3), torch.zeros(3), act="lrelu").shape == (0, 3)
    assert triton_support.runs_on(torch.zeros(2))


def test_offsets_become_wide_before_they_overflow():
    assert not triton_support.needs_wide_index(torch.empty(1).expand(2**40))
    assert not triton_support.needs_wide_index(torch.empty(2**29, device="meta"))
    assert triton_support.needs_wide_index(torch.empty(1), torch.empty(2**15, 2**15 + 1, device="meta"))


@pytest.mark.skipif(INTERPRETED, reason="needs a process without the interpreter")
def test_triton_is_not_imported_before_a_kernel_runs():
    code = (
        "import sys, torch; from torch_utils.ops import bias_act, upfirdn2d;"
        "bias_act.bias_act(torch.zeros(2, 3)); upfirdn2d.upfirdn2d(torch.zeros(1, 1, 2, 2), None);"
        "sys.exit('triton.language' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_a_gpu_without_triton_is_told_in_one_line_once(monkeypatch, capsys):
    for function in (triton_support._runs_on_gpu, triton_support._report_once):
        function.cache_clear()
    monkeypatch.setattr(triton_support, "_installed", lambda: False)
    assert [triton_support._runs_on_gpu(index) for index in (0, 1, 0)] == [False] * 3
    told = capsys.readouterr().err
    assert "Triton is not installed" in told
    assert told.count("\n") == 1
    for function in (triton_support._runs_on_gpu, triton_support._report_once):
        function.cache_clear()


@pytest.fixture
def proving(monkeypatch, tmp_path):
    """Kernels are tried on the CPU, too."""
    monkeypatch.setattr(proof, "ON_CPU", True)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    proof.forget()
    yield
    proof.forget()


@interpreted
def test_every_kernel_is_proven_before_it_runs(proving):
    for dtype, layout in ((torch.float32, torch.contiguous_format), (torch.float16, torch.channels_last)):
        x, b = signal(1, 3, 6, 5, dtype=dtype, layout=layout), signal(3, dtype=torch.float32)
        bias_act(x, b, act="lrelu", clamp=256)
    upfirdn2d(x, SQUARE, up=2, padding=[2, 1, 2, 1], gain=4)
    bias_act(signal(4, 5, dtype=torch.float32), None, act="swish")
    found = proof.results()
    assert len(found) == 4
    assert set(found.values()) == {""}, found
    assert ["channels last" in name for name in found] == [False, True, True, False]


@interpreted
def test_a_broken_kernel_gives_way_to_the_plain_form(proving, monkeypatch, capsys):
    from torch_utils.ops import _bias_act_triton

    right = _bias_act_triton.bias_act
    monkeypatch.setattr(_bias_act_triton, "bias_act", lambda *args: right(*args) * 1.001)
    x, b = signal(1, 3, 6, 5, dtype=torch.float32), signal(3, dtype=torch.float32)
    assert torch.equal(bias_act(x, b, act="lrelu"), bias_act(x, b, act="lrelu", impl="ref"))
    assert capsys.readouterr().err.count("Using the slower plain form") == 1
