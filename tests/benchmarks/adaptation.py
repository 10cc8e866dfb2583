"""`python -m tests.benchmarks.adaptation`: what each mode of --cfg=semantic-adapt reaches from one network.

Every row is a run of train.py. The table tells, of the best snapshot and of the last one:
- the sliced Wasserstein distance to the images set aside, and that of the source,
- the mean drift of the masks over regions, 1 - IoU to the source's for the same latents,
- with --masks how well masks fit images, judged by a segmenter that learned it from exact masks,
- MS-SSIM of pairs, beside that of real pairs, and the distance to the nearest training image,
- minutes.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

import legacy
from dnnlib import EasyDict
from metrics.options import MetricOptions
from semantic.adaptation.stopping import BEST, ROWS, mean_drift
from semantic.metrics.mask_fit import compute_mask_fit

HEAD = (
    "| mode | images | seed | kimg | SWD source | SWD best | SWD last | drift best | drift last | mask_fit | MS-SSIM "
    "| nearest | minutes |"
)


def adapt(options: EasyDict, mode: str, images: int, seed: int, outdir: Path) -> tuple[Path, float]:
    """Folder of one run of train.py and its minutes; 'all:0' is the mode `all` without mask keeping."""
    name, _, weight = mode.partition(":")
    command = [sys.executable, "train.py", "--cfg=semantic-adapt", f"--resume={options.network}"]
    command += [f"--data={options.data}", f"--adapt={name}", f"--kimg={options.kimg}", f"--seed={seed}"]
    command += [f"--subset={images}", f"--outdir={outdir}", f"--precision={options.precision}", "--workers=0"]
    command += [f"--mask-weight={weight}"] if weight else []
    command += [f"--tick={options.tick}"] if options.tick else []
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=sys.stderr)
    return max(outdir.iterdir()), (time.monotonic() - start) / 60


def fit(network: Path, masks: str, train_images: int) -> float:
    """Mean IoU of generated masks with what a segmenter of exact masks sees in the images."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = EasyDict(class_name="semantic.dataset.MaskedImageDataset", path=masks, xflip=False)
    G = legacy.load_network(network)["G_ema"].to(device)
    opts = MetricOptions(metric="mask_fit", G=G, dataset_kwargs=data, device=device)
    return compute_mask_fit(opts, 200, train_images)["mean"]


def row(run_dir: Path, mode: str, images: int, seed: int, minutes: float, options: EasyDict) -> str:
    """One line of the table."""
    rows = [json.loads(line) for line in (run_dir / ROWS).read_text().splitlines()]
    best, last = min(rows[1:], key=lambda found: found["swd"]), rows[-1]
    fitted = f"{fit(run_dir / BEST, options.masks, options.judge_images):.3f}" if options.masks else "-"
    cells = [mode, images, seed, f"{last['kimg']:g}", *(f"{found['swd']:.1f}" for found in (rows[0], best, last))]
    cells += [f"{mean_drift(best):.3f}", f"{mean_drift(last):.3f}", fitted]
    cells += [f"{best['msssim']:.3f}", f"{best['nearest']:.3f}", f"{minutes:.1f}"]
    return f"| {' | '.join(map(str, cells))} |"


@click.command(context_settings={"show_default": True})
@click.option("--network", default="faces64", help="Network to adapt")
@click.option("--data", required=True, help="Archive of the target's images, without masks")
@click.option("--masks", help="Archive of the same images with exact masks, for measuring only")
@click.option("--modes", default="style,lowrank,all,all:0,frozen", help="all:0 trains all without mask keeping")
@click.option("--images", default="400", help="How many images, comma-separated")
@click.option("--seeds", default="0,1", help="Seeds, comma-separated")
@click.option("--kimg", default=1.6, help="Length of a run")
@click.option("--tick", type=float, help="Thousands of images between snapshots")
@click.option("--precision", default="bf16", help="Number format")
@click.option("--judge-images", default=12_800, help="Images that the segmenter of --masks is trained with")
@click.option("--outdir", type=click.Path(path_type=Path), help="Keep the runs here")
def main(**options) -> None:
    """Adapt a network by several modes and print a table.

    python -m tests.benchmarks.adaptation --data=avataaars.zip --modes=style,all,frozen --images=400,50
    """
    opts = EasyDict(options)
    modes, images, seeds = opts.modes.split(","), map(int, opts.images.split(",")), map(int, opts.seeds.split(","))
    print(f"{HEAD}\n{'|---' * HEAD.count(' | ')}|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for count, seed, mode in itertools.product(images, seeds, modes):
            outdir = (opts.outdir or Path(folder)) / f"{mode.replace(':', '-')}-{count}-{seed}"
            run_dir, minutes = adapt(opts, mode, count, seed, outdir)
            print(row(run_dir, mode, count, seed, minutes, opts), flush=True)


if __name__ == "__main__":
    main()
