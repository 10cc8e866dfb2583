r"""How well photos are found: samples with known codes, and photographs kept aside.

python -m tests.benchmarks.inversion --samples=32
python -m tests.benchmarks.inversion --samples=32 --init=encoder --steps=20
python -m tests.benchmarks.inversion --network=snapshot.pkl --photos=celeba64-test.zip --init=encoder --steps=30 \
    --pti-steps=60 --pti-count=16 --directions=semantic/bundled/faces128-directions.npz --rows=rows.jsonl
python -m tests.benchmarks.inversion --speed=1,8
python -m tests.benchmarks.inversion --random=512 --speed=1
"""

import resource
import time
from pathlib import Path

import click
import torch

import legacy
from dnnlib import UserError
from semantic.editing.latents import seed_latents
from semantic.encoder import Start, start_of
from semantic.generator import Generator
from semantic.inversion.distance import Distance, Targets, psnr
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.project import render
from semantic.inversion.space import code_space
from semantic.regions import CELEBAMASK
from tests.benchmarks.photographs import kept_photos

CPU = torch.device("cpu")
FIRST_SEED, PSI = 1000, 0.7
TIMED_STEPS = 3


def known_samples(networks: dict, first_seed: int, count: int, steps: int, batch: int, encode: Start | None) -> None:
    """Samples of psi 0.7, found from an encoder's codes, or from the mean."""
    G = networks["G_ema"].eval().requires_grad_(False)
    space = code_space(G, CPU)
    figures, agree, seconds, first_figures = [], [], 0.0, []
    for first in range(0, count, batch):
        seeds = range(first_seed + first, first_seed + min(first + batch, count))
        with torch.no_grad():
            image, mask = render(G, G.mapping(seed_latents(seeds, G.z_dim), None, truncation_psi=PSI))
        targets = Targets(image.clamp(-1, 1), mask.argmax(dim=1))
        if encode is None:
            start = space.mean.expand(len(seeds), G.num_ws, -1).clone()
        else:
            start = encode(targets.images, targets.masks)
        with torch.no_grad():
            first_figures.append(psnr(render(G, start)[0], targets.images))
        since = time.perf_counter()
        found = invert(G, space, Distance(networks["D"]), targets, start, Schedule(num_steps=steps))
        seconds += time.perf_counter() - since
        with torch.no_grad():
            image, mask = render(G, found.ws)
        figures.append(psnr(image, targets.images))
        print(f"seeds {seeds[0]} to {seeds[-1]}: {', '.join(f'{figure:.1f}' for figure in figures[-1])} dB", flush=True)
        agree.append((mask.argmax(dim=1) == targets.masks).float().mean(dim=(1, 2)))
    figures, agree = torch.cat(figures), torch.cat(agree).quantile(0.5)
    good = (figures > 30).float().mean()
    print(f"start: {torch.cat(first_figures).quantile(0.5):.2f} dB (median)")
    print(f"{count} samples, {steps} steps: {figures.quantile(0.5):.2f} dB, {good:.0%} over 30 dB; "
          f"masks agree on {agree:.1%} of pixels; {seconds / count:.1f} s each")  # fmt: skip


def random_network(resolution: int) -> dict:
    """Networks of the paper's architecture with random weights."""
    torch.manual_seed(0)
    return {"G_ema": Generator(512, 0, 512, resolution, 3, CELEBAMASK.to_dict()), "D": None}


def speed(networks: dict, sizes: list[int]) -> None:
    """CPU seconds of a step with several photos, in bfloat16 on CPUs with AMX and in float32, and peak memory."""
    G = networks["G_ema"].eval().requires_grad_(False)
    space = code_space(G, CPU, samples=1000)
    for rough in (1.0, 0.0):
        for size in sizes:
            with torch.no_grad():
                ws = G.mapping(seed_latents(range(size), G.z_dim), None, truncation_psi=PSI)
                image, mask = render(G, ws)
            targets, seconds = Targets(image.clamp(-1, 1), mask.argmax(dim=1)), []
            start = space.mean.expand_as(ws).clone()
            distance = Distance(networks["D"])
            for steps in (1, 1 + TIMED_STEPS):
                since = time.process_time()
                invert(G, space, distance, targets, start, Schedule(num_steps=steps, together=0, rough=rough))
                seconds.append(time.process_time() - since)
            step = (seconds[1] - seconds[0]) / TIMED_STEPS
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            kind = "bfloat16 where that is fast" if rough else "float32"
            print(f"{size} photos, {kind}: {step:.2f} s a step, {peak:.1f} GiB at most so far", flush=True)


@click.command()
@click.option("--network", default="faces128")
@click.option("--init", type=click.Choice(["encoder", "mean"]), default="mean", help="Start of the searches")
@click.option("--encoder", help="Encoder  [default: the one beside the network]")
@click.option("--samples", type=int, default=0)
@click.option("--speed", "sizes", metavar="LIST", help="Time a step with so many photos, such as 1,8")
@click.option("--random", type=int, help="Network of the published format with random weights and this resolution")
@click.option("--photos")
@click.option("--first", type=int, default=0, help="Photograph or sample to begin with")
@click.option("--count", type=int, default=100)
@click.option("--steps", type=int, default=200)
@click.option("--pti-steps", type=int, default=0)
@click.option("--pti-count", type=int, default=100, help="Photographs that are tuned")
@click.option("--directions", type=click.Path(path_type=Path), help="Directions to apply to photographs")
@click.option("--rows", type=click.Path(path_type=Path), help="File of rows, to go on from")
@click.option("--batch", type=int, default=8)
def main(
    network, init, encoder, samples, sizes, random, photos, first, count, steps, pti_steps, pti_count, directions, rows,
    batch
):  # fmt: skip
    """Print rows of figures."""
    networks = random_network(random) if random else legacy.load_network(network)
    if sizes:
        speed(networks, [int(size) for size in sizes.split(",")])
    encode = start_of(networks, legacy.resolve(network), encoder) if init == "encoder" else None
    if encode is None and init == "encoder":
        raise UserError(f"There is no encoder beside {network}: train one with train_encoder.py.")
    if samples:
        known_samples(networks, FIRST_SEED + first, samples, steps, batch, encode)
    if photos:
        kept_photos(networks, encode, photos, first, count, steps, pti_steps, pti_count, batch, directions, rows)


if __name__ == "__main__":
    main()
