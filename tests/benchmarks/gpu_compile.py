"""`python -m tests.benchmarks.gpu_compile`: compile the Triton kernels for GPUs that need not be there.

The kernels are launched as at 256², K = 13, on tensors of the CPU, but compiled only. Triton brings the assembler,
which tells how many registers a thread needs and what of them is spilled to memory.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import torch

from dnnlib import UserError, atomic_open
from torch_utils.ops import bias_act, triton_support, upfirdn2d

GPUS = {80: "A100", 90: "H100", 100: "B200", 120: "RTX 50"}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
REGIONS, CHANNELS, LAYERS, FEATURES, PIXELS, BATCH = 13, 64, 10, 512, 4096, 2


@dataclasses.dataclass
class Kernel:
    """What the compilers said of a kernel."""

    name: str
    warps: int
    registers: int
    """Of a thread."""
    spilled: int
    """Bytes a thread."""
    shared: int
    """Bytes a program."""
    products: str
    """Instructions of tensor cores: wgmma, tcgen05, mma, or none."""
    seconds: float


class NoGPU:
    """Triton's driver of a GPU that code is made for, as far as compiling asks."""

    def __init__(self, capability: int):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # what has been compiled is kept for each device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling(capability: int) -> Iterator[list[Kernel]]:
    """Within it kernels are compiled for a GPU and not run; the list tells which. No kernel can run afterwards."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from semantic.local import ops, triton_fusion, triton_layers

    launch, found = JITFunction.run, []

    def compile_only(self, *args, grid, warmup, **kwargs):
        start = time.perf_counter()
        compiled = launch(self, *args, grid=grid, warmup=True, **kwargs)
        found.append(describe(self.__name__.strip("_"), compiled, time.perf_counter() - start))

    hopper = mock.Mock(return_value=capability // 10 in (9, 10))
    with contextlib.ExitStack() as patches:
        for owner, name, value in (
            (JITFunction, "run", compile_only),
            (triton_support, "runs_on", lambda x: True),
            (ops, "_has_tensor_cores", lambda device: True),
            (triton_layers, "is_hopper", hopper),
            (triton_fusion, "is_hopper", hopper),
        ):
            patches.enter_context(mock.patch.object(owner, name, value))
        driver.set_active(NoGPU(capability))
        yield found


def describe(name: str, compiled, seconds: float) -> Kernel:
    """Ask the assembler what a compiled kernel takes."""
    import triton

    ptx = compiled.asm["ptx"]
    architecture = re.search(r"\.target (\w+)", ptx)[1]
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    newer = folder / "ptxas-blackwell"
    assembler = newer if architecture.startswith("sm_1") and newer.exists() else folder / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [assembler, "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"]
        told = subprocess.run(command, capture_output=True, text=True).stderr
    used, spilled = re.search(r"Used (\d+) registers", told), re.search(r"(\d+) bytes spill stores", told)
    if used is None:
        raise UserError(f"The assembler does not take {name}: {told.strip()[:300]}")
    kinds = [kind for kind in ("wgmma", "tcgen05", "mma") if re.search(rf"\b{kind}\.(mma|sync)", ptx)]
    shared = compiled.metadata.shared
    return Kernel(name, compiled.metadata.num_warps, int(used[1]), int(spilled[1]), shared, " ".join(kinds), seconds)


def compile_local(capability: int, dtype: torch.dtype) -> list[Kernel]:
    """Layers and fusion, with derivatives."""
    from semantic.local import triton_fusion, triton_layers

    precision = triton_layers.Precision(dtype, "tf32x3", dtype != torch.float32)
    shapes = [CHANNELS, PIXELS], [LAYERS, BATCH, REGIONS, CHANNELS, CHANNELS], [LAYERS, REGIONS, CHANNELS]
    layers = leaves(*shapes, [REGIONS, CHANNELS], [REGIONS])
    shapes = [BATCH, REGIONS, CHANNELS, PIXELS], [BATCH, REGIONS, PIXELS]
    fusion = leaves(*shapes, [REGIONS, FEATURES, CHANNELS], [REGIONS, FEATURES])
    with compiling(capability) as found:
        results = triton_layers._Layers.apply(*layers, 6, False, precision)
        torch.autograd.grad(results, layers, [torch.zeros_like(r) for r in results])
        fused = triton_fusion._Fusion.apply(*fusion, precision)
        torch.autograd.grad(fused, fusion, torch.zeros_like(fused))
    for kernel, part in zip(found, ["layers", "layers", "fusion", "fusion", "fusion"], strict=True):
        kernel.name = f"{part}, {kernel.name.removesuffix('_kernel')}"
    return found


def compile_operators(capability: int, dtype: torch.dtype, layout: torch.memory_format) -> list[Kernel]:
    """bias_act with two derivatives, and upfirdn2d as generator and discriminator use it."""
    x = torch.zeros(BATCH, 128, 64, 64, dtype=dtype).to(memory_format=layout).requires_grad_()
    b = torch.zeros(128, dtype=dtype, requires_grad=True)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    named = []
    with compiling(capability) as found:
        for act in ("lrelu", "swish"):
            y = bias_act.bias_act(x, b, act=act)
            grad = torch.zeros_like(y).requires_grad_()
            slopes = torch.autograd.grad(y, [x, b], grad, create_graph=True)
            torch.autograd.grad(slopes[0], [grad, x] if act == "swish" else [grad], torch.zeros_like(y))
            named += [f"bias_act, {act}, {kernel.name.removesuffix('_kernel')}" for kernel in found[len(named) :]]
        for name, options in {
            "low-pass": {"padding": 1},
            "up 2": {"up": 2, "padding": [2, 1], "gain": 4},
            "down 2": {"down": 2, "padding": [1, 1]},
        }.items():
            upfirdn2d.upfirdn2d(x, f, **options)
            named += [f"upfirdn2d, {name}" for _ in found[len(named) :]]
    for kernel, name in zip(found, named, strict=True):
        kernel.name = f"{name}, {'NHWC' if layout == torch.channels_last else 'NCHW'}"
    return found


def leaves(*shapes: list[int]) -> list[torch.Tensor]:
    """Zeros that gradients are asked for."""
    return [torch.zeros(shape, requires_grad=True) for shape in shapes]


def compile_all(capabilities: tuple[int, ...], dtypes: tuple[str, ...]) -> Iterator[tuple[int, str, Kernel]]:
    """GPU, data type and kernel of everything."""
    for capability in capabilities:
        for dtype in dtypes:
            found = compile_local(capability, DTYPES[dtype])
            for layout in (torch.contiguous_format, torch.channels_last):
                found += compile_operators(capability, DTYPES[dtype], layout)
            for kernel in found:
                yield capability, dtype, kernel


@click.command()
@click.option("--gpus", default="80,90,100,120", show_default=True, help="Compute capabilities, without a point")
@click.option("--out", help="File to write the table to", metavar="FILE")
def main(gpus: str, out: str | None) -> None:
    """Compile all kernels and print what the assembler says of each."""
    try:
        capabilities = tuple(int(name) for name in gpus.split(","))
    except ValueError:
        raise click.BadParameter("compute capabilities such as 80,90", param_hint="'--gpus'") from None
    if importlib.util.find_spec("triton") is None:
        raise UserError("Triton is not installed: pip install triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise UserError("Kernels are interpreted, not compiled, while TRITON_INTERPRET=1 is set: unset it.")
    head = ["GPU", "type", "kernel", "warps", "registers", "spilled bytes", "shared KiB", "products", "compiled in"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- | --- " + "| ---: " * 4 + "| --- | ---: |"]
    for capability, dtype, k in compile_all(capabilities, tuple(DTYPES)):
        cells = [GPUS.get(capability, f"{capability / 10:g}"), dtype, k.name, k.warps, k.registers, k.spilled]
        cells += [f"{k.shared / 1024:g}", k.products, f"{k.seconds:.1f} s"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
        click.echo(lines[-1])
    if out:
        with atomic_open(out, "w") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
