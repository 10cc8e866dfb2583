"""What `python -m tests.benchmarks` measures, each as a generator of table rows."""

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

import dnnlib
from semantic.fusion import coarse_mask, feature_weights
from semantic.presets import semantic_options
from semantic.regions import CELEBAMASK, Regions
from tests.benchmarks.measure import Clock, Row
from tests.benchmarks.reference import (
    PlainDiscriminator,
    PlainGenerator,
    PlainSynthesis,
    plain_bias_lrelu,
    plain_filter,
    plain_fusion,
    plain_local,
)
from torch_utils.ops import bias_act, upfirdn2d
from training.phases import build_phases

MB = 2**20
ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Setting:
    """What is measured on what.

    Attributes:
        clock: measures.
        resolution: R; the sizes of the networks follow from it as in training by the paper's recipe.
        regions: numbers of regions K; the first is the one of rows that do not vary it.
        batches: numbers of samples N of the local generators.
        batch: samples of a training iteration.
        precision: 'fp32', 'fp16' or 'bf16', of our training iteration; the reference runs in float32.
    """

    clock: Clock
    resolution: int = 256
    regions: tuple[int, ...] = (13, 4, 26, 52)
    batches: tuple[int, ...] = (1, 4)
    batch: int = 2
    precision: str = "fp32"

    def networks(self, count: int) -> tuple[torch.nn.Module, torch.nn.Module, dnnlib.EasyDict]:
        """Generator, discriminator and training options for `count` regions."""
        torch.manual_seed(0)
        names = [CELEBAMASK.names[k] if k < len(CELEBAMASK) else f"region{k}" for k in range(count)]
        transparent = [name for name in ("glasses", "earring") if name in names]
        options = semantic_options(self.resolution, Regions(names, transparent=transparent), self.precision, "paper")
        sizes = dict(c_dim=0, img_resolution=self.resolution, img_channels=3)
        networks = [
            dnnlib.construct_class_by_name(**kwargs, **sizes).to(self.clock.device)
            for kwargs in (options.G_kwargs, options.D_kwargs)
        ]
        return *networks, options

    def random(self, *shape: int) -> torch.Tensor:
        """Normally distributed numbers on the device."""
        return torch.randn(shape, device=self.clock.device)


def local_generators(setting: Setting) -> Iterator[Row]:
    """Local generators and fusion: forward, forward and backward, peak memory; and a plain batched product."""
    clock = setting.clock
    for count in setting.regions:
        G, _, _ = setting.networks(count)
        local, grid = G.synthesis.local, G.synthesis.grid
        transparent = G.regions.transparent
        for batch in setting.batches if count == setting.regions[0] else setting.batches[:1]:
            ws = local.expand(setting.random(batch, G.num_ws, G.w_dim))

            def plain(ws=ws, local=local, grid=grid, transparent=transparent):
                return plain_fusion(*plain_local(local, ws, grid), transparent)[0]

            def ours(ws=ws, local=local, grid=grid, transparent=transparent):
                hidden, depth = local(ws, grid)
                return local.fuse(hidden, feature_weights(coarse_mask(depth), transparent))

            forward, backward = _batched_products(setting, local, batch, grid[0].numel())
            name = f"local generators + fusion, K={count}, N={batch}"
            with torch.no_grad():
                a, b = clock.best(plain, ours)
                in_turns, limit = clock.best(ours, forward)
            yield Row(f"{name}, forward", a, b, note=f"{limit / in_turns:.0%} of the rate of a plain batched product")
            a, b = clock.best(_backward(plain), _backward(ours))
            in_turns, limit = clock.best(_backward(ours), torch.no_grad()(backward))
            note = f"{limit / in_turns:.0%} of the rate of plain batched products"
            yield Row(f"{name}, forward + backward", a, b, note=note)
            a, b = (clock.peak_memory(_backward(function)) / MB for function in (plain, ours))
            yield Row(f"{name}, peak memory", a, b, "MB")


def _backward(function):
    """`function` and its derivative, from a gradient that is there: no loss is part of what is measured."""
    gradients = []

    def both():
        result = function()
        if not gradients:
            gradients.append(torch.randn_like(result))
        result.backward(gradients[0])

    return both


