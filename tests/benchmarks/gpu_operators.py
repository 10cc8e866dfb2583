"""`python -m tests.benchmarks.gpu_operators`: the Triton kernels of bias_act and upfirdn2d, checked and timed on a GPU.

Checks compare with the plain path in float64. Times are those of the GPU's queue, beside the plain path and beside a
copy that moves as many bytes as the operator has to.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import click
import torch
from tqdm import tqdm

from dnnlib import UserError, atomic_open
from tests.benchmarks.__main__ import machine
from torch_utils.ops import triton_support
from torch_utils.ops.bias_act import activation_funcs, bias_act
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

DEVICE = "cuda"

# Differences are relative, in the root mean square.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
TIMED = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
ROUNDS, ROUND_MS = 7, 20

LOW_PASS = setup_filter([1, 3, 3, 1])
WAVELET = torch.linspace(-1, 2, 12) / 6  # as long as the filter of the augmentation
ACT_OPTIONS = [{}, {"clamp": 0.77}, {"gain": -2.0}, {"alpha": -0.3}]
FIR_CASES = [
    (LOW_PASS, {"padding": 1}),
    (LOW_PASS, {"padding": 2, "flip_filter": True}),
    (LOW_PASS, {"up": 2, "padding": [2, 1], "gain": 4.0}),
    (LOW_PASS, {"down": 2, "padding": [1, 1]}),
    (WAVELET, {"up": 2, "padding": 6}),
    (WAVELET, {"down": 2, "padding": [6, -1, 5, 4]}),
    (WAVELET[:5], {"up": [4, 1], "down": [1, 3], "padding": [3, 0, -2, 5]}),
    (WAVELET.outer(WAVELET), {"up": 3, "down": 2, "padding": 7}),
    (None, {"up": [1, 4], "down": [2, 1]}),
]
SHAPES = [(2, 64, 33, 33), (3, 3, 64, 48), (1, 130, 9, 20), (2, 32, 16, 16)]


@dataclasses.dataclass
class Case:
    """Something to time: the operator, the bytes that it has to move, and whether its gradient is meant."""

    name: str
    operator: Callable[..., torch.Tensor]
    shape: tuple[int, ...]
    backward: bool = False
    bias: bool = False


def fir(f: torch.Tensor, **options) -> Callable[..., torch.Tensor]:
    """upfirdn2d as a function of the images and `impl`."""
    f = f.to(DEVICE)
    return lambda x, impl: upfirdn2d(x, f, **options, impl=impl)


def lrelu(x: torch.Tensor, b: torch.Tensor, impl: str) -> torch.Tensor:
    """bias_act as the networks call it."""
    return bias_act(x, b, act="lrelu", clamp=256, impl=impl)


def swish(x: torch.Tensor, b: torch.Tensor, impl: str) -> torch.Tensor:
    """bias_act with an activation whose derivative needs the input."""
    return bias_act(x, b, act="swish", impl=impl)


def cases(batch: int) -> Iterator[Case]:
    """What is timed, at sizes of StyleGAN2 for 256²."""
    for name, operator in (("lrelu", lrelu), ("swish", swish)):
        for backward in (False, True):
            direction = "backward" if backward else "forward"
            yield Case(f"bias_act {name} {direction}", operator, (batch, 128, 256, 256), backward, bias=True)
    yield Case("bias_act lrelu forward", lrelu, (batch, 512, 32, 32), bias=True)
    yield Case("bias_act lrelu backward", lrelu, (batch, 512, 32, 32), True, bias=True)
    yield Case("blur after up-convolution", fir(LOW_PASS, padding=1, gain=4), (batch, 128, 257, 257))
    yield Case("blur before down-convolution", fir(LOW_PASS, padding=2), (batch, 128, 256, 256))
    yield Case("blur after up-convolution", fir(LOW_PASS, padding=1, gain=4), (batch, 512, 65, 65))
    yield Case("up-sampling by 2", fir(LOW_PASS, up=2, padding=[2, 1], gain=4), (batch, 128, 128, 128))
    yield Case("down-sampling by 2", fir(LOW_PASS, down=2, padding=1), (batch, 128, 256, 256))
    yield Case("up-sampling by 2", fir(LOW_PASS, up=2, padding=[2, 1], gain=4), (batch, 3, 256, 256))
    yield Case("up-sampling by 2, 12 taps", fir(WAVELET, up=2, padding=[6, 5]), (batch, 3, 256, 256))
    yield Case("down-sampling by 2, 12 taps", fir(WAVELET, down=2, padding=5), (batch, 3, 512, 512))


def checks() -> Iterator[tuple[bool, str]]:
    """Whether kernels are right, with a line that says how far they are off; for each operator, type and layout."""
    for dtype, (layout_name, layout) in itertools.product(TOLERANCES, LAYOUTS.items()):
        worst = 0.0
        for act, options, shape in itertools.product(activation_funcs, ACT_OPTIONS, SHAPES):
            x = signal(shape, dtype, layout)
            b = signal((shape[1],), torch.promote_types(dtype, torch.float32), shift=0)
            worst = max(worst, difference(bias_act, x, b, act=act, **options))
        yield worst <= TOLERANCES[dtype], f"bias_act {short(dtype)} {layout_name}: off by {worst:.2g}"
        worst = 0.0
        for (f, options), shape in itertools.product(FIR_CASES, SHAPES):

            def operator(x, f=f, options=options, **impl):
                taps = None if f is None else f.to(DEVICE, torch.promote_types(torch.float32, x.dtype))
                return upfirdn2d(x, taps, **options, **impl)

            worst = max(worst, difference(operator, signal(shape, dtype, layout)))
        yield worst <= TOLERANCES[dtype], f"upfirdn2d {short(dtype)} {layout_name}: off by {worst:.2g}"
    for layout_name, layout in LAYOUTS.items():
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] > 30 * 2**30:
            worst = huge_difference(layout)
            yield worst <= TOLERANCES[torch.bfloat16], f"more than 2^31 elements, {layout_name}: off by {worst:.2g}"
    if torch.cuda.device_count() > 1:
        with torch.cuda.device(0):
            x = torch.randn(2, 4, 16, 16, device="cuda:1")
            worst = distance(bias_act(x, act="lrelu"), bias_act(x.double(), act="lrelu", impl="ref"))
        yield worst <= 1e-5, f"on a GPU that is not the current one: off by {worst:.2g}"


def signal(
    shape, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format, shift: float = 0.5
) -> torch.Tensor:
    """Random eighths, `shift` of one aside, to be differentiated.

    With a bias of whole eighths, no sum comes so near to 0 or to the clamp of the checks that rounding decides a slope.
    """
    x = torch.randn(shape, device=DEVICE).mul_(8).round_().add_(shift).div_(8)
    return x.to(dtype=dtype, memory_format=layout).requires_grad_()


def difference(operator, *inputs: torch.Tensor, **options) -> float:
    """Largest of the distances of the result, its gradients and their gradients from the plain path in float64."""
    found = []
    for impl in ("cuda", "ref"):
        leaves = [x.detach() if impl == "cuda" else x.detach().double() for x in inputs]
        leaves = [x.requires_grad_() for x in leaves]
        y = operator(*leaves, **options, impl=impl)
        if impl == "cuda" and (y.dtype != inputs[0].dtype or y.is_contiguous() != inputs[0].is_contiguous()):
            return float("inf")
        first = torch.autograd.grad((y.double() ** 2).sum() / 2, leaves, create_graph=True)
        second = torch.autograd.grad(sum((grad.double() ** 2).sum() / grad.detach().norm() for grad in first), leaves)
        found.append([y, *first, *second])
    return max(distance(*pair) for pair in zip(*found, strict=True))


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference, relative to that of the expected."""
    return ((actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)).item()


