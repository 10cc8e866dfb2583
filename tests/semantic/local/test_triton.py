"""The Triton kernels of the local generators against the plain forms, on a CPU under Triton's interpreter.

The interpreter must be on before Triton is first imported, and would slow down every other test of the process. So the
tests below run in a process of their own: without TRITON_INTERPRET=1 there is one test, which starts it. Layouts,
tensor cores and timing are for a machine with a GPU: `python -m tests.benchmarks.gpu_local`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from semantic.local import ops, plain
from tests.helpers import assert_close, why_no_interpreter
from torch_utils.ops import proof

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ROOT = Path(__file__).resolve().parents[2]

LAYERS, SAMPLES, REGIONS, CHANNELS, PIXELS, FEATURES = 3, 2, 3, 16, 40, 24

SHARED, EACH_REGION, EACH_SAMPLE = (CHANNELS, PIXELS), (REGIONS, CHANNELS, PIXELS), (SAMPLES, REGIONS, CHANNELS, PIXELS)


def test_all_in_a_process_with_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", __file__]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(autouse=True)
def interpreter(monkeypatch, request):
    """Kernels take tensors on the CPU; bfloat16 is multiplied and rounded as on a GPU, which the interpreter lacks."""
    if why_no_interpreter() is not None:
        pytest.skip(why_no_interpreter())
    if (request.function is test_all_in_a_process_with_the_interpreter) == INTERPRETED:
        pytest.skip("this is that process" if INTERPRETED else "runs in a process with TRITON_INTERPRET=1")
    if not INTERPRETED:
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    product, cast = builder.create_dot, builder.cast_impl

    def wide(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, *others):
        return product(self, wide(a), wide(b), *others)

    def cast_impl(self, handle, dtype):
        if (handle.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, handle, dtype)
        rounded = torch.from_numpy(np.ascontiguousarray(handle.data)).bfloat16()
        return interpreter.TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(builder, "create_dot", create_dot)
    monkeypatch.setattr(builder, "cast_impl", cast_impl)


def tensors(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def layer_arguments(inputs=SHARED, layers=LAYERS, dtype=torch.float32):
    channels = inputs[-2]
    inputs, weights, *others = tensors(
        inputs,
        (layers, SAMPLES, REGIONS, channels, channels),
        (layers, REGIONS, channels),
        (REGIONS, channels),
        (REGIONS,),
        dtype=dtype,
    )
    weights = (weights.detach() / channels**0.5).requires_grad_()
    return [inputs, weights, *others]


def fusion_arguments(features=FEATURES, pixels=PIXELS, dtype=torch.float32):
    hidden, shares = (SAMPLES, REGIONS, CHANNELS, pixels), (SAMPLES, REGIONS, pixels)
    return tensors(hidden, shares, (REGIONS, features, CHANNELS), (REGIONS, features), dtype=dtype)


def outcome(form, arguments, *options):
    """Results, and gradients of all arguments for fixed weights of all results."""
    results = form(*arguments, *options)
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    generator = torch.Generator().manual_seed(1)
    loss = sum((result.float() * torch.randn(result.shape, generator=generator)).sum() for result in results)
    return results + list(torch.autograd.grad(loss, arguments))


def assert_same(fast, plain, arguments, *options, tolerance=1e-5):
    for one, other in zip(outcome(fast, arguments, *options), outcome(plain, arguments, *options), strict=True):
        assert_close(one, other, tolerance)


def layers_in(inputs, weights, biases, depth_weight, depth_bias, depth_layers, dtype):
    """The layers in float32, their operands rounded to `dtype`: so activations have the slopes that the kernels see."""

    def rounded(x):
        return x + (x.to(dtype).float() - x).detach()

    hidden = rounded(inputs)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        hidden = rounded(torch.nn.functional.leaky_relu(rounded(weight) @ hidden + bias.unsqueeze(2), 0.2))
        if layer == depth_layers:
            depth = (hidden * depth_weight.unsqueeze(2)).sum(2) + depth_bias.unsqueeze(1)
    return hidden, depth


def assert_near(one, other, tolerance):
    """Close on the whole, as a rounding error may still decide the slope of single activations."""
    assert (one.float() - other.float()).norm() <= tolerance * other.float().norm()


def assert_uses_kernels(result):
    assert type(result.grad_fn).__name__ in ("_LayersBackward", "_FusionBackward")


@pytest.mark.parametrize("inputs", [SHARED, EACH_REGION, EACH_SAMPLE])
@pytest.mark.parametrize(("depth_layers", "detach"), [(1, False), (2, True), (LAYERS, False)])
def test_layers(inputs, depth_layers, detach):
    arguments = layer_arguments(inputs)
    assert_uses_kernels(ops.run_layers(*arguments, depth_layers, detach)[0])
    assert_same(ops.run_layers, plain.plain_layers, arguments, depth_layers, detach)


@pytest.mark.parametrize(("depth_layers", "detach"), [(1, True), (LAYERS, True)])
def test_layers_with_texture_detached_at_the_ends(depth_layers, detach):
    assert_same(ops.run_layers, plain.plain_layers, layer_arguments(), depth_layers, detach)


def test_one_layer():
    assert_same(ops.run_layers, plain.plain_layers, layer_arguments(layers=1), 1)


@pytest.mark.parametrize("pixels", [1, 37, 200])
def test_layers_for_any_number_of_pixels(pixels):
    assert_same(ops.run_layers, plain.plain_layers, layer_arguments((CHANNELS, pixels)), 2)


def test_layers_of_another_width():
    assert_same(ops.run_layers, plain.plain_layers, layer_arguments((32, PIXELS)), 2)


def test_one_program_adds_up_the_gradients_of_several_tiles(monkeypatch):
    from semantic.local import triton_layers

    arguments = layer_arguments((CHANNELS, 450))
    monkeypatch.setattr(triton_layers, "tiles_each", lambda groups, tiles, warps, x: 3)
    assert_same(ops.run_layers, plain.plain_layers, arguments, 2)


def test_widths_without_a_kernel_take_another_form():
    hidden, _ = ops.run_layers(*layer_arguments((12, PIXELS)), 2)
    assert type(hidden.grad_fn).__name__ == "LayersBackward"


def test_arguments_need_not_be_dense():
    arguments = [x.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_() for x in layer_arguments()]
    assert_same(ops.run_layers, plain.plain_layers, arguments, 2)
    arguments = [x.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_() for x in fusion_arguments()]
    assert_same(ops.fuse, plain.plain_fuse, arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_operands_of_half_precision(dtype):
    layers, fusion = layer_arguments(dtype=dtype), fusion_arguments(dtype=dtype)
    fast = outcome(ops.run_layers, layers, 2) + outcome(ops.fuse, fusion)
    layers, fusion = ([x.detach().float().requires_grad_() for x in group] for group in (layers, fusion))
    exact = outcome(layers_in, layers, 2, dtype) + outcome(plain.plain_fuse, fusion)
    for one, other in zip(fast, exact, strict=True):
        assert one.dtype == dtype
        assert_near(one, other, 0.002 if dtype == torch.float16 else 0.015)


def test_autocast_gives_hidden_maps_its_type_and_keeps_depth_and_gradients_in_float32():
    layers, fusion = layer_arguments(), fusion_arguments()
    with torch.autocast("cpu", torch.bfloat16):
        fast = outcome(ops.run_layers, layers, 2) + outcome(ops.fuse, fusion)
    half, full = torch.bfloat16, torch.float32
    assert [x.dtype for x in fast] == [half, full, *[full] * 5, half, *[full] * 4]
    exact = outcome(layers_in, layers, 2, half) + outcome(plain.plain_fuse, fusion)
    for one, other in zip(fast, exact, strict=True):
        assert_near(one, other, 0.015)


@pytest.mark.parametrize("wanted", range(5))
def test_gradient_of_one_argument_alone(wanted):
    arguments = layer_arguments()
    for i, argument in enumerate(arguments):
        argument.requires_grad_(i == wanted)
    grads = [
        torch.autograd.grad(sum(result.sum() for result in form(*arguments, 2)), arguments[wanted])[0]
        for form in (ops.run_layers, plain.plain_layers)
    ]
    assert_close(*grads, 1e-5)


def test_gradient_from_one_result_alone():
    arguments = layer_arguments()
    for chosen in (0, 1):
        grads = [
            torch.autograd.grad(form(*arguments, 2)[chosen].sum(), arguments[:2], materialize_grads=True)
            for form in (ops.run_layers, plain.plain_layers)
        ]
        for one, other in zip(*grads, strict=True):
            assert_close(one, other, 1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_second_derivatives_go_through_the_plain_form(autocast):
    def penalty(run_layers, fuse, layers, fusion, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hidden, depth = run_layers(*layers, 2)
            fused = fuse(hidden, depth.float().softmax(1), *fusion)
        (grad,) = torch.autograd.grad(fused.float().square().sum(), layers[1], create_graph=True)
        return torch.autograd.grad(grad.square().sum(), [*layers, *fusion])

    layers, fusion = layer_arguments(), fusion_arguments()[2:]
    fast = penalty(ops.run_layers, ops.fuse, layers, fusion, autocast)
    exact = penalty(plain.plain_layers, plain.plain_fuse, layers, fusion, False)
    for one, other in zip(fast, exact, strict=True):
        assert_near(one, other, 0.05 if autocast else 1e-4)


@pytest.mark.parametrize(("features", "pixels"), [(FEATURES, PIXELS), (FEATURES, 37), (130, 140), (1, 1)])
def test_fusion(features, pixels):
    arguments = fusion_arguments(features, pixels)
    assert_uses_kernels(ops.fuse(*arguments))
    assert_same(ops.fuse, plain.plain_fuse, arguments)


def test_fusion_with_frozen_weights():
    arguments = fusion_arguments()
    for frozen in arguments[2:]:
        frozen.requires_grad_(False)
    grads = [
        torch.autograd.grad(form(*arguments).square().sum(), arguments[:2]) for form in (ops.fuse, plain.plain_fuse)
    ]
    for one, other in zip(*grads, strict=True):
        assert_close(one, other, 1e-5)


def test_nothing_is_kept_without_a_graph():
    with torch.no_grad():
        hidden, depth = ops.run_layers(*layer_arguments(), 2)
        fused = ops.fuse(*fusion_arguments())
    assert hidden.grad_fn is depth.grad_fn is fused.grad_fn is None


def test_work_is_split_so_that_few_multiprocessors_idle():
    from semantic.local.triton_layers import tiles_each

    x = torch.empty(0)  # counts as 8 places for programs
    assert tiles_each(groups=8, tiles=32, warps=4, x=x) == 32
    assert tiles_each(groups=1, tiles=32, warps=4, x=x) == 4
    assert tiles_each(groups=1, tiles=1, warps=4, x=x) == 1
    assert tiles_each(groups=9, tiles=32, warps=4, x=x) < 32


def test_kernels_are_proven_before_they_run_and_broken_ones_give_way(monkeypatch, tmp_path, capsys):
    from semantic.local import triton_fusion

    monkeypatch.setattr(proof, "ON_CPU", True)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    proof.forget()
    try:
        for dtype in (torch.float32, torch.bfloat16):
            ops.run_layers(*layer_arguments(dtype=dtype), 2)
        ops.fuse(*fusion_arguments())
        assert len(proof.results()) == 3
        assert set(proof.results().values()) == {""}, proof.results()
        assert capsys.readouterr().err == ""

        launch = triton_fusion._launch
        monkeypatch.setattr(
            triton_fusion, "_launch", lambda kernel, count, *others: launch(kernel, max(count - 1, 1), *others)
        )
        assert type(ops.fuse(*fusion_arguments(dtype=torch.bfloat16)).grad_fn).__name__ != "_FusionBackward"
        assert "Using the slower plain form" in capsys.readouterr().err
    finally:
        proof.forget()