def _batched_products(setting: Setting, local: torch.nn.Module, batch: int, pixels: int):
    """The matrix products that the local generators cannot do without, forward alone and with backward."""
    layers, regions, channels = local.bias.shape
    features = local.feature_weight.shape[1]
    weight = setting.random(batch * regions, channels, channels)
    maps = setting.random(batch * regions, channels, pixels)
    head, stacked = setting.random(features, regions * channels), maps.view(batch, regions * channels, pixels)
    out, fused = torch.empty_like(maps), setting.random(batch, features, pixels)

    def forward():
        for _ in range(layers):
            torch.bmm(weight, maps, out=out)
        for n in range(batch):
            torch.mm(head, stacked[n], out=fused[n])

    def backward():
        forward()
        for _ in range(layers):
            torch.bmm(weight.transpose(1, 2), maps, out=out)
            torch.bmm(out, maps.transpose(1, 2))
        for n in range(batch):
            torch.mm(head.t(), fused[n], out=stacked[n])
            torch.mm(fused[n], stacked[n].t())

    return forward, backward


def generator(setting: Setting) -> Iterator[Row]:
    """The whole generator, forward."""
    first = None
    for count in setting.regions:
        G, _, _ = setting.networks(count)
        plain = PlainSynthesis(G.synthesis)
        ws = setting.random(1, G.num_ws, G.w_dim)
        with torch.no_grad():
            a, b = setting.clock.best(*(lambda f=f, ws=ws: f(ws, return_mask=True) for f in (plain, G.synthesis)))
        first = first or b
        note = "" if count == setting.regions[0] else f"{b / first:.2f} times the time of K={setting.regions[0]}"
        yield Row(f"generator, K={count}, N=1, forward", a, b, note=note)


def discriminator(setting: Setting) -> Iterator[Row]:
    """The dual-branch discriminator, forward, and forward and backward."""
    _, D, _ = setting.networks(setting.regions[0])
    side = setting.resolution
    image, mask = setting.random(1, 3, side, side), setting.random(1, setting.regions[0], side, side)
    functions = [lambda f=f: f(image, None, mask=mask) for f in (PlainDiscriminator(D), D)]
    with torch.no_grad():
        yield Row("discriminator, N=1, forward", *setting.clock.best(*functions))
    yield Row("discriminator, N=1, forward + backward", *setting.clock.best(*map(_backward, functions)))


def iteration(setting: Setting) -> Iterator[Row]:
    """One training iteration, phase by phase, and all in their proportions; peak memory of the largest phase."""
    clock, batch, side, count = setting.clock, setting.batch, setting.resolution, setting.regions[0]
    G, D, options = setting.networks(count)
    phases = build_phases("G", G, options.G_opt_kwargs, options.G_reg_interval)
    phases += build_phases("D", D, options.D_opt_kwargs, 16)
    kwargs = dict(options.loss_kwargs, device=clock.device)
    plain_kwargs = dict(kwargs, precision="fp32", G=PlainGenerator(G), D=PlainDiscriminator(D))
    losses = [dnnlib.construct_class_by_name(**k) for k in (plain_kwargs, dict(kwargs, G=G, D=D))]
    real = {
        "image": torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, device=clock.device),
        "mask": torch.randint(count, (batch, side, side), dtype=torch.uint8, device=clock.device),
        "label": torch.zeros(batch, 0, device=clock.device),
    }

    def step(loss, phase):
        phase.begin()
        z = setting.random(batch, G.z_dim)
        loss.accumulate_gradients(phase.name, real, z, real["label"], gain=phase.interval)
        phase.end()

    times, memory = [0.0, 0.0], [0.0, 0.0]
    for phase in phases:
        functions = [lambda loss=loss, phase=phase: step(loss, phase) for loss in losses]
        best = clock.best(*functions)
        yield Row(f"training, N={batch}, {phase.name}, every {phase.interval} steps", *best)
        times = [total + seconds / phase.interval for total, seconds in zip(times, best, strict=True)]
        memory = [max(most, clock.peak_memory(f) / MB) for most, f in zip(memory, functions, strict=True)]
    note = f"ours {times[1] / batch * 1000:.3g} s/kimg, {setting.precision}"
    yield Row(f"training iteration, N={batch}, phases in their proportions", *times, note=note)
    yield Row(f"training iteration, N={batch}, peak memory", *memory, "MB")