def huge_difference(layout: torch.memory_format) -> float:
    """The last sample of a batch too large for offsets of 32 bits, against that sample alone."""
    x = torch.zeros(33, 64, 1024, 1024, device=DEVICE, dtype=torch.bfloat16).to(memory_format=layout)
    x[-1].normal_()
    f = LOW_PASS.to(DEVICE)
    alone = x[-1:].float()
    worst = distance(bias_act(x, act="lrelu")[-1:], bias_act(alone, act="lrelu", impl="ref"))
    return max(worst, distance(upfirdn2d(x, f, padding=2)[-1:], upfirdn2d(alone, f, padding=2, impl="ref")))


def timings(batch: int, progress: tqdm) -> Iterator[str]:
    """The rows of the table."""
    for case in cases(batch):
        for dtype, layout_name in itertools.product(TIMED, LAYOUTS):
            try:
                ours, plain, copy, moved = measure(case, dtype, LAYOUTS[layout_name])
                figures = f"{moved / 2**20:.0f} | {ours:.3f} | {plain:.3f} | {copy:.3f}"
                figures += f" | {ours / copy:.2f} | {plain / ours:.1f}"
            except torch.cuda.OutOfMemoryError:
                figures = "out of memory | | | | |"
            size = "x".join(map(str, case.shape))
            progress.update()
            yield f"| {case.name} | {size} | {short(dtype)} {layout_name} | {figures} |"


