"""`python -m tests.benchmarks.precision`: whether training in half precision follows training in single precision.

The same steps run in float32, in float32 with another seed, and in half precision. Of every loss the mean over the last
half of the steps is compared: the distance of half precision from float32 beside the distance between the two seeds.
"""

import os
import tempfile

import click
import numpy as np
import torch
from tqdm import trange

import dnnlib
from dnnlib import UserError
from semantic.presets import semantic_options
from tests.benchmarks.rows import command
from torch_utils import training_stats
from training.phases import build_phases

LOSSES = (
    "Loss/G/loss",
    "Loss/D/loss",
    "Loss/mask_consistency",
    "Loss/segmentation/real",
    "Loss/segmentation/fake",
    "Loss/region_prior",
    "Loss/region_squares",
    "Loss/r1_penalty",
    "Loss/r1_penalty_mask",
    "Loss/pl_penalty",
)


def train(data, device: torch.device, precision: str, steps: int, batch: int, seed: int, channel_base: int | None):
    """Losses of every step, {name: [steps]}; NaN where a step does not compute one."""
    torch.manual_seed(seed)
    options = semantic_options(data.resolution, data.regions, precision)
    if channel_base is not None:
        options.G_kwargs.synthesis_kwargs["channel_base"] = options.D_kwargs["channel_base"] = channel_base
    sizes = dict(c_dim=0, img_resolution=data.resolution, img_channels=3)
    G = dnnlib.construct_class_by_name(**options.G_kwargs, **sizes).to(device)
    D = dnnlib.construct_class_by_name(**options.D_kwargs, **sizes).to(device)
    phases = build_phases("G", G, options.G_opt_kwargs, 4) + build_phases("D", D, options.D_opt_kwargs, 16)
    loss = dnnlib.construct_class_by_name(device=device, G=G, D=D, **options.loss_kwargs)
    order = np.random.RandomState(seed)
    collector = training_stats.Collector(keep_previous=False)
    curves = {name: np.full(steps, np.nan) for name in LOSSES}
    for step in trange(steps, desc=f"{precision}, seed {seed}", leave=False):
        items = [data[i]._asdict() for i in order.randint(len(data), size=batch)]
        real = {name: torch.from_numpy(np.stack([item[name] for item in items])).to(device) for name in items[0]}
        for phase in phases:
            if step % phase.interval == 0:
                phase.begin()
                z = torch.randn(batch, G.z_dim, device=device)
                loss.accumulate_gradients(phase.name, real, z, real["label"], gain=phase.interval)
                phase.end()
        collector.update()
        for name in LOSSES:
            if collector.num(name) > 0:
                curves[name][step] = collector.mean(name)
    return curves


@click.command(context_settings={"show_default": True})
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
@click.option("--precision", type=click.Choice(["bf16", "fp16"]), default="bf16")
@click.option("--steps", type=click.IntRange(min=2), default=200)
@click.option("--resolution", type=int, default=32)
@click.option("--batch", type=click.IntRange(min=1), default=4)
@click.option("--cbase", type=int, help="Channels of the networks; the preset's where left out")
def main(device, precision, steps, resolution, batch, cbase):
    """Train in float32 twice and in half precision once, and compare the losses."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no GPU that PyTorch can use: leave out --device=cuda.")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "faces.zip")
        size = [f"--width={resolution}", f"--height={resolution}", "--max-images=500"]
        command("dataset_tool.py", "--source=procedural", f"--dest={path}", *size)
        data = dnnlib.construct_class_by_name(class_name="semantic.dataset.MaskedImageDataset", path=path)
        runs = [
            train(data, torch.device(device), number, steps, batch, seed, cbase)
            for number, seed in (("fp32", 0), ("fp32", 1), (precision, 0))
        ]
    print(f"Mean over steps {steps // 2} to {steps}, {device}, {resolution}², batch {batch}")
    print(f"{'':24}{'fp32':>10}{'seed 1':>10}{precision:>10}{'seeds differ':>14}{precision + ' differs':>14}")
    for name in LOSSES:
        one, other, half = (np.nanmean(run[name][steps // 2 :]) for run in runs)
        print(f"{name:24}{one:10.4g}{other:10.4g}{half:10.4g}{abs(one - other):14.3g}{abs(one - half):14.3g}")


if __name__ == "__main__":
    main()