def operators(setting: Setting) -> Iterator[Row]:
    """The operators against plain PyTorch at sizes of the networks, forward and backward."""
    clock, side = setting.clock, setting.resolution
    x = setting.random(1, 128, side, side).requires_grad_()
    bias = setting.random(128).requires_grad_()
    taps = upfirdn2d.setup_filter([1, 3, 3, 1], device=clock.device)
    small = setting.random(1, 128, side // 2, side // 2).requires_grad_()
    pairs = {
        "bias_act, lrelu": (lambda: plain_bias_lrelu(x, bias), lambda: bias_act.bias_act(x, bias, act="lrelu")),
        "upfirdn2d, low-pass": (
            lambda: plain_filter(x, 1, 1, (2, 1), 1),
            lambda: upfirdn2d.upfirdn2d(x, taps, padding=[2, 1, 2, 1]),
        ),
        "upfirdn2d, down 2": (lambda: plain_filter(x, 1, 2, (1, 1), 1), lambda: upfirdn2d.downsample2d(x, taps)),
        "upfirdn2d, up 2": (lambda: plain_filter(small, 2, 1, (2, 1), 4), lambda: upfirdn2d.upsample2d(small, taps)),
    }
    for name, (plain, ours) in pairs.items():
        with torch.no_grad():
            yield Row(f"{name}, [1, 128, {side}, {side}], forward", *clock.best(plain, ours))
        yield Row(f"{name}, forward + backward", *clock.best(_backward(plain), _backward(ours)))


def loader(setting: Setting) -> Iterator[Row]:
    """Pairs a second from an archive of drawn faces, by number of loader processes; no reference."""
    with tempfile.TemporaryDirectory() as folder:
        for side, count in ((64, 1000), (256, 250)):
            path = os.path.join(folder, f"faces{side}.zip")
            size = [f"--width={side}", f"--height={side}", f"--max-images={count}"]
            command("dataset_tool.py", "--source=procedural", f"--dest={path}", *size)
            data = dnnlib.construct_class_by_name(class_name="semantic.dataset.MaskedImageDataset", path=path)
            for workers in (0, 1, 2):
                options = {"num_workers": workers, "persistent_workers": True, "prefetch_factor": 4} if workers else {}
                batches = torch.utils.data.DataLoader(data, batch_size=16, drop_last=True, **options)
                seconds = min(setting.clock.best(lambda batches=batches: sum(1 for _ in batches)))
                rate = count // 16 * 16 / seconds
                yield Row(f"loader, {side}² pairs, {workers} processes beside the main one", None, rate, "/s")


def commands(setting: Setting) -> Iterator[Row]:
    """Whole commands, start-up included; no reference."""
    yield Row("train.py --help", None, min(setting.clock.once(lambda: command("train.py", "--help")) for _ in range(3)))
    with tempfile.TemporaryDirectory() as folder:
        from training.run.snapshots import save_networks

        G, _, _ = setting.networks(13)
        path = os.path.join(folder, "network.pkl")
        save_networks(path, None, G=None, D=None, G_ema=G.cpu(), augment_pipe=None)
        options = [f"--network={path}", "--seeds=0", f"--outdir={folder}", "--device=cpu"]
        seconds = min(setting.clock.once(lambda: command("generate.py", *options)) for _ in range(3))
        yield Row(f"generate.py, one {setting.resolution}² image", None, seconds)


def command(*arguments: str) -> None:
    """Run one of the scripts; its output is dropped."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)


BENCHMARKS = {
    "local": local_generators,
    "generator": generator,
    "discriminator": discriminator,
    "iteration": iteration,
    "operators": operators,
    "loader": loader,
    "commands": commands,
}
"""By the name under which the command line knows them."""
