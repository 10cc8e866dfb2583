"""`python -m tests.benchmarks`: one table of ratios, each measured in one run against the plain reference."""

import os
import platform
import sys

import click
import torch
from tqdm import tqdm

from dnnlib import UserError, atomic_open
from tests.benchmarks.measure import Clock, markdown
from tests.benchmarks.rows import BENCHMARKS, Setting


def numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """'4,13' -> (4, 13)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of whole numbers such as 4,13.") from None


def machine(device: torch.device) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    return f"{model}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, torch {torch.__version__}"


@click.command(context_settings={"show_default": True})
@click.option("--only", metavar="NAMES", default=",".join(BENCHMARKS), help="Comma-separated list of what to measure")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where")
@click.option("--resolution", type=int, default=256, help="Resolution; networks are those of train.py --recipe=paper")
@click.option("--regions", callback=numbers, metavar="LIST", default="13,4,26,52", help="Numbers of regions")
@click.option("--batches", callback=numbers, metavar="LIST", default="1,4", help="Samples of the local generators")
@click.option("--batch", type=click.IntRange(min=1), default=2, help="Samples of a training iteration")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", help="Of our training")
@click.option("--seconds", type=float, default=10, help="About how long a row may take")
@click.option("--out", metavar="FILE", help="Write the table here as Markdown, with machine and command")
def main(only, device, resolution, regions, batches, batch, precision, seconds, out):
    """Measure against a plain reference: a loop over regions with every map materialised, in float32.

    \b
    python -m tests.benchmarks
    python -m tests.benchmarks --only=local,generator --resolution=64
    python -m tests.benchmarks --device=cuda --batch=16 --precision=bf16 --out=gpu.md
    """
    unknown = sorted(set(only.split(",")) - set(BENCHMARKS))
    if unknown:
        raise UserError(f"There is no benchmark {unknown[0]!r}: choose from {', '.join(BENCHMARKS)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no GPU that PyTorch can use: leave out --device=cuda.")
    setting = Setting(Clock(device, seconds), resolution, regions, batches, batch, precision)
    rows = []
    with tqdm(desc="Measuring", unit=" rows") as bar:
        for name in only.split(","):
            for row in BENCHMARKS[name](setting):
                rows.append(row)
                bar.update()
                tqdm.write("  ".join(cell for cell in row.cells() if cell))
    table = markdown(rows)
    print(f"\n{table}")
    if out:
        command = "python -m tests.benchmarks " + " ".join(a for a in sys.argv[1:] if not a.startswith("--out"))
        with atomic_open(out, "w") as file:
            file.write(f"`{command.strip()}`\n\n{machine(setting.clock.device)}\n\n{table}\n")


if __name__ == "__main__":
    main()
