"""`python -m tests.benchmarks.gpu_local`: the Triton kernels of the local generators, checked and timed on a GPU.

Two references: the plain loop over regions in float32, and the plain batched form that runs where there is no kernel,
in the precision of the kernels.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import click
import torch
from tqdm import tqdm

from dnnlib import atomic_open
from semantic.fusion import coarse_mask, feature_weights
from semantic.local import ops
from semantic.local.generators import LocalGenerators, pixel_grid
from semantic.regions import Regions
from tests.benchmarks.__main__ import machine, numbers
from tests.benchmarks.measure import Clock, Row, markdown
from tests.benchmarks.reference import plain_fusion, plain_local
from torch_utils.ops import triton_support

MB = 2**20
PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Distance from exact results, relative to their norm. In half precision the forward pass decides some slopes otherwise.
TOLERANCES = {"fp32": 1e-4, "tf32": 0.03, "bf16": 0.1, "fp16": 0.03}


class Model:
    """Local generators and fusion of the paper's size for 256², with `count` regions."""

    def __init__(self, count: int, batch: int):
        torch.manual_seed(0)
        regions = Regions([f"region{k}" for k in range(count)])
        self.local = LocalGenerators(regions, 512, 256, 64, 512, num_layers=10, depth_layers=6).cuda()
        with torch.no_grad():
            self.local.bias.normal_()
            self.local.depth_weight.mul_(0.1)  # or one region takes each pixel whole
        self.grid = pixel_grid(64).cuda()
        self.ws = torch.randn(batch, self.local.num_expanded, 512, device="cuda")
        self.weighting = torch.randn(batch, 512, 4096, device="cuda")
        layers, _, channels = self.local.bias.shape
        self.flops = 2 * batch * count * 4096 * (layers * channels**2 + channels * 512)

    def reference(self) -> torch.Tensor:
        """The loop over regions."""
        return plain_fusion(*plain_local(self.local, self.ws, self.grid))[0]

    def ours(self) -> torch.Tensor:
        """What the generator does."""
        hidden, depth = self.local(self.ws, self.grid)
        return self.local.fuse(hidden, feature_weights(coarse_mask(depth), ()))

    def backward(self, function) -> list[torch.Tensor]:
        """The result and the gradients of all parameters."""
        result = function()
        parameters = list(self.local.parameters())
        return [result.detach(), *torch.autograd.grad((result * self.weighting).sum(), parameters)]


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Products of this precision."""
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        with torch.autocast("cuda", PRECISIONS[name], enabled=PRECISIONS[name] is not None):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def plain_batched():
    """No kernels within."""
    return mock.patch.object(ops, "_fastest_form", return_value="plain")


def checks() -> Iterator[str]:
    """One line for each precision: the distance from exact results, for the kernels and for the plain form."""
    model = Model(13, 2)
    with plain_batched(), precision("fp32"):
        model.local.double()
        model.grid, model.ws = model.grid.double(), model.ws.double()
        exact = model.backward(model.ours)
        model.local.float()
        model.grid, model.ws = model.grid.float(), model.ws.float()
    for name, tolerance in TOLERANCES.items():
        with precision(name):
            fast, again = model.backward(model.ours), model.backward(model.ours)
            with plain_batched():
                plain = model.backward(model.ours)
        ours, theirs = (max(_distance(x, e) for x, e in zip(some, exact, strict=True)) for some in (fast, plain))
        same = all(torch.equal(x, y) for x, y in zip(fast, again, strict=True))
        verdict = "fine" if same and ours <= max(tolerance, 1.5 * theirs) else "WRONG"
        repeat = "the same" if same else "not the same"
        yield f"{name}: {verdict}, off by {ours:.2g}, the plain form by {theirs:.2g}; a second run is {repeat}"
    yield f"second derivatives: off by {_second_derivatives(model):.2g}"


def _distance(x: torch.Tensor, exact: torch.Tensor) -> float:
    return ((x.double() - exact).norm() / exact.norm()).item()


def _second_derivatives(model: Model) -> float:
    """Path lengths' gradients through the kernels against those through the plain form."""
    found = []
    for context in (contextlib.nullcontext(), plain_batched()):
        ws = model.ws[:1].clone().requires_grad_()
        with context, mock.patch.object(model, "ws", ws):
            (grad,) = torch.autograd.grad((model.ours() * model.weighting[:1]).sum(), ws, create_graph=True)
            found.append(torch.autograd.grad(grad.square().sum(), model.local.weight)[0].double())
    return _distance(*found)