def measure(case: Case, dtype: torch.dtype, layout: torch.memory_format) -> tuple[float, float, float, int]:
    """Milliseconds of ours, the plain path and a copy of as many bytes; the bytes that are moved."""
    torch.cuda.empty_cache()
    x = signal(case.shape, dtype, layout)
    inputs = [x, signal((case.shape[1],), torch.float32)] if case.bias else [x]
    results = {impl: case.operator(*inputs, impl) for impl in ("cuda", "ref")}
    moved = x.nbytes + results["cuda"].nbytes
    if case.backward:
        moved += x.nbytes  # the gradients in and out, and the output or input that tells the slope
        grad = torch.randn_like(results["cuda"])
        functions = [lambda y=y: torch.autograd.grad(y, inputs, grad, retain_graph=True) for y in results.values()]
    else:
        results.clear()
        inputs = [leaf.detach() for leaf in inputs]
        functions = [lambda impl=impl: case.operator(*inputs, impl) for impl in ("cuda", "ref")]
    source = torch.empty(moved // 2, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return *queue_times([*functions, lambda: target.copy_(source)]), moved


def queue_times(functions: list[Callable]) -> list[float]:
    """Shortest milliseconds a call that each function takes in the GPU's queue; the functions take turns."""
    counts = []
    for function in functions:
        function()
        counts.append(max(3, int(ROUND_MS / max(queue_time(function, 3), 1e-3))))
    rounds = [[queue_time(*pair) for pair in zip(functions, counts, strict=True)] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def queue_time(function: Callable, count: int) -> float:
    """Milliseconds a call of `count` calls one after another."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(count):
        function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def short(dtype: torch.dtype) -> str:
    """torch.float32 -> float32."""
    return str(dtype).removeprefix("torch.")


@click.command(context_settings={"show_default": True})
@click.option("--batch", type=click.IntRange(min=1), default=16, help="Samples of what is timed")
@click.option("--check-only", is_flag=True, help="No timings")
@click.option("--out", metavar="FILE", help="Write what is printed here as Markdown")
def main(batch, check_only, out):
    """Check the kernels of bias_act and upfirdn2d on a GPU, then time them.

    In the table, ms are milliseconds a call; `ours / copy` is 1 where an operator is as fast as its bytes can be moved.
    """
    if not torch.cuda.is_available():
        raise UserError("There is no GPU that PyTorch can use: run this on a machine that has one.")
    if not triton_support.runs_on(torch.zeros(1, device=DEVICE)):
        raise UserError("Triton is missing: install the triton package that belongs to this version of PyTorch.")
    # The plain path's convolutions are the reference of the checks.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    lines = [f"{machine(torch.device('cuda'))}, batch {batch}", ""]
    click.echo(lines[0])
    wrong = 0
    for right, line in checks():
        wrong += not right
        lines.append(f"- {'fine' if right else 'WRONG'}: {line}")
        click.echo(lines[-1])
    if not check_only:
        head = "| operator | size | type | MB moved | ours ms | plain ms | copy ms | ours / copy | plain / ours |"
        lines += ["", head, "|" + " --- |" * 9]
        with tqdm(desc="Timing", unit=" rows") as progress:
            lines += timings(batch, progress)
        click.echo("\n".join(lines[-len(lines) + lines.index(head) :]))
    if out:
        with atomic_open(out, "w") as file:
            file.write("\n".join(lines) + "\n")
    if wrong:
        raise UserError(f"{wrong} checks failed: see the lines that say WRONG.")


if __name__ == "__main__":
    main()