def parts(clock: Clock, batch: int) -> Iterator[Row]:
    """Each kernel's launch alone in bfloat16, K = 13, against the rate of a large product."""
    model = Model(13, batch)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    (seconds,) = clock.best(lambda: square @ square)
    limit = 2 * 8192**3 / seconds
    yield Row("large bf16 product", None, seconds, note=f"{limit / 1e12:.0f} TFLOP/s")
    layers, K, C = model.local.bias.shape
    flops = {"layers": 2 * batch * K * 4096 * layers * C**2, "fusion": 2 * batch * K * 4096 * C * 512}
    with precision("bf16"):
        weights = model.local._modulated_weights(model.local._styles(model.ws)).detach().requires_grad_()
        inputs = model.local.position(model.grid).detach().requires_grad_()
        heads = torch.randn(K, C, device="cuda"), torch.randn(K, device="cuda")
        shares = torch.rand(batch, K, 4096, device="cuda").requires_grad_()
        hidden, _ = ops.run_layers(inputs, weights, model.local.bias, *heads, 6)
        hidden = hidden.detach().requires_grad_()
        functions = {
            "layers": lambda: ops.run_layers(inputs, weights, model.local.bias, *heads, 6)[0],
            "fusion": lambda: ops.fuse(hidden, shares, model.local.feature_weight, model.local.feature_bias),
        }
        for name, function in functions.items():
            result = function()
            leaves = [inputs, weights, model.local.bias] if name == "layers" else [hidden, shares]
            leaves = leaves if name == "layers" else [*leaves, model.local.feature_weight, model.local.feature_bias]
            weighting = torch.randn_like(result)

            def backward(result=result, leaves=leaves, weighting=weighting):
                return torch.autograd.grad(result, leaves, weighting, retain_graph=True)

            forward_seconds, backward_seconds = clock.best(function, backward)
            for what, seconds, times in (("forward", forward_seconds, 1), ("backward", backward_seconds, 2)):
                rate = times * flops[name] / seconds
                note = f"{rate / 1e12:.0f} TFLOP/s, {rate / limit:.0%} of the large product"
                yield Row(f"{name}, {what}, bf16, K=13, N={batch}", None, seconds, note=note)


def table(clock: Clock, regions: tuple[int, ...], batches: tuple[int, ...], names: list[str]) -> Iterator[Row]:
    """Forward, forward and backward, and peak memory, for all sizes and precisions."""
    for count in regions:
        for batch in batches:
            model = Model(count, batch)

            def forward(function):
                with torch.no_grad():
                    return function()

            def both(function, model=model):
                model.backward(function)

            for what, run, times in (("forward", forward, 1), ("forward + backward", both, 3)):
                reference = _attempt(lambda r=run, m=model: clock.best(lambda: r(m.reference))[0])
                for name in names:
                    with precision(name):
                        (ours,) = clock.best(lambda r=run, m=model: r(m.ours))
                        with plain_batched():
                            plain = _attempt(lambda r=run, m=model: clock.best(lambda: r(m.ours))[0])
                    rate = f"{times * model.flops / ours / 1e12:.1f} TFLOP/s"
                    batched = "out of memory" if plain is None else f"{plain / ours:.2f}x"
                    note = f"{rate}; against the plain batched form {batched}"
                    yield Row(f"K={count}, N={batch}, {name}, {what}", reference, ours, note=note)
            reference = _attempt(lambda m=model, b=both: clock.peak_memory(lambda: b(m.reference)) / MB)
            for name in names:
                with precision(name):
                    ours = clock.peak_memory(lambda m=model, b=both: b(m.ours)) / MB
                    with plain_batched():
                        plain = _attempt(lambda m=model, b=both: clock.peak_memory(lambda: b(m.ours)) / MB)
                batched = "out of memory" if plain is None else f"{plain / ours:.2f}x"
                note = f"against the plain batched form {batched}"
                yield Row(f"K={count}, N={batch}, {name}, peak memory", reference, ours, "MB", note)


def _attempt(function):
    """What the function returns, or None where the GPU's memory does not suffice."""
    try:
        return function()
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


@click.command(context_settings={"show_default": True})
@click.option("--regions", callback=numbers, metavar="LIST", default="4,13,26,52", help="Numbers of regions")
@click.option("--batches", callback=numbers, metavar="LIST", default="1,4,16", help="Numbers of samples")
@click.option("--precisions", metavar="LIST", default=",".join(PRECISIONS), help="Of fp32, tf32, bf16, fp16")
@click.option("--seconds", type=float, default=1, help="About how long a row may take")
@click.option("--out", metavar="FILE", help="Write the results here as Markdown")
def main(regions, batches, precisions, seconds, out):
    """Check and time the local generators' kernels at the paper's size (256², C=64, L=10, F=512)."""
    if not torch.cuda.is_available() or not triton_support.runs_on(torch.empty(1, device="cuda")):
        print("There is no GPU here that Triton can use: nothing to measure.")
        return
    names = [name for name in PRECISIONS if name in precisions.split(",")]
    lines = [machine(torch.device("cuda")), ""]
    for line in checks():
        print(line, flush=True)
        lines.append(f"- {line}")
    clock = Clock("cuda", seconds)
    rows = []
    with tqdm(desc="Measuring", unit=" rows") as bar:
        for row in (*parts(clock, max(batches)), *table(clock, regions, batches, names)):
            rows.append(row)
            bar.update()
    lines += ["", markdown(rows), ""]
    print(markdown(rows))
    if out is not None:
        with atomic_open(out, "w") as file:
            file.write("\n".join(lines))


if __name__ == "__main__":
    main()
